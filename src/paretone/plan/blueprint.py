"""Blueprints: a model as config and tensor shapes, and what a step makes of it. No weights are read."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from paretone.checkpoint import Entry, size_bytes
from paretone.families import table_of
from paretone.groups import Stack, Table, macs_of

TIED = "proj_out.weight"  # Whisper's output projection, which is the decoder's embedding where both are stored
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Blueprint:
    """A model before or after a step.

    Attributes:
        entries: tensor name -> dtype and shape.
        origin: tensor name -> the source checkpoint's name of that tensor.
        where: the source, for messages.
    """

    config: Mapping[str, Any]
    entries: Mapping[str, Entry]
    origin: Mapping[str, str]
    where: str

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensor name -> shape."""
        return {name: entry.shape for name, entry in self.entries.items()}

    def table(self) -> Table:
        """What can shrink."""
        return table_of(self.config, self.shapes, self.where)

    @property
    def parameters(self) -> int:
        """Number of parameters; a tied tensor counts once, running statistics not at all."""
        return sum(math.prod(entry.shape) for name, entry in self.entries.items() if _is_parameter(name))

    @property
    def size_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(size_bytes(entry) for entry in self.entries.values())

    @property
    def macs(self) -> int:
        """Multiply-accumulates for the family's reference input."""
        return macs_of(self.table(), self.shapes)


def _is_parameter(name: str) -> bool:
    return name != TIED and not name.endswith(BUFFERS)


def narrowed(model: Blueprint, widths: Mapping[str, int], head_dims: Mapping[str, int] | None = None) -> Blueprint:
    """``model`` with the groups named in ``widths`` at those widths, and heads at the sizes of ``head_dims``."""
    table = model.table()
    entries = dict(model.entries)
    sizes = dict(model.config.get("layer_head_dims") or {})
    for group in table.groups:
        keep = widths.get(group.name, group.width)
        head_dim = (head_dims or {}).get(group.name, group.head_dim)
        for slot in group.slots:
            shape = list(entries[slot.tensor].shape)
            shape[slot.axis] = keep * (slot.rows if slot.rows != group.head_dim else head_dim)
            entries[slot.tensor] = replace(entries[slot.tensor], shape=tuple(shape))
        if head_dim != group.head_dim:
            sizes[group.name.removeprefix(table.prefix)] = head_dim
    config = {**model.config, "layer_head_dims": sizes} if sizes else model.config
    return replace(model, entries=entries, config=config)


def shallower(model: Blueprint, stack: Stack, keep: tuple[int, ...]) -> Blueprint:
    """``model`` with only the layers ``keep`` of ``stack``, renumbered from 0."""
    names = {name: new for name in model.entries if (new := layer_name(name, stack, keep)) is not None}
    config = dict(model.config)
    config[stack.config_key] = len(keep)
    prefix = model.table().prefix
    sizes = {
        new.removeprefix(prefix): size
        for name, size in (config.get("layer_head_dims") or {}).items()
        if (new := layer_name(prefix + name, stack, keep)) is not None
    }
    if "layer_head_dims" in config:
        config["layer_head_dims"] = sizes
    if stack.config_key == "encoder_layers" and "num_hidden_layers" in config:
        config["num_hidden_layers"] = len(keep)  # Whisper's second name for the same number
    return replace(
        model,
        config=config,
        entries={new: model.entries[old] for old, new in names.items()},
        origin={new: model.origin[old] for old, new in names.items()},
    )


def layer_name(name: str, stack: Stack, keep: tuple[int, ...]) -> str | None:
    """The name that tensor or module ``name`` has once only ``keep`` is left of ``stack``; None if it goes."""
    head = f"{stack.name}."
    if not name.startswith(head):
        return name
    number, _, rest = name.removeprefix(head).partition(".")
    if rest in stack.pinned:
        return f"{head}0.{rest}"
    return f"{head}{keep.index(int(number))}.{rest}" if int(number) in keep else None
