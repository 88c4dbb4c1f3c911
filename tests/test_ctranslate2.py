"""Compressed Whispers in CTranslate2, converted as docs/ctranslate2.md says: the same numbers and words as in torch."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import paretone
from paretone.data.audio import read_audio

ctranslate2 = pytest.importorskip("ctranslate2")
TransformersConverter = pytest.importorskip("ctranslate2.converters").TransformersConverter

PAGE = Path(__file__).parents[1] / "docs" / "ctranslate2.md"
DIGITS = Path(paretone.__file__).parent / "embedded" / "digits"


def of_the_page() -> Any:
    """``EqualHeadsConverter`` from the page's first block of Python."""
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[0], names)
    return names["EqualHeadsConverter"]


def recipe_of_the_page(folder: Path) -> Path:
    (folder / "recipe.yaml").write_text(re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)[0])
    return folder / "recipe.yaml"


def features() -> torch.Tensor:
    """Log-mel frames of four utterances, one of each reader and one more."""
    _, processor = paretone.load("digits-whisper")
    audio = [read_audio(DIGITS / f"{name}.flac") for name in ("george-000", "jackson-003", "nicolas-007", "george-011")]
    made: torch.Tensor = processor(audio, sampling_rate=16_000, return_tensors="pt").input_features
    return made


def check_against_torch(folder: Path, converted: Path) -> None:
    """The encoder's output and greedy tokens agree; the tokens are no empty string."""
    heard, model = features(), paretone.load(folder)[0]
    runtime = ctranslate2.models.Whisper(str(converted), device="cpu", compute_type="float32", intra_threads=1)
    encoded = runtime.encode(ctranslate2.StorageView.from_array(heard.numpy()), to_cpu=True)
    with torch.no_grad():
        expected = model.model.encoder(heard).last_hidden_state.numpy()
        words = model.generate(heard)
    assert np.abs(np.asarray(encoded) - expected).max() < 1e-3 * np.abs(expected).max()
    start = [model.generation_config.decoder_start_token_id, model.generation_config.no_timestamps_token_id]
    decoded = runtime.generate(
        encoded, [start] * len(heard), beam_size=1, suppress_blank=False, suppress_tokens=[], max_length=32
    )
    end = model.generation_config.eos_token_id
    for ours, theirs in zip(words.tolist(), decoded, strict=True):
        spoken = [token for token in ours if token not in (*start, end)]
        assert spoken
        assert [token for token in theirs.sequences_ids[0] if token != end] == spoken


def sizes(folder: Path) -> dict[str, set[tuple[int, int | None]]]:
    """The sizes that attentions have, stack by stack."""
    modules = [m for m in json.loads((folder / "plan.json").read_text())["modules"] if m["kind"] == "heads"]
    return {
        side: {(m["width_after"], m["head_dim_after"]) for m in modules if f".{side}." in m["name"]}
        for side in ("encoder", "decoder")
    }


@pytest.mark.parametrize("sparsity", [0.3, 0.6])
def test_equal_heads_run_as_in_torch(sparsity: float, tmp_path: Path) -> None:
    recipe = recipe_of_the_page(tmp_path)
    recipe.write_text(recipe.read_text().replace("sparsity: 0.3", f"sparsity: {sparsity}"))
    paretone.compress("digits-whisper", tmp_path / "small", recipe=recipe)
    found = sizes(tmp_path / "small")
    assert all(len(of_stack) == 1 for of_stack in found.values())
    assert any(of_stack != {(8, 16)} for of_stack in found.values())
    of_the_page()(str(tmp_path / "small")).convert(str(tmp_path / "converted"))
    check_against_torch(tmp_path / "small", tmp_path / "converted")


def test_fewer_equal_heads_run_as_in_torch(tmp_path: Path) -> None:
    paretone.compress("digits-whisper", tmp_path / "small", sparsity=0.25, method="cluster")
    of_the_page()(str(tmp_path / "small")).convert(str(tmp_path / "converted"))
    check_against_torch(tmp_path / "small", tmp_path / "converted")


def test_portable_runs_by_the_stock_converter(tmp_path: Path) -> None:
    paretone.compress("digits-whisper", tmp_path / "small", sparsity=0.3, preset="portable")
    TransformersConverter(str(tmp_path / "small")).convert(str(tmp_path / "converted"))
    check_against_torch(tmp_path / "small", tmp_path / "converted")


def test_heads_that_differ_in_number_are_refused_by_the_page(tmp_path: Path) -> None:
    paretone.compress(
        "digits-whisper", tmp_path / "small", sparsity=0.3, method="magnitude", allocation="variance-tiers"
    )
    with pytest.raises(ValueError, match="equal-heads"):
        of_the_page()(str(tmp_path / "small")).convert(str(tmp_path / "converted"))
