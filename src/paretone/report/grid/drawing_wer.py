"""WER against what was changed and against what it costs: a panel for each group of ways that may stand together."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle, product

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from paretone.report.colours import GRID, INK, MUTED, PAPER, SERIES
from paretone.report.grid.analysis import LATENCY, Analysis, Panel
from paretone.report.grid.pooling import Way
from paretone.report.plots import MARKERS, unit_of, wer_axis
from paretone.report.words import fixed, shorten
from paretone.results.schema import Result, read_result

Look = tuple[str, str, str]  # colour, marker, line style
DrawPanel = Callable[[Axes, Panel], None]
COLUMNS = 3
PANEL_IN = 4.1  # width of a panel where there are several
ALONE_IN = 6.4
MOST_BANDS = 4  # bands of more lines hide each other
MOST_TICKS = 12
MOST_NAMES = 8
LINES = ("-", "--", ":")


def axis_figure(analysis: Analysis, axis: str) -> Figure:
    """WER against a numeric axis, a line for each combination of the other axes, with bands."""
    others = [a for a in analysis.grid.open_axes if a != axis and a not in analysis.grid.panel_axes]
    lines = {panel.name: _lines(analysis, panel, axis, others) for panel in analysis.panels}
    looks = looks_of(name for found in lines.values() for name in found)

    def draw(axes: Axes, panel: Panel) -> None:
        found = lines[panel.name]
        for name, ways in found.items():
            _draw_line(axes, ways, axis, looks[name], name, bands=len(looks) <= MOST_BANDS)
        _draw_plain(axes, analysis, panel)
        shown = [way for ways in found.values() for way in ways]
        aside = [way for way in _references(analysis, panel) if way not in shown]
        for way in aside:
            axes.axhline(100 * way.wer, color=INK, linewidth=1, linestyle=":", label="reference")
        _wer(axes, [*shown, *aside], analysis, panel)
        _number_ticks(axes, sorted({float(way.labels[axis]) for way in shown}))
        axes.set_xlabel(axis)

    drawn = [panel for panel in analysis.panels if lines[panel.name]]
    return panelled(drawn, draw)


def _references(analysis: Analysis, panel: Panel) -> list[Way]:
    """Ways of a panel that others are set beside."""
    compared = {frozenset(analysis.grid.compared(way.labels).items()) for way in panel.ways}
    return [way for way in panel.ways if way.key in compared] if analysis.grid.reference else []


def has_lines(analysis: Analysis, axis: str) -> bool:
    """Whether some line along a numeric axis has two points."""
    others = [a for a in analysis.grid.open_axes if a != axis and a not in analysis.grid.panel_axes]
    return any(_lines(analysis, panel, axis, others) for panel in analysis.panels)


def _lines(analysis: Analysis, panel: Panel, axis: str, others: Sequence[str]) -> dict[str, list[Way]]:
    """The ways along an axis by the other axes; those that are one point make no line."""
    found: dict[str, list[Way]] = {}
    for way in panel.ways:
        found.setdefault(analysis.grid.named(way.labels, others), []).append(way)
    return {
        name: sorted(ways, key=lambda way: float(way.labels[axis])) for name, ways in found.items() if len(ways) > 1
    }


def cost_figure(analysis: Analysis, cost: str) -> Figure:
    """WER against parameters by one denominator, or against latency, with the Pareto front.

    Args:
        cost: a denominator of `Way.parameters`, or `LATENCY`.
    """
    grid = analysis.grid
    kinds = [axis for axis in grid.open_axes if axis not in grid.panel_axes and axis not in grid.numeric_axes]
    looks = looks_of(grid.named(way.labels, kinds) for way in analysis.ways)
    sizes = [_cost(way, cost) for way in analysis.ways if _has(way, cost)]
    unit, said = (1e-3, "") if cost == LATENCY else unit_of(round(max(sizes)))

    def draw(axes: Axes, panel: Panel) -> None:
        shown = [way for way in panel.ways if _has(way, cost)]
        for way in shown:
            name = grid.named(way.labels, kinds)
            _draw_point(axes, way, _cost(way, cost) / unit, looks[name], name or "way")
        _draw_front(axes, analysis, panel.fronts[cost], [_cost(way, cost) / unit for way in panel.fronts[cost]])
        _draw_plain(axes, analysis, panel, (lambda result: plain_cost(result, cost) / unit) if _whole(cost) else None)
        _wer(axes, shown, analysis, panel)
        axes.margins(x=0.08)
        axes.set_xlabel("decoding, ms per second of audio" if cost == LATENCY else f"parameters, {cost}, {said}")

    return panelled([panel for panel in analysis.panels if any(_has(way, cost) for way in panel.ways)], draw)


def _whole(cost: str) -> bool:
    return cost in (LATENCY, "whole")


def plain_cost(result: Result, cost: str) -> float:
    """Of a model beside the grid: its parameters, or seconds of decoding per second of audio."""
    return 1 / result.rtfx if cost == LATENCY else float(result.parameters)


def _has(way: Way, cost: str) -> bool:
    return cost == LATENCY or cost in way.parameters


def _cost(way: Way, cost: str) -> float:
    return way.latency_s if cost == LATENCY else float(way.parameters[cost])


def panelled(
    panels: Sequence[Panel],
    draw: DrawPanel,
    *,
    height_in: float = 3.1,
    columns: int = COLUMNS,
    panel_in: float = PANEL_IN,
) -> Figure:
    """A figure with an axes for each panel, and one legend of all below."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    width = max(ALONE_IN, panel_in * columns)
    figure = Figure(figsize=(width, height_in * rows + 0.5), layout="constrained", facecolor=PAPER)
    every = figure.subplots(rows, columns, squeeze=False)
    for axes in list(every.flat)[len(panels) :]:
        axes.set_visible(False)
    for axes, panel in zip(every.flat, panels, strict=False):
        axes.grid(color=GRID, linewidth=0.6)
        draw(axes, panel)
        axes.set_title(shorten(panel.name, 40), loc="left")
        axes.set_axisbelow(True)
    _legend(figure, [axes for axes in every.flat if axes.get_visible()], width)
    return figure


