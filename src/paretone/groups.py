"""Groups: tensor axes that must shrink together, and folds: how a group's units become fewer.

Knows tensor names and shapes only; no disk, no family, no method.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["heads", "ffn"]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Slot:
    """One axis of one tensor along which a group's units lie, ``rows`` entries to a unit.

    A producer computes the unit (q, k, v, fc1 and their biases), a consumer reads it (the output projection, fc2).
    ``measured`` slots make up the unit's vector; biases move with their unit without being compared.
    """

    tensor: str
    axis: int
    rows: int
    role: Literal["producer", "consumer"]
    measured: bool = True


@dataclass(frozen=True)
class Group:
    """The units of one module: the heads of an attention or the hidden units of a feed-forward network.

    Attributes:
        name: full name of the module.
        slots: every tensor axis that shrinks with the units, producers before consumers.
        config_key: the config field that holds this width for the whole stack, or None where no field can.
        attends: (queries, keys) of the reference input, for attention.
        head_dim: rows of one head; the size at which the model was trained is ``trained_head_dim``.
        output_bias: the bias behind the consumer; its size stays.
        norm: the layer norm whose output the producers read.
        memory_norm: the one that keys and values read, where it is another (cross-attention).
        activation: between producer and consumer of an FFN, in transformers' words.
    """

    name: str
    kind: Kind
    width: int
    slots: tuple[Slot, ...]
    config_key: str | None = None
    attends: tuple[int, int] | None = None
    head_dim: int = 0
    trained_head_dim: int = 0
    output_bias: str | None = None
    norm: str = ""
    memory_norm: str | None = None
    activation: str = ""

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of all tensors that a method may change: those of the slots, then the bias behind the consumer."""
        return (*(slot.tensor for slot in self.slots), *([self.output_bias] if self.output_bias else []))

    @property
    def norms(self) -> tuple[str, ...]:
        """Names of the tensors of the norms in front, scale before shift."""
        names = [self.norm, *([self.memory_norm] if self.memory_norm else [])]
        return tuple(f"{name}.{part}" for name in names for part in ("weight", "bias"))

    @property
    def can_merge_heads(self) -> bool:
        """Whether heads are told apart by their projections alone (WavLM's also by a position bias of their own)."""
        parts = (".q_proj.", ".k_proj.", ".v_proj.", ".out_proj.")
        return all(any(part in slot.tensor for part in parts) for slot in self.slots)


@dataclass(frozen=True)
class Stack:
    """Layers that can be dropped: ``<name>.0`` to ``<name>.<depth - 1>``.

    ``pinned`` tensors of layer 0 belong to the whole stack and stay with whichever layer comes first.

    Attributes:
        projections: tensors that write the stream that enters layer 0, each from inputs of unit variance.
        tables: tensors of which one row is added to that stream at each place.
        is_post_norm: whether each sum of stream and module passes through a norm of its own.
    """

    name: str
    depth: int
    config_key: str
    pinned: tuple[str, ...] = ()
    projections: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    is_post_norm: bool = False


@dataclass(frozen=True)
class Table:
    """What can shrink in one model.

    Attributes:
        prefix: what precedes the base model's names ("hubert.", "model." or nothing).
        reference: the input that MACs are counted for, in words.
        applied: tensor name -> how often the tensor is multiplied for the reference input.
    """

    prefix: str
    groups: tuple[Group, ...]
    stacks: tuple[Stack, ...]
    reference: str
    applied: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Units:
    """The measured weights of a group, one row per unit, float32.

    ``incoming`` (width, a): producers, row after row; ``outgoing`` (width, b): consumers, transposed.
    """

    incoming: "Tensor"
    outgoing: "Tensor"

    @property
    def width(self) -> int:
        """Number of units."""
        return len(self.incoming)


@dataclass(frozen=True)
class Fold:
    """Which old units make up each new one; a selection and a clustering have this same shape.

    Attributes:
        members: (width,) int64, the new unit that each old unit joins, -1 where it is dropped.
        down: (width,) float32, the weight with which a unit enters its new unit's producers.
        up: (width,) float32, the same for consumers.
        representative: (keep,) int64, the old unit that stands for the new one where units can't be averaged
            (the position bias of a head).
    """

    members: "Tensor"
    down: "Tensor"
    up: "Tensor"
    representative: "Tensor"

    @property
    def keep(self) -> int:
        """Number of new units."""
        return len(self.representative)

    @classmethod
    def select(cls, kept: "Tensor", width: int) -> "Fold":
        """Keeps the units ``kept`` (ascending) unchanged and drops the rest."""
        import torch

        members = torch.full((width,), -1)
        members[kept] = torch.arange(len(kept))
        ones = torch.ones(width)
        return cls(members, ones, ones, kept)

    @property
    def is_selection(self) -> bool:
        """Whether every new unit is one old unit with weight 1."""
        kept = self.members >= 0
        return int(kept.sum()) == self.keep and bool((self.down[kept] == 1).all() and (self.up[kept] == 1).all())


