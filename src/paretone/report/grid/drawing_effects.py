"""What differs from the reference: kinds of errors, coefficients of the linear model, and words."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from paretone.report.colours import ERRORS, GRID, INK, PAPER, SERIES
from paretone.report.grid.analysis import Analysis, Panel
from paretone.report.grid.comparisons import Beside
from paretone.report.grid.drawing_wer import panelled
from paretone.report.words import fixed, shorten
from paretone.results.family import Coefficient, Fit
from paretone.results.significance import ALPHA

PANEL_IN = 5.6  # names of ways stand beside the axes
MOST_BARS = 30
MOST_TERMS = 40
MOST_COLUMNS = 24
MOST_WORDS = 14
LONGEST = 60.0  # errors per 100 words beyond which a bar is cut


def shift_figure(analysis: Analysis) -> Figure:
    """Substitutions, deletions and insertions beside the reference, by language, as stacked diverging bars."""
    bars = {panel.name: bars_of(analysis, panel) for panel in analysis.panels}
    panels = [panel for panel in analysis.panels if bars[panel.name]]
    most = max(len(found) for found in bars.values())

    def draw(axes: Axes, panel: Panel) -> None:
        found = bars[panel.name]
        for place, (_, kinds) in enumerate(found):
            _draw_bar(axes, place, kinds)
        axes.axvline(0, color=INK, linewidth=0.9)
        axes.set_yticks(range(len(found)), [shorten(name, 46) for name, _ in found])
        axes.set_ylim(most - 0.4, -0.6)
        axes.tick_params(axis="y", length=0, labelsize=8)
        axes.set_xlabel("errors per 100 words, beside the reference")

    return panelled(panels, draw, height_in=1.1 + 0.19 * most, columns=2, panel_in=PANEL_IN)


def bars_of(analysis: Analysis, panel: Panel) -> list[tuple[str, dict[str, float]]]:
    """Name and shifts per 100 words of each comparison of a panel and language; of many, those that shift least."""
    grid = analysis.grid
    found = []
    each = max((len(way.by_language) for way in panel.ways), default=1)
    for member in nearest(analysis, panel, max(1, MOST_BARS // each)):
        languages = len(member.shifts) > 1
        for language, kinds in member.shifts.items():
            name = grid.briefly(member.way.labels) or member.way.name
            name += f" ({language or 'unknown'})" if languages else ""
            found.append((name, {kind: 100 * value for kind, value in kinds.items()}))
    return found


def nearest(analysis: Analysis, panel: Panel, most: int) -> list[Beside]:
    """The comparisons of a panel in order; where there are more than ``most``, those whose WER differs least."""
    own = {way.key for way in panel.ways}
    found = [member for member in analysis.family.members if member.way.key in own]
    kept = sorted(found, key=lambda member: abs(member.bootstrap.delta))[:most]
    return [member for member in found if any(member is each for each in kept)]


def _draw_bar(axes: Axes, place: int, kinds: dict[str, float]) -> None:
    ends = {1: sum(v for v in kinds.values() if v > 0), -1: sum(v for v in kinds.values() if v < 0)}
    at = {1: 0.0, -1: 0.0}
    for kind, colour in ERRORS.items():
        side = 1 if kinds[kind] >= 0 else -1
        shrink = min(1.0, LONGEST / abs(ends[side])) if ends[side] else 1.0
        length = shrink * kinds[kind]
        axes.barh(place, length, left=at[side], height=0.72, color=colour, label=kind if place == 0 else None)
        at[side] += length
    net = sum(kinds.values())
    axes.plot(
        [max(-LONGEST, min(LONGEST, net))], [place], color=INK, marker="|", markersize=8, markeredgewidth=1.6,
        linestyle="", label="all errors" if place == 0 else None,
    )  # fmt: skip
    cut = "◂" * (-ends[-1] > LONGEST) + "▸" * (ends[1] > LONGEST)
    if cut:
        told = f"{cut} {fixed(net)}"
        axes.annotate(told, (at[1], place), (3, 0), textcoords="offset points", va="center", fontsize=7.5)


def forest_figure(analysis: Analysis, fit: Fit) -> Figure:
    """The coefficients of the linear model with their intervals, in points of WER."""
    terms = forest_terms(fit)
    figure = Figure(figsize=(7.6, 1.0 + 0.23 * len(terms)), layout="constrained", facecolor=PAPER)
    axes = figure.subplots()
    for place, term in enumerate(terms):
        sure = term.p_holm is not None and term.p_holm < ALPHA
        colour = SERIES[(len(term.terms) - 1) % len(SERIES)]
        axes.plot([100 * end for end in term.ci95], [place, place], color=colour, linewidth=1.6)
        axes.plot(
            [100 * term.estimate], [place], color=colour, marker="o", markersize=5.5, linestyle="",
            fillstyle="full" if sure else "none",
        )  # fmt: skip
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set_yticks(range(len(terms)), [shorten(term_name(analysis, term), 60) for term in terms])
    axes.set_ylim(len(terms) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelsize=8.5)
    axes.set_xlabel("points of WER, 95 % interval; filled: significant after Holm")
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure


def forest_terms(fit: Fit) -> list[Coefficient]:
    """The terms to show: all but the intercept, of many those with the smallest p, in the model's order."""
    found = list(fit.coefficients[1:])
    kept = sorted(found, key=lambda term: term.p_value)[:MOST_TERMS]
    return [term for term in found if any(term is each for each in kept)]


