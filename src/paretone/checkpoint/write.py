"""Writing a checkpoint as a stream: each tensor goes to its place in its shard as soon as it is ready."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from paretone.checkpoint.read import INDEX, SINGLE, Entry

if TYPE_CHECKING:
    from torch import Tensor

ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
MAX_SHARD_BYTES = 5 * 10**9


def size_bytes(entry: Entry) -> int:
    """Bytes of a tensor's values."""
    return math.prod(entry.shape) * ITEM_BYTES[entry.dtype]


class TensorWriter:
    """A context in which every announced tensor is written once, in any order.

    The safetensors headers are laid out from the announced shapes, so no tensor waits in memory for its shard.
    """

    def __init__(self, folder: Path, layout: Mapping[str, Entry], *, max_shard_bytes: int = MAX_SHARD_BYTES) -> None:
        """``layout`` gives names, dtypes and shapes in file order; its ``file`` fields are not looked at."""
        shards = _shards(layout, max_shard_bytes)
        names = (
            [SINGLE]
            if len(shards) == 1
            else [f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
        )
        self._files: list[BinaryIO] = []
        self._places: dict[str, tuple[BinaryIO, int, int]] = {}
        for name, shard in zip(names, shards, strict=True):
            self._begin(folder / name, {tensor: layout[tensor] for tensor in shard})
        if len(shards) > 1:
            weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
            total = sum(size_bytes(entry) for entry in layout.values())
            index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
            (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def _begin(self, path: Path, shard: Mapping[str, Entry]) -> None:
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        offset = 0
        for name, entry in shard.items():
            end = offset + size_bytes(entry)
            header[name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        file = path.open("wb")
        self._files.append(file)
        file.write(len(text).to_bytes(8, "little") + text)
        start = file.tell()
        for name in shard:
            first, end = header[name]["data_offsets"]
            self._places[name] = (file, start + first, end - first)

    def write(self, name: str, tensor: "Tensor") -> None:
        """Puts ``tensor`` at its place; its shape and dtype are the announced ones."""
        import torch

        file, offset, length = self._places.pop(name)
        values = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
        if values.nbytes != length:
            raise RuntimeError(f"{name}: {values.nbytes} bytes for a place of {length}")
        file.seek(offset)
        file.write(values.data)

    def __enter__(self) -> "TensorWriter":
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the shards; a tensor that was announced and not written is a bug."""
        for file in self._files:
            file.close()
        if kind is None and self._places:
            raise RuntimeError(f"not written: {', '.join(self._places)}")


def _shards(layout: Mapping[str, Entry], max_shard_bytes: int) -> list[list[str]]:
    shards: list[list[str]] = [[]]
    filled = 0
    for name, entry in layout.items():
        if shards[-1] and filled + size_bytes(entry) > max_shard_bytes:
            shards.append([])
            filled = 0
        # safetensors wants every value aligned to its own size; shards hold mixed dtypes only rarely, widest first
        shards[-1].append(name)
        filled += size_bytes(entry)
    return [sorted(shard, key=lambda name: -ITEM_BYTES[layout[name].dtype]) for shard in shards]


def write_tensors(path: Path, tensors: "Mapping[str, Tensor]") -> None:
    """Writes one file that is no part of a checkpoint."""
    from safetensors.torch import save_file

    save_file(dict(tensors), path, metadata={"format": "pt"})
