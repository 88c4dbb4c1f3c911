"""What each step of a recipe cost and gained: chains of models whose plans begin alike, and the figure of them."""

import textwrap
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import FigureBase

from paretone.report.colours import GRID, INK, MUTED, SERIES
from paretone.report.study import Entry, Step, Study
from paretone.report.words import fixed, points, shorten

COST, GAIN = SERIES[1], SERIES[2]
SHARES = {"parameters": SERIES[0], "bytes": SERIES[5], "speed": SERIES[4]}
PANEL_IN = 4.6
BAR = 0.27


@dataclass(frozen=True)
class Stage:
    """One model of a chain; ``steps`` are those that it has and the one before it has not."""

    entry: Entry
    before: Entry
    steps: tuple[Step, ...]

    @property
    def name(self) -> str:
        """The new steps: ``closed_form ffn 30 %``."""
        return " + ".join(step.label for step in self.steps)

    @property
    def delta_wer(self) -> float:
        """WER that the step added."""
        return self.entry.measures.wer - self.before.measures.wer

    @property
    def total_delta(self) -> float | None:
        """WER that all steps so far added, against the baseline of the run."""
        return self.entry.result.delta_wer if self.entry.result else None

    @property
    def speed(self) -> float | None:
        """Speed relative to the baseline of the same run; None where none was measured."""
        return speed_of(self.entry)


@dataclass(frozen=True)
class Chain:
    """An original and at least two models, each of which goes further than the one before."""

    original: Entry
    stages: tuple[Stage, ...]


def speed_of(entry: Entry) -> float | None:
    """RTFx of a model relative to its baseline in the same run."""
    baseline = entry.result.baseline if entry.result else None
    return entry.measures.rtfx / baseline.rtfx if baseline and baseline.rtfx else None


def chains(study: Study) -> list[Chain]:
    """Every longest row of models whose plans are beginnings of one another; none without the original."""
    if study.original is None:
        return []
    steps = {id(entry): _raw_steps(entry) for entry in study.entries if entry.plan is not None}
    planned = sorted((e for e in study.entries if id(e) in steps), key=lambda e: (len(steps[id(e)]), e.label))
    found = []
    for last in planned:
        whole = steps[id(last)]
        if any(_begins(whole, steps[id(other)]) for other in planned):
            continue
        row = {len(steps[id(e)]): e for e in planned if _begins(steps[id(e)], whole)} | {len(whole): last}
        if len(row) > 1:
            found.append(_chain(study.original, row))
    return found


def _raw_steps(entry: Entry) -> list[Any]:
    """The steps as the plan has them, with every width."""
    return list((entry.measures.model.plan or {}).get("steps", []))


def _begins(short: list[Any], long: list[Any]) -> bool:
    return 0 < len(short) < len(long) and long[: len(short)] == short


def _chain(original: Entry, row: dict[int, Entry]) -> Chain:
    stages, before, done = [], original, 0
    for count, entry in sorted(row.items()):
        assert entry.plan is not None
        stages.append(Stage(entry, before, tuple(entry.plan.steps[done:count])))
        before, done = entry, count
    return Chain(original, tuple(stages))


def draw_waterfall(figure: FigureBase, study: Study, look: dict[str, tuple[str, str]]) -> None:
    """Per chain the WER that each step added, and below it the parameters, bytes and speed that it left."""
    found = chains(study)
    figure.suptitle(shorten(study.name, 44), x=0.01, ha="left", fontsize=10, fontweight="bold")
    rows = figure.subplots(2 * len(found), 1, squeeze=False, height_ratios=[1.15, 1] * len(found))[:, 0]
    for place, chain in enumerate(found):
        _draw_costs(rows[2 * place], chain)
        _draw_shares(rows[2 * place + 1], chain, legend=place == 0)


def _draw_costs(axes: Axes, chain: Chain) -> None:
    """Bars that hang between one WER and the next, over the original's own."""
    start = 100 * chain.original.measures.wer
    axes.bar(0, start, width=0.6, color=MUTED)
    _label(axes, 0, start, f"{fixed(start)} %")
    for place, stage in enumerate(chain.stages, start=1):
        low, high = (100 * wer for wer in sorted((stage.before.measures.wer, stage.entry.measures.wer)))
        axes.bar(place, high - low, bottom=low, width=0.6, color=COST if stage.delta_wer > 0 else GAIN)
        level = 100 * stage.before.measures.wer
        axes.plot([place - 0.7, place + 0.3], [level, level], color=INK, linewidth=0.8)
        _label(axes, place, high, points(stage.delta_wer))
    end = 100 * chain.stages[-1].entry.measures.wer
    axes.bar(len(chain.stages) + 1, end, width=0.6, color=MUTED)
    _label(axes, len(chain.stages) + 1, end, f"{fixed(end)} %")
    axes.plot([len(chain.stages) - 0.3, len(chain.stages) + 1.3], [end, end], color=INK, linewidth=0.8)
    axes.set_ylabel("WER, %")
    highest = max(start, end, *(100 * stage.entry.measures.wer for stage in chain.stages))
    axes.set_ylim(0, 1.14 * highest or 1.0)
    names = ["original", *(stage.name for stage in chain.stages), "together"]
    _name_columns(axes, names)


def _draw_shares(axes: Axes, chain: Chain, *, legend: bool) -> None:
    """Three bars per model: what is left of the original, and how fast it runs, in % of it."""
    entries = [chain.original, *(stage.entry for stage in chain.stages)]
    for number, (what, colour) in enumerate(SHARES.items()):
        for place, entry in enumerate(entries):
            share = _share(what, entry, chain.original)
            if share is None:
                continue
            at = place + (number - 1) * BAR
            axes.bar(at, 100 * share, width=0.94 * BAR, color=colour, label=what if place == 0 else None)
            _label(axes, at, 100 * share, fixed(100 * share, 0), size=7)
    axes.axhline(100, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_ylabel("% of the original")
    axes.margins(y=0.12)
    after = [f"after step {len(_raw_steps(stage.entry))}" for stage in chain.stages]
    _name_columns(axes, ["original", *after], room=len(entries) + 1)
    if legend:
        axes.legend(loc="center right", frameon=False, fontsize=8.5, handlelength=1.2, borderaxespad=0)


def _share(what: str, entry: Entry, original: Entry) -> float | None:
    if entry is original:
        return 1.0
    if what == "speed":
        return speed_of(entry)
    if what == "bytes":
        return entry.measures.size_bytes / original.measures.size_bytes
    return entry.measures.parameters / original.measures.parameters


def _label(axes: Axes, x: float, y: float, text: str, size: float = 8.5) -> None:
    axes.annotate(text, (x, y), (0, 2), textcoords="offset points", ha="center", va="bottom", fontsize=size)


def _name_columns(axes: Axes, names: list[str], room: int | None = None) -> None:
    columns = room or len(names)
    width = max(8, 66 // columns)
    lines = ["\n".join(textwrap.wrap(shorten(name, 4 * width), width)) for name in names]
    axes.set_xticks(range(len(names)), lines, fontsize=8)
    axes.set_xlim(-0.6, columns - 0.4)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)


def waterfall_height_in(study: Study) -> float:
    """Height of the panels: two per chain."""
    return 0.4 + PANEL_IN * len(chains(study))
