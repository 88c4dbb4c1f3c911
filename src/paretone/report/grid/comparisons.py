"""The family of comparisons: every way beside its reference, seed by seed, on the same utterances."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from paretone.report.grid.marking import Heard, check_same, errors_of
from paretone.report.grid.pooling import Way
from paretone.report.grid.records import Grid, GridCell
from paretone.results import MatchedPairs, Verdict
from paretone.results.family import holm
from paretone.results.mapsswe import cut, judge
from paretone.results.schema import WordChange
from paretone.results.significance import ALPHA, DRAWS, joint_rates, verdict_of
from paretone.results.words import changed_tallies

KINDS = ("substitutions", "deletions", "insertions")
MOST_DRAWS = 50_000
FINEST = 0.2  # of ALPHA: the least p of the bootstrap, times the family, is to lie below this share of it


@dataclass(frozen=True)
class Beside:
    """A way beside its reference, over the seeds that both have.

    Attributes:
        seeds: labels of those seeds; where the reference has one cell only, it stands beside every seed of the way.
        bootstrap: of the WERs' difference; draws of utterances, with all seeds of an utterance together.
        matched: MAPSSWE over the segments of all pairs, as if every seed's utterances were further ones. They are not
            independent of each other, which makes this p too small where seeds agree; so it never decides alone.
        p_value: the larger of the two tests' p, or the bootstrap's where MAPSSWE has none: what both tests find.
        p_holm: the same by Holm over the whole family.
        by_seed: difference of WERs of each pair, in the order of ``seeds``.
        shifts: by language, the difference of substitutions, deletions and insertions, per reference word.
        words: those whose errors changed most, over all pairs.
    """

    way: Way
    reference: Way
    seeds: Sequence[str]
    bootstrap: Verdict
    matched: MatchedPairs
    p_value: float
    p_holm: float
    by_seed: Sequence[float]
    shifts: Mapping[str, Mapping[str, float]]
    words: Sequence[WordChange]

    @property
    def is_sure(self) -> bool:
        """Whether the difference is significant after Holm, by both tests."""
        return self.p_holm < ALPHA

    @property
    def seeds_agree(self) -> bool:
        """Whether every pair differs the way their mean does."""
        return all(delta * self.bootstrap.delta > 0 for delta in self.by_seed)


@dataclass(frozen=True)
class Family:
    """All comparisons of a grid.

    Attributes:
        members: in the order of the ways.
        alone: ways whose reference is not measured, or shares no seed with them.
        draws: of the bootstrap: more for a larger family, so that its least p can pass Holm.
    """

    members: Sequence[Beside]
    alone: Sequence[Way]
    draws: int

    @property
    def is_too_large(self) -> bool:
        """Whether no difference, however large, could pass Holm: the bootstrap's least p is two in ``draws``."""
        return len(self.members) * 2 / self.draws >= ALPHA

    @property
    def by_way(self) -> dict[frozenset[tuple[str, str]], Beside]:
        """The comparison of each way that has one."""
        return {member.way.key: member for member in self.members}


@dataclass(frozen=True)
class _Pair:
    way: Way
    reference: Way
    seeds: list[str]

    def cells(self) -> Iterator[tuple[Heard, Heard]]:
        """Both cells' transcripts for each seed."""
        for seed in self.seeds:
            yield self.way.cells[seed].heard, _at(self.reference, seed).heard


def compare_ways(grid: Grid, ways: Sequence[Way], *, seed: int = 0) -> Family:
    """Set every way beside its reference.

    Args:
        seed: of the bootstrap.

    Raises:
        UserError: if a way and its reference did not hear the same utterances.
    """
    if not grid.reference:
        return Family([], [], DRAWS)
    by_key = {way.key: way for way in ways}
    pairs, alone = [], []
    for way in ways:
        key = frozenset(grid.compared(way.labels).items())
        if key == way.key:
            continue
        reference = by_key.get(key)
        seeds = [] if reference is None else _common(way, reference)
        if reference is None or not seeds:
            alone.append(way)
        else:
            pairs.append(_Pair(way, reference, seeds))
    draws = max(DRAWS, min(MOST_DRAWS, round(2 * len(pairs) / (FINEST * ALPHA))))
    return Family(_members(grid, pairs, seed, draws), alone, draws)


