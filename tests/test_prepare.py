"""Corpora made ready: what is kept, what is left out, and the same bytes again."""

import io
import json
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from paretone import UserError, prepare
from paretone.data import hub, open_data
from paretone.data.sifting import Choice, Line

COLUMNS = (
    "client_id", "path", "sentence_id", "sentence", "sentence_domain", "up_votes", "down_votes", "age", "gender",
    "accents", "variant", "locale", "segment",
)  # fmt: skip
RATE_HZ = 32_000  # of Common Voice


def noise(seconds: float, seed: int = 0, rate_hz: int = RATE_HZ) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * rate_hz))).astype(np.float32)


def mp3(seconds: float, seed: int = 0) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, noise(seconds, seed), RATE_HZ, format="MP3")
    return file.getvalue()


def row(number: int, sentence: str = "", **fields: str) -> dict[str, str]:
    said = {
        "client_id": f"speaker{number % 3}",
        "path": f"cv_da_{number}.mp3",
        "sentence": sentence or f"Sætning {number}.",
    }
    return dict.fromkeys(COLUMNS, "") | said | {"locale": "da"} | fields


def table(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["\t".join(COLUMNS), *("\t".join(each[column] for column in COLUMNS) for each in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def common_voice(folder: Path, seconds: Mapping[int, float], *, splits: Mapping[str, list[int]]) -> Path:
    """A language folder of clips with these lengths, each named after its number."""
    for split, numbers in splits.items():
        table(folder / f"{split}.tsv", map(row, numbers))
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    for number, length_s in seconds.items():
        (folder / "clips" / f"cv_da_{number}.mp3").write_bytes(mp3(length_s, number))
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ids(path: Path) -> list[str]:
    return [line["id"] for line in lines(path)]


def content(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in sorted(folder.rglob("*")) if each.is_file()}


@pytest.fixture(scope="module")
def danish(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release folder with one language: six clips of 1 s in train, one in dev, two in test."""
    release = tmp_path_factory.mktemp("cv-corpus-22.0")
    folder = release / "da"
    common_voice(folder, dict.fromkeys(range(9), 1.0), splits={"train": list(range(6)), "dev": [6], "test": [7, 8]})
    return folder


# --- Common Voice ---


@pytest.mark.parametrize("above", [False, True])
def test_a_common_voice_folder_becomes_three_manifests(danish, tmp_path, above):
    before = content(danish)
    done = prepare(danish.parent if above else danish, tmp_path / "out", language="da")
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == [
        "dev.jsonl",
        "summary.json",
        "test.jsonl",
        "train.jsonl",
    ]
    first = lines(tmp_path / "out" / "train.jsonl")[0]
    assert first.pop("duration_s") == pytest.approx(1.0, abs=0.1)
    assert first == {
        "id": "cv_da_0.mp3",
        "audio": str(danish / "clips" / "cv_da_0.mp3"),
        "text": "Sætning 0.",
        "language": "da",
        "speaker": "speaker0",
    }
    train = done.summary["splits"]["train"]
    assert (train["utterances"], train["speakers"], train["words"], train["characters"]) == (6, 3, 12, 60)
    assert train["hours"] == pytest.approx(6 / 3600, rel=0.1)
    assert train["dropped"] == {}
    assert done.summary["speakers_in_several_splits"] == 3  # 6 % 3, 7 % 3 and 8 % 3 speak in train too
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == done.summary
    assert content(danish) == before


def test_what_the_corpus_tells_of_a_speaker_is_kept_in_its_words(danish, tmp_path):
    folder = common_voice(tmp_path / "da", {0: 1.0}, splits={})
    table(folder / "test.tsv", [row(0, age="twenties", gender="female_feminine", accents="jysk")])
    prepare(folder, tmp_path / "out")
    prepare(tmp_path / "out", tmp_path / "again")
    for out in ("out", "again"):
        (line,) = lines(tmp_path / out / "test.jsonl")
        assert (line["age"], line["gender"], line["accents"]) == ("twenties", "female_feminine", "jysk")


def test_what_is_prepared_opens_as_data_by_file_and_by_split(danish, tmp_path):
    prepare(danish, tmp_path / "out")
    by_file, by_split = open_data(tmp_path / "out" / "test.jsonl"), open_data(tmp_path / "out")
    assert by_file.utterances == by_split.utterances
    assert [each.id for each in by_file.utterances] == ["cv_da_7.mp3", "cv_da_8.mp3"]
    assert len(open_data(tmp_path / "out", split="train").utterances) == 6
    listed = [line["duration_s"] for line in lines(tmp_path / "out" / "test.jsonl")]
    assert [round(each.duration_s, 3) for each in by_file.utterances] == listed


def test_what_is_left_out_is_counted_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr("paretone.data.sifting.MOST_MISSING", 0.5)
    lengths = {0: 1.0, 1: 0.3, 2: 3.0, 3: 1.0, 4: 1.0, 5: 1.0}
    folder = common_voice(tmp_path / "da", lengths, splits={})
    sentences = {3: "x" * 21, 4: " "}
    table(folder / "train.tsv", [row(number, sentences.get(number, "")) for number in range(8)])
    whole = (folder / "clips" / "cv_da_5.mp3").read_bytes()
    (folder / "clips" / "cv_da_5.mp3").write_bytes(whole[: len(whole) // 2])
    (folder / "clips" / "cv_da_6.mp3").write_text("no audio")
    done = prepare(folder, tmp_path / "out", max_s=2, max_characters=20)
    assert ids(tmp_path / "out" / "train.jsonl") == ["cv_da_0.mp3"]
    dropped = done.summary["splits"]["train"]["dropped"]
    counts = {reason: found["utterances"] for reason, found in dropped.items()}
    assert counts == {
        "empty_text": 1,
        "too_many_characters": 1,
        "too_short": 1,
        "too_long": 1,
        "missing_audio": 1,
        "bad_audio": 2,
    }
    assert dropped["missing_audio"]["examples"] == ["cv_da_7.mp3: no such file"]
    assert dropped["too_many_characters"]["examples"] == ["cv_da_3.mp3: 21"]
    assert "truncated" in dropped["bad_audio"]["examples"][0]
    assert "not audio" in dropped["bad_audio"]["examples"][1]


def test_a_clip_that_is_listed_as_too_long_is_not_read(danish, tmp_path):
    folder = common_voice(tmp_path / "da", {0: 1.0}, splits={"test": [0, 1]})
    (folder / "clip_durations.tsv").write_text("clip\tduration[ms]\ncv_da_0.mp3\t1000\ncv_da_1.mp3\t30001\n")
    done = prepare(folder, tmp_path / "out")  # clip 1 is not even there
    assert done.summary["splits"]["test"]["dropped"] == {
        "too_long": {"utterances": 1, "examples": ["cv_da_1.mp3: 30.00 s"]}
    }
    (folder / "clip_durations.tsv").write_text("clip\tduration[ms]\ncv_da_0.mp3\tlong\n")
    with pytest.raises(UserError, match=r"clip_durations\.tsv: a duration is no whole number"):
        prepare(folder, tmp_path / "more")


def test_a_table_without_lines_makes_no_manifest(danish, tmp_path):
    folder = common_voice(tmp_path / "da", {0: 1.0}, splits={"train": [], "test": [0]})
    done = prepare(folder, tmp_path / "out")
    assert [each.name for each in (tmp_path / "out").glob("*.jsonl")] == ["test.jsonl"]
    assert done.summary["splits"]["train"]["utterances"] == 0
    with pytest.raises(UserError, match="nothing is left of train; it lists no utterances"):
        prepare(folder, tmp_path / "train", split="train")
    table(folder / "test.tsv", [])
    with pytest.raises(UserError, match="lists no utterances in train, test"):
        prepare(folder, tmp_path / "none")


# --- the cap ---


def test_a_cap_keeps_the_same_utterances_in_whatever_order_they_are_listed(danish, tmp_path):
    numbers = list(range(6))
    made = []
    for name in ("one", "other"):
        folder = tmp_path / name / "da"
        random.Random(name).shuffle(numbers)
        table(folder / "train.tsv", map(row, numbers))
        (folder / "clips").symlink_to(danish / "clips")
        done = prepare(folder, tmp_path / name / "out", max_hours=3.5 / 3600, seed=1)
        made.append(ids(tmp_path / name / "out" / "train.jsonl"))
        split = done.summary["splits"]["train"]
        assert split["utterances"] == 3
        assert split["dropped"]["over_max_hours"]["utterances"] == 3
    assert made[0] == made[1] == sorted(made[0])


def test_seeds_choose_otherwise_and_equal_ones_give_equal_bytes(danish, tmp_path):
    for name, seed in [("a", 0), ("b", 0), *((str(seed), seed) for seed in range(1, 6))]:
        prepare(danish, tmp_path / name, split="train", max_hours=2.5 / 3600, seed=seed)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert len({tuple(ids(tmp_path / str(seed) / "train.jsonl")) for seed in range(1, 6)}) > 1


def test_a_smaller_cap_keeps_a_part_of_what_a_larger_one_keeps(danish, tmp_path):
    for seconds in (1.5, 2.5, 4.5):
        prepare(danish, tmp_path / str(seconds), split="train", max_hours=seconds / 3600)
    small, middle, large = (set(ids(tmp_path / str(seconds) / "train.jsonl")) for seconds in (1.5, 2.5, 4.5))
    assert small < middle < large


def test_broken_recordings_beyond_the_cap_are_not_told_apart_by_order(danish, tmp_path):
    """A streamed corpus in two orders, in which half of the recordings are broken: the same summary."""
    made = []
    for name in ("one", "other"):
        rows = [(number, mp3(1.0, number) if number % 2 else b"broken" + bytes([number])) for number in range(12)]
        random.Random(name).shuffle(rows)
        save_mirror(tmp_path / name / "source", dict(rows), split="train")
        done = prepare(tmp_path / name / "source", tmp_path / name / "out", max_hours=2.5 / 3600)
        made.append((done.summary["splits"], content(tmp_path / name / "out" / "clips")))
    assert made[0] == made[1]
    assert made[0][0]["train"]["utterances"] == 2


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=12, unique_by=lambda x: x[0]), st.data())
@settings(deadline=None)
def test_the_choice_is_the_longest_start_of_the_keys_that_fits(members, data):
    cap_ms = data.draw(st.integers(1, 40))
    expected, total = [], 0
    for key, length_ms in sorted(members):
        total += length_ms
        if total > cap_ms:
            break
        expected.append(f"{key:02}")
    choice, out = Choice(cap_ms), []
    for key, length_ms in data.draw(st.permutations(members)):
        if choice.admits(key):
            out += choice.add(key, Line(f"{key:02}", "", "", None, None, length_ms, {}))
    assert [line.id for line in choice.lines()] == expected
    assert {line.id for line in out}.isdisjoint(expected)


# --- other sources ---


def librispeech(folder: Path, subset: str, speaker: int) -> None:
    chapter = folder / subset / str(speaker) / "1"
    chapter.mkdir(parents=True)
    for number in range(2):
        soundfile.write(chapter / f"{speaker}-1-{number:04}.flac", noise(1, speaker + number, 16_000), 16_000)
    texts = [f"{speaker}-1-{number:04} HE BEGAN" for number in range(2)]
    (chapter / f"{speaker}-1.trans.txt").write_text("\n".join(texts) + "\n")


def test_a_librispeech_folder_has_its_splits_in_the_names_of_its_subsets(tmp_path):
    for subset, speaker in [("train-clean-100", 19), ("train-other-500", 20), ("dev-clean", 21), ("test-clean", 22)]:
        librispeech(tmp_path / "LibriSpeech", subset, speaker)
    done = prepare(tmp_path / "LibriSpeech", tmp_path / "out")
    assert {name: split["utterances"] for name, split in done.summary["splits"].items()} == {
        "train": 4,
        "dev": 2,
        "test": 2,
    }
    (line, _) = lines(tmp_path / "out" / "dev.jsonl")
    assert (line["text"], line["language"], line["speaker"], line["duration_s"]) == ("HE BEGAN", "en", "21", 1.0)
    prepare(tmp_path / "LibriSpeech" / "test-clean", tmp_path / "test")
    assert (tmp_path / "test" / "test.jsonl").read_bytes() == (tmp_path / "out" / "test.jsonl").read_bytes()
    with pytest.raises(UserError, match="nothing is left of train; the languages there are en"):
        prepare(tmp_path / "LibriSpeech", tmp_path / "nl", language="nl")


def test_a_manifest_is_taken_as_the_split_that_is_asked_for(tmp_path):
    soundfile.write(tmp_path / "a.wav", noise(1, 0, 16_000), 16_000)
    rows = [{"audio": "a.wav", "text": "Hej"}, {"audio": "a.wav", "id": "b", "text": "Hallo", "language": "nl"}]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    done = prepare(tmp_path / "mine.jsonl", tmp_path / "out", split="dev", language="da")
    (line,) = lines(tmp_path / "out" / "dev.jsonl")
    assert line == {
        "id": "a.wav",
        "audio": str(tmp_path / "a.wav"),
        "text": "Hej",
        "language": "da",
        "duration_s": 1.0,
    }
    assert done.summary["splits"]["dev"]["dropped"]["other_language"]["examples"] == ["b: nl"]
    with pytest.raises(UserError, match=r"mine\.jsonl doesn't say which split it is; say --split train, dev or test"):
        prepare(tmp_path / "mine.jsonl", tmp_path / "more")


def test_a_manifest_that_names_an_id_twice_is_refused(tmp_path):
    (tmp_path / "test.jsonl").write_text(2 * '{"audio": "a.wav", "text": "hej"}\n')
    with pytest.raises(UserError, match=r"a\.wav: id 'a\.wav' comes twice"):
        prepare(tmp_path / "test.jsonl", tmp_path / "out")


# --- the hub ---


def hub_folder(folder: Path, languages: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> Path:
    """A data set as the hub stores it: parquet files, and a card that names configurations and splits."""
    datasets = pytest.importorskip("datasets")
    card = ["---", "configs:"]
    for language, splits in languages.items():
        card += [f"- config_name: {language}", "  data_files:"]
        for split, rows in splits.items():
            (folder / language).mkdir(parents=True, exist_ok=True)
            made = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio(decode=False))
            made.to_parquet(folder / language / f"{split}-00000-of-00001.parquet")
            card += [f"  - split: {split}", f"    path: {language}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*card, "---", ""]))
    return folder


def hub_row(number: int, language: str = "da") -> dict[str, Any]:
    audio = {"bytes": mp3(1.0, number), "path": f"clip {number}.mp3"}
    return {"audio": audio, "sentence": f"Sætning {number}", "locale": language, "client_id": f"s{number}"} | {
        "gender": "female_feminine"
    }


def test_a_folder_in_the_hubs_format_is_streamed_and_its_clips_are_written(tmp_path):
    rows = [hub_row(number) for number in range(3)]
    source = hub_folder(
        tmp_path / "source", {"da": {"train": rows, "validation": rows[:1]}, "nl": {"train": [hub_row(9, "nl")]}}
    )
    done = prepare(source, tmp_path / "out", language="da")
    assert {name: split["utterances"] for name, split in done.summary["splits"].items()} == {"train": 3, "dev": 1}
    line = lines(tmp_path / "out" / "train.jsonl")[1]
    assert line["audio"].startswith("clips/train/clip_1-")
    assert (tmp_path / "out" / line["audio"]).read_bytes() == rows[1]["audio"]["bytes"]
    assert (line["text"], line["language"], line["speaker"], line["gender"]) == (
        "Sætning 1",
        "da",
        "s1",
        "female_feminine",
    )
    assert len(open_data(tmp_path / "out", split="train").utterances) == 3
    with pytest.raises(UserError, match="holds da, nl; say which by --language"):
        prepare(source, tmp_path / "more")
    with pytest.raises(UserError, match="holds no 'sv'; there are da, nl"):
        prepare(source, tmp_path / "more", language="sv")
    with pytest.raises(UserError, match=r"source holds no split 'test'; there are train, dev"):
        prepare(source, tmp_path / "more", language="da", split="test")


def test_a_capped_stream_leaves_only_the_clips_that_it_keeps(tmp_path):
    rows = [hub_row(number) for number in range(5)]
    made = []
    for name, order in [("one", rows), ("other", rows[::-1]), ("twice", rows + rows)]:
        source = hub_folder(tmp_path / name, {"da": {"train": order}})
        done = prepare(source, tmp_path / f"{name}-out", max_hours=2.5 / 3600)
        assert len(list((tmp_path / f"{name}-out" / "clips" / "train").iterdir())) == 2
        made.append((tmp_path / f"{name}-out" / "train.jsonl").read_bytes())
    assert made[0] == made[1] == made[2]
    assert done.summary["splits"]["train"]["dropped"]["comes_twice"]["utterances"] == 5


def save_mirror(root: Path, clips: Mapping[int, bytes], *, split: str = "test", archives: int = 2) -> Path:
    """Common Voice as its mirrors keep it, in the order that ``clips`` has."""
    table(root / "transcript" / "da" / f"{split}.tsv", map(row, clips))
    place = root / "audio" / "da" / split
    place.mkdir(parents=True)
    for number in range(archives):
        with tarfile.open(place / f"da_{split}_{number}.tar", "w") as archive:
            for clip in list(clips)[number::archives]:
                member = tarfile.TarInfo(f"da_{split}_{number}/cv_da_{clip}.mp3")
                member.size = len(clips[clip])
                archive.addfile(member, io.BytesIO(clips[clip]))
    return root


def test_a_mirror_of_common_voice_is_read_from_its_archives(tmp_path, monkeypatch):
    monkeypatch.setattr("paretone.data.sifting.MOST_MISSING", 0.5)
    clips = {number: mp3(1.0, number) for number in range(3)}
    root = save_mirror(tmp_path / "mirror", clips)
    table(root / "transcript" / "da" / "test.tsv", map(row, range(4)))  # one more than there are clips
    done = prepare(root, tmp_path / "out", language="da")
    line = lines(tmp_path / "out" / "test.jsonl")[2]
    assert (line["id"], line["audio"], line["text"]) == ("cv_da_2.mp3", "clips/test/cv_da_2.mp3", "Sætning 2.")
    assert (tmp_path / "out" / line["audio"]).read_bytes() == clips[2]
    assert done.summary["splits"]["test"]["dropped"]["missing_audio"]["examples"] == ["cv_da_3.mp3: no such file"]
    archive = root / "audio" / "da" / "test" / "da_test_0.tar"
    archive.write_bytes(archive.read_bytes()[:1500])
    with pytest.raises(UserError, match=r"da_test_0\.tar is damaged or cut"):
        prepare(root, tmp_path / "more")
    assert not (tmp_path / "more").exists()


def test_a_hub_id_is_pinned_to_a_commit_that_the_summary_names(tmp_path, monkeypatch):
    """The hub's file system is a folder here; everything from the id to the clips is what runs there."""
    datasets, fsspec = pytest.importorskip("datasets"), pytest.importorskip("fsspec")
    from fsspec.implementations.dirfs import DirFileSystem

    commit = "0123456789abcdef0123456789abcdef01234567"
    asked = []

    class Downloads:
        def download(self, url: str) -> str:
            asked.append(url)
            return f"/cache/snapshots/{commit}/README.md"

    save_mirror(tmp_path / "datasets" / f"org/cv_22@{commit}", {0: mp3(1.0)})
    monkeypatch.setattr(datasets, "DownloadManager", Downloads)
    monkeypatch.setattr(
        fsspec,
        "filesystem",
        lambda kind: DirFileSystem(str(tmp_path), fs=fsspec.implementations.local.LocalFileSystem()),
    )
    done = prepare("org/cv_22", tmp_path / "out", language="da", revision="v1")
    assert asked == ["hf://datasets/org/cv_22@v1/README.md"]
    assert (done.summary["kind"], done.summary["revision"]) == ("common-voice", commit)
    assert ids(tmp_path / "out" / "test.jsonl") == ["cv_da_0.mp3"]
    prepare("org/cv_22:da:test", tmp_path / "more")
    assert ids(tmp_path / "more" / "test.jsonl") == ["cv_da_0.mp3"]
    with pytest.raises(UserError, match="org/cv_22 holds no 'nl'; there are da"):
        prepare("org/cv_22", tmp_path / "nl", language="nl")


def test_a_hub_id_of_parquet_files_is_streamed_at_its_commit(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    source = hub_folder(tmp_path / "source", {"default": {"train.100": [hub_row(0)]}})
    load, configs, asked = datasets.load_dataset, datasets.get_dataset_config_names, []
    monkeypatch.setattr(hub, "pin", lambda name, revision: "c0ffee")
    monkeypatch.setattr(hub, "hub_mirror", lambda name, revision: None)
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name, revision: configs(str(source)))

    def load_here(name: str, config: str, *, revision: str, streaming: bool) -> Any:
        asked.append((name, config, revision))
        return load(str(source), config, streaming=streaming)

    monkeypatch.setattr(datasets, "load_dataset", load_here)
    done = prepare("org/name", tmp_path / "out")
    assert asked == [("org/name", "default", "c0ffee")]
    assert (done.summary["revision"], list(done.summary["splits"])) == ("c0ffee", ["train"])
    prepare("org/name:default:train.100", tmp_path / "dev", split="dev")
    assert ids(tmp_path / "dev" / "dev.jsonl") == ids(tmp_path / "out" / "train.jsonl")
    with pytest.raises(UserError, match=r"no split 'train\.360'; there are train\.100"):
        prepare("org/name:default:train.360", tmp_path / "more")
    with pytest.raises(UserError, match="no configuration 'clean'; there are default"):
        prepare("org/name:clean", tmp_path / "more")


def test_no_network_is_one_line(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")

    class TransportError(Exception):
        __module__ = "httpx2"

    class Downloads:
        def download(self, url: str) -> str:
            raise TransportError("Name or service\nnot known")

    monkeypatch.setattr(datasets, "DownloadManager", Downloads)
    with pytest.raises(UserError, match=r"org/name: neither .* revision 'main' \(Name or service not known\)"):
        prepare("org/name", tmp_path / "out")
    monkeypatch.setattr(Downloads, "download", lambda self, url: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # a bug stays one
        prepare("org/name", tmp_path / "out")


# --- bad input ---


@pytest.mark.parametrize(
    ("given_words", "message"),
    [
        ({"max_hours": 0}, "max_hours is 0; it must be above 0"),
        ({"max_hours": float("nan")}, "max_hours is nan"),
        ({"max_hours": 0.5 / 3600}, "nothing is left of train; dropped are 6 over_max_hours"),
        ({"min_s": 2, "max_s": 1}, "min_s is 2 and max_s 1; 0 <= min_s < max_s must hold"),
        ({"min_s": 10}, "nothing is left of train; dropped are 6 too_short, such as cv_da_"),
        ({"max_characters": 0}, "max_characters is 0"),
        ({"seed": -1}, "seed is -1"),
        ({"split": "tset"}, "no split 'tset'; there are all, train, dev, test; did you mean 'test'"),
        ({"language": "nl"}, "nothing is left of train; the languages there are da"),
        ({"revision": "main"}, "--revision main has no effect"),
    ],
)
def test_words_that_leave_nothing_are_refused_and_nothing_is_written(danish, tmp_path, given_words, message):
    with pytest.raises(UserError) as caught:
        prepare(danish, tmp_path / "out", **given_words)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_folders_that_are_no_corpus_say_what_was_looked_for(danish, tmp_path):
    with pytest.raises(UserError, match=r"looked for train\.tsv, dev\.tsv, test\.tsv .*\*\.trans\.txt.*parquet"):
        prepare(tmp_path, tmp_path.parent / "never")
    with pytest.raises(UserError, match="no such folder or file"):
        prepare(tmp_path / "absent", tmp_path / "out")
    with pytest.raises(UserError, match=r"holds no 'nl'; there are da"):
        prepare(danish.parent, tmp_path / "out", language="nl")
    table(tmp_path / "cv" / "da" / "test.tsv", [row(0)])
    with pytest.raises(UserError, match=r"clips is missing; test\.tsv names its recordings there"):
        prepare(tmp_path / "cv" / "da", tmp_path / "out")
    (tmp_path / "cv" / "da" / "clips").mkdir()
    with pytest.raises(UserError, match=r"test: 1 of 1 recordings are not there, such as cv_da_0\.mp3; fetch"):
        prepare(tmp_path / "cv" / "da", tmp_path / "out")
    with pytest.raises(UserError, match=r"holds no split 'dev'; there are test"):
        prepare(tmp_path / "cv" / "da", tmp_path / "out", split="dev")
    table(tmp_path / "cv" / "nl" / "test.tsv", [row(0)])
    with pytest.raises(UserError, match="holds da, nl; say which by --language"):
        prepare(tmp_path / "cv", tmp_path / "out")
    (tmp_path / "cv" / "da" / "test.tsv").write_text("client_id\tpath\n")
    with pytest.raises(UserError, match=r"test\.tsv: no column 'sentence'; its columns are client_id, path"):
        prepare(tmp_path / "cv" / "da", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_out_is_a_new_folder_outside_of_the_source(danish, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years")
    with pytest.raises(UserError, match="is not empty"):
        prepare(danish, tmp_path / "full")
    with pytest.raises(UserError, match=r"holds none of summary\.json"):
        prepare(danish, tmp_path / "full", overwrite=True)
    with pytest.raises(UserError, match=r"and the source .* lie in one another"):
        prepare(danish, danish / "out")
    prepare(danish, tmp_path / "out", split="dev")
    prepare(danish, tmp_path / "out", split="test", overwrite=True)
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["summary.json", "test.jsonl"]


# --- the command line ---


def command(*words: Any) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("paretone"))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [program, "data", "prepare", *map(str, words)], capture_output=True, text=True, env=environment
    )


def test_the_command_says_the_same_in_words_and_in_json(danish, tmp_path):
    done = command(
        danish.parent, tmp_path / "out", "--language", "da", "--max-hours", 4.5 / 3600, "--seed", 3, "--json"
    )
    assert (done.returncode, done.stderr) == (0, "")
    summary = json.loads(done.stdout)
    assert summary.pop("out") == str(tmp_path / "out")
    again = prepare(danish.parent, tmp_path / "again", language="da", max_hours=4.5 / 3600, seed=3)
    assert summary == again.summary
    assert content(tmp_path / "out") == content(tmp_path / "again")
    shown = command(danish.parent, tmp_path / "shown", "--split", "test")
    assert (shown.returncode, shown.stdout) == (0, f"{tmp_path / 'shown'}\n")
    assert "utterances" in shown.stderr


def test_a_refusal_of_the_command_is_one_line_and_exit_2(tmp_path):
    done = command("fsicoli/common_voice_22_0", tmp_path / "out", "--language", "da")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert "offline mode is enabled" in line
