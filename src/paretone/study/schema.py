"""Study files: what is the same in all cells, what varies, and what a cell may cost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from paretone.errors import UserError
from paretone.plan import explain, put, read_yaml

Count = Annotated[int, Field(ge=1)]
SECTIONS = ("model", "compress", "finetune", "slam", "evaluate")  # in the order in which a cell goes through them
SEED, REPETITION, DATA = "seed", "repetition", "data"  # axes that the file has keys of their own for


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Range(_Part):
    """An axis of the values of one dotted key; their texts are its labels."""

    key: str
    values: Annotated[list[Any], Field(min_length=1)]


# an axis: what each label changes, by dotted keys; or the values of one key
Axis = Range | dict[str, dict[str, Any]]


class Budget(_Part):
    """What one stage of a cell takes, and the most that it may take.

    Attributes:
        cpus, gpus: reserved for it; a stage has as many threads as CPUs.
        processes: that a training is shared among, through torchrun; one per GPU by default.
        memory_gb: resident memory, reserved and held.
        minutes: of wall time.
    """

    cpus: Annotated[float, Field(gt=0)] = 1
    gpus: Annotated[float, Field(ge=0)] = 0
    processes: Count | None = None
    memory_gb: Annotated[float, Field(gt=0)] | None = None
    minutes: Annotated[float, Field(gt=0)] | None = None

    @property
    def world(self) -> int:
        """Processes of a training."""
        return self.processes or max(1, int(self.gpus))


class StudyFile(_Part):
    """A study as it is written.

    Attributes:
        base: sections that every cell has; see docs/studies.md.
        axes: by name, in the order of tables.
        seeds: of trainings and of chance in compressing; an axis named ``seed``.
        datasets: sections' changes by name of a data set; an axis named ``data``.
        repetitions: of measuring; an axis named ``repetition``.
        exclude: rules; a cell that has all labels of one of them is left out.
        include: further cells: their labels, and what they change beside what the labels say.
        reference: labels that others are compared with.
        retries: how often a stage that fails is tried again.
        keep: whether models stay in the store, or only results.
        plain: models beside the grid, measured on each data set.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    about: str = ""
    base: dict[str, Any]
    axes: dict[str, Axis] = Field(default_factory=dict)
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default_factory=list)
    datasets: dict[str, dict[str, Any]] = Field(default_factory=dict)
    repetitions: Count = 1
    exclude: list[dict[str, Any]] = Field(default_factory=list)
    include: list[dict[str, Any]] = Field(default_factory=list)
    reference: dict[str, Any] = Field(default_factory=dict)
    budget: Budget = Budget()
    retries: Annotated[int, Field(ge=0)] = 1
    keep: Literal["models", "results"] = "models"
    plain: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _own_axes(self) -> "StudyFile":
        for name in (SEED, REPETITION, DATA):
            if name in self.axes:
                raise ValueError(f"axis {name!r} has a key of its own: {_OWN_KEY[name]}")
        unknown = sorted(set(self.base) - set(SECTIONS))
        if unknown:
            raise ValueError(f"base.{unknown[0]} is no section; there are {', '.join(SECTIONS)}")
        if "evaluate" not in self.base and not self.datasets:
            raise ValueError("base.evaluate is missing: nothing would be measured")
        return self

    def all_axes(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        """Every axis: its labels, and what each changes by dotted keys."""
        found = {name: _changes_of(axis) for name, axis in self.axes.items()}
        if self.datasets:
            found = {DATA: dict(self.datasets), **found}
        if self.seeds:
            found[SEED] = {str(seed): {SEED: seed} for seed in self.seeds}
        if self.repetitions > 1:
            numbers = range(1, self.repetitions + 1)
            found[REPETITION] = {str(number): {"evaluate.repetition": number} for number in numbers}
        return found


_OWN_KEY = {SEED: "seeds", REPETITION: "repetitions", DATA: "datasets"}


def _changes_of(axis: Axis) -> dict[str, dict[str, Any]]:
    if isinstance(axis, Range):
        return {label_of(value): {axis.key: value} for value in axis.values}
    return axis


def label_of(value: Any) -> str:
    """How a value of YAML reads as a label: ``yes`` and ``no`` for truth, ``0.5`` for a number."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def read_study(path: Path, changes: Mapping[str, Any] | None = None) -> StudyFile:
    """Reads a study file; ``changes`` replace whole keys of it, as ``seeds`` or ``budget.minutes``.

    Raises:
        UserError: naming the file, the key and what is allowed there.
    """
    content = read_yaml(path, "study")
    if not isinstance(content, dict):
        raise UserError(f"study {path}: it must hold keys; there are {', '.join(StudyFile.model_fields)}")
    for key, value in (changes or {}).items():
        content = put(content, key, value)
    for key in ("axes", "datasets"):
        content = _labelled(content, key)
    try:
        return StudyFile.model_validate(content)
    except ValidationError as error:
        raise UserError(f"study {path}: {_complaint(error)}") from error


def _labelled(content: dict[str, Any], key: str) -> dict[str, Any]:
    """YAML reads ``yes:`` and ``8:`` as other things than the words that they are as labels; nothing is no change."""
    part = content.get(key)
    if not isinstance(part, dict):
        return content

    def texts(labels: Any) -> Any:
        if not isinstance(labels, dict) or "values" in labels:
            return labels
        return {label_of(label): {} if change is None else change for label, change in labels.items()}

    own = {name: texts(labels) for name, labels in part.items()} if key == "axes" else texts(part)
    return {**content, key: own}


def _complaint(error: ValidationError) -> str:
    """A union of shapes complains once for each; the shorter words are those of an axis of labels."""
    first = error.errors()[0]
    if first["loc"] and first["loc"][0] == "axes":
        where = ".".join(str(part) for part in first["loc"][:2])
        return f"{where}: give labels with what each changes by dotted keys, or key and values"
    return explain(error, StudyFile)