def _common(way: Way, reference: Way) -> list[str]:
    """Seeds of the pairs: those both have, or all of the way's where the reference is one cell and has none of them."""
    both = [label for label in way.cells if label in reference.cells]
    return list(way.cells) if len(reference.cells) == 1 else both


def _at(reference: Way, seed: str) -> GridCell:
    return reference.cells.get(seed) or next(iter(reference.cells.values()))


def _members(grid: Grid, pairs: Sequence[_Pair], seed: int, draws: int) -> list[Beside]:
    for pair in pairs:
        for ours, theirs in pair.cells():
            check_same(ours, theirs, f"study {grid.name}, {pair.way.name} beside {pair.reference.name}")
    verdicts = _bootstrapped(pairs, seed, draws)
    matched = [_matched(pair) for pair in pairs]
    p_values = [max(v.p_value, m.p_value or 0.0) for v, m in zip(verdicts, matched, strict=True)]
    adjusted = holm(p_values)
    return [
        _beside(pair, verdict, found, p, q or 0.0)
        for pair, verdict, found, p, q in zip(pairs, verdicts, matched, p_values, adjusted, strict=True)
    ]


def _bootstrapped(pairs: Sequence[_Pair], seed: int, draws: int) -> list[Verdict]:
    """The paired bootstrap of every pair; pairs on the same utterances share their draws."""
    groups: dict[object, list[int]] = {}
    for place, pair in enumerate(pairs):
        groups.setdefault(next(pair.cells())[0].said, []).append(place)
    found: dict[int, Verdict] = {}
    for places in groups.values():
        edits = np.stack([_differences(pairs[place]) for place in places])
        words = next(pairs[places[0]].cells())[0].counts[:, 3]
        rates = joint_rates(edits, words, seed=seed, draws=draws)
        for place, row, drawn in zip(places, edits, rates, strict=True):
            seeds = len(pairs[place].seeds)
            found[place] = verdict_of(float(row.sum() / words.sum() / seeds), drawn / seeds)
    return [found[place] for place in range(len(pairs))]


def _differences(pair: _Pair) -> np.ndarray:
    """(utterances,) errors more than the reference's, summed over seeds: whole numbers, so what cancels is zero."""
    return np.sum([ours.edits - theirs.edits for ours, theirs in pair.cells()], axis=0)


def _matched(pair: _Pair) -> MatchedPairs:
    segments = [
        segment
        for ours, theirs in pair.cells()
        for our, their in zip(ours.places, theirs.places, strict=True)
        for segment in cut(our, their)
    ]
    return judge(segments)


def _beside(pair: _Pair, verdict: Verdict, matched: MatchedPairs, p: float, q: float) -> Beside:
    both = list(pair.cells())
    by_seed = [float((ours.edits - theirs.edits).sum() / ours.counts[:, 3].sum()) for ours, theirs in both]
    ours, theirs = (reduce(add, (heard.words for heard in side)) for side in zip(*both, strict=True))
    return Beside(
        way=pair.way,
        reference=pair.reference,
        seeds=pair.seeds,
        bootstrap=verdict,
        matched=matched,
        p_value=p,
        p_holm=q,
        by_seed=by_seed,
        shifts=_shifts(pair),
        words=[change for change in changed_tallies(ours, theirs) if change.errors != change.baseline_errors],
    )


def _shifts(pair: _Pair) -> dict[str, dict[str, float]]:
    languages = sorted(set(next(pair.cells())[0].languages))
    found = {}
    for language in languages:
        totals = np.zeros(3)
        words = 0
        for ours, theirs in pair.cells():
            chosen = np.array([own == language for own in ours.languages])
            totals += (ours.counts[chosen, :3] - theirs.counts[chosen, :3]).sum(axis=0)
            words += errors_of(ours.counts[chosen]).words
        found[language] = {kind: float(total / max(1, words)) for kind, total in zip(KINDS, totals, strict=True)}
    return found
