"""Everything that a grid's numbers say, worked out once for its page, tables and figures."""

from collections.abc import Sequence
from dataclasses import dataclass

from paretone.report.grid.comparisons import Family, compare_ways
from paretone.report.grid.front import front_of
from paretone.report.grid.pooling import Way, ways_of
from paretone.report.grid.records import Grid
from paretone.results.family import Fit, fit_interaction

LATENCY = "latency"


@dataclass(frozen=True)
class Panel:
    """The ways whose WERs may stand in one picture.

    Attributes:
        name: labels of the axes that make panels; empty where there are none.
        fronts: by denominator, and `LATENCY`: ways that none beats, the cheapest first.
    """

    name: str
    ways: Sequence[Way]
    fronts: dict[str, list[Way]]


@dataclass(frozen=True)
class Analysis:
    """What follows from a grid.

    Attributes:
        fit: a linear model of the cells' WERs; None where there are fewer than three or they differ in nothing.
    """

    grid: Grid
    ways: Sequence[Way]
    family: Family
    panels: Sequence[Panel]
    fit: Fit | None

    @property
    def denominators(self) -> list[str]:
        """All that some way has its parameters by, the smallest part first."""
        most = max((way.parameters for way in self.ways), key=len)
        return list(most)


def analyse(grid: Grid) -> Analysis:
    """Work out all statistics of a grid.

    Raises:
        UserError: if there is no cell, or cells that belong together did not hear the same.
    """
    ways = ways_of(grid)
    return Analysis(grid, ways, compare_ways(grid, ways), _panels(grid, ways), _fit(grid))


def _panels(grid: Grid, ways: Sequence[Way]) -> list[Panel]:
    groups: dict[str, list[Way]] = {}
    for way in ways:
        groups.setdefault(grid.named(way.labels, grid.panel_axes), []).append(way)
    return [Panel(name, found, _fronts(found)) for name, found in groups.items()]


def _fronts(ways: Sequence[Way]) -> dict[str, list[Way]]:
    fronts = {}
    for name in dict.fromkeys(name for way in ways for name in way.parameters):
        having = [way for way in ways if name in way.parameters]
        fronts[name] = [having[place] for place in front_of([(way.parameters[name], way.wer) for way in having])]
    fronts[LATENCY] = [ways[place] for place in front_of([(way.latency_s, way.wer) for way in ways])]
    return fronts


def _fit(grid: Grid) -> Fit | None:
    axes = grid.open_axes
    if len(grid.cells) < 3 or not axes:
        return None
    steps = {axis: step_of(grid, axis) for axis in grid.numeric_axes}
    return fit_interaction(
        [cell.labels for cell in grid.cells],
        [float(cell.heard.errors().rate or 0) for cell in grid.cells],
        levels={axis: grid.axes[axis] for axis in axes},
        reference={axis: label for axis, label in grid.reference.items() if axis in axes},
        steps=steps,
    )


def step_of(grid: Grid, axis: str) -> float:
    """What a coefficient of a numeric axis is per: 1, or 0.1 of an axis shorter than 2; away from the reference."""
    numbers = [float(label) for label in grid.axes[axis]]
    start = float(grid.reference.get(axis, grid.axes[axis][0]))
    size = 1.0 if max(numbers) - min(numbers) >= 2 else 0.1
    return -size if sum(numbers) / len(numbers) < start else size
