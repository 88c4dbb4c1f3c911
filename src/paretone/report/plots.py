"""The plots; equal results give equal bytes.

Each ``draw_*`` fills a matplotlib figure or subfigure for one study; `render` turns a list of studies into files.
"""

import io
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import cycle
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure, FigureBase
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

from paretone.report.colours import ERRORS, GRID, INK, MUTED, PAPER, SERIES
from paretone.report.strips import draw_widths, widths_height_in
from paretone.report.study import Entry, Study
from paretone.report.waterfall import chains, draw_waterfall, waterfall_height_in
from paretone.report.words import fixed, shorten

MARKERS = ("o", "s", "^", "D", "v", "P")
STYLE: dict[str, Any] = {
    "font.size": 9.5,
    "font.family": "DejaVu Sans",
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.unicode_minus": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9.0,
    "ytick.labelsize": 9.0,
    "svg.fonttype": "none",
    "svg.hashsalt": "paretone",
}
WIDTH_IN = 5.2
LEGEND_COLUMNS = 3
EXPLODES = 8  # a WER range beyond this factor is drawn on a logarithmic axis
LONGEST_BAR = 1.0

Look = dict[str, tuple[str, str]]
Draw = Callable[[FigureBase, Study, Look], None]
Height = Callable[[Study], float]


def looks(studies: Sequence[Study]) -> Look:
    """Colour and marker of each series, the same in every plot of a page."""
    names = sorted({name for study in studies for name in study.series})
    return dict(zip(names, cycle(zip(SERIES, MARKERS, strict=True)), strict=False))


def render(draw: Draw, height_in: Height, studies: Sequence[Study], look: Look, kinds: Sequence[str]) -> list[bytes]:
    """One picture with a panel per study, two in a row, as a file of each of ``kinds``: ``svg`` or ``png``."""
    columns = min(2, len(studies))
    rows = [studies[start : start + columns] for start in range(0, len(studies), columns)]
    heights = [max(height_in(study) for study in row) for row in rows]
    with house_style():
        figure = Figure(figsize=(WIDTH_IN * columns, sum(heights)), layout="constrained", facecolor=PAPER)
        parts = figure.subfigures(len(rows), columns, squeeze=False, height_ratios=heights)
        for study, part in zip(studies, parts.flat, strict=False):
            part.set_facecolor("none")
            draw(part, study, look)
        return saved(figure, kinds)


def house_style() -> AbstractContextManager[None]:
    """Settings of all pictures, whatever the reader's matplotlibrc says; a backend would outlast the context."""
    style: Any = {key: value for key, value in matplotlib.rcParamsDefault.items() if key != "backend"} | STYLE
    return matplotlib.rc_context(style)


