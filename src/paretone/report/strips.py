"""Per-module widths: names sorted into blocks of layers, and the heat strips drawn from them."""

import re
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import FigureBase
from matplotlib.patches import Rectangle

from paretone.report.study import Entry, Study, Width
from paretone.report.words import printable, shorten

_LAYER = re.compile(r"^(?:(?P<stack>.*)\.)?layers\.(?P<number>\d+)\.(?P<part>.+)$")
PARTS = {
    "attention": "heads",
    "self_attn": "heads",
    "encoder_attn": "cross heads",
    "feed_forward": "FFN units",
    "fc1": "FFN units",
}
SHADES = LinearSegmentedColormap.from_list("kept", ["#f3e9d2", "#9fc3dc", "#2f7fb5", "#0b4373"])
ON_DARK = "#fefefe"
ON_LIGHT = "#10202e"
GONE = "#b3261e"


@dataclass(frozen=True)
class Profile:
    """The widths, by module name, of one or several models that have the same ones."""

    label: str
    widths: dict[str, Width]


def profiles(study: Study) -> list[Profile]:
    """The distinct widths among the compressed models of a study, widest first."""
    found: dict[tuple[tuple[str, tuple[int, int]], ...], list[Entry]] = {}
    for entry in study.entries:
        if entry.plan and entry.plan.modules:
            key = tuple((module.name, module.shape_after) for module in entry.plan.modules)
            found.setdefault(key, []).append(entry)
    rows = [Profile(_shared_label(members), _widths(members[0])) for members in found.values()]
    return sorted(rows, key=lambda row: -sum(width.kept for width in row.widths.values()))


def _widths(entry: Entry) -> dict[str, Width]:
    assert entry.plan is not None
    return {module.name: module for module in entry.plan.modules}


def _shared_label(members: list[Entry]) -> str:
    """``cluster, magnitude 50 %`` for two methods at one sparsity; else the labels side by side."""
    asked = {entry.asked for entry in members}
    if len(members) == 1 or len(asked) > 1 or "" in asked:
        return ", ".join(entry.label for entry in members)
    methods = list(dict.fromkeys(entry.method for entry in members))
    return f"{', '.join(methods) if len(methods) < 3 else f'{len(methods)} methods'} {members[0].asked}"


def blocks(modules: dict[str, Width]) -> dict[str, list[tuple[str, str]]]:
    """(layer, module name) pairs by block: ``heads``, ``decoder`` over ``FFN units``, and so on."""
    found: dict[str, list[tuple[str, str]]] = {}
    stacks = {match["stack"] for name in modules if (match := _LAYER.match(name))}
    for name, module in modules.items():
        match = _LAYER.match(name)
        if not match:
            found.setdefault(module.kind, []).append((name, name))
            continue
        part = PARTS.get(match["part"], match["part"])
        stack = (match["stack"] or "").rsplit(".", 1)[-1]
        title = f"{stack}\n{part}" if len(stacks) > 1 and stack else part
        found.setdefault(title, []).append((match["number"], name))
    return found


def draw_widths(figure: FigureBase, study: Study, look: dict[str, tuple[str, str]]) -> None:
    """A strip per distinct set of widths and a panel per block: darker keeps more rows, the text is the new width."""
    rows = profiles(study)
    if not rows:
        figure.text(0.5, 0.5, "no plan among these results", ha="center", va="center")
        return
    modules: dict[str, Width] = {name: width for row in reversed(rows) for name, width in row.widths.items()}
    panels = blocks(modules)
    labels = ["original", *(shorten(row.label, 26) for row in rows)]
    figure.suptitle(shorten(study.name, 44), x=0.01, ha="left", fontsize=10, fontweight="bold")
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, members) in zip(all_axes, panels.items(), strict=True):
        roomy = len(members) * len(panels) <= 14
        names = [name for _, name in members]
        _strip(axes, 0, [_Cell(1.0, str(modules[name].width_before)) for name in names], roomy)
        for line, row in enumerate(rows, start=1):
            found = [row.widths.get(name) for name in names]
            _strip(
                axes,
                line,
                [_Cell(width.kept, width.text.replace(",", "")) if width else None for width in found],
                roomy,
            )
        axes.set_xlim(0, len(members))
        axes.set_ylim(len(labels), 0)
        size = 9 if len(panels) < 4 else 7.8
        axes.set_title(printable(title), fontsize=size, fontweight="normal", loc="left", pad=4)
        axes.set_yticks([line + 0.5 for line in range(len(labels))], labels, fontsize=8.5)
        ends = sorted({0, len(members) - 1})
        axes.set_xticks([end + 0.5 for end in ends], [shorten(members[end][0], 12) for end in ends], fontsize=8)
        axes.tick_params(length=0, pad=2)
        for spine in axes.spines.values():
            spine.set_visible(False)
    figure.supxlabel("layer", fontsize=9)


@dataclass(frozen=True)
class _Cell:
    """One module of one model: the share of its rows that stays, and its new width in words."""

    kept: float
    text: str


def _strip(axes: Axes, line: int, cells: list[_Cell | None], roomy: bool) -> None:
    """One model's cells of a block; equal widths are written once, in the middle."""
    patches = [_patch(column, line, cell.kept, edged=not roomy) for column, cell in enumerate(cells) if cell]
    axes.add_collection(PatchCollection(patches, match_original=True), autolim=False)
    gone = [column for column, cell in enumerate(cells) if cell and not cell.kept]
    axes.hlines([line + 0.5] * len(gone), [x + 0.2 for x in gone], [x + 0.8 for x in gone], color=GONE, linewidth=1.2)
    known = [cell for cell in cells if cell and cell.kept]
    if roomy:
        for column, cell in enumerate(cells):
            if cell and cell.kept:
                _number(axes, column + 0.5, line, cell)
    elif len(known) == len(cells) and len(set(known)) == 1:
        _number(axes, len(cells) / 2, line, known[0])


def _patch(column: int, line: int, kept: float, *, edged: bool) -> Rectangle:
    shade = SHADES(kept)
    # edges of their own colour close the hairlines between narrow cells
    edge = shade if edged else "none"
    return Rectangle((column, line + 0.04), 1, 0.92, facecolor=shade, edgecolor=edge, linewidth=0.4)


def _number(axes: Axes, x: float, line: int, cell: _Cell) -> None:
    colour = ON_DARK if cell.kept > 0.6 else ON_LIGHT
    size = 6.5 if len(cell.text) < 4 else 5.4
    axes.text(x, line + 0.52, cell.text, ha="center", va="center", fontsize=size, color=colour)


def widths_height_in(study: Study) -> float:
    """Height of the strips: one line per distinct set of widths, and one for the original."""
    return 1.3 + 0.24 * (len(profiles(study)) + 1)
