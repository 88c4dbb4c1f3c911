"""The page of a grid as Markdown, for repositories that show such files beside their figures."""

from collections.abc import Sequence

from paretone.report.grid.analysis import Analysis
from paretone.report.grid.figures import Picture
from paretone.report.grid.story import headline_of, panel_sentences, sentences_of, warnings_of
from paretone.report.grid.tables import Table, tables_of


def as_markdown(analysis: Analysis, pictures: Sequence[Picture]) -> str:
    """What the page says, with its figures by the names of their files, and its tables."""
    grid = analysis.grid
    lines = [f"# {headline_of(analysis)}", "", grid.about.strip(), ""]
    lines += [f"> {warning}\n" for warning in warnings_of(analysis)]
    lines += [*sentences_of(analysis), ""]
    for panel in analysis.panels:
        lines += [f"**{panel.name or grid.name}**", ""]
        lines += [f"- {sentence}" for sentence in panel_sentences(analysis, panel)] + [""]
    for picture in pictures:
        lines += [f"## {picture.title}", "", f"![{picture.title}]({picture.name}.svg)", "", picture.caption, ""]
    lines += [_markdown(table) for table in tables_of(analysis)]
    if grid.command:
        lines += ["", f"`{grid.command}`", ""]
    return "\n".join(lines)


def _markdown(table: Table) -> str:
    rule = [":--"] * table.labels + ["--:"] * (len(table.head) - table.labels)
    rows = [
        [f"**{cell}**" if place in table.strong and cell else cell for cell in row]
        for place, row in enumerate(table.rows)
    ]
    return "\n".join([f"## {table.title}", "", *map(_row, [table.head, rule, *rows]), "", table.note, ""])


def _row(cells: Sequence[str]) -> str:
    escaped = [cell.replace("|", "\\|") for cell in cells]
    return f"| {' | '.join(escaped)} |"
