"""Recipes: what the user asks for, checked key by key.

A recipe is an ordered list of steps; each step sees the model as the step before left it, layers renumbered.
Within a step, rules are read from top to bottom and the first whose glob matches a module's full name decides its
width; the step's own sparsity holds for the rest. A rule that changes nothing is refused.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, model_validator

from paretone.errors import UserError, did_you_mean
from paretone.methods import (
    companion,
    method_function,
    reads_seen,
    rewrites_modules,
    settings_of,
    works_on_layers,
)
from paretone.plan.presets import DEFAULT_PRESET, PRESETS
from paretone.plan.reading import explain, read_yaml

Share = Annotated[float, Field(ge=0, lt=1)]
Target = Annotated[float, Field(gt=0, le=1)]
TARGETS = ("params", "bytes", "macs")
NO_FLAGS = ("rules", "profile", "multiple", "floor")
CALIBRATE_LIMIT = 128


class Rule(BaseModel):
    """Another width for the modules that ``match`` names: a sparsity, or how many units ``keep``.

    A method that cuts heads rather than dropping them cuts them to the rows that so many whole heads have.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    match: str
    sparsity: Share | None = None
    keep: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _one_of(self) -> "Rule":
        if (self.sparsity is None) == (self.keep is None):
            raise ValueError("give sparsity or keep, one of them")
        return self


class Step(BaseModel):
    """One method applied once.

    Attributes:
        preset: a name in ``presets``: says method and allocation, and for some units, profile and multiple; the
            default preset where neither it nor a method is named.
        sparsity: share of heads, FFN units or layers that goes.
        target_params, target_bytes, target_macs: share of the source model's parameters, bytes or multiply-accumulates
            that stays after this step.
        units: which groups; not for methods that work on layers.
        allocation: ``uniform``: the same share of every module; ``variance-tiers``: more where parameters vary more
            (arXiv 2606.11836); ``error``: least error by the method's own model.
        profile: ``equal-heads``: heads of one number and size in each stack, as CTranslate2 wants them; ``stock``: FFN
            widths of one size in each stack and whole heads, as stock transformers wants them.
        multiple: FFN widths are multiples of it, rounded down; sizes of heads of 8 or of it, the smaller. Modules that
            stay whole may have any size.
        floor: share of each module that stays in any case, with allocation ``error``; its curves end at one sixteenth.
        inputs: what modules are taken to read where no data is given: ``gaussian``, in closed form behind their norms;
            ``synthetic-probe``, what they read while the model hears speech-shaped noise.
        calibrate: unlabelled audio; modules are fitted to what they read while the model hears it.
        calibrate_limit: at most so many of its recordings, from the start.
        settings: the method's own, see ``paretone.methods``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    preset: str | None = None
    method: str = "cluster"
    sparsity: Share | None = None
    target_params: Target | None = None
    target_bytes: Target | None = None
    target_macs: Target | None = None
    units: Literal["all", "ffn", "heads"] = "all"
    allocation: Literal["uniform", "variance-tiers", "error"] = "uniform"
    profile: Literal["free", "equal-heads", "stock"] = "free"
    multiple: Annotated[int, Field(ge=1, le=1024)] = 1
    floor: Annotated[float, Field(ge=0.0625, le=1)] = 0.125
    inputs: Literal["gaussian", "synthetic-probe"] = "gaussian"
    calibrate: str | None = None
    calibrate_limit: Annotated[int, Field(ge=1)] = CALIBRATE_LIMIT
    settings: dict[str, Any] = {}
    rules: tuple[Rule, ...] = ()

    @property
    def target(self) -> tuple[str, float] | None:
        """What is counted and the share of it that stays; None where a sparsity or rules say how small."""
        for what in TARGETS:
            share = getattr(self, f"target_{what}")
            if share is not None:
                return what, share
        return None

    @property
    def beyond_flags(self) -> dict[str, Any]:
        """What differs from the defaults, or from what the preset says, and has no flag on the command line."""
        usual = {name: Step.model_fields[name].default for name in NO_FLAGS} | dict(PRESETS.get(self.preset or "", {}))
        return {
            name: value
            for name, value in self.model_dump(mode="json", include=set(NO_FLAGS)).items()
            if getattr(self, name) != usual[name]
        }


class Recipe(BaseModel):
    """An ordered list of steps and the seed of all chance."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: Annotated[tuple[Step, ...], Field(min_length=1)]
    seed: Annotated[int, Field(ge=0)] = 0


def read_recipe(path: Path) -> Recipe:
    """Reads and checks a YAML recipe.

    Raises:
        UserError: naming the file, the key and what is allowed there.
    """
    return checked_recipe(read_yaml(path, "recipe"), f"recipe {path}")