def shrink(tensor: "Tensor", slot: Slot, fold: Fold) -> "Tensor":
    """``tensor`` with the units on ``slot.axis`` folded; same dtype, summed in float32 or better."""

    one_row = slot.rows == 1  # summing along a dimension of its own takes five times as long
    split = tensor if one_row else tensor.unflatten(slot.axis, (len(fold.members), slot.rows))
    merged = _merged(split, slot, fold).to(tensor.dtype)
    return merged if one_row else merged.flatten(slot.axis, slot.axis + 1)


def _merged(split: "Tensor", slot: Slot, fold: Fold) -> "Tensor":
    """``split`` with its units, one index of ``slot.axis`` each, folded."""
    import torch

    if fold.is_selection:
        return split.index_select(slot.axis, fold.representative)
    exact = split.to(torch.promote_types(split.dtype, torch.float32))
    weights = (fold.down if slot.role == "producer" else fold.up).to(exact.dtype)
    if not bool((weights == 1).all()):
        shape = [1] * split.dim()
        shape[slot.axis] = -1
        exact = exact * weights.view(shape)
    members, kept = fold.members, fold.members >= 0
    if not bool(kept.all()):
        members, exact = members[kept], exact[(slice(None),) * slot.axis + (kept,)]
    merged_shape = list(split.shape)
    merged_shape[slot.axis] = fold.keep
    return torch.zeros(merged_shape, dtype=exact.dtype).index_add_(slot.axis, members, exact)


def units_of(group: Group, weights: Mapping[str, "Tensor"]) -> Units:
    """Lays the measured weights of ``group`` out one row per unit."""
    import torch

    sides: dict[str, list[Tensor]] = {"producer": [], "consumer": []}
    for slot in group.slots:
        if slot.measured:
            tensor = weights[slot.tensor].movedim(slot.axis, 0)
            sides[slot.role].append(tensor.reshape(group.width, -1).float())
    incoming, outgoing = (torch.cat(parts, dim=1) if len(parts) > 1 else parts[0] for parts in sides.values())
    return Units(incoming, outgoing)


def ffn_group(
    name: str, fc_in: str, fc_out: str, shapes: Shapes, *, config_key: str, norm: str, activation: str
) -> Group:
    """The hidden units between the linear layers ``fc_in`` and ``fc_out``: unit vector [fc1 | fc2ᵀ]."""
    slots = (
        Slot(f"{fc_in}.weight", 0, 1, "producer"),
        Slot(f"{fc_in}.bias", 0, 1, "producer", measured=False),
        Slot(f"{fc_out}.weight", 1, 1, "consumer"),
    )
    return Group(
        name,
        "ffn",
        shapes[f"{fc_in}.weight"][0],
        _present(slots, shapes),
        config_key,
        output_bias=_if_present(f"{fc_out}.bias", shapes),
        norm=norm,
        activation=activation,
    )


def heads_group(
    name: str,
    shapes: Shapes,
    *,
    head_dim: int,
    trained_head_dim: int,
    attends: tuple[int, int],
    norm: str,
    memory_norm: str | None = None,
    per_head: tuple[Slot, ...] = (),
) -> Group:
    """The heads of the attention ``name``: unit vector [q | k | v | oᵀ], ``head_dim`` x 4 width of the model.

    ``per_head`` names further tensors with one entry a head.
    """
    projections = [f"{name}.{p}_proj" for p in "qkv"]
    slots = (
        *(Slot(f"{p}.weight", 0, head_dim, "producer") for p in projections),
        *(Slot(f"{p}.bias", 0, head_dim, "producer", measured=False) for p in projections),
        *per_head,
        Slot(f"{name}.out_proj.weight", 1, head_dim, "consumer"),
    )
    return Group(
        name,
        "heads",
        shapes[f"{name}.q_proj.weight"][0] // head_dim,
        _present(slots, shapes),
        attends=attends,
        head_dim=head_dim,
        trained_head_dim=trained_head_dim,
        output_bias=_if_present(f"{name}.out_proj.bias", shapes),
        norm=norm,
        memory_norm=memory_norm,
    )


def _if_present(name: str, shapes: Shapes) -> str | None:
    return name if name in shapes else None


def _present(slots: tuple[Slot, ...], shapes: Shapes) -> tuple[Slot, ...]:
    """Biases are optional (Whisper's k_proj has none); weights are not."""
    return tuple(slot for slot in slots if slot.measured or slot.tensor in shapes)


def macs_of(table: Table, shapes: Shapes) -> int:
    """Multiply-accumulates for the table's reference input: every product of weights, and attention's two products."""
    weights = sum(math.prod(shapes[name]) * times for name, times in table.applied.items())
    scores = 0
    for group in table.groups:
        if group.attends is not None:
            queries, keys = group.attends
            scores += 2 * queries * keys * group.width * group.head_dim
    return weights + scores