def _legend(figure: Figure, every: Sequence[Axes], width_in: float) -> None:
    named = {name: handle for axes in every for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    if not named:
        return
    longest = max(len(name) for name in named)
    columns = max(1, min(len(named), int(width_in / (0.55 + 0.075 * longest))))
    figure.set_figheight(figure.get_figheight() + 0.2 * -(-len(named) // columns))
    figure.legend(
        named.values(),
        named.keys(),
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
        handlelength=2.2,
    )


def looks_of(names: Iterable[str]) -> dict[str, Look]:
    """Colour, marker and line style of each series, all different for the first 108."""
    styles = ((colour, MARKERS[(c + s) % len(MARKERS)], line) for s, line, (c, colour) in _styles())
    return dict(zip(dict.fromkeys(names), cycle(list(styles)), strict=False))


def _styles() -> list[tuple[int, str, tuple[int, str]]]:
    return [(s, LINES[s % len(LINES)], pair) for s, pair in product(range(len(MARKERS)), enumerate(SERIES))]


def _draw_line(axes: Axes, ways: Sequence[Way], axis: str, look: Look, name: str, *, bands: bool) -> None:
    colour, marker, line = look
    x = [float(way.labels[axis]) for way in ways]
    low, high = ([100 * way.ci95[end] for way in ways] for end in (0, 1))
    if bands:
        axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
    else:
        axes.vlines(x, low, high, color=colour, alpha=0.3, linewidth=1.2)
    y = [100 * way.wer for way in ways]
    axes.plot(x, y, color=colour, marker=marker, linestyle=line, markersize=4, linewidth=1.4, label=name or "WER")


def _draw_point(axes: Axes, way: Way, x: float, look: Look, name: str) -> None:
    colour, marker, _ = look
    low, high = (100 * end for end in way.ci95)
    axes.plot([x, x], [low, high], color=colour, alpha=0.3, linewidth=1.2)
    axes.plot([x], [100 * way.wer], color=colour, marker=marker, linestyle="", markersize=5, label=name)


def _draw_front(axes: Axes, analysis: Analysis, front: Sequence[Way], x: Sequence[float]) -> None:
    y = [100 * way.wer for way in front]
    axes.plot(x, y, color=INK, linewidth=1.1, drawstyle="steps-post", zorder=1, label="Pareto front")
    axes.plot(x, y, color=INK, marker="o", markersize=9, fillstyle="none", linestyle="", zorder=4)
    numeric = analysis.grid.numeric_axes
    points = dict(zip(zip(x, y, strict=True), front, strict=True))  # of equal points one has its name
    if not numeric or len(points) > MOST_NAMES:
        return
    for (across, up), way in points.items():
        text = ", ".join(way.labels[axis] for axis in sorted(numeric, key=analysis.grid.open_axes.index))
        axes.annotate(text, (across, up), (5, 5), textcoords="offset points", fontsize=7.5, color=MUTED)


def _draw_plain(axes: Axes, analysis: Analysis, panel: Panel, cost: Callable[[Result], float] | None = None) -> None:
    for name, result in plain_of(analysis, panel).items():
        axes.axhline(100 * result.wer, color=MUTED, linewidth=1.1, linestyle=(0, (4, 3)), label=name)
        if cost is not None:
            axes.plot([cost(result)], [100 * result.wer], color=MUTED, marker="*", markersize=9, linestyle="")


def plain_of(analysis: Analysis, panel: Panel) -> dict[str, Result]:
    """Models beside the grid on a panel's data, by name.

    The key of each ends with a label of the panel: ``mini-whisper da``; where data make no panels it is the name.
    """
    grid = analysis.grid
    labels: Mapping[str, str] = panel.ways[0].labels
    ends = [labels[axis] for axis in grid.panel_axes]
    found = {}
    for key, folder in grid.plain.items():
        end = next((end for end in ends if key == end or key.endswith(f" {end}")), None)
        if end is not None:
            found[key.removesuffix(end).strip() or "plain model"] = folder
        elif not ends:
            found[key] = folder
    return {name: read_result(folder) for name, folder in found.items()}


def _wer(axes: Axes, ways: Sequence[Way], analysis: Analysis, panel: Panel) -> None:
    """The ways alone decide whether the axis is logarithmic: a good model beside them must not press them together."""
    wer_axis(axes, [way.wer for way in ways], [way.ci95 for way in ways])
    plain = [100 * result.wer for result in plain_of(analysis, panel).values()]
    low, high = axes.get_ylim()
    axes.set_ylim(min([low, *plain]), max([high, *(1.06 * wer for wer in plain)]))


def _number_ticks(axes: Axes, values: Sequence[float]) -> None:
    axes.margins(x=0.06)
    if len(values) <= MOST_TICKS:
        axes.xaxis.set_major_locator(FixedLocator(values))
        axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value >= 0 else fixed(value)))
