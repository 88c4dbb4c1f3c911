"""A study seen whole: what is planned, what is done, what it may still take."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from paretone.errors import UserError
from paretone.study.store import KINDS, QUICKEN, Store

if TYPE_CHECKING:  # they import much, and telling a state should take no time
    from paretone.study.layout import Layout
    from paretone.study.stages import Stage


@dataclass(frozen=True)
class Estimate:
    """What is left of one kind of stage.

    Attributes:
        seconds_each: the median of those in the store, None where there is none yet.
        bytes_each: likewise; features are not counted, since stages share them.
        most_bytes: of all that is left together, where a limit is known: the size of the models that are made smaller,
            or what the study allows features.
    """

    kind: str
    stages: int
    left: int
    seconds_each: float | None
    bytes_each: float | None
    most_bytes: float | None


def estimates(layout: "Layout", store: Store) -> list[Estimate]:
    """By kind of stage, from what the store knows."""
    stages, by_kind = layout.stages(), {kind: store.done(kind) for kind in KINDS}
    seconds = _seconds_each(store, by_kind)
    found = []
    for kind in KINDS:
        those = [stage for stage in stages if stage.kind == kind]
        if those:
            left = [stage for stage in those if not store.has(stage.place)]
            sizes = [] if kind == "features" else [_size(store, place) for place in sorted(by_kind[kind])[:20]]
            size = median(sizes) if sizes else None
            found.append(Estimate(kind, len(those), len(left), seconds.get(kind), size, _most_bytes(kind, left)))
    return found


def _most_bytes(kind: str, stages: Iterable["Stage"]) -> float | None:
    if kind == "features":
        from paretone.train.slam.recipe import Features

        usual: float = Features.model_fields["gb"].default
        return max((1e9 * (stage.given["training"]["gb"] or usual) for stage in stages), default=0.0)
    if kind not in ("compress", "finetune"):
        return None
    sizes = [_source_size(stage) for stage in stages]
    return None if None in sizes else sum(filter(None, sizes))


def _source_size(stage: "Stage") -> int | None:
    """Of the model that a stage begins with; None where it is not here."""
    from paretone.checkpoint import locate, open_checkpoint

    source = next(each.given for each in stage.chain() if "model" in each.given)
    try:
        files = open_checkpoint(locate(source["model"], source["revision"])).weight_files
    except UserError:
        return None
    return sum(file.stat().st_size for file in files)


def _size(store: Store, place: str) -> int:
    return sum(path.stat().st_size for path in store.folder(place).rglob("*") if path.is_file())


def register(layout: "Layout", store: Store, *, file: str) -> None:
    """Notes in the store what the study consists of, so that its state can be told without resolving it again."""
    study = layout.study
    store.register(
        study.name,
        {
            "file": file,
            "about": study.about,
            "axes": {axis: list(labels) for axis, labels in study.all_axes().items()},
            "reference": {axis: str(label) for axis, label in study.reference.items()},
            "cells": [
                [list(laid.cell.labels.values()), [s.place for s in laid.stage.chain()]] for laid in layout.cells
            ],
            "plain": [[model, label, stage.place] for (model, label), stage in layout.plain.items()],
        },
    )


def cell_name(axes: Iterable[str], labels: Iterable[str]) -> str:
    """A cell for a reader: ``layers=6 seed=0``."""
    return " ".join(f"{axis}={label}" for axis, label in zip(axes, labels, strict=True))


@dataclass(frozen=True)
class CellState:
    """Where a cell stands: ``done``, ``running``, ``failed`` or ``waiting``; and why it failed."""

    labels: tuple[str, ...]
    place: str
    state: str
    reason: str = ""


@dataclass(frozen=True)
class State:
    """Where a study stands.

    Attributes:
        running: who is at which of its stages now, by place; ``for`` which cell or model beside the grid.
        left: how many stages of each kind are to be done, and
        seconds_each: what one of a kind took.
    """

    name: str
    axes: Mapping[str, list[str]]
    cells: list[CellState]
    running: Mapping[str, Mapping[str, Any]]
    left: Mapping[str, int]
    seconds_each: Mapping[str, float]

    @property
    def counts(self) -> Counter[str]:
        """How many cells are in each state."""
        return Counter(cell.state for cell in self.cells)

    def eta_s(self) -> float | None:
        """Seconds until the rest is done by as many workers as there are now; None where that can't be told."""
        known = {kind: count for kind, count in self.left.items() if kind in self.seconds_each}
        if not self.running or any(kind not in QUICKEN for kind in self.left.keys() - known.keys()):
            return None
        return sum(self.seconds_each[kind] * count for kind, count in known.items()) / len(self.running)


def state_of(store: Store, name: str) -> State:
    """Reads where a study stands from names of folders alone, so that ten thousand cells take no time."""
    told = store.study(name)
    by_kind = {kind: store.done(kind) for kind in KINDS}
    done: set[str] = set().union(*by_kind.values())
    claims, failures = store.claims(), store.failures()
    cells: list[CellState] = []
    left: set[str] = set()
    running: dict[str, Mapping[str, Any]] = {}
    for model, label, place in told["plain"]:
        if place in claims:
            running[place] = claims[place] | {"for": f"{model} {label}".strip()}
    for labels, chain in told["cells"]:
        state, reason = _state(chain, done, claims, failures)
        if state != "done":
            left.update(place for place in chain if place not in done)
            for place in claims.keys() & set(chain):
                running.setdefault(place, claims[place] | {"for": cell_name(told["axes"], labels)})
        cells.append(CellState(tuple(labels), chain[0], state, reason))
    return State(
        name,
        told["axes"],
        cells,
        running,
        Counter(place.partition("/")[0] for place in left),
        _seconds_each(store, by_kind),
    )


def _state(
    chain: list[str], done: set[str], claims: Mapping[str, Any], failures: Mapping[str, Mapping[str, Any]]
) -> tuple[str, str]:
    if chain[0] in done:
        return "done", ""
    if any(place in claims and not _quickens(place) for place in chain):
        return "running", ""
    for place in chain:
        if place in failures and place not in done and not _quickens(place):
            return "failed", str(failures[place]["reason"])
    return "waiting", ""


def _quickens(place: str) -> bool:
    return place.partition("/")[0] in QUICKEN


def _seconds_each(store: Store, by_kind: Mapping[str, set[str]]) -> dict[str, float]:
    """The median of what stages of a kind took, from up to fifty seals of each; those that are gone count, too."""
    took: dict[str, dict[str, float]] = {}
    for places in by_kind.values():
        for place in sorted(places)[:50]:
            for other, seconds in store.seconds_of(place).items():
                took.setdefault(other.partition("/")[0], {})[other] = seconds
    return {kind: median(seconds.values()) for kind, seconds in took.items()}
