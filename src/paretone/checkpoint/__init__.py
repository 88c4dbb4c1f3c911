"""Checkpoints on disk: found, read tensor by tensor, written as a stream."""

from paretone.checkpoint.locate import embedded_models, locate
from paretone.checkpoint.read import Checkpoint, Entry, LazyTensors, open_checkpoint, read_tensors
from paretone.checkpoint.write import TensorWriter, size_bytes, write_tensors

__all__ = [
    "Checkpoint",
    "Entry",
    "LazyTensors",
    "TensorWriter",
    "embedded_models",
    "locate",
    "open_checkpoint",
    "read_tensors",
    "size_bytes",
    "write_tensors",
]
