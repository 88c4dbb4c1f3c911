"""The two tables of a grid: its ways, and each beside its reference."""

from collections.abc import Sequence
from dataclasses import dataclass

from paretone.report.grid.analysis import Analysis
from paretone.report.grid.comparisons import KINDS, Beside
from paretone.report.grid.pooling import Way
from paretone.report.grid.records import SEED, Grid
from paretone.report.words import DASH, count, fixed, p_text, percent_range, point_range, points, three_digits
from paretone.results import Errors


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        labels: how many columns, from the left, say what a row is; the others hold numbers.
        strong: places of the rows that stand out.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int
    note: str
    strong: frozenset[int] = frozenset()


def tables_of(analysis: Analysis) -> list[Table]:
    """Ways; comparisons, where there are any; errors by language, where a way heard several."""
    tables = [way_table(analysis)]
    if analysis.family.members:
        tables.append(comparison_table(analysis))
    if any(len(way.by_language) > 1 for way in analysis.ways):
        tables.append(language_table(analysis))
    return tables


def way_table(analysis: Analysis) -> Table:
    """Every way: WER, kinds of errors, and costs."""
    axes = analysis.grid.open_axes
    sizes = analysis.denominators
    head = [
        *(axes or ["way"]),
        "seeds",
        "WER, %",
        "95 %",
        "seeds' 95 %",
        "S",
        "D",
        "I",
        *(f"parameters, {s}" for s in sizes),
    ]
    rows = [
        [
            *_labels(analysis, way), str(len(way.cells)), fixed(100 * way.wer), percent_range(way.ci95),
            percent_range(way.seeds_ci95) if way.seeds_ci95 else DASH, *_kinds(way.errors),
            *(count(way.parameters[s]) if s in way.parameters else DASH for s in sizes),
            three_digits(1000 * way.latency_s),
        ]
        for way in analysis.ways
    ]  # fmt: skip
    note = (
        "S, D, I: errors per 100 reference words. 95 %: bootstrap over utterances and seeds; seeds' 95 %: t interval "
        "over seeds, these utterances given. ms/s: decoding time per second of audio."
    )
    return Table("All ways", [*head, "ms/s"], rows, max(1, len(axes)), note)


def _labels(analysis: Analysis, way: Way) -> list[str]:
    return [way.labels.get(axis, "") for axis in analysis.grid.open_axes] or [way.name]


def _kinds(errors: Errors) -> list[str]:
    return [fixed(100 * getattr(errors, kind) / max(1, errors.words)) for kind in KINDS]


def comparison_table(analysis: Analysis) -> Table:
    """Every way beside its reference."""
    axes = analysis.grid.open_axes
    members = analysis.family.members
    head = ["ΔWER", "95 %", "by seed", "p bootstrap", "p MAPSSWE", "p Holm", "ΔS", "ΔD", "ΔI"]
    rows = [[*_labels(analysis, member.way), *_compared(member)] for member in members]
    strong = frozenset(place for place, member in enumerate(members) if member.is_sure)
    note = (
        f"Beside {said_reference(analysis.grid)}; points of WER, pair by pair of seeds. 95 % and p bootstrap: "
        f"{count(analysis.family.draws)} draws of utterances, all seeds of an utterance together. p Holm: of the "
        f"larger of both tests' p, over {len(members)} comparisons; bold where it is below 0.05. ΔS, ΔD, ΔI: per 100."
    )
    return Table("Beside the reference", [*(axes or ["way"]), *head], rows, max(1, len(axes)), note, strong)


def _compared(member: Beside) -> list[str]:
    words = sum(errors.words for errors in member.way.by_language.values())
    shifts = [
        sum(kinds[kind] * member.way.by_language[name].words for name, kinds in member.shifts.items()) / max(1, words)
        for kind in KINDS
    ]
    low, high = min(member.by_seed), max(member.by_seed)
    return [
        points(member.bootstrap.delta), point_range(member.bootstrap.ci95),
        f"{points(low)} to {points(high)}" if len(member.by_seed) > 1 else DASH,
        p_text(member.bootstrap.p_value), p_text(member.matched.p_value), p_text(member.p_holm),
        *(points(shift) for shift in shifts),
    ]  # fmt: skip


def language_table(analysis: Analysis) -> Table:
    """Errors of every way by language."""
    axes = analysis.grid.open_axes
    rows = [
        [
            *_labels(analysis, way),
            name or "unknown",
            count(errors.words),
            fixed(100 * (errors.rate or 0)),
            *_kinds(errors),
        ]
        for way in analysis.ways
        for name, errors in way.by_language.items()
    ]
    head = [*(axes or ["way"]), "language", "words", "WER, %", "S", "D", "I"]
    return Table("By language", head, rows, max(1, len(axes)) + 1, "Over all seeds; S, D, I per 100 reference words.")


def said_reference(grid: Grid) -> str:
    """``layers 8, lora no``."""
    named = [grid.said(axis, label) for axis, label in grid.reference.items() if axis != SEED]
    return ", ".join(named)
