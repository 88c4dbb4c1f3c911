"""The terminal's table of results."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from paretone.report.study import Entry, studies
from paretone.report.words import fixed, percent, percent_range, points, scaled
from paretone.results.schema import Result

if TYPE_CHECKING:
    from rich.table import Table

COLUMNS = ("model", "params", "share", "WER % (95 %)", "S/D/I", "ΔWER (95 %)")


def terminal_table(results: Sequence[Result]) -> "Table":
    """A table of 80 columns with one line per measured model under the name of its source.

    Intervals are 95 %; differences are in points against the baseline.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    for column in COLUMNS:
        first = column == "model"
        table.add_column(column, justify="left" if first else "right", no_wrap=not first, min_width=15 if first else None)
    for study in studies(results):
        if study.original is None:
            table.add_row(Text(study.name, style="bold"))
        for entry in study.entries:
            first = Text(study.name, style="bold") if entry.is_original else Text(f" {entry.label}")
            table.add_row(first, *(Text(cell) for cell in _cells(entry)))
        table.add_section()
    return table


def _cells(entry: Entry) -> tuple[str, ...]:
    measures = entry.measures
    low_high = "" if entry.delta_ci is None else " ({}..{})".format(*(fixed(100 * end) for end in entry.delta_ci))
    result = entry.result
    return (
        scaled(measures.parameters),
        percent(entry.share, 0),
        f"{fixed(100 * measures.wer)} ({percent_range(measures.wer_ci95)})",
        f"{measures.substitutions}/{measures.deletions}/{measures.insertions}",
        f"{points(result.delta_wer)}{low_high}" if result and result.delta_wer is not None else "",
    )
