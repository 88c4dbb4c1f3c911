"""The page of a grid: one HTML file that loads nothing, with its figures as files beside it."""

from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from paretone.errors import UserError
from paretone.folders import write_file
from paretone.report.grid.analysis import Analysis, analyse
from paretone.report.grid.figures import KINDS, Picture, pictures_of
from paretone.report.grid.markdown import as_markdown
from paretone.report.grid.records import Grid
from paretone.report.grid.story import headline_of, panel_sentences, sentences_of, warnings_of
from paretone.report.grid.tables import tables_of
from paretone.report.inline import inline_svg
from paretone.report.page import COLOURS, environment_of, heard, style_sheet

TEMPLATE = "grid/grid.html.j2"
MOST_SHOWN = 8  # words of a comparison that its line names


def write_grid_report(grid: Grid, out: Path) -> list[Path]:
    """Write the page of a grid to ``out``; its figures as SVG and PNG, and all as Markdown, to ``<out stem>_files``.

    Equal results give equal bytes; the page needs no network and no other file.

    Returns:
        All files written, the page first.

    Raises:
        UserError: if no cell is measured, cells that belong together did not hear the same, a result cannot be read,
            or ``out`` cannot be written.
    """
    out = Path(out)
    if out.is_dir():
        raise UserError(f"{out} is a folder; give the page a file name, such as {out / 'report.html'}")
    analysis = analyse(grid)
    pictures = pictures_of(analysis)
    folder = out.parent / f"{out.stem}_files"
    files = {folder / f"{p.name}.{kind}": p.files[kind] for p in pictures for kind in KINDS}
    files[folder / "README.md"] = as_markdown(analysis, pictures).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, content in files.items():
            file.write_bytes(content)
        write_file(out, render_grid(analysis, pictures, folder.name))
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); give a place that can") from error
    return [out, *files]


def render_grid(analysis: Analysis, pictures: list[Picture], folder: str) -> str:
    """The page's HTML; ``folder`` is where its figures lie."""
    environment = environment_of()
    environment.filters["heard"] = heard
    grid = analysis.grid
    return environment.get_template(TEMPLATE).render(
        grid=grid,
        style=style_sheet(),
        headline=headline_of(analysis),
        sentences=sentences_of(analysis),
        warnings=warnings_of(analysis),
        panels=[(panel.name or grid.name, panel_sentences(analysis, panel)) for panel in analysis.panels],
        figures=[(picture, _inline(picture)) for picture in pictures],
        folder=quote(folder),
        tables=tables_of(analysis),
        members=[member for member in analysis.family.members if member.words],
        most_shown=MOST_SHOWN,
        failed=[(grid.named(labels, list(labels)), why) for labels, why in grid.failed],
        ways=len(analysis.ways),
    )


def _inline(picture: Picture) -> Markup:
    # inline_svg escapes every text and attribute that it writes
    return Markup(
        inline_svg(
            picture.files["svg"],
            name=picture.name,
            title=picture.title,
            description=f"{picture.caption} The numbers are in the tables below.",
            colours=COLOURS,
        )
    )
