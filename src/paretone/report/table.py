"""The terminal's table of results."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from paretone.report.study import Entry, studies
from paretone.report.words import DASH, NBSP, fixed, percent, points, printable, scaled
from paretone.results.schema import Result, Verdicts
from paretone.results.significance import ALPHA
from paretone.terminal import new_table

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = ("model", "params", "share", "WER % (95 %)", "S/D/I", "ΔWER (95 %)")
BOTH, ONE = "*", "?"
CAPTION = f"{BOTH} p < {ALPHA} by paired bootstrap and MAPSSWE, {ONE} by one of the two"


def terminal_table(results: Sequence[Result]) -> "Table":
    """A table of 80 columns with one line per measured model under the name of its source.

    Intervals are 95 %; differences are in points against the baseline, marked where the tests find them significant.
    """
    from rich.text import Text

    table = new_table()
    for column in COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    name = table.columns[0]
    name.justify, name.no_wrap, name.min_width = "left", False, 15
    if any(map(_mark, results)):
        table.caption, table.caption_justify = CAPTION, "right"
    for study in studies(results):
        if study.original is None:
            table.add_row(Text(_tight(study.name), style="bold"))
        for entry in study.entries:
            first = Text(_tight(study.name), style="bold") if entry.is_original else Text(f" {_tight(entry.label)}")
            table.add_row(first, *(Text(_tight(cell)) for cell in _cells(entry)))
        table.add_section()
    return table


def _cells(entry: Entry) -> tuple[str, ...]:
    measures, result = entry.measures, entry.result
    low, high = measures.wer_ci95
    delta = points(result.delta_wer) + _mark(result) if result and result.delta_wer is not None else ""
    interval = " ({}..{})".format(*map(_coarse, entry.delta_ci)) if entry.delta_ci else ""
    return (
        scaled(measures.parameters),
        percent(entry.share, 0),
        f"{fixed(100 * measures.wer)} ({_coarse(low)}{DASH}{_coarse(high)})",
        f"{measures.substitutions}/{measures.deletions}/{measures.insertions}",
        f"{delta}{interval}",
    )


def _mark(verdicts: Verdicts) -> str:
    """How many of the two tests call the difference significant; a test without a p-value does not."""
    return ("", ONE, BOTH)[sum(p is not None and p < ALPHA for p in (verdicts.p_value, verdicts.p_mapsswe))]


def _coarse(rate: float) -> str:
    return fixed(100 * rate, 1 if abs(rate) < 0.0995 else 0)


def _tight(text: str) -> str:
    """``text`` without the spaces inside numbers; a narrow column would break there."""
    return printable(text.replace(NBSP, "")).replace("\n", " ")
