"""What the page of a grid of cells is made of: cells with labels, and where their results lie."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from paretone.report.grid.marking import Heard, hear
from paretone.results import Result, Transcript, read_result, read_transcripts
from paretone.results.schema import TRANSCRIPTS_FILE

SEED = "seed"  # the axis that repeats a cell and makes no other way of it
YES, NO = ("yes", "true"), ("no", "false", "none", "")  # labels that say nothing without their axis
PANELS = ("model", "data", "language")  # axes that get a panel for each label: their WERs are not of one kind


@dataclass(frozen=True)
class GridCell:
    """One measured cell.

    Attributes:
        digest: names it.
        labels: its place on each axis, by the study's own words and in its order; `SEED` among them where there are
            seeds.
        folder: holds result.json and transcripts.jsonl.
        making: what else is known of how it was made: ``updates``, ``train_s``, ``layers_removed``, …
    """

    digest: str
    labels: Mapping[str, str]
    folder: Path
    making: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def result(self) -> Result:
        """The receipt."""
        return read_result(self.folder)

    @cached_property
    def transcripts(self) -> list[Transcript]:
        """What was heard."""
        return read_transcripts(self.folder / TRANSCRIPTS_FILE)

    @cached_property
    def heard(self) -> Heard:
        """The same, normalised, aligned and counted; the transcripts themselves are not kept for it."""
        return hear(read_transcripts(self.folder / TRANSCRIPTS_FILE))


@dataclass(frozen=True)
class Grid:
    """A study's results.

    Attributes:
        name: of the study.
        about: what it asks, in the words of whoever wrote it.
        axes: labels of each axis, in order; an axis whose labels are all numbers is drawn as one.
        reference: the label of some axes that others are compared with: each cell whose labels differ from it in these
            axes is paired with the cell that has the reference's labels there and is the same in all other axes.
        cells: those that are measured.
        failed: labels of cells that failed, and why.
        waiting: how many are neither.
        plain: results of models beside the grid, by the label of the axis ``data``: the plain Whisper line.
        command: what makes the page.
    """

    name: str
    about: str
    axes: Mapping[str, Sequence[str]]
    reference: Mapping[str, str]
    cells: Sequence[GridCell]
    failed: Sequence[tuple[Mapping[str, str], str]] = ()
    waiting: int = 0
    plain: Mapping[str, Path] = field(default_factory=dict)
    command: str = ""

    @cached_property
    def open_axes(self) -> list[str]:
        """Axes that ways differ in: those with more than one label, seeds left out."""
        return [axis for axis, labels in self.axes.items() if axis != SEED and len(labels) > 1]

    @cached_property
    def numeric_axes(self) -> list[str]:
        """Those of them whose labels are all numbers, the one with most labels first."""
        found = [axis for axis in self.open_axes if all(is_number(label) for label in self.axes[axis])]
        return sorted((axis for axis in found if axis not in PANELS), key=lambda axis: -len(self.axes[axis]))

    @cached_property
    def panel_axes(self) -> list[str]:
        """Those that make panels."""
        return [axis for axis in self.open_axes if axis in PANELS]

    def named(self, labels: Mapping[str, str], axes: Sequence[str] | None = None) -> str:
        """A name for some labels: ``da · layers 6 · lora no``; a label that says little alone follows its axis."""
        chosen = self.open_axes if axes is None else axes
        return " · ".join(self.said(axis, labels[axis]) for axis in chosen if axis in labels)

    def briefly(self, labels: Mapping[str, str]) -> str:
        """A short name inside a panel: ``layers 6 · lora``; what is answered with no goes without saying."""
        inner = [axis for axis in self.open_axes if axis not in self.panel_axes and axis in labels]
        parts = [
            axis if labels[axis] in YES else self.said(axis, labels[axis]) for axis in inner if labels[axis] not in NO
        ]
        return " · ".join(parts) or self.named(labels, inner)

    def said(self, axis: str, label: str) -> str:
        """A label as it can stand alone."""
        bare = is_number(label) or label in (*YES, *NO)
        return f"{axis} {label or 'none'}" if bare else label

    def compared(self, labels: Mapping[str, str]) -> dict[str, str]:
        """The labels of the cell that a cell with ``labels`` is set beside."""
        return {axis: self.reference.get(axis, label) for axis, label in labels.items()}

    def order(self, labels: Mapping[str, str]) -> tuple[int, ...]:
        """Sorts ways: by their place on each axis."""
        return tuple(_place(self.axes[axis], label) for axis, label in labels.items() if axis in self.axes)


def is_number(label: str) -> bool:
    """Whether a label is a finite number."""
    try:
        return math.isfinite(float(label))
    except ValueError:
        return False


def _place(labels: Sequence[str], label: str) -> int:
    return list(labels).index(label) if label in labels else len(labels)