def checked_recipe(content: Any, where: str) -> Recipe:
    """A recipe from parsed YAML or the command line, its methods' settings checked and filled with defaults."""
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error, Recipe)}") from error
    steps = tuple(_checked_step(step, f"{where}, step {i + 1}") for i, step in enumerate(recipe.steps))
    return recipe.model_copy(update={"steps": steps})


def _checked_step(step: Step, where: str) -> Step:
    step = _with_preset(step, where)
    function = method_function(step.method)
    settings = checked_settings(step.method, step.settings, where)
    sizes = [name for name in ("sparsity", *(f"target_{what}" for what in TARGETS)) if getattr(step, name) is not None]
    if len(sizes) > 1:
        raise UserError(f"{where}: give {' or '.join(sizes)}, one of them")
    if works_on_layers(step.method):
        for name in ("units", "allocation", "profile", "multiple", "floor"):
            if getattr(step, name) != Step.model_fields[name].default:
                raise UserError(
                    f"{where}: {name} has no effect with {step.method}, which drops whole layers; leave it out"
                )
    elif not sizes and not step.rules:
        name = function.__module__.split(".")[-1]
        raise UserError(f"{where}: {name} needs sparsity, target_params, target_bytes, target_macs or rules")
    _check_allocation(step, where)
    _check_inputs(step, where)
    return step.model_copy(update={"settings": settings})


def _with_preset(step: Step, where: str) -> Step:
    """``step`` with what its preset says filled in."""
    if step.preset is None and "method" in step.model_fields_set:
        return step
    name = step.preset or DEFAULT_PRESET
    if name not in PRESETS:
        raise UserError(
            f"{where}: no preset {name!r}{did_you_mean(name, PRESETS) or ';'} presets are {', '.join(PRESETS)}"
        )
    says = PRESETS[name]
    for key in says:
        if key in step.model_fields_set and getattr(step, key) != says[key]:
            raise UserError(
                f"{where}: {key} has no effect beside preset {name}, which says {says[key]} itself; "
                "name a method in its place"
            )
    return step.model_copy(update={"preset": name, **says})


def _check_allocation(step: Step, where: str) -> None:
    by_error = step.allocation == "error"
    if by_error and companion(step.method, "analyse") is None:
        raise UserError(f"{where}: {step.method} has no model of its error; allocation is uniform or variance-tiers")
    if step.allocation != "uniform" and step.rules and not by_error:
        raise UserError(f"{where}: rules and allocation {step.allocation} exclude each other")
    if step.profile != "free" and not by_error:
        raise UserError(f"{where}: profile {step.profile} has an effect with allocation error only; leave it out")
    if (step.profile, step.units) in (("equal-heads", "ffn"), ("stock", "heads")):
        raise UserError(f"{where}: profile {step.profile} has no effect on units {step.units}; leave one of them out")
    if "floor" in step.model_fields_set and not by_error:
        raise UserError(f"{where}: floor has an effect with allocation error only; leave it out")
    if step.allocation != "uniform" and step.sparsity is None and step.target is None:
        raise UserError(
            f"{where}: allocation {step.allocation} needs a sparsity, target_params, target_bytes or target_macs"
        )
    if step.multiple > 1 and step.units == "heads" and not rewrites_modules(step.method):
        raise UserError(f"{where}: multiple has no effect on heads with {step.method}, which keeps their size")


def _check_inputs(step: Step, where: str) -> None:
    for name, given in (("inputs", step.inputs != "gaussian"), ("calibrate", step.calibrate is not None)):
        if given and not reads_seen(step.method):
            raise UserError(
                f"{where}: {name} has no effect with {step.method}, which reads weights alone; leave it out"
            )
    if step.calibrate is not None and "inputs" in step.model_fields_set:
        raise UserError(f"{where}: inputs has no effect beside calibrate, which says what modules read; leave it out")
    if step.calibrate is None and "calibrate_limit" in step.model_fields_set:
        raise UserError(f"{where}: calibrate_limit has an effect with calibrate only; leave it out")


def checked_settings(method: str, given: dict[str, Any], where: str) -> dict[str, Any]:
    """All settings of ``method`` with their values: the given ones, checked by type, and the defaults."""
    allowed = settings_of(method)
    for key in given:
        if key not in allowed:
            names = ", ".join(allowed) or "none"
            raise UserError(
                f"{where}: {method} has no setting {key!r}{did_you_mean(key, allowed) or ';'} its settings: {names}"
            )
    strict = ConfigDict(extra="forbid", allow_inf_nan=False)
    model = create_model(method, __config__=strict, **dict(allowed.items()))  # type: ignore[call-overload]
    try:
        values: dict[str, Any] = model.model_validate(given).model_dump()
    except ValidationError as error:
        raise UserError(f"{where}: {method}: {explain(error, Recipe)}") from error
    return values
