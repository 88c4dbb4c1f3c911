"""The demo on the embedded models, one sparsity of each method."""

from pathlib import Path

import pytest

from paretone.cli import demonstration
from paretone.results import read_result


def test_the_demo_compresses_measures_and_draws_both_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstration, "SPARSITIES", (0.5,))
    out = tmp_path / "demo"
    demonstration.run_demo(out)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "CC BY-SA 4.0" in page
    for model in ("digits-hubert", "digits-whisper"):
        assert model in page
        for way in ("magnitude", "paper", "best"):
            result = read_result(out / "results" / f"{model}-{way}-50")
            assert result.baseline is not None
            assert result.baseline.wer <= 0.05  # what the embedded models promise on held-out recordings
            assert result.words >= 900
            assert result.parameters < 0.6 * result.baseline.parameters
            if way == "best":
                assert result.wer < result.baseline.wer + 0.02  # half of all units gone, nothing retrained
            else:
                assert result.wer > result.baseline.wer
    for language in ("da", "nl", "en"):
        found = read_result(out / "results" / f"mini-slam-{language}")
        assert found.baseline is not None
        assert found.baseline.wer < found.wer < 0.12


def test_an_interrupted_demo_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstration, "SPARSITIES", (0.5,))
    monkeypatch.setattr(demonstration, "WAYS", {"magnitude": {"method": "magnitude"}})
    monkeypatch.setattr(demonstration, "MODELS", ("digits-hubert",))
    monkeypatch.setattr(demonstration, "LANGUAGES", ("nl",))
    out = tmp_path / "demo"
    demonstration.run_demo(out)
    made = (out / "results" / "digits-hubert-magnitude-50" / "result.json").read_bytes()
    (out / "report.html").unlink()  # as if it had been cut before the page
    demonstration.run_demo(out)
    assert (out / "results" / "digits-hubert-magnitude-50" / "result.json").read_bytes() == made
    assert (out / "report.html").exists()
