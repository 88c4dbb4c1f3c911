"""How much of each module stays: variance tiers as published, or least modelled error for a budget.

Pure functions of numbers; which weights they came from is `plan.weighing`'s business.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from paretone.groups import Group
from paretone.plan.budget import share_kept

_ROUNDING = 1e-9  # of the budget: sizes are added up in float64
TIER_SHIFT = 0.2  # s of arXiv 2606.11836: how much more a high-variance module keeps


def module_kind(name: str) -> str:
    """The name without its layer's number: modules of one kind share it."""
    return re.sub(r"\.\d+(?=\.|$)", ".*", name)


def tiered_widths(
    groups: Sequence[Group], variances: Mapping[str, float], costs: Mapping[str, int], sparsity: float
) -> dict[str, int]:
    """Widths by the variance of parameters: of each kind of module a third keeps more, a third the base, a third less.

    High variance: ⌊K (1 + s)⌋, at most all; middle: K; low: what keeps the number of units of that kind exact. Thirds
    are thirds of the kind's parameters.

    Source: arXiv 2606.11836 (mixed sparsity, s = 0.2); thirds by parameters and the clamp are our reading.
    """
    widths: dict[str, int] = {}
    kinds: dict[str, list[Group]] = {}
    for group in groups:
        kinds.setdefault(module_kind(group.name), []).append(group)
    for members in kinds.values():
        base = {g.name: max(1, share_kept(g.width, sparsity)) for g in members}
        high, middle, low = _thirds(members, variances, costs)
        for g in high:
            widths[g.name] = min(g.width, math.floor(base[g.name] * (1 + TIER_SHIFT) + 1e-9)) if low else base[g.name]
        widths |= {g.name: base[g.name] for g in middle}
        rest = sum(base.values()) - sum(widths[g.name] for g in (*high, *middle))
        widths |= _shared_out(low, base, rest)
        _give_back(members, widths, sum(base.values()))
    return widths


def _thirds(
    groups: Sequence[Group], variances: Mapping[str, float], costs: Mapping[str, int]
) -> tuple[list[Group], list[Group], list[Group]]:
    order = sorted(groups, key=lambda g: -variances[g.name])
    total = sum(costs[g.name] * g.width for g in order)
    tiers: tuple[list[Group], list[Group], list[Group]] = ([], [], [])
    before = 0
    for g in order:
        size = costs[g.name] * g.width
        tiers[min(2, int(3 * (before + size / 2) / total))].append(g)
        before += size
    return tiers


def _shared_out(groups: Sequence[Group], base: Mapping[str, int], units: int) -> dict[str, int]:
    """``units`` over ``groups`` in proportion to ``base`` as nearly as whole numbers allow, at least one each."""
    whole = sum(base[g.name] for g in groups)
    exact = {g.name: base[g.name] * units / whole for g in groups}
    widths = {g.name: max(1, math.floor(exact[g.name] + 1e-9)) for g in groups}
    missing = units - sum(widths.values())
    for g in sorted(groups, key=lambda g: widths[g.name] - exact[g.name])[: max(0, missing)]:
        widths[g.name] += 1
    return widths


def _give_back(groups: Sequence[Group], widths: dict[str, int], wanted: int) -> None:
    """Where the low third can't give enough, the widest give one unit each until the sum is ``wanted``."""
    while sum(widths[g.name] for g in groups) > wanted:
        widest = max(groups, key=lambda g: widths[g.name])
        if widths[widest.name] == 1:
            return
        widths[widest.name] -= 1


@dataclass(frozen=True)
class Choice:
    """One module, or several that must be of one size, with every size that they may have.

    Attributes:
        names: of the modules.
        keep, head_dim: (options,) units and rows of a head for each option.
        size: (options,) what the modules then weigh in the budget, together.
        error: (options,) what that costs, together.
    """

    names: tuple[str, ...]
    keep: np.ndarray
    head_dim: np.ndarray
    size: np.ndarray
    error: np.ndarray


def least_error(choices: Sequence[Choice], budget: float) -> list[int]:
    """For each choice the number of its option, so that sizes add up to ``budget`` at most and errors to the least.

    Greedy on the lower convex hulls, which is optimal up to one option; the room that is left goes to whatever option
    takes most error away for its size. The choice whose step meets the budget may be too coarse for it: the others
    are then tried in its place. Choices whose smallest options exceed the budget together stay at those.
    """
    budget += _ROUNDING * abs(budget)
    hulls = [_hull(choice) for choice in choices]
    last, picked = _descended(choices, hulls, budget, None)
    found = [_filled_up(choices, picked, budget)]
    if last is not None:
        _, picked = _descended(choices, hulls, budget, last)
        if _total(choices, picked) <= budget:
            found.append(_filled_up(choices, picked, budget))
    return min(found, key=lambda options: sum(float(c.error[o]) for c, o in zip(choices, options, strict=True)))


def _total(choices: Sequence[Choice], picked: Sequence[int]) -> float:
    return sum(float(choice.size[option]) for choice, option in zip(choices, picked, strict=True))


def _descended(
    choices: Sequence[Choice], hulls: Sequence[list[int]], budget: float, spared: tuple[int, int] | None
) -> tuple[tuple[int, int] | None, list[int]]:
    """Steps down the hulls, the cheapest first, until sizes fit; the step that made them fit, and the options.

    ``spared`` is a (choice, step) from which on that choice takes none.
    """
    steps = sorted(
        (slope, number, place)
        for number, (choice, hull) in enumerate(zip(choices, hulls, strict=True))
        for place, slope in enumerate(_slopes(choice, hull))
        if spared is None or number != spared[0] or place < spared[1]
    )
    picked = [hull[0] for hull in hulls]
    total = _total(choices, picked)
    last = None
    for _, number, place in steps:
        if total <= budget:
            break
        choice, hull = choices[number], hulls[number]
        total -= float(choice.size[hull[place]] - choice.size[hull[place + 1]])
        picked[number], last = hull[place + 1], (number, place)
    return last, picked


def _hull(choice: Choice) -> list[int]:
    """Options on the lower convex hull of (size, error), from the largest to the smallest."""
    order = np.lexsort((choice.error, -choice.size))
    hull: list[int] = []
    for option in order.tolist():
        if hull and choice.size[option] == choice.size[hull[-1]]:
            continue
        while len(hull) > 1 and _slope(choice, hull[-2], hull[-1]) >= _slope(choice, hull[-1], option):
            hull.pop()
        hull.append(option)
    return hull


def _slope(choice: Choice, larger: int, smaller: int) -> float:
    return float((choice.error[smaller] - choice.error[larger]) / (choice.size[larger] - choice.size[smaller]))


def _slopes(choice: Choice, hull: Sequence[int]) -> list[float]:
    return [_slope(choice, larger, smaller) for larger, smaller in itertools.pairwise(hull)]


def _filled_up(choices: Sequence[Choice], picked: list[int], budget: float) -> list[int]:
    room = budget - _total(choices, picked)
    while True:
        best: tuple[float, int, int] | None = None
        for number, choice in enumerate(choices):
            now = picked[number]
            more = choice.size - choice.size[now]
            less = choice.error[now] - choice.error
            fits = (more > 0) & (more <= room) & (less > 0)
            if fits.any():
                rate = np.where(fits, less / np.where(fits, more, 1), -np.inf)
                option = int(rate.argmax())
                if best is None or rate[option] > best[0]:
                    best = (float(rate[option]), number, option)
        if best is None:
            return picked
        _, number, option = best
        room -= float(choices[number].size[option] - choices[number].size[picked[number]])
        picked[number] = option
