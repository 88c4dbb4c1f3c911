"""Recordings and corpora through real files."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from paretone.data import RATE_HZ, BadUtteranceError, measure_audio, open_data, read_audio, segment
from paretone.data.hub import entries_of, read_hub
from paretone.errors import UserError


def tone(seconds: float, rate_hz: int = RATE_HZ, pitch_hz: float = 440.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * pitch_hz * np.arange(int(seconds * rate_hz)) / rate_hz)).astype(np.float32)


def noise(seconds: float, rate_hz: int = RATE_HZ) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(int(seconds * rate_hz))).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate_hz: int = RATE_HZ, **options: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate_hz, **options)
    return path


def manifest(folder: Path, *rows: object) -> Path:
    path = folder / "manifest.jsonl"
    path.write_text("".join(row + "\n" if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return path


# --- audio ---


def test_audio_at_the_right_rate_is_read_as_it_is(tmp_path):
    samples = noise(0.5)
    read = read_audio(write(tmp_path / "a.wav", samples, subtype="FLOAT"))
    assert read.dtype == np.float32
    assert np.array_equal(read, samples)


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 44_100, 96_000])
def test_other_rates_are_resampled_to_16_khz(tmp_path, rate_hz):
    path = write(tmp_path / "a.wav", tone(1.0, rate_hz), rate_hz, subtype="FLOAT")
    read = read_audio(path)
    assert abs(len(read) - RATE_HZ) <= 1
    assert np.argmax(np.abs(np.fft.rfft(read))) == 440  # bins of 1 Hz
    at_once = soxr.resample(tone(1.0, rate_hz), rate_hz, RATE_HZ)
    assert np.allclose(read[: len(at_once)], at_once[: len(read)], atol=1e-5)
    assert measure_audio(path) == 1.0


def test_stereo_is_mixed_down(tmp_path):
    left, right = tone(0.5), tone(0.5, pitch_hz=1000)
    read = read_audio(write(tmp_path / "a.wav", np.stack([left, right], axis=1), subtype="FLOAT"))
    assert np.allclose(read, (left + right) / 2, atol=1e-7)


def test_bytes_read_as_their_file_does(tmp_path):
    path = write(tmp_path / "a.flac", noise(0.5), 22_050)
    assert np.array_equal(read_audio(path.read_bytes()), read_audio(path))


def test_an_hour_is_read_whole_and_cut_for_the_models(tmp_path):
    rate_hz = 8_000
    path = write(tmp_path / "hour.wav", np.tile(noise(10, rate_hz), 360), rate_hz, subtype="PCM_U8")
    assert measure_audio(path) == 3600.0
    samples = read_audio(path)
    assert abs(len(samples) - 3600 * RATE_HZ) <= 1
    pieces = segment(samples, RATE_HZ, 30)
    assert sum(map(len, pieces)) == len(samples)
    assert 120 <= len(pieces) <= 150


def broken(folder: Path, kind: str) -> Path:
    """A recording with one defect, named after it."""
    path = folder / f"{kind}.wav"
    half = np.ones(8_000, np.float32) / 2
    bad = noise(1)
    bad[12_000] = np.nan
    samples = {
        "silent": np.zeros(8_000, np.float32),
        "nan": bad,
        "cancels": np.stack([half, -half], axis=1),
        "short": noise(0.01),
    }
    if kind == "empty":
        path.touch()
    elif kind == "text":
        path.write_text("this is not audio, only words")
    elif kind == "folder":
        path.mkdir()
    elif kind == "raw":
        path = folder / "a.raw"
        path.write_bytes(b"\1\2" * 8_000)
    elif kind != "missing":
        write(path, samples[kind], subtype="FLOAT")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file"),
        ("empty", "empty, 0 bytes"),
        ("text", "not audio that libsndfile can read"),
        ("folder", "not a file"),
        ("raw", "headerless audio"),
        ("silent", "silent, every sample is zero"),
        ("nan", r"holds NaN or infinity, first at 0\.75 s"),
        ("cancels", "its channels cancel each other"),
        ("short", r"10\.0 ms long; 25 ms is the least"),
    ],
)
def test_bad_audio_is_refused_by_name_and_reason(tmp_path, kind, message):
    path = broken(tmp_path, kind)
    for use in (read_audio, measure_audio):
        with pytest.raises(BadUtteranceError, match=message) as caught:
            use(path)
        assert caught.value.name == str(path)
        assert "\n" not in str(caught.value)


FORMATS = {"wav": {}, "flac": {}, "ogg": {}, "mp3": {}, "opus": {"format": "OGG", "subtype": "OPUS"}}


@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
@pytest.mark.parametrize("name", FORMATS)
def test_half_a_file_is_refused_and_a_whole_one_is_not(tmp_path, name, share):
    whole = write(tmp_path / f"whole.{name}", noise(3), **FORMATS[name])
    assert measure_audio(whole) == pytest.approx(3.0, abs=0.1)
    cut = tmp_path / f"cut.{name}"
    cut.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(BadUtteranceError, match=r"truncated|malformed"):
        read_audio(cut)


def test_a_streamed_wav_without_its_length_is_no_truncated_one():
    file = io.BytesIO()
    soundfile.write(file, noise(0.5), RATE_HZ, format="WAV")
    content = bytearray(file.getvalue())
    at = content.index(b"data") + 4
    content[at : at + 4] = content[4:8] = b"\xff\xff\xff\xff"
    assert measure_audio(bytes(content)) == 0.5


# --- segments ---


@given(st.integers(1, 4000), st.integers(0, 5))
@settings(deadline=None)
def test_pieces_join_to_the_whole_and_none_is_too_long(length, seed):
    samples = np.random.default_rng(seed).standard_normal(length).astype(np.float32)
    pieces = segment(samples, 1000, 1.0)
    assert np.array_equal(np.concatenate(pieces), samples)
    assert max(map(len, pieces)) <= 1000
    assert min(map(len, pieces)) >= min(length, 100)
    assert [len(p) for p in pieces] == [len(p) for p in segment(samples, 1000, 1.0)]


def test_the_cut_lies_in_the_pause():
    samples = noise(10)
    samples[int(4.3 * RATE_HZ) : int(4.5 * RATE_HZ)] = 0
    first, *_ = segment(samples, RATE_HZ, 5.0)
    assert 4.3 <= len(first) / RATE_HZ <= 4.5


def test_what_fits_is_not_cut():
    assert len(segment(noise(5), RATE_HZ, 5.0)) == 1


# --- manifests ---


def test_a_manifest_is_read_relative_to_its_folder(tmp_path):
    write(tmp_path / "clips" / "a.wav", noise(1))
    write(tmp_path / "b.flac", noise(0.5))
    path = manifest(
        tmp_path,
        "\ufeff"
        + json.dumps({"audio": "clips/a.wav", "text": "Hej", "language": "da", "speaker": "x", "rate_hz": 16000}),
        "",
        {"audio": "b.flac", "text": "two\u2028words", "id": "second"},
    )
    for given_data in (path, tmp_path):
        data = open_data(given_data, language="nl")
        one, two = data.utterances
        assert (one.id, one.name, one.text, one.language, one.speaker) == (
            "clips/a.wav",
            "clips/a.wav",
            "Hej",
            "da",
            "x",
        )
        assert (one.duration_s, two.duration_s, data.audio_s) == (1.0, 0.5, 1.5)
        assert (two.id, two.text, two.language, two.speaker) == ("second", "two\u2028words", "nl", None)
        assert data.name == tmp_path.name
    assert len(open_data(path, limit=1).utterances) == 1


def test_the_digest_follows_audio_and_text_and_not_the_place(tmp_path):
    digests = []
    for folder, samples, text in [
        ("a", noise(1), "x"),
        ("b", noise(1), "x"),
        ("c", tone(1), "x"),
        ("d", noise(1), "y"),
    ]:
        write(tmp_path / folder / "a.wav", samples)
        digests.append(open_data(manifest(tmp_path / folder, {"audio": "a.wav", "text": text})).digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    assert digests[0].startswith("sha256:")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"audio": "a.wav", "text": ', r"manifest\.jsonl, line 2: not JSON"),
        ("a.wav hello", r"line 2: not JSON"),
        ('["a.wav", "hello"]', "line 2: list instead of a JSON object"),
        ('{"text": "hello"}', "line 2: no 'audio'"),
        ('{"audio_filepath": "a.wav", "text": "hello"}', "line 2: no 'audio'"),
        ('{"audio": "a.wav", "transcript": "hello"}', "line 2: no 'text'"),
        ('{"audio": "a.wav", "text": 5}', "line 2: 'text' is 5, not a string"),
        ('{"audio": "ok.wav", "text": "again"}', "id 'ok.wav' comes twice"),
    ],
)
def test_a_bad_manifest_line_is_named(tmp_path, line, message):
    write(tmp_path / "ok.wav", noise(0.5))
    path = manifest(tmp_path, {"audio": "ok.wav", "text": "fine"}, line)
    with pytest.raises(UserError, match=message):
        open_data(path, skip_bad=True)  # malformed data is no bad recording


def test_bad_recordings_and_empty_references_are_refused_or_skipped_by_name(tmp_path):
    write(tmp_path / "good.wav", noise(0.5))
    write(tmp_path / "mute.wav", np.zeros(8_000))
    rows = [
        {"audio": "good.wav", "text": "fine"},
        {"audio": "mute.wav", "text": "nothing"},
        {"audio": "gone.wav", "text": "away"},
        {"audio": "good.wav", "id": "blank", "text": " "},
        {"audio": "good.wav", "id": "null", "text": None},
    ]
    path = manifest(tmp_path, *rows)
    data = open_data(path, skip_bad=True)
    assert [u.id for u in data.utterances] == ["good.wav"]
    assert [s.audio for s in data.skipped] == ["mute.wav", "gone.wav", "good.wav", "good.wav"]
    assert [s.reason.split(",")[0] for s in data.skipped] == ["silent", "no such file"] + ["empty reference"] * 2
    for row, message in zip(rows[1:], ["silent", "no such file", "empty reference", "empty reference"], strict=True):
        with pytest.raises(UserError, match=rf"{row['audio']}: {message}.*--skip-bad"):
            open_data(manifest(tmp_path, row))
    with pytest.raises(UserError, match="all 1 utterances are bad, the first: silent"):
        open_data(manifest(tmp_path, rows[1]), skip_bad=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.jsonl", "no such data"),
        ("void", "holds no data"),
        ("binary.jsonl", "not UTF-8"),
        ("blank.jsonl", "no utterances"),
    ],
)
def test_data_that_is_none_is_refused(tmp_path, name, message):
    (tmp_path / "void").mkdir()
    (tmp_path / "binary.jsonl").write_bytes(b"RIFF\xff\xfe")
    (tmp_path / "blank.jsonl").write_text("\n")
    with pytest.raises(UserError, match=message):
        open_data(tmp_path / name)


def test_a_limit_below_one_is_refused(tmp_path):
    with pytest.raises(UserError, match="limit is 0"):
        open_data(tmp_path, limit=0)


# --- other corpora ---


def test_a_librispeech_folder(tmp_path):
    chapter = tmp_path / "test-clean" / "61" / "70968"
    write(chapter / "61-70968-0000.flac", noise(0.5))
    write(chapter / "61-70968-0001.flac", noise(0.7))
    (chapter / "61-70968.trans.txt").write_text("61-70968-0000 HE BEGAN\n61-70968-0001 GIVE NOT SO\n")
    one, two = open_data(tmp_path / "test-clean").utterances
    assert (one.id, one.name, one.text) == ("61-70968-0000", "61/70968/61-70968-0000.flac", "HE BEGAN")
    assert (two.language, two.speaker, two.duration_s) == ("en", "61", 0.7)
    (chapter / "61-70968.trans.txt").write_text("61-70968-0000\n")
    with pytest.raises(UserError, match=r"trans\.txt, line 1: '61-70968-0000' has no words"):
        open_data(tmp_path)


def test_a_common_voice_folder(tmp_path):
    write(tmp_path / "clips" / "cv_1.mp3", noise(1, 32_000), 32_000)
    write(tmp_path / "clips" / "cv_2.mp3", noise(1, 32_000), 32_000)
    header = "client_id\tpath\tsentence\tup_votes\tlocale\n"
    (tmp_path / "test.tsv").write_text(header + 'c0ffee\tcv_1.mp3\tHan sagde "ja\t2\tda\n')
    (tmp_path / "dev.tsv").write_text(header + "beef\tcv_2.mp3\tBlåbær\t2\tda\n")
    (only,) = open_data(tmp_path).utterances
    assert (only.name, only.text, only.language, only.speaker) == ("clips/cv_1.mp3", 'Han sagde "ja', "da", "c0ffee")
    assert only.duration_s == pytest.approx(1.0, abs=0.1)
    assert open_data(tmp_path / "dev.tsv").utterances[0].text == "Blåbær"
    assert open_data(tmp_path, split="dev").utterances[0].text == "Blåbær"
    (tmp_path / "dev.tsv").write_text(header + "beef\tcv_2.mp3\n")
    with pytest.raises(UserError, match=r"dev\.tsv, line 2: 2 columns where the first line has 5"):
        open_data(tmp_path / "dev.tsv")
    (tmp_path / "test.tsv").unlink()
    with pytest.raises(UserError, match=r"no test\.tsv; give one of its tables as data: dev\.tsv"):
        open_data(tmp_path)


def test_a_hub_data_set_is_streamed_and_its_audio_not_decoded_by_datasets(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    file = io.BytesIO()
    soundfile.write(file, noise(0.5), 8_000, format="FLAC")
    audio = {"bytes": file.getvalue(), "path": "x/one.flac"}
    rows = [{"audio": audio, "sentence": "hej", "locale": "da", "speaker_id": 7}]
    (tmp_path / "org" / "name").mkdir(parents=True)
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "org" / "name" / "test-0.parquet")
    monkeypatch.chdir(tmp_path)  # load_dataset takes a folder of that name for the hub's
    (entry,) = read_hub("org/name")
    assert (entry.id, entry.text, entry.language, entry.speaker) == ("0:one.flac", "hej", "da", "7")
    assert isinstance(entry.audio, bytes)
    assert measure_audio(entry.audio) == 1.0
    with pytest.raises(UserError, match=r"org/name: needs an audio column and one of text, .*; has words"):
        list(entries_of([{"words": "hej"}], "org/name"))


def test_a_hub_id_without_the_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"org/name: reading the hub needs .* pip install 'paretone\[hub\]'"):
        open_data("org/name")


def test_a_hub_id_without_a_network_is_one_clear_line(monkeypatch):
    datasets = pytest.importorskip("datasets")

    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("Couldn't reach\nthe hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match=r"neither a local path nor readable .* split 'dev'") as caught:
        open_data("org/name:clean:dev")
    assert "\n" not in str(caught.value)
