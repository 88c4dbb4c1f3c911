"""How many units, or layers, stay: from a sparsity or a number of parameters."""

import math
from collections.abc import Callable, Mapping, Sequence

from paretone.errors import UserError
from paretone.groups import Group, Shapes

TOLERANCE = 0.005  # of the number of parameters asked for


def share_kept(width: int, sparsity: float) -> int:
    """round(width (1 - sparsity)), halves up: K of arXiv 2606.11836, section 3."""
    return math.floor(width * (1 - sparsity) + 0.5 + 1e-9)


def checked_keep(group: Group, keep: int, why: str) -> int:
    """``keep``, if it leaves the group at least one unit and no more than it has.

    Raises:
        UserError: otherwise.
    """
    if keep < 1:
        word = "head" if group.kind == "heads" else "hidden unit"
        raise UserError(f"{why} leaves {group.name} no {word} of {group.width}; ask for less, or spare it with a rule")
    if keep > group.width:
        raise UserError(f"{why}: {group.name} has {group.width} units and can't keep {keep}")
    return keep


def unit_parameters(group: Group, shapes: Shapes) -> int:
    """Parameters that leave with one unit."""
    return sum(math.prod(shapes[slot.tensor]) for slot in group.slots) // group.width


def unit_macs(group: Group, applied: Mapping[str, int], shapes: Shapes) -> int:
    """Multiply-accumulates that leave with one unit, for the reference input."""
    weights = sum(math.prod(shapes[slot.tensor]) * applied.get(slot.tensor, 0) for slot in group.slots)
    scores = 0
    if group.attends is not None:
        queries, keys = group.attends
        scores = 2 * queries * keys * group.width * group.head_dim
    return (weights + scores) // group.width


def widths_for_budget(
    groups: Sequence[Group],
    costs: Mapping[str, int],
    widths_at: Callable[[float], dict[str, int]],
    left: Callable[[Mapping[str, int]], int],
    *,
    target: float,
    what: str,
    asked: str,
) -> dict[str, int]:
    """One sparsity for all ``groups`` that leaves ``target``, met within 0.5 %.

    Widths stay as ``widths_at`` has them where that is near enough; else single modules get one unit more.

    Args:
        costs: what leaves the total with one unit of each group.
        widths_at: sparsity -> widths.
        left: widths -> what is left of the whole model.
        what: is counted, for messages ("parameters").

    Raises:
        UserError: if no sparsity comes near enough; says what can be reached.
    """
    low, high = 0.0, 1.0
    if left(widths_at(high)) > target * (1 + TOLERANCE):
        raise UserError(
            f"{asked}: what these units can shed leaves {left(widths_at(high)):,} {what} at the least, "
            f"and {target:,.0f} are asked for; ask for more, or shrink other units too"
        )
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if left(widths_at(middle)) > target else (low, middle)
    fewer, more = widths_at(high), widths_at(low)
    topped_up = _topped_up(groups, costs, fewer, target - left(fewer))
    trimmed = _trimmed(groups, costs, more, left(more) - target)
    best = min((fewer, more, topped_up, trimmed), key=_miss(left, target))
    for uniform in (fewer, more):
        if _miss(left, target)(uniform) <= TOLERANCE:
            return uniform
    if _miss(left, target)(best) > TOLERANCE:
        raise UserError(
            f"{asked}: {target:,.0f} {what} can't be met within {TOLERANCE:.1%}; the nearest are "
            f"{left(fewer):,} and {left(more):,}"
        )
    return best


def _miss(left: Callable[[Mapping[str, int]], int], target: float) -> Callable[[Mapping[str, int]], float]:
    return lambda widths: abs(left(widths) - target) / target


def _topped_up(
    groups: Sequence[Group], costs: Mapping[str, int], widths: Mapping[str, int], spare: float
) -> dict[str, int]:
    """Gives units back while ``spare`` parameters last, the dearest first, to one module after another."""
    widths = dict(widths)
    room = sorted((g for g in groups if widths[g.name] < g.width), key=lambda g: -costs[g.name])
    while room:
        for group in room:
            if costs[group.name] <= spare:
                widths[group.name] += 1
                spare -= costs[group.name]
        room = [g for g in room if costs[g.name] <= spare and widths[g.name] < g.width]
    last = min((g for g in groups if widths[g.name] < g.width), key=lambda g: abs(spare - costs[g.name]), default=None)
    if last is not None and abs(spare - costs[last.name]) < spare:
        widths[last.name] += 1
    return widths


def _trimmed(
    groups: Sequence[Group], costs: Mapping[str, int], widths: Mapping[str, int], excess: float
) -> dict[str, int]:
    """Takes units away while ``excess`` lasts, the dearest first, from one module after another."""
    widths = dict(widths)
    room = sorted((g for g in groups if widths[g.name] > 1), key=lambda g: -costs[g.name])
    while room:
        for group in room:
            if costs[group.name] <= excess:
                widths[group.name] -= 1
                excess -= costs[group.name]
        room = [g for g in room if costs[g.name] <= excess and widths[g.name] > 1]
    return widths
