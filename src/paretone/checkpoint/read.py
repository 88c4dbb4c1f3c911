"""Reading a checkpoint tensor by tensor; the model is never built."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paretone.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies and what it is; ``dtype`` in safetensors' words (F32, BF16, ...)."""

    file: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Checkpoint:
    """A read-only folder of config and safetensors shards. Headers are read at once, weights when asked for."""

    folder: Path
    config: Mapping[str, Any]
    entries: Mapping[str, Entry]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensor name -> shape, in the order of the files."""
        return {name: entry.shape for name, entry in self.entries.items()}

    @property
    def weight_files(self) -> list[Path]:
        """The shards."""
        return [self.folder / name for name in sorted({entry.file for entry in self.entries.values()})]

    def read(self, names: Iterable[str]) -> "dict[str, Tensor]":
        """The tensors ``names`` by name. The files are mapped only as long as a tensor of them lives.

        Raises:
            UserError: if a value is NaN or infinite, with the tensor's name.
        """
        by_file: dict[str, list[str]] = {}
        for name in names:
            by_file.setdefault(self.entries[name].file, []).append(name)
        tensors: dict[str, Tensor] = {}
        for file, wanted in by_file.items():
            with _opened(self.folder / file) as shard:
                for name in wanted:
                    tensors[name] = shard.get_tensor(name)
                    _check_finite(tensors[name], name, self.folder / file)
        return tensors

    def digest(self) -> str:
        """``sha256:...`` over the config and all weights: equal for equal models, wherever they lie."""
        adapter = sorted((self.folder / "adapter").glob("adapter_*"))  # of a speech LLM's run
        files = [self.folder / "config.json", *self.weight_files, *adapter]
        with ThreadPoolExecutor() as pool:
            parts = pool.map(_file_digest, files)
            total = hashlib.sha256("".join(parts).encode())
        return f"sha256:{total.hexdigest()}"

    def plan_digest(self) -> str | None:
        """``sha256:...`` of plan.json, where the model was compressed: tells which of two plans made it."""
        plan = self.folder / "plan.json"
        return f"sha256:{_file_digest(plan)}" if plan.exists() else None


def open_checkpoint(folder: Path) -> Checkpoint:
    """Reads config and headers and checks that every promised shard is there and whole.

    Raises:
        UserError: if there is no config, no weights, pickled weights only, or a shard is missing, cut or unreadable.
    """
    config = _read_json(
        folder / "config.json", f"{folder} holds no config.json; give a folder in the Hugging Face layout"
    )
    if (folder / INDEX).exists():
        promised = _read_json(folder / INDEX, "")["weight_map"]
        files = sorted(set(promised.values()))
    elif (folder / SINGLE).exists():
        promised, files = None, [SINGLE]
    else:
        raise UserError(_no_weights(folder))
    entries: dict[str, Entry] = {}
    for file in files:
        entries.update(_entries(folder, file))
    absent = sorted(set(promised) - set(entries)) if promised else []
    if absent:
        raise UserError(f"{folder / promised[absent[0]]} lacks the tensor {absent[0]!r} that {INDEX} promises")
    return Checkpoint(folder, config, entries)


def read_tensors(path: Path) -> "dict[str, Tensor]":
    """All tensors of one file that is no part of a checkpoint.

    Raises:
        UserError: if it is missing or damaged, or holds NaN or infinity.
    """
    if not path.exists():
        raise UserError(f"{path} is missing; fetch or write it again")
    with _opened(path) as file:
        found = {name: file.get_tensor(name) for name in file.offset_keys()}
    for name, tensor in found.items():
        _check_finite(tensor, name, path)
    return found


class LazyTensors(Mapping[str, "Tensor"]):
    """Tensors of several files, each read when it is asked for; the files are mapped as long as this lives."""

    def __init__(self, where: Mapping[str, Path]) -> None:
        """``where`` tells the file of each tensor."""
        self._where = dict(where)
        self._files: dict[Path, Any] = {}

    def __getitem__(self, name: str) -> "Tensor":
        """Raises UserError if its file is damaged."""
        path = self._where[name]
        if path not in self._files:
            from safetensors import safe_open

            with _opened(path):
                self._files[path] = safe_open(path, framework="pt")
        tensor: Tensor = self._files[path].get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        """Names."""
        return iter(self._where)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._where)


def _read_json(path: Path, missing: str) -> dict[str, Any]:
    if not path.exists():
        raise UserError(missing)
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    return content


def _no_weights(folder: Path) -> str:
    pickles = sorted(p.name for pattern in PICKLES for p in folder.glob(pattern))
    convert = (
        f"python -c \"from transformers import AutoModelForCTC as M; M.from_pretrained('{folder}')"
        ".save_pretrained('CONVERTED')\" (for Whisper AutoModelForSpeechSeq2Seq), or give a --revision that has "
        "safetensors, such as refs/convert/safetensors"
    )
    if pickles:
        return (
            f"{folder} holds pickled weights ({pickles[0]}), which can run code when read; convert them once: {convert}"
        )
    others = sorted(p.name for p in folder.glob("*.safetensors"))
    if others:
        return (
            f"{folder} holds neither {SINGLE} nor {INDEX}, only {', '.join(others)}; give the weights their name back"
        )
    return (
        f"{folder} holds neither {SINGLE} nor {INDEX}; if the model has pickled weights only, convert them: {convert}"
    )


def _entries(folder: Path, file: str) -> dict[str, Entry]:
    if not (folder / file).exists():
        raise UserError(f"{folder / file} is missing, but {INDEX} names it; fetch it again or restore its name")
    with _opened(folder / file) as shard:
        found = {}
        for name in shard.offset_keys():
            part = shard.get_slice(name)
            found[name] = Entry(file, part.get_dtype(), tuple(part.get_shape()))
    return found


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as shard:
            yield shard
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or cut short ({error}); fetch or write it again") from error


def _check_finite(tensor: "Tensor", name: str, path: Path) -> None:
    import torch

    if not tensor.is_floating_point() or tensor.numel() == 0:
        return
    low, high = torch.aminmax(tensor)  # one pass, and NaN comes through
    if not bool(torch.isfinite(low) & torch.isfinite(high)):
        raise UserError(f"{path}: tensor {name!r} holds NaN or infinite values; the checkpoint is broken")


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