def saved(figure: Figure, kinds: Sequence[str]) -> list[bytes]:
    """A figure as a file of each of ``kinds``, ``svg`` or ``png``; equal figures give equal bytes."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, not once per file
    return [_saved(figure, kind) for kind in kinds]


def _saved(figure: Figure, kind: str) -> bytes:
    file = io.BytesIO()
    dateless: dict[str, Any] = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    figure.savefig(file, format=kind, dpi=160, metadata=dateless)
    return file.getvalue()


def draw_pareto(figure: FigureBase, study: Study, look: Look) -> None:
    """WER against real parameters, one line per series, with 95 % intervals."""
    axes = figure.subplots()
    sizes = [entry.measures.parameters for entry in study.entries]
    unit, prefix = unit_of(max(sizes))
    axes.set_title(shorten(study.name, 44), loc="left", pad=8)
    for place, (name, entries) in enumerate(study.series.items()):
        aside = (place - (len(study.series) - 1) / 2) * 2.6
        _draw_line(axes, entries, unit, look[name], shorten(name, 36), aside)
    if study.original:
        _draw_original(axes, study.original, unit)
    measured = [entry.measures for entry in study.entries]
    wer_axis(axes, [m.wer for m in measured], [m.wer_ci95 for m in measured])
    axes.margins(x=0.06)
    if len(study.entries) == 1:
        axes.set_xlim(0.5 * sizes[0] / unit, 1.5 * sizes[0] / unit)
    axes.set_xlabel(f"parameters, {prefix}" + ("; on top % of the original" if study.original else ""))
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    if study.original:
        _share_axis(axes, study.original.measures.parameters / unit)
    _legend(figure, axes)


def unit_of(size: int) -> tuple[float, str]:
    """What numbers up to ``size`` are counted in."""
    return (1e9, "billions") if size >= 1e9 else (1e6, "millions") if size >= 1e6 else (1e3, "thousands")


def _draw_line(
    axes: Axes, entries: list[Entry], unit: float, look: tuple[str, str], name: str, aside_pt: float
) -> None:
    """A series; moved sideways by ``aside_pt`` so that intervals at equal sizes stay apart."""
    colour, marker = look
    figure = axes.get_figure(root=True)
    assert figure is not None
    moved = axes.transData + ScaledTranslation(aside_pt / 72, 0, figure.dpi_scale_trans)
    x = [entry.measures.parameters / unit for entry in entries]
    wer = [100 * entry.measures.wer for entry in entries]
    for at, entry in zip(x, entries, strict=True):
        low, high = entry.measures.wer_ci95
        axes.plot([at, at], [100 * low, 100 * high], color=colour, alpha=0.45, linewidth=1.6, transform=moved)
    axes.plot(x, wer, color=colour, marker=marker, markersize=4.5, linewidth=1.5, label=name, transform=moved)
    # a transform of their own keeps the lines out of the automatic limits
    axes.update_datalim([(at, 100 * end) for at, e in zip(x, entries, strict=True) for end in e.measures.wer_ci95])
    axes.autoscale_view()


def _draw_original(axes: Axes, original: Entry, unit: float) -> None:
    low, high = original.measures.wer_ci95
    size = original.measures.parameters / unit
    axes.axhspan(100 * low, 100 * high, color=MUTED, alpha=0.13, linewidth=0)
    axes.axhline(100 * original.measures.wer, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(
        [size], [100 * original.measures.wer], color=INK, marker="*", markersize=11, linestyle="", label="original"
    )
    axes.update_datalim([(size, 100 * low), (size, 100 * high)])
    axes.autoscale_view()


def wer_axis(axes: Axes, wers: Sequence[float], intervals: Sequence[tuple[float, float]]) -> None:
    """Linear where the WERs are of one size; logarithmic, and labelled so, where some explode.

    Args:
        wers: fractions, with an interval each.
    """
    ends = [*wers, *(end for interval in intervals for end in interval)]
    values = [100 * end for end in ends if math.isfinite(end)]
    middle = [100 * wer for wer in wers if math.isfinite(wer)]
    highest = max([*values, 1e-3])
    if max([*middle, 1e-3]) <= EXPLODES * max(min(middle, default=1.0), 0.5):
        axes.set_ylim(0, 1.06 * highest)
        axes.set_ylabel("WER, %")
        return
    axes.set_yscale("symlog", linthresh=1.0, linscale=0.4)
    lowest = max(0.0, 0.8 * min(values))
    axes.set_ylim(lowest, 1.25 * highest)
    ticks = [
        t for t in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000) if lowest <= t <= 1.25 * highest
    ]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel("WER, %, log scale" if lowest >= 1 else "WER, %, log scale above 1 %")


def _share_axis(axes: Axes, full: float) -> None:
    def to_share(x: Any) -> Any:
        return 100 * x / full

    def from_share(share: Any) -> Any:
        return share * full / 100

    top = axes.secondary_xaxis("top", functions=(to_share, from_share))
    top.tick_params(colors=MUTED, labelsize=8.5, length=2, pad=1)
    top.spines["top"].set_visible(False)
    top.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} %"))


def _legend(figure: FigureBase, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    columns = LEGEND_COLUMNS if max(len(name) for name in names) < 18 else 2
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=min(columns, len(names)),
        frameon=False,
        fontsize=9,
        handlelength=1.8,
        columnspacing=1.4,
    )


def pareto_height_in(study: Study) -> float:
    """Height of the Pareto panel: its axes and the rows of its legend."""
    return 3.9 + 0.2 * math.ceil((len(study.series) + 1) / LEGEND_COLUMNS)


def draw_errors(figure: FigureBase, study: Study, look: Look) -> None:
    """Substitutions, deletions and insertions per 100 reference words, stacked, one bar per model."""
    axes = figure.subplots()
    axes.set_title(shorten(study.name, 44), loc="left", pad=8)
    rates = [_error_rates(entry) for entry in study.entries]
    longest = max(sum(row.values()) for row in rates)
    limit = min(longest, 100 * LONGEST_BAR) or 1.0
    for place, row in enumerate(rates):
        total = sum(row.values())
        left, shrink = 0.0, min(1.0, limit / total) if total else 1.0
        for name, colour in ERRORS.items():
            length = shrink * row[name]
            axes.barh(place, length, left=left, height=0.72, color=colour, label=name if place == 0 else None)
            left += length
        text = f"▸ {fixed(total)}" if shrink < 1 else fixed(total)
        axes.annotate(text, (left, place), (3, 0), textcoords="offset points", va="center", fontsize=8.5)
    axes.set_yticks(range(len(rates)), [shorten(entry.label, 30) for entry in study.entries])
    axes.set_ylim(len(rates) - 0.4, -0.6)
    axes.set_xlim(0, 1.13 * limit)
    cut = f"; ▸ cut at {limit:.0f}, shares kept" if longest > limit else ""
    axes.set_xlabel(f"errors per 100 reference words{cut}")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9, handlelength=1.2)


def _error_rates(entry: Entry) -> dict[str, float]:
    measures = entry.measures
    return {name: 100 * getattr(measures, name) / max(1, measures.words) for name in ERRORS}


def errors_height_in(study: Study) -> float:
    """Height of the error bars: one line each."""
    return 1.25 + 0.21 * len(study.entries)


def plots_of(studies: Sequence[Study]) -> "dict[str, tuple[Draw, Height]]":
    """The plots that ``studies`` have something for; a waterfall only where a recipe was measured step by step."""
    return {name: plot for name, plot in PLOTS.items() if name != "waterfall" or any(map(chains, studies))}


PLOTS: dict[str, tuple[Draw, Height]] = {
    "pareto": (draw_pareto, pareto_height_in),
    "errors": (draw_errors, errors_height_in),
    "waterfall": (draw_waterfall, waterfall_height_in),
    "widths": (draw_widths, widths_height_in),
}
