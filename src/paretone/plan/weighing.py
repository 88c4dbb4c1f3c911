"""What allocation needs to know of the weights: variances of parameters, error curves, the size of the stream."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paretone.checkpoint import Checkpoint
from paretone.errors import UserError
from paretone.groups import Group, Stack, units_of
from paretone.methods import companion
from paretone.modules import ANALYSING, Analysis, module_of, work_bytes
from paretone.parallel import two_at_a_time
from paretone.plan.blueprint import Blueprint
from paretone.plan.material import Material
from paretone.progress import track

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

Analyses = dict[tuple[int, str], Analysis]
Trees = Mapping[tuple[int, str], "np.ndarray"]


def tensors_at(checkpoint: Checkpoint, model: Blueprint, names: Sequence[str]) -> "dict[str, Tensor]":
    """The source's tensors under the names that a step sees."""
    origins = [model.origin[name] for name in names]
    read = checkpoint.read(dict.fromkeys(origins))
    return {name: read[origin] for name, origin in zip(names, origins, strict=True)}


def check_untouched(checkpoint: Checkpoint, model: Blueprint, groups: Sequence[Group], where: str) -> None:
    """Refuses to weigh modules that an earlier step has narrowed: their weights do not exist yet.

    Raises:
        UserError: naming the first of them.
    """
    for group in groups:
        for slot in group.slots:
            if model.entries[slot.tensor].shape != checkpoint.entries[model.origin[slot.tensor]].shape:
                raise UserError(
                    f"{where}: this allocation reads weights, and an earlier step narrows {group.name}; "
                    "put it first, give it other units, or compress in two runs"
                )


def variances_of(checkpoint: Checkpoint, model: Blueprint, groups: Sequence[Group]) -> dict[str, float]:
    """Variance of all measured parameters of each module."""
    found = {}
    for group in track(groups, "weighing modules", len(groups)):
        names = [slot.tensor for slot in group.slots if slot.measured]
        tensors = [tensor.double() for tensor in tensors_at(checkpoint, model, names).values()]
        count = sum(tensor.numel() for tensor in tensors)
        mean = sum(float(tensor.sum()) for tensor in tensors) / count
        found[group.name] = sum(float((tensor - mean).square().sum()) for tensor in tensors) / count
    return found


def analyses_of(
    checkpoint: Checkpoint,
    model: Blueprint,
    groups: Sequence[Group],
    method: str,
    settings: Mapping[str, Any],
    material: Material | None = None,
) -> dict[str, Analysis]:
    """What every size of each module would cost, by the method's own error model, on the rows of ``material``."""
    analyse = companion(method, "analyse")
    assert analyse is not None

    def one(group: Group) -> Analysis:
        seen = None if material is None else material.seen(_source_name(model, group))
        norms = tensors_at(checkpoint, model, group.norms)
        module = module_of(group, tensors_at(checkpoint, model, group.tensors), norms, seen)
        found: Analysis = analyse(module, **settings)
        return found

    two = two_at_a_time(one, groups, bytes_each=work_bytes(groups, model.shapes, ANALYSING))
    analysed = track(two, "analysing modules", len(groups))
    return {group.name: analysis for group, analysis in zip(groups, analysed, strict=True)}


def trees_of(checkpoint: Checkpoint, model: Blueprint, groups: Sequence[Group], method: str) -> "dict[str, np.ndarray]":
    """The trees that ``method`` cuts at every size of a module."""
    tree_of = companion(method, "tree_of")
    assert tree_of is not None
    return {
        group.name: tree_of(units_of(group, tensors_at(checkpoint, model, group.tensors)))
        for group in track(groups, "growing trees", len(groups))
    }


def _source_name(model: Blueprint, group: Group) -> str:
    """What the source calls the module: steps renumber layers, and keep what follows the number."""
    tensor = group.slots[0].tensor
    return model.origin[tensor].removesuffix(tensor.removeprefix(group.name))


def error_weights(checkpoint: Checkpoint, model: Blueprint, analyses: Mapping[str, Analysis]) -> dict[str, float]:
    """λ of each module: one over the variance of the residual stream behind it, by the same model as the errors.

    In a pre-norm stack the stream grows by each module's output; in a post-norm stack it enters each sum at the size
    that the norm before gave it. Modules that are not analysed count with nothing.
    """
    table = model.table()
    weights: dict[str, float] = {}
    for stack in table.stacks:
        variance = stream_variance(checkpoint, model, stack)
        for group in table.groups:
            analysis = analyses.get(group.name)
            if analysis is None or not group.name.startswith(f"{stack.name}."):
                continue
            if stack.is_post_norm:
                variance = float(tensors_at(checkpoint, model, group.norms[:1])[group.norms[0]].double().square().sum())
            variance += analysis.variance
            weights[group.name] = 1 / variance if variance > 0 else 1.0
    return weights


def stream_variance(checkpoint: Checkpoint, model: Blueprint, stack: Stack) -> float:
    """Squared length of the stream that enters a stack, as its tensors let expect it."""
    total = 0.0
    for name in stack.projections:
        total += float(tensors_at(checkpoint, model, [name])[name].double().square().sum())
    for name in stack.tables:
        table = tensors_at(checkpoint, model, [name])[name]
        total += sum(float(rows.double().square().sum()) for rows in table.split(1024)) / len(table)
    return total
