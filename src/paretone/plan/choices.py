"""From error curves to what an allocation may choose: multiples, floors, and modules that must be of one size."""

from collections.abc import Mapping, Sequence

import numpy as np

from paretone.errors import UserError
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
    where: str,
) -> list[Choice]:
    """One choice for each module, or for the modules of a stack that ``step.profile`` ties together.

    Args:
        weights: of each module's error.
        units: what one whole unit of each group weighs in the budget.

    Raises:
        UserError: if modules that are to be of one size have none in common.
    """
    tied: dict[str, list[Choice]] = {}
    for group in groups:
        choice = _choice(group, analyses[group.name], weights[group.name], units[group.name], step)
        tied.setdefault(tie(group, step), []).append(choice)
    for choices in tied.values():
        if not _common(choices):
            raise UserError(
                f"{where}: {choices[0].names[0]} and the others of its stack have no size in common that floor "
                f"{step.floor:g} and multiple {step.multiple} allow; profile {step.profile} can't be met"
            )
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


def tie(group: Group, step: Step) -> str:
    """Modules with one tie get one size."""
    stack = group.name.split(".layers.")[0]
    if (step.profile == "equal-heads" and group.kind == "heads") or (step.profile == "stock" and group.kind == "ffn"):
        return f"{stack} {group.kind}"
    return group.name


def _together(choices: Sequence[Choice]) -> Choice:
    """The options that all of ``choices`` have, sizes and errors added up."""
    if len(choices) == 1:
        return choices[0]
    common = _common(choices)
    tables = [_numbers(choice) for choice in choices]
    picked = [[table[option] for option in common] for table in tables]
    return Choice(
        tuple(name for choice in choices for name in choice.names),
        np.array([keep for keep, _ in common]),
        np.array([head_dim for _, head_dim in common]),
        np.sum([c.size[index] for c, index in zip(choices, picked, strict=True)], axis=0),
        np.sum([c.error[index] for c, index in zip(choices, picked, strict=True)], axis=0),
    )


def _common(choices: Sequence[Choice]) -> list[tuple[int, int]]:
    """Sizes that all of ``choices`` have."""
    first, *others = (_numbers(choice) for choice in choices)
    return [size for size in first if all(size in other for other in others)]


def _numbers(choice: Choice) -> dict[tuple[int, int], int]:
    """Size -> number of the option."""
    sizes = zip(choice.keep.tolist(), choice.head_dim.tolist(), strict=True)
    return {size: number for number, size in enumerate(sizes)}
