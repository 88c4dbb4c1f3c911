"""From error curves to what an allocation may choose: multiples, floors, and modules that must be of one size."""

from collections.abc import Mapping, Sequence

import numpy as np

from paretone.groups import Group
from paretone.modules import Analysis
from paretone.plan.allocation import Choice
from paretone.plan.recipe import Step


def choices_of(
    groups: Sequence[Group],
    analyses: Mapping[str, Analysis],
    weights: Mapping[str, float],
    units: Mapping[str, int],
    step: Step,
) -> list[Choice]:
    """One choice for each module, or for the modules of a stack that ``step.profile`` ties together.

    Args:
        weights: of each module's error.
        units: what one whole unit of each group weighs in the budget.
    """
    tied: dict[str, list[Choice]] = {}
    for group in groups:
        choice = _choice(group, analyses[group.name], weights[group.name], units[group.name], step)
        tied.setdefault(_tie(group, step), []).append(choice)
    return [_together(choices) for choices in tied.values()]


def _choice(group: Group, analysis: Analysis, weight: float, unit: int, step: Step) -> Choice:
    is_heads = group.kind == "heads"
    share = analysis.keep * (analysis.head_dim / group.head_dim if is_heads else 1)
    whole = (analysis.keep == group.width) & (analysis.head_dim == group.head_dim if is_heads else True)
    allowed = share >= step.floor * group.width - 1e-9
    if is_heads:
        multiple = min(8, step.multiple)
        allowed &= analysis.head_dim % multiple == 0
        if step.profile == "stock":
            allowed &= False
    else:
        allowed &= analysis.keep % step.multiple == 0
    allowed |= whole
    return Choice(
        (group.name,),
        analysis.keep[allowed],
        analysis.head_dim[allowed],
        share[allowed] * unit,
        analysis.error[allowed] * weight,
    )


def _tie(group: Group, step: Step) -> str:
    """Modules with one tie get one size."""
    stack = group.name.split(".layers.")[0]
    if (step.profile == "equal-heads" and group.kind == "heads") or (step.profile == "stock" and group.kind == "ffn"):
        return f"{stack} {group.kind} {group.width} {group.head_dim}"
    return group.name


def _together(choices: Sequence[Choice]) -> Choice:
    """The options that all of ``choices`` have, sizes and errors added up."""
    if len(choices) == 1:
        return choices[0]
    tables = [{(int(k), int(d)): i for i, (k, d) in enumerate(zip(c.keep, c.head_dim, strict=True))} for c in choices]
    common = [option for option in tables[0] if all(option in table for table in tables)]
    picked = [[table[option] for option in common] for table in tables]
    return Choice(
        tuple(name for choice in choices for name in choice.names),
        np.array([keep for keep, _ in common]),
        np.array([head_dim for _, head_dim in common]),
        np.sum([c.size[index] for c, index in zip(choices, picked, strict=True)], axis=0),
        np.sum([c.error[index] for c, index in zip(choices, picked, strict=True)], axis=0),
    )