def term_name(analysis: Analysis, term: Coefficient) -> str:
    """``layers per −1 × lora yes``."""
    return " × ".join(analysis.grid.said(axis, label) if not label.startswith("per ") else f"{axis} {label}"
                      for axis, label in term.terms.items()) or "intercept"  # fmt: skip


def word_figure(analysis: Analysis) -> Figure:
    """Words against ways: how many more of 100 times each word goes wrong than under the reference."""
    tables = {panel.name: word_table(analysis, panel) for panel in analysis.panels}
    panels = [panel for panel in analysis.panels if tables[panel.name][0]]

    def draw(axes: Axes, panel: Panel) -> None:
        words, names, values = tables[panel.name]
        for row, column in np.ndindex(values.shape):
            value = float(values[row, column])
            colour = SERIES[1] if value > 0 else SERIES[0]
            box = Rectangle((column - 0.5, row - 0.5), 1, 1, color=colour, alpha=min(1.0, abs(value) / 60), linewidth=0)
            axes.add_patch(box)
        _draw_numbers(axes, values)
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylim(len(words) - 0.5, -0.5)
        axes.set_xticks(range(len(names)), [shorten(name, 42) for name in names], rotation=90, fontsize=7.5)
        axes.set_yticks(range(len(words)), [shorten(word, 22) for word in words])
        axes.tick_params(length=0)
        axes.grid(False)

    return panelled(panels, draw, height_in=5.0, columns=2, panel_in=PANEL_IN)


def _draw_numbers(axes: Axes, values: np.ndarray) -> None:
    """Whole numbers, where there is room for them."""
    for row, column in np.ndindex(values.shape):
        if values.shape[1] <= MOST_COLUMNS / 2 and round(float(values[row, column])):
            text = fixed(float(values[row, column]), 0)
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=INK)


def word_table(analysis: Analysis, panel: Panel) -> tuple[list[str], list[str], np.ndarray]:
    """Words, names of ways, and (words, ways) more errors per 100 times said; words by all their change."""
    grid = analysis.grid
    members = [member for member in nearest(analysis, panel, MOST_COLUMNS) if member.words]
    changes: dict[str, np.ndarray] = {}
    weights: dict[str, int] = {}
    for place, member in enumerate(members):
        for change in member.words:
            more = change.errors - (change.baseline_errors or 0)
            row = changes.setdefault(change.word, np.zeros(len(members)))
            row[place] = 100 * more / max(1, change.count)
            weights[change.word] = weights.get(change.word, 0) + abs(more)
    words = sorted(changes, key=lambda word: (-weights[word], word))[:MOST_WORDS]
    names = [grid.briefly(member.way.labels) or member.way.name for member in members]
    return words, names, np.array([changes[word] for word in words]).reshape(len(words), len(members))
