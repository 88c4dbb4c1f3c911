"""The cells of a study file: every combination of labels that no rule leaves out, and those that are added."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from paretone.errors import UserError, did_you_mean
from paretone.plan import put
from paretone.study.overview import cell_name
from paretone.study.schema import SECTIONS, SEED, StudyFile, label_of

_SEEDED = {"slam": "slam.training.seed", "finetune": "finetune.seed"}
Axes = Mapping[str, Mapping[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Cell:
    """One cell: its label on each axis, and the sections that come of them."""

    labels: Mapping[str, str]
    content: Mapping[str, Any]

    @property
    def name(self) -> str:
        """For a reader: ``language=da layers=6 seed=0``."""
        return cell_name(self.labels, self.labels.values())


def cells_of(study: StudyFile) -> list[Cell]:
    """Every cell of a study, in the order of its axes; the first axis varies slowest.

    Raises:
        UserError: if a rule or the reference names an axis or label that is not there, a rule leaves nothing out, two
            cells have equal labels, or no cell is left.
    """
    axes = study.all_axes()
    rules = [checked(study.name, axes, rule, f"exclude rule {number}") for number, rule in enumerate(study.exclude, 1)]
    checked(study.name, axes, study.reference, "reference")
    used = [False] * len(rules)
    found = []
    for labels in _combinations(axes):
        hits = [number for number, rule in enumerate(rules) if has(labels, rule)]
        for number in hits:
            used[number] = True
        if not hits:
            found.append(Cell(labels, _content(study, axes, labels, {})))
    found += _included(study, axes)
    if not found:
        raise UserError(f"study {study.name}: the exclude rules leave no cell of {len(list(_combinations(axes)))}")
    if not all(used):
        number = used.index(False)
        raise UserError(f"study {study.name}: exclude rule {number + 1} leaves nothing out: {study.exclude[number]}")
    return found


def _combinations(axes: Axes) -> Iterator[dict[str, str]]:
    for labels in product(*axes.values()):
        yield dict(zip(axes, labels, strict=True))


def has(labels: Mapping[str, str], rule: Mapping[str, list[str]]) -> bool:
    """Whether a cell has one of a rule's labels on each of its axes."""
    return all(labels[axis] in allowed for axis, allowed in rule.items())


def checked(
    name: str, axes: Mapping[str, Collection[str]], rule: Mapping[str, Any], where: str
) -> dict[str, list[str]]:
    """A rule as lists of labels, each of which is there; ``where`` tells a reader which rule it is.

    Raises:
        UserError: if there is no such axis or label.
    """
    found = {}
    for axis, given in rule.items():
        if axis not in axes:
            raise UserError(
                f"study {name}: {where}: unknown axis {axis!r}{did_you_mean(axis, axes) or ';'} "
                f"axes: {', '.join(axes) or 'none'}"
            )
        labels = [label_of(each) for each in (given if isinstance(given, list) else [given])]
        for label in labels:
            if label not in axes[axis]:
                raise UserError(
                    f"study {name}: {where}: axis {axis} has no label {label!r}; labels: {', '.join(axes[axis])}"
                )
        found[axis] = labels
    return found


def _included(study: StudyFile, axes: Axes) -> Iterator[Cell]:
    """Cells of each entry of ``include``: labels may be lists, or new ones; an axis left out takes all of its labels.

    Keys with a dot are changes, and so are names of sections where no axis has that name.
    """
    for number, entry in enumerate(study.include, 1):
        changes = {key: value for key, value in entry.items() if key not in axes and ("." in key or key in SECTIONS)}
        told = {key: value for key, value in entry.items() if key not in changes}
        for axis in told:
            if axis not in axes:
                checked(study.name, axes, {axis: []}, f"include entry {number}")
        choices = [
            [label_of(each) for each in (told[axis] if isinstance(told[axis], list) else [told[axis]])]
            if axis in told
            else list(axes[axis])
            for axis in axes
        ]
        for labels in product(*choices):
            named = dict(zip(axes, labels, strict=True))
            yield Cell(named, _content(study, axes, named, changes))


def _content(study: StudyFile, axes: Axes, labels: Mapping[str, str], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The sections of a cell: the base, changed by each of its labels, then by ``changes``."""
    content: dict[str, Any] = dict(study.base)
    seed = None
    for axis, label in labels.items():
        for key, value in axes[axis].get(label, {}).items():
            if key == SEED:
                seed = value
            else:
                content = _put(study, content, key, value)
    for key, value in changes.items():
        content = _put(study, content, key, value)
    if seed is not None:
        for section, key in _SEEDED.items():
            if content.get(section) is not None:
                content = put(content, key, seed)
    return content


def _put(study: StudyFile, content: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    section = key.partition(".")[0]
    if section not in SECTIONS:
        raise UserError(
            f"study {study.name}: key {key!r} is of no section{did_you_mean(section, SECTIONS) or ';'} "
            f"sections: {', '.join(SECTIONS)}"
        )
    return put(content, key, value)
