"""The Python face: the same words as on the command line."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paretone.errors import UserError
from paretone.plan import DEFAULT_PRESET, PRESETS, Plan, Recipe, checked_recipe, read_plan, read_recipe

if TYPE_CHECKING:
    from paretone.transform import Compressed


def compress(
    model: str | Path,
    out: str | Path,
    *,
    sparsity: float | None = None,
    target_params: float | None = None,
    target_bytes: float | None = None,
    target_macs: float | None = None,
    recipe: str | Path | None = None,
    plan: str | Path | Plan | None = None,
    preset: str | None = None,
    method: str | None = None,
    allocation: str | None = None,
    units: str | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    revision: str | None = None,
    overwrite: bool = False,
) -> "Compressed":
    """Makes ``model`` smaller and writes it to the folder ``out``, which appears only when it is complete.

    Args:
        model: local folder, hub id or embedded name.
        sparsity: share of heads, FFN units or layers that goes, in [0, 1).
        target_params, target_bytes, target_macs: share of all parameters, bytes or multiply-accumulates that stays,
            in (0, 1].
        recipe: a YAML file of steps; says method, units and settings itself.
        plan: a plan, or its file.
        preset: "best" (the default where no method is named), "paper" or "portable"; says method and allocation.
        method: a file of ``paretone.methods``.
        allocation: "uniform" (the default beside a method), "variance-tiers" or "error".
        units: "all", "ffn" or "heads"; "all" by default.
        settings: the method's own.
        seed: of all chance; 0 by default.

    Raises:
        UserError: for anything wrong with the model, the request or ``out``; then nothing is written.
    """
    from paretone.transform import compress as carry_out

    how = request(
        sparsity=sparsity,
        target_params=target_params,
        target_bytes=target_bytes,
        target_macs=target_macs,
        recipe=recipe,
        plan=plan,
        preset=preset,
        method=method,
        allocation=allocation,
        units=units,
        settings=settings,
        seed=seed,
    )
    given: dict[str, object] = {"sparsity": sparsity, "target-params": target_params, "target-bytes": target_bytes}
    given |= {"target-macs": target_macs, "recipe": recipe, "preset": preset, "method": method}
    given |= {"allocation": allocation, "units": units, "seed": seed, "revision": revision}
    given["plan"] = "plan.json" if isinstance(plan, Plan) else plan
    command = command_of(str(model), given, settings or {})
    return carry_out(str(model), out, how, revision=revision, overwrite=overwrite, command=command)


def make_plan(
    model: str | Path,
    *,
    sparsity: float | None = None,
    target_params: float | None = None,
    target_bytes: float | None = None,
    target_macs: float | None = None,
    recipe: str | Path | None = None,
    preset: str | None = None,
    method: str | None = None,
    allocation: str | None = None,
    units: str | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    revision: str | None = None,
) -> Plan:
    """What ``compress`` with the same words would do; see there. Only allocations other than uniform read weights."""
    from paretone.transform import make_plan as work_out

    how = request(
        sparsity=sparsity,
        target_params=target_params,
        target_bytes=target_bytes,
        target_macs=target_macs,
        recipe=recipe,
        preset=preset,
        method=method,
        allocation=allocation,
        units=units,
        settings=settings,
        seed=seed,
    )
    return work_out(str(model), how, revision=revision)


def request(
    *,
    sparsity: float | None = None,
    target_params: float | None = None,
    target_bytes: float | None = None,
    target_macs: float | None = None,
    recipe: str | Path | None = None,
    plan: str | Path | Plan | None = None,
    preset: str | None = None,
    method: str | None = None,
    allocation: str | None = None,
    units: str | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> Recipe | Plan:
    """The recipe or plan that these words ask for.

    Raises:
        UserError: if they contradict each other, or one of them would have no effect.
    """
    budgets: dict[str, object] = {"sparsity": sparsity, "target_params": target_params}
    budgets |= {"target_bytes": target_bytes, "target_macs": target_macs}
    ways = {f"--{name.replace('_', '-')}": value for name, value in budgets.items()}
    ways |= {"--recipe": recipe, "--plan": plan}
    chosen = [name for name, value in ways.items() if value is not None]
    if len(chosen) > 1:
        raise UserError(f"{' and '.join(chosen)} exclude each other; give one of {', '.join(ways)}")
    own: dict[str, object] = {"--preset": preset, "--method": method, "--allocation": allocation, "--units": units}
    own |= {"--set": settings or None}
    if plan is not None:
        _refuse_beside("--plan", own | {"--seed": seed})
        return plan if isinstance(plan, Plan) else read_plan(Path(plan))
    if recipe is not None:
        _refuse_beside("--recipe", own)
        read = read_recipe(Path(recipe))
        return read if seed is None else read.model_copy(update={"seed": checked_seed(seed)})
    if not chosen and method != "depth":
        raise UserError(f"nothing says how small: give one of {', '.join(ways)}")
    if preset is None and method is None:
        _refuse_without_method(allocation)
    step = {"preset": preset, "method": method, "allocation": allocation, "units": units, **budgets}
    words = {key: value for key, value in step.items() if value is not None}
    return checked_recipe({"steps": [words | {"settings": dict(settings or {})}], "seed": seed or 0}, "command line")


def checked_seed(seed: int) -> int:
    """``seed`` where it is one."""
    if seed < 0:
        raise UserError(f"seed is {seed}; it must be 0 or more")
    return seed


def _refuse_beside(way: str, options: Mapping[str, object]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise UserError(f"{given[0]} has no effect beside {way}, which says it itself; leave one of them out")


def _refuse_without_method(allocation: str | None) -> None:
    says = PRESETS[DEFAULT_PRESET]["allocation"]
    if allocation not in (None, says):
        raise UserError(
            f"--allocation {allocation} goes beside --method; without one, preset {DEFAULT_PRESET} says {says}"
        )


def command_of(model: str, given: Mapping[str, object], settings: Mapping[str, Any]) -> str:
    """The command that makes the model again, with OUT for the folder so that equal work has equal bytes."""
    words = ["paretone", "compress", model, "OUT"]
    for name, value in given.items():
        if value is not None:
            words += [f"--{name}", str(value)]
    for key, value in settings.items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        words += ["--set", f"{key}={text}"]
    return shlex.join(words)
