"""From a study file to the stages of its cells."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from paretone.errors import UserError
from paretone.study.found import Found, stand_in
from paretone.study.grid import Cell, cells_of, checked, has
from paretone.study.schema import DATA, SEED, Budget, StudyFile
from paretone.study.stages import Stage, analyse, compress, evaluate, features, finetune, train


@dataclass(frozen=True)
class Laid:
    """A cell with its last stage, which leaves the Result."""

    cell: Cell
    stage: Stage

    @property
    def digest(self) -> str:
        """The cell's: of everything that decides its Result."""
        return self.stage.digest


@dataclass(frozen=True)
class Layout:
    """All cells of a study, laid out.

    Attributes:
        cells: in the order of the file, each with a digest of its own.
        plain: models beside the grid, by model and label of the data.
        dropped: cells left out since their seed decides nothing and one with another seed stands.
        missing: models and data that are not on this machine.
    """

    study: StudyFile
    cells: list[Laid]
    plain: dict[tuple[str, str], Stage]
    dropped: list[Cell]
    missing: Mapping[str, str]

    def ends(self) -> list[Stage]:
        """The last stages of everything that is to be measured."""
        return [laid.stage for laid in self.cells] + list(self.plain.values())

    def stages(self) -> list[Stage]:
        """Every stage once, those that others need before them."""
        return _all_stages(self.ends())

    def part(self, rule: Mapping[str, list[str]]) -> "Layout":
        """The cells that have one of a rule's labels on each of its axes, without the plain models.

        Raises:
            UserError: if the study has no such axis or label, or no cell has them all.
        """
        labels: dict[str, dict[str, None]] = {}  # those that include brought, too
        for laid in self.cells:
            for axis, label in laid.cell.labels.items():
                labels.setdefault(axis, {})[label] = None
        wanted = checked(self.study.name, labels, rule, "--only")
        cells = [laid for laid in self.cells if has(laid.cell.labels, wanted)]
        if not cells:
            raise UserError(f"study {self.study.name}: no cell has all of {dict(rule)}")
        part = replace(self, cells=cells, plain={})
        needed = json.dumps([stage.identity for stage in part.stages()], ensure_ascii=False)
        missing = {
            what: reason
            for what, reason in self.missing.items()
            if json.dumps(stand_in(what), ensure_ascii=False) in needed
        }
        return replace(part, missing=missing)


def _upwards(stage: Stage) -> Iterator[Stage]:
    for need in stage.needs():
        yield from _upwards(need)
    yield stage


def lay_out(study: StudyFile, found: Found | None = None) -> Layout:
    """Resolves every cell, checks it, and names its stages.

    Raises:
        UserError: naming the cell, if what it says is not allowed, or if two cells are the same.
    """
    found = found or Found()
    cells = [Laid(cell, _last_stage(cell.content, study.budget, found, cell.name)) for cell in cells_of(study)]
    cells = _with_shared(cells)
    kept, dropped = _distinct(study, cells)
    return Layout(study, kept, _plain(study, kept, found), dropped, found.missing)


def _last_stage(content: Mapping[str, Any], budget: Budget, found: Found, name: str) -> Stage:
    try:
        return _path(content, budget, found)
    except UserError as error:
        raise UserError(f"cell {name}: {error}") from error


def _path(content: Mapping[str, Any], budget: Budget, found: Found) -> Stage:
    """The stages of one cell, from its sections."""
    how = {name: content.get(name) for name in ("compress", "finetune", "slam", "evaluate")}
    for name, section in how.items():
        if section is not None and not isinstance(section, Mapping):
            raise UserError(f"{name}: give its keys, or nothing (given: {section!r})")
    revision = None
    if how["slam"] is not None:
        _refuse_beside_slam(content)
        encoder = dict(how["slam"].get("encoder") or {})
        smaller = how["compress"] and compress.stage(
            how["compress"], str(encoder.get("model")), encoder.get("revision"), found
        )
        model: str | Stage = train.stage(how["slam"], smaller or None, found, processes=budget.world)
    else:
        model, revision = _model_of(content)
        if how["compress"] is not None:
            model = compress.stage(how["compress"], model, revision, found)
        if how["finetune"] is not None:
            model = finetune.stage(how["finetune"], model, revision, found, processes=budget.world)
    return evaluate.stage(how["evaluate"] or {}, model, revision, found)


def _model_of(content: Mapping[str, Any]) -> tuple[str, str | None]:
    model = content.get("model")
    if model is None:
        raise UserError("model is missing; give a name, or a section slam")
    if isinstance(model, str):
        return model, None
    if not isinstance(model, Mapping) or set(model) - {"name", "revision"} or "name" not in model:
        raise UserError("model: give a name, or name and revision")
    return str(model["name"]), model.get("revision")


def _refuse_beside_slam(content: Mapping[str, Any]) -> None:
    for section in ("model", "finetune"):
        if content.get(section) is not None:
            raise UserError(f"{section} has no effect beside slam; leave one of them out")


def _with_shared(cells: list[Laid]) -> list[Laid]:
    """Compressions behind what is known of their source, trainings behind a pass over their encoder."""
    analysed = analyse.stages_for(
        [stage for stage in _all_stages(laid.stage for laid in cells) if stage.kind == "compress"]
    )
    cells = _behind(cells, {stage: {"findings": found} for stage, found in analysed.items()})
    passes = features.stages_for(
        [stage for stage in _all_stages(laid.stage for laid in cells) if stage.kind == "train"]
    )
    return _behind(cells, {stage: {"features": found} for stage, found in passes.items()})


def _behind(cells: list[Laid], quicker: Mapping[Stage, Mapping[str, Stage]]) -> list[Laid]:
    return [replace(laid, stage=laid.stage.behind(quicker)) for laid in cells]


def _all_stages(ends: Iterable[Stage]) -> list[Stage]:
    return list(dict.fromkeys(stage for end in ends for stage in _upwards(end)))


def _distinct(study: StudyFile, cells: list[Laid]) -> tuple[list[Laid], list[Cell]]:
    """Cells without those that differ in nothing but a seed that nothing depends on."""
    first: dict[str, Laid] = {}
    dropped = []
    for laid in cells:
        same = first.setdefault(laid.digest, laid)
        if same is laid:
            continue
        labels, others = laid.cell.labels, same.cell.labels
        differing = [axis for axis in labels if labels[axis] != others[axis]]
        if differing != [SEED]:
            raise UserError(
                f"study {study.name}: cells {same.cell.name} and {laid.cell.name} are the same: "
                f"{', '.join(differing) or 'nothing'} makes no difference there; exclude one of them"
            )
        dropped.append(laid.cell)
    return list(first.values()), dropped


def _plain(study: StudyFile, cells: list[Laid], found: Found) -> dict[tuple[str, str], Stage]:
    """The models of ``plain``, measured as the cells are."""
    ways: dict[str, Mapping[str, Any]] = {}
    for laid in cells:
        section = laid.cell.content["evaluate"]
        ways.setdefault(laid.cell.labels.get(DATA, ""), {k: v for k, v in section.items() if k != "repetition"})
    return {
        (model, label): evaluate.stage(section, model, None, found)
        for model in study.plain
        for label, section in ways.items()
    }
