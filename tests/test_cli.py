"""The real command line, as its users meet it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tiny import save_tiny, tiny_audio

PARETONE = str(Path(sys.executable).with_name("paretone"))
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}


VERDICTS = ["delta_wer", "delta_wer_ci95", "p_value", "p_mapsswe", "mapsswe_z", "mapsswe_segments"]
VERDICTS += ["detectable_delta_wer"]


def paretone(*words: Any, code: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command and checks its exit code."""
    done = subprocess.run([PARETONE, *map(str, words)], capture_output=True, text=True, env=ENVIRONMENT, cwd=cwd)
    assert done.returncode == code, done.stderr
    return done


def refused(*words: Any, cwd: Path | None = None) -> str:
    """The one line of a command that is refused."""
    done = paretone(*words, code=2, cwd=cwd)
    assert done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny HuBERT and three utterances of noise."""
    root = tmp_path_factory.mktemp("place")
    save_tiny(root / "model", "hubert")
    lines = []
    for number, text in enumerate(["one two", "three", "four five six"]):
        soundfile.write(root / f"{number}.wav", tiny_audio(1 + number / 2, seed=number), 16_000)
        lines.append(
            json.dumps({"audio": f"{number}.wav", "text": text, "language": "en", "speaker": f"s{number % 2}"})
        )
    (root / "data.jsonl").write_text("\n".join(lines) + "\n")
    return root


def test_the_main_road_from_a_model_to_a_page(place: Path, tmp_path: Path) -> None:
    shown = paretone("plan", "model", "--sparsity", 0.5, "--out", tmp_path / "plan.json", cwd=place).stdout
    assert "hubert.encoder.layers.2.feed_forward" in shown
    assert "MACs" in shown
    done = json.loads(
        paretone("compress", "model", tmp_path / "small", "--plan", tmp_path / "plan.json", "--json", cwd=place).stdout
    )
    assert done["parameters_after"] < done["parameters_before"]
    assert done["size_bytes_after"] < done["size_bytes_before"]
    assert done["seconds"] > 0
    assert done["peak_rss_bytes"] > 10**7
    assert done["plan"]["steps"][0]["preset"] == "best"

    words = ["evaluate", tmp_path / "small", "--data", place / "data.jsonl", "--baseline", place / "model"]
    result = json.loads(paretone(*words, "--out", tmp_path / "result", "--json").stdout)
    block = {"wer", "cer", "substitutions", "deletions", "insertions", "words", "utterances"}
    block |= {"parameters", "size_bytes", "rtfx", "normaliser"}
    assert block <= result.keys()
    assert block <= result["baseline"].keys()
    assert result["words"] == 6
    assert result["parameters"] == done["parameters_after"]
    assert result["delta_wer"] == pytest.approx(result["wer"] - result["baseline"]["wer"])
    low, high = result["delta_wer_ci95"]
    assert low <= result["delta_wer"] <= high
    assert 0 <= result["p_value"] <= 1

    transcripts = tmp_path / "result" / "transcripts.jsonl"
    against = tmp_path / "result" / "baseline-transcripts.jsonl"
    scores = json.loads(paretone("score", transcripts, "--against", against, "--json").stdout)
    for key in ("wer", "cer", "substitutions", "deletions", "insertions", *VERDICTS):
        assert scores[key] == result[key]
    said = paretone("score", transcripts, "--against", against).stdout.splitlines()
    assert paretone(*words).stdout.splitlines()[-len(said) + 2 :] == said[2:]

    paretone("report", tmp_path / "result", "--out", tmp_path / "report.html")
    assert "<svg" in (tmp_path / "report.html").read_text()


def test_score_says_what_the_tests_find_and_what_they_cannot_see(tmp_path: Path) -> None:
    """Segments differ by 1, 1 and 2 errors: Z = (4 / 3) / (0.577 / 1.732) = 4."""
    said = ["alpha beta gamma delta"] * 4
    write_transcripts(tmp_path / "theirs.jsonl", said, said)
    heard = ["alpha beta gamma", "beta gamma delta", "gamma delta", said[0]]
    write_transcripts(tmp_path / "ours.jsonl", said, heard)
    shown = paretone("score", tmp_path / "ours.jsonl", "--against", tmp_path / "theirs.jsonl").stdout.splitlines()
    assert shown[2].startswith("against 0.00%: +25.00 points [")
    assert shown[3] == "matched pairs: p = 6.33e-05 (MAPSSWE, Z = +4.000 over 3 segments; rough below 50)"
    assert shown[4] == "with this test set a change below 49.06 points cannot be seen reliably (power 0.8 at p < 0.05)"
    write_transcripts(tmp_path / "ours.jsonl", said, [heard[0], *said[1:]])
    shown = paretone("score", tmp_path / "ours.jsonl", "--against", tmp_path / "theirs.jsonl").stdout.splitlines()
    assert shown[3].startswith("matched pairs: no verdict, the number of errors differs by the same in each segment (")
    assert len(paretone("score", tmp_path / "ours.jsonl").stdout.splitlines()) == 2


def write_transcripts(path: Path, said: list[str], heard: list[str]) -> None:
    """Transcripts as an evaluation leaves them."""
    pairs = enumerate(zip(said, heard, strict=True))
    lines = [{"id": str(number), "audio": "a", "text": a, "hypothesis": b} for number, (a, b) in pairs]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_inspect_and_transcribe_say_the_same_in_words_and_in_json(place: Path) -> None:
    found = json.loads(paretone("inspect", "model", "--json", cwd=place).stdout)
    assert found["parameters"] == 35952
    assert "35,952" in paretone("inspect", "model", cwd=place).stdout
    heard = json.loads(paretone("transcribe", "model", "0.wav", "1.wav", "--json", cwd=place).stdout)
    assert [t["audio"] for t in heard["transcriptions"]] == ["0.wav", "1.wav"]
    plain = paretone("transcribe", "model", "0.wav", cwd=place).stdout
    assert plain.rstrip("\n") == heard["transcriptions"][0]["text"]


def test_depth_needs_no_sparsity_when_its_settings_say_it(place: Path, tmp_path: Path) -> None:
    paretone("compress", "model", tmp_path / "a", "--method", "depth", "--set", "keep=2", cwd=place)
    paretone("compress", "model", tmp_path / "b", "--method", "depth", "--set", "layers=0,1", cwd=place)
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert a == b


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compress", "model", "OUT", "--sparsity", "0.5", "--bogus"], "No such option: --bogus"),
        (["compres"], "Did you mean 'compress'"),
        (["compress", "model", "OUT"], "nothing says how small"),
        (["compress", "model", "OUT", "--sparsity", "lots"], "--sparsity"),
        (["compress", "model", "OUT", "--sparsity", "1.0"], "sparsity"),
        (["compress", "model", "OUT", "--sparsity", "0.5", "--set", "outgoing"], "write key=value"),
        (["compress", "model", "OUT", "--sparsity", "0.5", "--method", "cluster", "--set", "rounds=many"], "rounds"),
        (["compress", "model", "OUT", "--sparsity", "0.5", "--set", "rounds=3"], "closed_form has no setting 'rounds'"),
        (["compress", "nothing", "OUT", "--sparsity", "0.5"], "no model 'nothing'"),
        (["compress", "some/body", "OUT", "--sparsity", "0.5"], "HF_HUB_OFFLINE is set"),
        (["compress", "model", "model", "--sparsity", "0.5", "--overwrite"], "lie in one another"),
        (["evaluate", "model", "--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["evaluate", "model", "--data", "data.jsonl", "--limit", "0"], "limit"),
        (["evaluate", "model", "--data", "data.jsonl", "--normaliser", "mine"], "mine"),
        (["evaluate", "model", "--data", "data.jsonl", "--device", "toaster"], "device 'toaster' is not usable here"),
        (["transcribe", "model", "absent.wav"], "absent.wav"),
        (["score", "absent.jsonl"], "absent.jsonl"),
        (["report", "absent", "--out", "OUT"], "absent"),
    ],
)
def test_bad_words_are_one_line_and_exit_2(words: list[str], message: str, place: Path) -> None:
    before = sorted(p.name for p in place.rglob("*"))
    assert message in refused(*words, cwd=place)
    assert sorted(p.name for p in place.rglob("*")) == before


def test_an_interrupt_leaves_no_half_folder(tmp_path: Path) -> None:
    """A model large enough to be caught in the middle: 12 layers of 512 x 4096 random FFN weights."""
    save_tiny(tmp_path / "model", "hubert", hidden_size=512, intermediate_size=4096, num_hidden_layers=12)
    for number in (signal.SIGINT, signal.SIGTERM):
        words = [PARETONE, "compress", str(tmp_path / "model"), str(tmp_path / "out"), "--sparsity", "0.5"]
        words += ["--method", "cluster"]
        running = subprocess.Popen(
            words,
            env=ENVIRONMENT,
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # a shell's background jobs ignore SIGINT, and so would this
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob(".out.partial-*")):
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        running.send_signal(number)
        _, said = running.communicate(timeout=60)
        assert running.returncode == 130
        assert said.strip().splitlines() == ["error: interrupted; what was not complete was removed"]
        assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """The largest file that the process may write stands for the disk's end."""
    save_tiny(tmp_path / "model", "hubert")
    limited = f"ulimit -f 40; trap '' XFSZ; exec {PARETONE} compress model out --sparsity 0.25"
    done = subprocess.run(["bash", "-c", limited], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "can't be written" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_bad_audio_is_named_and_skipped_only_when_asked(place: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "good.wav", tiny_audio(), 16_000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "good.wav").read_bytes()[:20])
    names = ["good.wav", "silent.wav", "cut.wav", "gone.wav"]
    manifest = tmp_path / "data.jsonl"
    manifest.write_text("".join(json.dumps({"audio": name, "text": "yes"}) + "\n" for name in names))
    assert "silent.wav" in refused("evaluate", place / "model", "--data", manifest)
    done = paretone("evaluate", place / "model", "--data", manifest, "--skip-bad", "--json")
    result = json.loads(done.stdout)
    assert result["utterances"] == 1
    assert [Path(s["audio"]).name for s in result["data"]["skipped"]] == names[1:]
    assert all(name in done.stderr for name in names[1:])
    manifest.write_text('{"audio": "good.wav", "text": "yes"}\n{"audio": \n')
    assert "data.jsonl, line 2" in refused("evaluate", place / "model", "--data", manifest)
