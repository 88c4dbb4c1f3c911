"""The figures of a grid's page; equal results give equal bytes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from matplotlib.figure import Figure

from paretone.report.grid.analysis import LATENCY, Analysis
from paretone.report.grid.drawing_effects import (
    LONGEST,
    MOST_BARS,
    MOST_COLUMNS,
    forest_figure,
    forest_terms,
    shift_figure,
    word_figure,
)  # fmt: skip
from paretone.report.grid.drawing_wer import axis_figure, cost_figure, has_lines
from paretone.report.plots import house_style, saved
from paretone.report.words import fixed

KINDS = ("svg", "png")
BARS = "Bars and bands are 95 % intervals over utterances and seeds."


@dataclass(frozen=True)
class Picture:
    """A figure as files.

    Attributes:
        name: of its files, without suffix.
        title: one line.
        caption: what is drawn and how to read it.
        files: content by suffix.
    """

    name: str
    title: str
    caption: str
    files: dict[str, bytes]


def pictures_of(analysis: Analysis) -> list[Picture]:
    """Every figure that a grid has something for."""
    pictures = []
    for name, title, caption, draw in _plans(analysis):
        with house_style():
            files = dict(zip(KINDS, saved(draw(), KINDS), strict=True))
        pictures.append(Picture(name, title, caption, files))
    return pictures


def _plans(analysis: Analysis) -> Iterator[tuple[str, str, str, Callable[[], Figure]]]:
    yield from _wer_plans(analysis)
    if analysis.family.members:
        yield "shifts", "Kinds of errors beside the reference", _shift_caption(analysis), lambda: shift_figure(analysis)
    fit = analysis.fit
    if fit is not None and len(fit.coefficients) > 1:
        yield (
            "interaction",
            "Main effects and interactions",
            _fit_caption(analysis),
            lambda: forest_figure(analysis, fit),
        )
    if any(member.words for member in analysis.family.members):
        caption = (
            "How many more of 100 times a word goes wrong than under the reference (orange; blue: fewer), over all "
            f"seeds. The words that changed most; of more than {MOST_COLUMNS} ways in a panel, those whose WER differs "
            "least from the reference's."
        )
        yield "words", "Words that changed most", caption, lambda: word_figure(analysis)


def _wer_plans(analysis: Analysis) -> Iterator[tuple[str, str, str, Callable[[], Figure]]]:
    plain = " The dashed line is the model beside the grid." if analysis.grid.plain else ""
    for axis in analysis.grid.numeric_axes:
        if has_lines(analysis, axis):
            caption = f"{BARS} Ways that are a single point along this axis are left out.{plain}"
            yield f"wer-{_file(axis)}", f"WER against {axis}", caption, partial(axis_figure, analysis, axis)
    numbers = " and ".join(analysis.grid.numeric_axes)
    near = f" Numbers beside points are {numbers}." if numbers else ""
    front = (
        f"{BARS} Circles and the stepped line are the Pareto front: no other way has both less cost and a lower WER."
    )
    for name in analysis.denominators:
        title = f"WER against parameters: {name}"
        yield f"parameters-{_file(name)}", title, front + near + plain, partial(cost_figure, analysis, name)
    caption = (
        f"{front}{near} Time is of whatever else ran on the machine too: a difference of a few percent means little."
    )
    yield LATENCY, "WER against measured latency", caption + plain, lambda: cost_figure(analysis, LATENCY)


def _shift_caption(analysis: Analysis) -> str:
    return (
        "Substitutions, deletions and insertions per 100 reference words, way minus reference, over all seeds; the "
        f"mark is their sum. Of more than {MOST_BARS} bars in a panel those of ways whose WER differs least are drawn; "
        f"◂ and ▸ are bars cut at {LONGEST:.0f} on that side, with their sum."
    )


def _fit_caption(analysis: Analysis) -> str:
    fit = analysis.fit
    assert fit is not None
    dropped = ", ".join(" × ".join(term) for term in fit.dropped)
    left = f" Not in the model, since these cells cannot tell: {dropped}." if dropped else ""
    total = len(fit.coefficients) - 1
    some = "" if len(forest_terms(fit)) == total else f" Of {total} coefficients those with the smallest p are drawn."
    return (
        f"Ordinary least squares on the WER of {len(analysis.grid.cells)} cells, beside the reference; t intervals "
        f"with {fit.freedom} degrees of freedom. It explains {fixed(100 * fit.explained, 0)} % of the variance and "
        f"leaves {fixed(100 * fit.spread)} points. The intervals are about seeds and what is not linear, given these "
        f"utterances.{left}{some}"
    )


def _file(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split()) or "axis"
