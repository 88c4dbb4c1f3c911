"""Per-module widths: names sorted into blocks of layers, and the heat strips drawn from them."""

import re
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import FigureBase
from matplotlib.patches import Rectangle

from paretone.report.study import Study, Width
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
    """The widths of one or several models that have the same ones; ``widths`` is keyed by module name."""

    labels: tuple[str, ...]
    widths: dict[str, Width]

    @property
    def label(self) -> str:
        """The names of its models: sizes in common are said once."""
        return shared_label(self.labels)


def profiles(study: Study) -> list[Profile]:
    """The distinct widths among the compressed models of a study, in its order."""
    found: dict[tuple[tuple[str, int], ...], tuple[list[str], dict[str, Width]]] = {}
    for entry in study.entries:
        if entry.plan and entry.plan.modules:
            widths = {module.name: module for module in entry.plan.modules}
            key = tuple((module.name, module.width_after) for module in entry.plan.modules)
            found.setdefault(key, ([], widths))[0].append(entry.label)
    return [Profile(tuple(labels), widths) for labels, widths in found.values()]


def shared_label(labels: tuple[str, ...]) -> str:
    """``cluster, magnitude 50 %`` for ``cluster 50 %`` and ``magnitude 50 %``; else the labels side by side."""
    split = [label.split(" ", 1) for label in labels]
    if len(labels) > 1 and all(len(part) == 2 for part in split) and len({part[1] for part in split}) == 1:
        return f"{', '.join(part[0] for part in split)} {split[0][1]}"
    return ", ".join(labels)


def blocks(modules: dict[str, Width]) -> dict[str, list[tuple[str, str]]]:
    """(layer, module name) pairs by block: ``encoder heads``, ``decoder FFN units`` and so on, in the model's order."""
    found: dict[str, list[tuple[str, str]]] = {}
    stacks = {match["stack"] for name in modules if (match := _LAYER.match(name))}
    for name, module in modules.items():
        match = _LAYER.match(name)
        if not match:
            found.setdefault(module.kind, []).append((name, name))
            continue
        part = PARTS.get(match["part"], match["part"])
        stack = (match["stack"] or "").rsplit(".", 1)[-1]
        title = f"{stack} {part}" if len(stacks) > 1 and stack else part
        found.setdefault(title, []).append((match["number"], name))
    return found


def draw_widths(figure: FigureBase, study: Study, look: dict[str, tuple[str, str]]) -> None:
    """A strip per distinct set of widths and a panel per block: darker keeps more, the number is the new width."""
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
        for column, (_, name) in enumerate(members):
            _cell(axes, column, 0, modules[name].width_before, modules[name].width_before, roomy)
            for line, row in enumerate(rows, start=1):
                if name in row.widths:
                    _cell(axes, column, line, row.widths[name].width_after, row.widths[name].width_before, roomy)
        axes.set_xlim(0, len(members))
        axes.set_ylim(len(labels), 0)
        axes.set_title(_two_lines(printable(title)), fontsize=8.5, fontweight="normal", loc="left", pad=4)
        axes.set_yticks([line + 0.5 for line in range(len(labels))], labels, fontsize=8)
        ends = sorted({0, len(members) - 1})
        axes.set_xticks([end + 0.5 for end in ends], [shorten(members[end][0], 12) for end in ends], fontsize=7.5)
        axes.tick_params(length=0, pad=2)
        for spine in axes.spines.values():
            spine.set_visible(False)
    figure.supxlabel("layer", fontsize=8.5)


def _cell(axes: Axes, column: int, line: int, width: int, before: int, roomy: bool) -> None:
    kept = width / before if before else 0.0
    axes.add_patch(Rectangle((column, line + 0.04), 1, 0.92, facecolor=SHADES(kept), edgecolor="none"))
    if width == 0:
        axes.plot([column + 0.2, column + 0.8], [line + 0.5, line + 0.5], color=GONE, linewidth=1.2)
    elif roomy:
        colour = ON_DARK if kept > 0.6 else ON_LIGHT
        axes.text(column + 0.5, line + 0.52, str(width), ha="center", va="center", fontsize=6.5, color=colour)


def _two_lines(title: str) -> str:
    first, _, rest = title.partition(" ")
    return f"{first}\n{rest}"


def widths_height_in(study: Study) -> float:
    """Height of the strips: one line per distinct set of widths, and one for the original."""
    return 1.2 + 0.24 * (len(profiles(study)) + 1)
