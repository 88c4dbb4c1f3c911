"""Plans: every step with exact widths. Frozen, JSON, and all that is needed to compress."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from paretone.errors import UserError

_FROZEN = ConfigDict(extra="forbid", frozen=True)


class ModulePlan(BaseModel):
    """One module in one step: ``keep`` of its ``width`` units stay; names as that step sees them.

    Heads of ``head_dim`` rows are cut to ``keep_dim``; both are null for an FFN.
    """

    model_config = _FROZEN

    name: str
    kind: Literal["heads", "ffn"]
    width: int
    keep: Annotated[int, Field(ge=1)]
    head_dim: Annotated[int, Field(ge=1)] | None = None
    keep_dim: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _no_wider(self) -> "ModulePlan":
        if self.keep > self.width:
            raise ValueError(f"{self.name} has {self.width} units and can't keep {self.keep}")
        rows = (self.head_dim, self.keep_dim)
        if self.kind == "ffn" and rows != (None, None):
            raise ValueError(f"{self.name} is an FFN and has no head_dim and no keep_dim")
        if self.kind == "heads" and (None in rows or (self.keep_dim or 0) > (self.head_dim or 0)):
            raise ValueError(f"{self.name} has heads of {self.head_dim} rows and can't keep {self.keep_dim}")
        return self

    @property
    def changes(self) -> bool:
        """Whether anything goes."""
        return self.keep < self.width or self.keep_dim != self.head_dim


class LayersPlan(BaseModel):
    """One stack in one step: which of its layers stay."""

    model_config = _FROZEN

    name: str
    depth: int
    keep: Annotated[tuple[int, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _existing(self) -> "LayersPlan":
        if list(self.keep) != sorted(set(self.keep)) or not 0 <= self.keep[0] <= self.keep[-1] < self.depth:
            raise ValueError(f"{self.name}: keep must list layers of 0 to {self.depth - 1}, ascending, each once")
        return self


class Calibration(BaseModel):
    """The unlabelled audio that a step is fitted to: ``clips`` recordings of ``data``, ``limit`` at most."""

    model_config = _FROZEN

    data: str
    name: str
    digest: str
    clips: Annotated[int, Field(ge=1)]
    limit: Annotated[int, Field(ge=1)]


class StepPlan(BaseModel):
    """One method with its settings and the exact widths it is to reach.

    ``recipe_only`` is what was asked for that no flag of ``compress`` can say: rules, profile, multiple, floor. Empty
    where flags lead to this step again; null in older plans, which do not record it.
    ``inputs`` and ``calibration`` stand in a plan's file only where a step reads more than weights.
    """

    model_config = _FROZEN

    method: str
    sparsity: float | None = None
    target_params: float | None = None
    target_bytes: float | None = None
    target_macs: float | None = None
    units: Literal["all", "ffn", "heads"] = "all"
    allocation: Literal["uniform", "variance-tiers", "error"] = "uniform"
    preset: str | None = None
    recipe_only: dict[str, Any] | None = None
    seed: int
    settings: dict[str, Any]
    modules: tuple[ModulePlan, ...] = ()
    layers: tuple[LayersPlan, ...] = ()
    inputs: Literal["gaussian", "synthetic-probe"] = "gaussian"
    calibration: Calibration | None = None

    @model_serializer(mode="wrap")
    def _without_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = write(self)
        if self.inputs == "gaussian":
            del fields["inputs"]
        if self.calibration is None:
            del fields["calibration"]
        return fields

    @property
    def tier(self) -> str:
        """What the step learns from beside weights, in the words of provenance and model card."""
        if self.calibration is not None:
            told = self.calibration
            return f"calibrated on {told.name}, {told.digest}, {told.clips} clips"
        return "data-free" if self.inputs == "gaussian" else self.inputs

    @model_validator(mode="after")
    def _one_kind_of_inputs(self) -> "StepPlan":
        if self.calibration is not None and self.inputs != "gaussian":
            raise ValueError("inputs and calibration exclude each other")
        return self

    @model_validator(mode="after")
    def _each_once(self) -> "StepPlan":
        names = [module.name for module in self.modules] + [layers.name for layers in self.layers]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"{twice[0]} is listed twice in one step")
        return self


class ModuleWidths(BaseModel):
    """A module of the source before the first step and after the last; 0 where its layer is dropped.

    ``head_dim_*`` are the rows of a head, null for an FFN.
    """

    model_config = _FROZEN

    name: str
    kind: Literal["heads", "ffn"]
    width_before: int
    width_after: int
    head_dim_before: int | None = None
    head_dim_after: int | None = None


class Plan(BaseModel):
    """What is done to a model, and its size before and after.

    ``macs_*`` count multiply-accumulates for ``reference``, the input named there.
    """

    model_config = _FROZEN

    format: Literal[1] = 1
    source: str
    source_digest: str | None = None
    family: str
    steps: tuple[StepPlan, ...]
    parameters_before: int
    parameters_after: int
    bytes_before: int
    bytes_after: int
    macs_before: int
    macs_after: int
    reference: str
    modules: tuple[ModuleWidths, ...]

    def to_json(self) -> str:
        """The text of a plan file."""
        return self.model_dump_json(indent=2) + "\n"


def read_plan(path: Path) -> Plan:
    """Reads a plan file.

    Raises:
        UserError: if it can't be read or is no plan of this format.
    """
    try:
        return Plan.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"plan {path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"plan {path} is not text: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise UserError(f"plan {path} is not a plan of format 1: {where}: {first['msg']}") from error
