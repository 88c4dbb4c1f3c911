"""What every module reads and hands on while the model hears audio: the rows that methods may fit to.

All rows come from the original model, collected in one streamed pass before any module is compressed, so that a plan
and its execution see the same ones; a later module is not fitted to what compressed earlier ones would hand it.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from paretone.checkpoint import Checkpoint
from paretone.families import table_of
from paretone.groups import Group
from paretone.model.streaming import run_streamed, stream_model
from paretone.modules import Seen

MOST_ROWS = 8192
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Rows:
    """Sampled rows on disk, float16, at most ``MOST_ROWS`` of each kind for each module."""

    folder: Path

    def seen(self, module: str) -> Seen | None:
        """What was seen at the module of that full name; None where the model did not come past it."""
        inputs = self._load(f"{module}.inputs")
        if inputs is None:
            return None
        is_cross = (self.folder / f"{module}.crosses").exists()
        return Seen(inputs, self._load("memory") if is_cross else None, self._load(f"{module}.context"))

    def _load(self, name: str) -> Tensor | None:
        path = self.folder / f"{name}.npy"
        return torch.from_numpy(np.load(path).astype(np.float32)) if path.exists() else None


def collect(checkpoint: Checkpoint, waves: Iterable[np.ndarray], folder: Path, *, seed: int) -> Rows:
    """Runs the model of ``checkpoint`` on ``waves`` and keeps what its modules read, in ``folder``.

    The same places are kept in all modules of a stack; they are drawn from all places of all clips alike, padding of
    Whisper's window included, which the model hears like any other sound.

    Args:
        waves: (samples,) each, float32, 16 kHz, no longer than the model's window.
        seed: decides which places are kept.
    """
    streamed = stream_model(checkpoint)
    table = table_of(checkpoint.config, checkpoint.shapes, str(checkpoint.folder))
    collector = _Collector(streamed.model, table.groups, folder, seed)
    run_streamed(streamed, waves, collector.watch)
    return Rows(folder)


@dataclass
class _Collector:
    """Watches the layers of a streamed model."""

    model: nn.Module
    groups: Sequence[Group]
    folder: Path
    seed: int
    places: dict[str, list[np.ndarray]] = field(default_factory=dict)

    @contextmanager
    def watch(self, layer: str, module: nn.Module, lengths: Sequence[int]) -> Iterator[Callable[[int], None]]:
        """Keeps rows of the modules in ``layer`` while clips of ``lengths`` places pass."""
        stack = layer.rpartition(".")[0]
        if stack not in self.places:
            self.places[stack] = _drawn(lengths, f"{self.seed}/{stack}")
        taps = [tap for group in self.groups if group.name.startswith(f"{layer}.") for tap in self._taps(group, stack)]
        with ExitStack() as open_hooks:
            for tap in taps:
                found = self.model.get_submodule(tap.reader)
                open_hooks.callback(found.register_forward_pre_hook(tap.take).remove)

            def before(clip: int) -> None:
                for tap in taps:
                    tap.clip = clip

            yield before
        for tap in taps:
            tap.save(self.folder)

    def _taps(self, group: Group, stack: str) -> list["_Tap"]:
        here = self.places[stack]
        if group.kind == "ffn":
            return [_Tap(f"{group.name}.inputs", group.slots[0].tensor.removesuffix(".weight"), here)]
        taps = [
            _Tap(f"{group.name}.inputs", f"{group.name}.q_proj", here),
            _Tap(f"{group.name}.context", f"{group.name}.out_proj", here),
        ]
        if group.memory_norm is not None:
            (self.folder / f"{group.name}.crosses").touch()
            if not (self.folder / "memory.npy").exists():  # the same for every layer
                encoder = next(places for name, places in self.places.items() if "encoder" in name)
                taps.append(_Tap("memory", f"{group.name}.k_proj", encoder))
        return taps


@dataclass
class _Tap:
    """Takes rows of what the module ``reader`` reads, at the places of each clip that were drawn."""

    name: str
    reader: str
    places: Sequence[np.ndarray]
    clip: int = 0
    rows: list[np.ndarray] = field(default_factory=list)

    def take(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """A forward pre-hook."""
        read = args[0].flatten(0, -2)[torch.from_numpy(self.places[self.clip])]
        self.rows.append(read.clamp(-_LARGEST, _LARGEST).half().numpy())

    def save(self, folder: Path) -> None:
        """Writes what was taken."""
        np.save(folder / f"{self.name}.npy", np.concatenate(self.rows))


def _drawn(lengths: Sequence[int], name: str) -> list[np.ndarray]:
    """For each clip the places that are kept, ascending."""
    total = sum(lengths)
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "little"))
    chosen = np.sort(rng.choice(total, min(total, MOST_ROWS), replace=False))
    ends = np.cumsum(lengths)
    parts = np.split(chosen, np.searchsorted(chosen, ends[:-1]))
    return [part - (end - length) for part, end, length in zip(parts, ends, lengths, strict=True)]
