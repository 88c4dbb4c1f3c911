"""The Python face: the same words as on the command line."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paretone.errors import UserError
from paretone.plan import Plan, Recipe, checked_recipe, read_plan, read_recipe

if TYPE_CHECKING:
    from paretone.train import Dev, Finetuned
    from paretone.transform import Compressed


def compress(
    model: str | Path,
    out: str | Path,
    *,
    sparsity: float | None = None,
    target_params: float | None = None,
    recipe: str | Path | None = None,
    plan: str | Path | Plan | None = None,
    method: str | None = None,
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
        target_params: share of all parameters that stays, in (0, 1].
        recipe: a YAML file of steps; says method, units and settings itself.
        plan: a plan, or its file.
        method: a file of ``paretone.methods``; "cluster" by default.
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
        recipe=recipe,
        plan=plan,
        method=method,
        units=units,
        settings=settings,
        seed=seed,
    )
    given = {"sparsity": sparsity, "target-params": target_params, "recipe": recipe, "method": method, "units": units}
    given |= {"seed": seed, "revision": revision, "plan": "plan.json" if isinstance(plan, Plan) else plan}
    command = command_of(str(model), given, settings or {})
    return carry_out(str(model), out, how, revision=revision, overwrite=overwrite, command=command)


def make_plan(
    model: str | Path,
    *,
    sparsity: float | None = None,
    target_params: float | None = None,
    recipe: str | Path | None = None,
    method: str | None = None,
    units: str | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
    revision: str | None = None,
) -> Plan:
    """What ``compress`` with the same words would do, worked out from the headers alone; see there."""
    from paretone.transform import make_plan as work_out

    how = request(
        sparsity=sparsity,
        target_params=target_params,
        recipe=recipe,
        method=method,
        units=units,
        settings=settings,
        seed=seed,
    )
    return work_out(str(model), how, revision=revision)


def finetune(
    model: str | Path,
    out: str | Path,
    data: str | Path,
    *,
    dev: str | Path | None = None,
    epochs: int = 3,
    learning_rate: float = 2e-4,
    batch: int = 16,
    accumulate: int = 1,
    warm_up: float = 0.1,
    weight_decay: float = 0.01,
    freeze_front_end: bool | None = None,
    precision: str = "auto",
    gradient_checkpointing: bool = False,
    patience: int | None = None,
    seed: int = 0,
    limit: int | None = None,
    language: str | None = None,
    skip_bad: bool = False,
    revision: str | None = None,
    checkpoint_every_s: float = 300.0,
    restart: bool = False,
    overwrite: bool = False,
) -> "Finetuned":
    """Trains ``model`` on ``data``; `paretone.train.Settings` and `paretone.train.finetune` explain the words.

    The dev set is decoded and scored as by ``evaluate``.

    Raises:
        UserError: for anything wrong with the model, the data, the settings or ``out``, or if an unfinished run of
            ``out`` differs.
        KeyboardInterrupt: after a checkpoint was saved, when SIGINT or SIGTERM comes; the same call goes on from it.
    """
    from paretone.train import Settings
    from paretone.train import finetune as carry_out

    settings = Settings(
        epochs=epochs,
        learning_rate=learning_rate,
        batch=batch,
        accumulate=accumulate,
        warm_up=warm_up,
        weight_decay=weight_decay,
        freeze_front_end=freeze_front_end,
        precision=precision,
        gradient_checkpointing=gradient_checkpointing,
        patience=patience,
        seed=seed,
    )
    given = {name: value for name, value in vars(settings).items() if value != getattr(Settings, name)}
    given |= {"data": data, "dev": dev, "limit": limit, "language": language, "revision": revision}
    given["skip_bad"] = skip_bad or None
    return carry_out(
        model,
        out,
        data,
        settings,
        dev=None if dev is None else _dev(dev, str(model), language, skip_bad),
        limit=limit,
        language=language,
        skip_bad=skip_bad,
        revision=revision,
        checkpoint_every_s=checkpoint_every_s,
        restart=restart,
        overwrite=overwrite,
        command=_finetune_command(str(model), given),
    )


def _dev(data: str | Path, model: str, language: str | None, skip_bad: bool) -> "Dev":
    """Training may not import evaluation, so its dev set comes with the way to count its errors."""
    from paretone.data import open_data
    from paretone.evaluation import word_error_rate
    from paretone.train import Dev

    found = open_data(data, language=language, skip_bad=skip_bad, split="dev")
    return Dev(found, lambda loaded, processor: word_error_rate(loaded, processor, found, name=model))


def _finetune_command(model: str, given: Mapping[str, object]) -> str:
    """The command that trains the model again, with OUT for the folder; defaults are left out."""
    words = ["paretone", "finetune", model, "OUT"]
    for name, value in given.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif value is not None:
            words += [f"--{option}", str(value)]
    return shlex.join(words)


def request(
    *,
    sparsity: float | None = None,
    target_params: float | None = None,
    recipe: str | Path | None = None,
    plan: str | Path | Plan | None = None,
    method: str | None = None,
    units: str | None = None,
    settings: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> Recipe | Plan:
    """The recipe or plan that these words ask for.

    Raises:
        UserError: if they contradict each other, or one of them would have no effect.
    """
    ways = {"--sparsity": sparsity, "--target-params": target_params, "--recipe": recipe, "--plan": plan}
    chosen = [name for name, value in ways.items() if value is not None]
    if len(chosen) > 1:
        raise UserError(f"{' and '.join(chosen)} exclude each other; give one of {', '.join(ways)}")
    own = {"--method": method, "--units": units, "--set": settings or None}
    if plan is not None:
        _refuse_beside("--plan", own | {"--seed": seed})
        return plan if isinstance(plan, Plan) else read_plan(Path(plan))
    if recipe is not None:
        _refuse_beside("--recipe", own)
        read = read_recipe(Path(recipe))
        return read if seed is None else checked_recipe(read.model_dump() | {"seed": seed}, "--seed")
    if not chosen and method != "depth":
        raise UserError(f"nothing says how small: give one of {', '.join(ways)}")
    step = {"method": method, "units": units, "sparsity": sparsity, "target_params": target_params}
    words = {key: value for key, value in step.items() if value is not None}
    return checked_recipe({"steps": [words | {"settings": dict(settings or {})}], "seed": seed or 0}, "command line")


def _refuse_beside(way: str, options: Mapping[str, object]) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise UserError(f"{given[0]} has no effect beside {way}, which says it itself; leave one of them out")


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
