"""Ways: cells that differ in nothing but their seed, taken together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from paretone.errors import UserError
from paretone.report.grid.front import sizes_of
from paretone.report.grid.marking import check_same
from paretone.report.grid.records import SEED, Grid, GridCell
from paretone.results import Errors
from paretone.results.family import mean_interval
from paretone.results.significance import DRAWS, Interval, interval95, joint_rates


@dataclass(frozen=True)
class Way:
    """One way of doing it, measured under one seed or several.

    Attributes:
        labels: of all axes but the seed.
        name: of those that ways differ in.
        cells: by label of the seed; the empty string where there are no seeds.
        wer: mean over seeds, which is all errors over all words, since every seed hears the same words.
        ci95: percentile bootstrap over utterances and seeds: each draw takes utterances with replacement, the same
            for all seeds, and seeds with replacement. Of n seeds it understates the variance that seeds bring by a
            factor of n / (n - 1); with one seed it is about utterances alone. Source: Owen, "The pigeonhole bootstrap",
            Annals of Applied Statistics 1 (2007).
        seeds_ci95: the t interval of the mean of the seeds' WERs, these utterances given; None for one seed.
        errors: summed over seeds.
        by_language: the same for each language; the empty name where none is known.
        parameters: by denominator, see `front.sizes_of`; the mean over seeds.
        latency_s: seconds of decoding per second of audio, mean over seeds.
    """

    labels: Mapping[str, str]
    name: str
    cells: Mapping[str, GridCell]
    wer: float
    ci95: Interval
    seeds_ci95: Interval | None
    errors: Errors
    by_language: Mapping[str, Errors]
    parameters: Mapping[str, int]
    latency_s: float

    @property
    def key(self) -> frozenset[tuple[str, str]]:
        """Its labels, to look it up by."""
        return frozenset(self.labels.items())


def ways_of(grid: Grid, *, seed: int = 0, draws: int = DRAWS) -> list[Way]:
    """The ways of a grid in the order of its axes.

    Args:
        seed: of the bootstrap.

    Raises:
        UserError: if there is no cell, a way holds a seed twice, or its cells did not hear the same utterances.
    """
    if not grid.cells:
        raise UserError(f"study {grid.name}: no cell is measured, so there is nothing to report")
    groups: dict[frozenset[tuple[str, str]], dict[str, GridCell]] = {}
    for cell in grid.cells:
        own = groups.setdefault(frozenset(_without_seed(cell).items()), {})
        if (label := cell.labels.get(SEED, "")) in own:
            raise UserError(f"study {grid.name}: two cells are {dict(cell.labels)}; give every cell labels of its own")
        own[label] = cell
    rates = _resampled(grid.cells, seed, draws)
    found = [_way(grid, _in_order(grid, cells), rates, seed) for cells in groups.values()]
    return sorted(found, key=lambda way: grid.order(way.labels))


def _in_order(grid: Grid, cells: Mapping[str, GridCell]) -> dict[str, GridCell]:
    """Cells by seed, in the order of the axis."""
    labels = list(grid.axes.get(SEED, ()))
    return {seed: cells[seed] for seed in sorted(cells, key=lambda s: (labels.index(s) if s in labels else 1e9, s))}


def _without_seed(cell: GridCell) -> dict[str, str]:
    return {axis: label for axis, label in cell.labels.items() if axis != SEED}


def _resampled(cells: Sequence[GridCell], seed: int, draws: int) -> dict[str, np.ndarray]:
    """The WER of each cell in every draw, by digest; cells on the same utterances share their draws."""
    groups: dict[object, list[GridCell]] = {}
    for cell in cells:
        groups.setdefault(cell.heard.said, []).append(cell)
    found: dict[str, np.ndarray] = {}
    for group in groups.values():
        edits = np.stack([cell.heard.edits for cell in group])
        rates = joint_rates(edits, group[0].heard.counts[:, 3], seed=seed, draws=draws)
        found |= {str(cell.folder): row for cell, row in zip(group, rates, strict=True)}
    return found


def _way(grid: Grid, cells: dict[str, GridCell], rates: Mapping[str, np.ndarray], seed: int) -> Way:
    first, *others = cells.values()
    labels = _without_seed(first)
    for other in others:
        check_same(first.heard, other.heard, f"study {grid.name}, seeds of {grid.named(labels) or 'the cell'}")
    drawn = np.stack([rates[str(cell.folder)] for cell in cells.values()])  # (seeds, draws)
    chosen = np.random.default_rng(seed).integers(len(drawn), size=drawn.shape)
    wers = [float(cell.heard.errors().rate or 0) for cell in cells.values()]
    languages = sorted(set(first.heard.languages))
    sizes = [sizes_of(cell.result) for cell in cells.values()]
    return Way(
        labels=labels,
        name=grid.named(labels) or grid.name,
        cells=cells,
        wer=float(np.mean(wers)),
        ci95=interval95(np.take_along_axis(drawn, chosen, axis=0).mean(axis=0)),
        seeds_ci95=mean_interval(wers),
        errors=_summed(cells, None),
        by_language={name: _summed(cells, name) for name in languages},
        parameters={name: round(np.mean([size[name] for size in sizes])) for name in sizes[0]},
        latency_s=float(np.mean([1 / cell.result.rtfx for cell in cells.values()])),
    )


def _summed(cells: Mapping[str, GridCell], language: str | None) -> Errors:
    return sum((cell.heard.errors(language) for cell in cells.values()), Errors())
