"""Modules as mathematics: an attention or a feed-forward network with the norm in front, and what a method makes of it.

A method that only selects or averages units needs no more than `groups.Units`. One that writes new weights takes a
whole module and returns a `Rewrite`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paretone.errors import UserError
from paretone.groups import Group

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True)
class Norm:
    """A layer norm: it hands on ``scale * z + shift``, with z of mean 0 and squared length ``model``. Both (model,)."""

    scale: "Tensor"
    shift: "Tensor"


@dataclass(frozen=True)
class Seen:
    """Rows that were seen at a module while the model ran; all float32.

    Attributes:
        inputs: (rows, model), what the producers read.
        memory: (rows, model), what keys and values read, where it is something else (cross-attention).
        context: (rows, heads * head_dim), what an attention's output projection reads.
    """

    inputs: "Tensor"
    memory: "Tensor | None" = None
    context: "Tensor | None" = None


@dataclass(frozen=True)
class FeedForward:
    """weight_out · activation(weight_in · x + bias_in) + bias_out, float64.

    Shapes: weight_in (units, model), bias_in (units,), weight_out (model, units), bias_out (model,).
    """

    weight_in: "Tensor"
    bias_in: "Tensor"
    weight_out: "Tensor"
    bias_out: "Tensor"
    norm: Norm
    activation: str
    seen: Seen | None = None

    @property
    def width(self) -> int:
        """Number of hidden units."""
        return len(self.bias_in)


@dataclass(frozen=True)
class Attention:
    """Multi-head attention, float64.

    Shapes: query, key, value (heads, head_dim, model) and their biases (heads, head_dim), zeros where the model has
    none; output (heads, model, head_dim), output_bias (model,).

    Attributes:
        norm: in front of the queries.
        memory_norm: in front of keys and values; the same object in self-attention.
        scale: of the scores; that of the head size at which the model was trained.
        can_merge: whether heads differ by their projections alone.
    """

    query: "Tensor"
    query_bias: "Tensor"
    key: "Tensor"
    key_bias: "Tensor"
    value: "Tensor"
    value_bias: "Tensor"
    output: "Tensor"
    output_bias: "Tensor"
    norm: Norm
    memory_norm: Norm
    scale: float
    can_merge: bool = True
    seen: Seen | None = None

    @property
    def width(self) -> int:
        """Number of heads."""
        return len(self.query)

    @property
    def head_dim(self) -> int:
        """Rows of one head."""
        return int(self.query.shape[1])


Module = FeedForward | Attention


@dataclass(frozen=True)
class Analysis:
    """What every size of a module would cost, as a method's own model sees it.

    Attributes:
        keep: (options,) int64, units.
        head_dim: (options,) int64, rows of a head; zeros for an FFN.
        error: (options,) float64, the expected squared error at the module's output, in the residual's own units.
        variance: of the module's output, in the same units.
        order: of an FFN, units from the first to go to the last, so that the rewriting need not search again.
        clusters: of an attention, for every number of heads from all down, the heads that make up each new one.
    """

    keep: "np.ndarray"
    head_dim: "np.ndarray"
    error: "np.ndarray"
    variance: float
    order: "Tensor | None" = None
    clusters: tuple[tuple[tuple[int, ...], ...], ...] = ()


@dataclass(frozen=True)
class Rewrite:
    """A module with new weights.

    Attributes:
        members: (width before,) int64, the new unit that each old unit went into; -1 where it is gone.
        representative: (width after,) int64, the old unit that stands for each new one.
    """

    module: Module
    members: "Tensor"
    representative: "Tensor"


ANALYSING, REWRITING = 2, 3  # so many copies of a module's tensors in float64 are in memory at the peak (measured)


def work_bytes(groups: Iterable[Group], shapes: Mapping[str, tuple[int, ...]], copies: int) -> int:
    """About what working on the largest of ``groups`` takes: ``copies`` of its tensors, for an FFN two covariances.

    Args:
        shapes: of the groups' tensors, by name.
    """

    def one(group: Group) -> int:
        elements = sum(math.prod(shapes[name]) for name in group.tensors)
        return 8 * copies * elements + (8 * group.width**2 if group.kind == "ffn" else 0)  # covariances in float32

    return max(map(one, groups), default=0)


def module_of(
    group: Group, tensors: Mapping[str, "Tensor"], norms: Mapping[str, "Tensor"], seen: Seen | None = None
) -> Module:
    """The module of ``group`` from its tensors and those of the norms in front of it, in float64.

    Raises:
        UserError: if the module lacks a bias that its rewriting needs.
    """
    if group.kind == "ffn":
        return _feed_forward(group, tensors, norms, seen)
    return _attention(group, tensors, norms, seen)


def _feed_forward(
    group: Group, tensors: Mapping[str, "Tensor"], norms: Mapping[str, "Tensor"], seen: Seen | None
) -> FeedForward:
    names = [slot.tensor for slot in group.slots]
    if len(names) < 3 or group.output_bias is None:
        raise UserError(f"{group.name} has no biases; closed_form can't rewrite it, take cluster or magnitude")
    weight_in, bias_in, weight_out, bias_out = (tensors[name].double() for name in (*names, group.output_bias))
    return FeedForward(weight_in, bias_in, weight_out, bias_out, _norm(group.norm, norms), group.activation, seen)


def _attention(
    group: Group, tensors: Mapping[str, "Tensor"], norms: Mapping[str, "Tensor"], seen: Seen | None
) -> Attention:
    import torch

    def rows(part: str) -> "Tensor":
        return tensors[f"{group.name}.{part}_proj.weight"].double().unflatten(0, (group.width, group.head_dim))

    def bias(part: str) -> "Tensor":
        found = tensors.get(f"{group.name}.{part}_proj.bias")
        shape = (group.width, group.head_dim)
        return torch.zeros(shape, dtype=torch.float64) if found is None else found.double().view(shape)

    if group.output_bias is None or any(f"{group.name}.{part}_proj.bias" not in tensors for part in "qv"):
        raise UserError(f"{group.name} has no biases; closed_form can't rewrite it, take cluster or magnitude")
    output = tensors[f"{group.name}.out_proj.weight"].double().unflatten(1, (group.width, group.head_dim))
    norm = _norm(group.norm, norms)
    return Attention(
        rows("q"),
        bias("q"),
        rows("k"),
        bias("k"),
        rows("v"),
        bias("v"),
        output.movedim(1, 0),
        tensors[group.output_bias].double(),
        norm,
        _norm(group.memory_norm, norms) if group.memory_norm else norm,
        scale=group.trained_head_dim**-0.5,
        can_merge=group.can_merge_heads,
        seen=seen,
    )


def _norm(name: str, norms: Mapping[str, "Tensor"]) -> Norm:
    return Norm(norms[f"{name}.weight"].double(), norms[f"{name}.bias"].double())


def tensors_of(group: Group, rewrite: Rewrite, before: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """The tensors of ``group`` after a rewriting, by name, in the dtype that each had ``before``.

    What a head has beside its projections (WavLM's gate) is taken over from its representative.
    """
    module = rewrite.module
    if isinstance(module, FeedForward):
        names = (*(slot.tensor for slot in group.slots), str(group.output_bias))
        values = (module.weight_in, module.bias_in, module.weight_out, module.bias_out)
        new = dict(zip(names, values, strict=True))
    else:
        new = _attention_tensors(group, module)
        for slot in group.slots:
            if slot.tensor not in new:
                new[slot.tensor] = before[slot.tensor].index_select(slot.axis, rewrite.representative)
    return {name: new[name].to(before[name].dtype).contiguous() for name in group.tensors}


def _attention_tensors(group: Group, module: Attention) -> dict[str, "Tensor"]:
    parts = {
        "q": (module.query, module.query_bias),
        "k": (module.key, module.key_bias),
        "v": (module.value, module.value_bias),
    }
    new: dict[str, Tensor] = {}
    for part, (weight, bias) in parts.items():
        new[f"{group.name}.{part}_proj.weight"] = weight.flatten(0, 1)
        if any(slot.tensor == f"{group.name}.{part}_proj.bias" for slot in group.slots):
            new[f"{group.name}.{part}_proj.bias"] = bias.flatten()
    new[f"{group.name}.out_proj.weight"] = module.output.movedim(0, 1).flatten(1)
    new[str(group.output_bias)] = module.output_bias
    return new
