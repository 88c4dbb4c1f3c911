"""Calibration: rows that modules read are those of the plain model, and fitting to them pays where they come from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import save_tiny, tiny_audio

from paretone.checkpoint import open_checkpoint
from paretone.families import table_of
from paretone.model import load
from paretone.transform import activations
from paretone.transform.activations import collect

FAMILIES = ("hubert", "wav2vec2", "wavlm", "whisper")


def reads(model: Any, module: str, run: Any) -> torch.Tensor:
    """(places, features) of everything that ``module`` reads during ``run``."""
    taken: list[torch.Tensor] = []
    hook = model.get_submodule(module).register_forward_pre_hook(
        lambda _, args, options: taken.append((args or (options["hidden_states"],))[0].flatten(0, -2)),
        with_kwargs=True,
    )
    with torch.inference_mode():
        run()
    hook.remove()
    return torch.cat(taken)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shards", ["5GB", "40KB"])
def test_streamed_rows_are_those_of_the_plain_model(family: str, shards: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", family, max_shard_size=shards)
    waves = [tiny_audio(seconds, seed) for seed, seconds in enumerate((0.9, 0.4))]
    (tmp_path / "rows").mkdir()
    checkpoint = open_checkpoint(folder)
    rows = collect(checkpoint, waves, tmp_path / "rows", seed=0)
    model, processor = load(folder)

    def run() -> None:
        for wave in waves:
            inputs: Any = processor.feature_extractor(wave, sampling_rate=16_000, return_tensors="pt")
            if family == "whisper":
                tokens = model.generate(
                    inputs.input_features, max_length=24, num_beams=1, force_unique_generate_call=True
                )
                model(input_features=inputs.input_features, decoder_input_ids=tokens)
            else:
                model(inputs.input_values)

    table = table_of(checkpoint.config, checkpoint.shapes, "here")
    for group in table.groups:
        seen = rows.seen(group.name)
        assert seen is not None
        if family == "whisper":
            continue
        reader = group.slots[0].tensor.removesuffix(".weight") if group.kind == "ffn" else group.name
        torch.testing.assert_close(seen.inputs, reads(model, reader, run), rtol=2e-3, atol=2e-3)
