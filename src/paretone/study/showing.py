"""What a store holds of a stage, a cell and a study, for those who look and those who tidy up."""

from collections.abc import Mapping
from typing import Any

from paretone.errors import UserError
from paretone.report.grid.records import Grid, GridCell
from paretone.results import read_result
from paretone.study.export import making_of
from paretone.study.grid import checked
from paretone.study.overview import cell_name, state_of
from paretone.study.store import KINDS, Store


def found_stage(store: Store, name: str) -> str:
    """The place of the one stage, done or failed, whose digest begins so.

    Raises:
        UserError: if there is none, or more than one.
    """
    places = set().union(*(store.done(kind) for kind in KINDS)) | set(store.failures())
    hits = sorted(place for place in places if name in (place, "") or place.partition("/")[2].startswith(name))
    if len(hits) != 1 or not name:
        what = f"{len(hits)} begin so, as {hits[0]} and {hits[1]}" if len(hits) > 1 else "there is none"
        raise UserError(f"{store.root}: cell {name!r}: {what}; paretone study plan lists digests")
    return hits[0]


def told_of(store: Store, place: str) -> dict[str, Any]:
    """What is known of a stage: who made it and when; the Result of a cell; why it failed."""
    told: dict[str, Any] = {"stage": place, "folder": str(store.folder(place).resolve())}
    told["cells"] = [f"{name}: {labels}" for name, labels in _cells_at(store, place)]
    if (failure := store.failures().get(place)) is not None:
        told |= {"failed": failure["reason"], "attempts": failure["attempts"], "traceback": failure["traceback"]}
    if not store.has(place):
        return told
    told["made"] = {key: value for key, value in store.seal_of(place).items() if key != "files"}
    told["damage"] = store.damage(place)
    if place.startswith("evaluate/"):
        result = read_result(store.folder(place))
        told |= {"wer": result.wer, "wer_ci95": result.wer_ci95}
        told["errors"] = {name: getattr(result, name) for name in ("substitutions", "deletions", "insertions", "words")}
        told |= {"parameters": result.parameters, "parts": result.parts, "rtfx": result.rtfx}
        told |= {"model": result.model.path, "data": result.data.path, "training": making_of(result)}
    return told


def _cells_at(store: Store, place: str) -> list[tuple[str, str]]:
    found = []
    for name in store.studies():
        told = store.study(name)
        for labels, chain in told["cells"]:
            if place in chain:
                found.append((name, cell_name(told["axes"], labels)))
    return found


def unneeded(store: Store) -> list[str]:
    """Places of stages that no study that ran in this store needs."""
    needed = {place for name in store.studies() for place in _places(store, name)}
    done: set[str] = set().union(*(store.done(kind) for kind in KINDS))
    return sorted(place for place in done - needed if store.has(place))


def without_study(store: Store, name: str) -> list[str]:
    """Forgets a study; the places of what no other one needs."""
    mine = _places(store, name)
    others = {place for other in store.studies() if other != name for place in _places(store, other)}
    (store.root / "studies" / f"{name}.json").unlink()
    return sorted(place for place in mine - others if store.has(place))


def _places(store: Store, name: str) -> set[str]:
    told = store.study(name)
    return {place for _, chain in told["cells"] for place in chain} | {place for _, _, place in told["plain"]}


def grid_of(store: Store, name: str, *, reference: Mapping[str, str] | None = None, command: str = "") -> Grid:
    """The Results of a study, for its page.

    Args:
        reference: labels to compare with; those that the study says, by default.

    Raises:
        UserError: if nothing is measured yet, or there is no such label.
    """
    told, state = store.study(name), state_of(store, name)
    named = [(dict(zip(state.axes, cell.labels, strict=True)), cell) for cell in state.cells]
    cells = [
        GridCell(
            cell.place.partition("/")[2],
            labels,
            store.folder(cell.place),
            making_of(read_result(store.folder(cell.place))),
        )
        for labels, cell in named
        if cell.state == "done"
    ]
    if not cells:
        raise UserError(f"study {name}: no cell is measured yet; paretone study run")
    plain = {
        f"{model} {label}".strip(): store.folder(place) for model, label, place in told["plain"] if store.has(place)
    }
    axes = {axis: _in_use(axis, labels, named) for axis, labels in state.axes.items()}
    checked(name, axes, reference or {}, "--reference")
    return Grid(
        name=name,
        about=told["about"],
        axes=axes,
        reference=reference or told["reference"],
        cells=cells,
        failed=[(labels, cell.reason) for labels, cell in named if cell.state == "failed"],
        waiting=sum(cell.state in ("waiting", "running") for _, cell in named),
        plain=plain,
        command=command,
    )


def _in_use(axis: str, labels: list[str], named: list[Any]) -> list[str]:
    """The labels of an axis and those that ``include`` brought."""
    return list(dict.fromkeys([*labels, *(own[axis] for own, _ in named)]))
