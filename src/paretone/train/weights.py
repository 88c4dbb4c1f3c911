"""Trained weights as the checkpoint that they came from would store them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from paretone.checkpoint import Checkpoint, TensorWriter

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

# how older files call the two halves of a normalised weight
_OLDER = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}


def write_weights(model: Any, checkpoint: Checkpoint, folder: Path) -> None:
    """Writes the tensors of ``model`` under the names, types and in the order of ``checkpoint``, its source.

    What the source stores and the model does not have (a mask embedding that it never uses) is copied; what the source
    lacks (tied or freshly started for training alone) is left out.
    """
    trained = model.state_dict()
    names = {stored: name for name in trained if (stored := _stored_name(name, checkpoint)) is not None}
    with TensorWriter(folder, checkpoint.entries) as writer:
        for stored, entry in checkpoint.entries.items():
            if stored in names:
                writer.write(stored, trained[names[stored]].detach().cpu().to(DTYPES[entry.dtype]))
            else:
                writer.write(stored, checkpoint.read([stored])[stored])


@contextmanager
def as_stored(model: Any, checkpoint: Checkpoint) -> Iterator[None]:
    """Rounds the weights, for as long as the context lasts, to what `write_weights` keeps of them."""
    kept: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
    for name, parameter in model.named_parameters():
        stored = _stored_name(name, checkpoint)
        dtype = DTYPES[checkpoint.entries[stored].dtype] if stored else parameter.dtype
        if dtype != parameter.dtype:
            kept.append((parameter, parameter.data))
            parameter.data = parameter.data.to(dtype).to(parameter.dtype)
    try:
        yield
    finally:
        for parameter, exact in kept:
            parameter.data = exact


def _stored_name(name: str, checkpoint: Checkpoint) -> str | None:
    if name in checkpoint.entries:
        return name
    for new, old in _OLDER.items():
        if name.endswith(new) and name.removesuffix(new) + old in checkpoint.entries:
            return name.removesuffix(new) + old
    return None
