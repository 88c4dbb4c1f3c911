"""The embedded multilingual models do what their cards say."""

import json
from pathlib import Path

import pytest

from paretone.checkpoint import embedded_models, locate
from paretone.data import open_data
from paretone.evaluation import evaluate, transcribe

LANGUAGES = ("da", "nl", "en")


def test_these_models_come_with_the_package() -> None:
    assert embedded_models() == ["digits-hubert", "digits-whisper", "mini-lm", "mini-slam", "mini-whisper"]
    for name in embedded_models():
        assert (locate(name) / "README.md").read_text(encoding="utf-8").startswith("---\n")


def test_they_are_small() -> None:
    sizes = [sum(p.stat().st_size for p in locate(name).rglob("*")) for name in embedded_models() if "mini" in name]
    assert len(sizes) == 3
    assert sum(sizes) < 25e6


@pytest.mark.parametrize("language", LANGUAGES)
def test_phrases_say_that_they_are_synthetic_and_under_which_licence(language: str) -> None:
    data = open_data(f"phrases-{language}")
    assert {u.language for u in data.utterances} == {language}
    assert "SYNTHETIC" in (data.attribution or "")
    folder = Path(data.utterances[0].audio).parent
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    assert all(line["synthetic"] and line["licence"] for line in lines)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_speech_llm_and_the_whisper_alone_hear_phrases(language: str) -> None:
    found = evaluate("mini-slam", f"phrases-{language}", baseline="mini-whisper", limit=20)
    assert found.baseline is not None
    assert found.baseline.wer < 0.06
    assert found.wer < 0.35
    assert found.parts["encoder"] < 4_000_000


def test_the_speech_llm_hears_real_english_digits() -> None:
    assert evaluate("mini-slam", "digits", limit=20).wer < 0.3


def test_a_single_file_is_transcribed() -> None:
    first = open_data("phrases-nl").utterances[0]
    (heard,) = transcribe("mini-slam", [first.audio])
    assert heard.text
