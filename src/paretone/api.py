"""The Python face: the same words as on the command line."""

import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from paretone.errors import UserError
from paretone.plan import DEFAULT_PRESET, PRESETS, Plan, Recipe, checked_recipe, read_plan, read_recipe

if TYPE_CHECKING:
    from paretone.stepwise import Stage
    from paretone.train import Dev, Finetuned
    from paretone.train.slam.recipe import SlamRecipe
    from paretone.train.slam.training import Trained as SlamTrained
    from paretone.transform import Compressed

SIZES = ("sparsity", "target_params", "target_bytes", "target_macs", "recipe", "plan")  # one of them says how small


class How(TypedDict, total=False):
    """How to compress; one word must say how small, the others may be left out.

    Attributes:
        sparsity: share of heads, FFN units or layers that goes, in [0, 1).
        target_params, target_bytes, target_macs: share of all parameters, bytes or multiply-accumulates that stays,
            in (0, 1].
        recipe: a YAML file of steps; says method, units and settings itself.
        plan: a plan, or its file.
        preset: "best" (the default where no method is named), "paper" or "portable"; says method and allocation.
        method: a file of ``paretone.methods``.
        allocation: "uniform" (the default beside a method), "variance-tiers" or "error".
        units: "all", "ffn" or "heads"; "all" by default.
        inputs: "gaussian" (the default) or "synthetic-probe": what modules are taken to read where there is no data.
        calibrate: unlabelled audio that modules are fitted to, as ``data`` of ``paretone.evaluate``; no text is read.
        calibrate_limit: at most so many of its recordings; 128 by default.
        settings: the method's own.
        seed: of all chance; 0 by default.
    """

    sparsity: float | None
    target_params: float | None
    target_bytes: float | None
    target_macs: float | None
    recipe: str | Path | None
    plan: str | Path | Plan | None
    preset: str | None
    method: str | None
    allocation: str | None
    units: str | None
    inputs: str | None
    calibrate: str | Path | None
    calibrate_limit: int | None
    settings: Mapping[str, Any] | None
    seed: int | None


def compress(
    model: str | Path, out: str | Path, *, revision: str | None = None, overwrite: bool = False, **how: Unpack[How]
) -> "Compressed":
    """Makes ``model`` smaller and writes it to the folder ``out``, which appears only when it is complete.

    Args:
        model: local folder, hub id or embedded name.
        how: see `How`.

    Raises:
        UserError: for anything wrong with the model, the request or ``out``; then nothing is written.
    """
    from paretone.transform import compress as carry_out

    given = {**how, "revision": revision}
    if isinstance(how.get("plan"), Plan):
        given["plan"] = "plan.json"
    command = command_of(str(model), given)
    return carry_out(str(model), out, request(**how), revision=revision, overwrite=overwrite, command=command)


def make_plan(model: str | Path, *, revision: str | None = None, **how: Unpack[How]) -> Plan:
    """What ``compress`` with the same words would do. Only allocations other than uniform read weights."""
    from paretone.transform import make_plan as work_out

    if how.get("plan") is not None:
        raise UserError("this is a plan already; give a recipe or say how small")
    return work_out(str(model), request(**how), revision=revision)


def finetune(
    model: str | Path,
    out: str | Path,
    data: str | Path,
    *,
    dev: str | Path | None = None,
    limit: int | None = None,
    language: str | None = None,
    skip_bad: bool = False,
    revision: str | None = None,
    checkpoint_every_s: float = 300.0,
    restart: bool = False,
    overwrite: bool = False,
    **settings: Any,
) -> "Finetuned":
    """Trains ``model`` on ``data``; `paretone.train.finetune` explains the words, `paretone.train.Settings` the others.

    The dev set is decoded and scored as by ``evaluate``.

    Raises:
        UserError: for anything wrong with the model, the data, the settings or ``out``, or if an unfinished run of
            ``out`` differs.
        KeyboardInterrupt: after a checkpoint was saved, when SIGINT or SIGTERM comes; the same call goes on from it.
    """
    from paretone.train import Settings
    from paretone.train import finetune as carry_out

    how = Settings(**settings)
    given = {name: value for name, value in vars(how).items() if value != getattr(Settings, name)}
    given |= {"data": data, "dev": dev, "limit": limit, "language": language, "revision": revision}
    given["skip_bad"] = skip_bad or None
    return carry_out(
        model,
        out,
        data,
        how,
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


def train_slam(
    recipe: "str | Path | SlamRecipe",
    out: str | Path | None = None,
    *,
    changes: Mapping[str, Any] | None = None,
    checkpoint_every_s: float = 300.0,
    restart: bool = False,
    overwrite: bool = False,
    command: str = "",
) -> "SlamTrained":
    """Trains a speech LLM; `paretone.train.slam.recipe.SlamRecipe` explains the recipe, `train_slam` there the words.

    Args:
        recipe: a YAML file, or one that was read.
        out: in place of the recipe's own.
        changes: of the file, by dotted keys, such as ``{"training.seed": 1}``.

    Raises:
        UserError: for anything wrong with the recipe, its parts, data or ``out``.
        KeyboardInterrupt: after a checkpoint was saved, when SIGINT or SIGTERM comes; the same call goes on from it.
    """
    from paretone.train.slam.recipe import SlamRecipe, read_slam_recipe
    from paretone.train.slam.training import train_slam as carry_out

    read = recipe if isinstance(recipe, SlamRecipe) else read_slam_recipe(Path(recipe), changes)
    where = out or read.out
    if where is None:
        raise UserError("nothing says where the run goes: give --out, or the recipe a key out")
    return carry_out(
        read,
        where,
        dev=lambda name: _slam_dev(name, read),
        checkpoint_every_s=checkpoint_every_s,
        restart=restart,
        overwrite=overwrite,
        command=command,
    )


def _slam_dev(data: str, recipe: "SlamRecipe") -> "Dev":
    from paretone.data import open_data
    from paretone.evaluation import word_error_rate
    from paretone.train import Dev

    how = recipe.data
    found = open_data(data, limit=how.dev_limit, language=how.language, skip_bad=how.skip_bad, split="dev")
    return Dev(found, lambda loaded, processor: word_error_rate(loaded, processor, found, name="the speech LLM"))


def merge_slam(run: str | Path, out: str | Path, *, overwrite: bool = False) -> Path:
    """Writes the speech LLM of a run's folder as one checkpoint that refers to no other; adapters are merged.

    Raises:
        UserError: if ``run`` is none, a part of it is missing, or ``out`` can't be written.
    """
    from paretone.checkpoint import locate, open_checkpoint
    from paretone.data import TRAINING_FILE
    from paretone.families import SLAM
    from paretone.folders import check_apart, new_folder
    from paretone.model.slam.assembly import merge_slam as carry_out

    folder, out = locate(run), Path(out)
    check_apart(folder, out)
    if open_checkpoint(folder).config.get("model_type") != SLAM:
        raise UserError(f"{run} is no speech LLM; give the folder of a run of paretone slam train")
    with new_folder(out, overwrite=overwrite, ours=("config.json",)) as partial:
        carry_out(folder, partial)
        if (folder / TRAINING_FILE).exists():
            shutil.copyfile(folder / TRAINING_FILE, partial / TRAINING_FILE)
    return out


def waterfall(
    model: str | Path,
    recipe: str | Path,
    data: str | Path,
    out: str | Path,
    *,
    limit: int | None = None,
    seed: int | None = None,
    overwrite: bool = False,
    keep_models: bool = False,
    command: Sequence[str] = (),
) -> "list[Stage]":
    """Measures what each step of ``recipe`` costs and gains: the first step, the first two, and so on.

    Every model is measured against ``model`` in one run; the results lie in ``out`` as ``step-1``, ``step-2``, ...,
    and `write_report` draws them. A run that was cut goes on where it stopped.

    Args:
        model: local folder, hub id or embedded name.
        recipe: a YAML file of steps.
        data: see `paretone.data.open_data`, also for ``limit``.
        seed: of all chance in the recipe, in place of the recipe's own.
        overwrite: whether the steps that ``out`` holds are measured anew, of whatever run they are.
        keep_models: whether the models stay in ``out/models``; else each goes once it is measured.
        command: what was typed, for the record.

    Raises:
        UserError: if the model, recipe or data can't be used, or ``out`` holds something else.
    """
    from paretone.stepwise import Run, measure_steps

    read = request(recipe=recipe, seed=seed)
    assert isinstance(read, Recipe)
    run = Run(str(model), read, str(data), Path(out), limit, keep_models)

    def command_of_step(number: int) -> str:
        whole = {"recipe": recipe, "seed": seed}
        return command_of(run.model, whole if number == len(read.steps) else {"plan": "plan.json"})

    return measure_steps(run, overwrite=overwrite, command_of_step=command_of_step, command=command)


def request(**how: Unpack[How]) -> Recipe | Plan:
    """The recipe or plan that these words ask for.

    Raises:
        UserError: if they contradict each other, or one of them would have no effect.
        TypeError: if there is no such word.
    """
    if unknown := set(how) - set(How.__annotations__):
        raise TypeError(f"unexpected keyword argument {min(unknown)!r}")
    said = {name: value for name, value in how.items() if value is not None and value != {}}
    chosen = [_option(name) for name in SIZES if name in said]
    if len(chosen) > 1:
        raise UserError(f"{' and '.join(chosen)} exclude each other; give one of {', '.join(map(_option, SIZES))}")
    plan, recipe, seed = how.get("plan"), how.get("recipe"), how.get("seed")
    own = [name for name in How.__annotations__ if name in said and name not in SIZES]
    if plan is not None:
        _refuse_beside("--plan", own)
        return plan if isinstance(plan, Plan) else read_plan(Path(plan))
    if recipe is not None:
        _refuse_beside("--recipe", [name for name in own if name != "seed"])
        read = read_recipe(Path(recipe))
        return read if seed is None else read.model_copy(update={"seed": checked_seed(seed)})
    if not chosen and how.get("method") != "depth":
        raise UserError(f"nothing says how small: give one of {', '.join(map(_option, SIZES))}")
    if "preset" not in said and "method" not in said:
        _refuse_without_method(how.get("allocation"))
    step = {name: str(value) if name == "calibrate" else value for name, value in said.items() if name != "seed"}
    step["settings"] = dict(how.get("settings") or {})
    return checked_recipe({"steps": [step], "seed": seed or 0}, "command line")


def _option(name: str) -> str:
    """The word on the command line."""
    return "--set" if name == "settings" else f"--{name.replace('_', '-')}"


def checked_seed(seed: int) -> int:
    """``seed`` where it is one."""
    if seed < 0:
        raise UserError(f"seed is {seed}; it must be 0 or more")
    return seed


def _refuse_beside(way: str, own: Sequence[str]) -> None:
    if own:
        raise UserError(f"{_option(own[0])} has no effect beside {way}, which says it itself; leave one of them out")


def _refuse_without_method(allocation: str | None) -> None:
    says = PRESETS[DEFAULT_PRESET]["allocation"]
    if allocation not in (None, says):
        raise UserError(
            f"--allocation {allocation} goes beside --method; without one, preset {DEFAULT_PRESET} says {says}"
        )


def command_of(model: str, given: Mapping[str, Any]) -> str:
    """The command that makes the model again, with OUT for the folder so that equal work has equal bytes."""
    words = ["paretone", "compress", model, "OUT"]
    for name in (*How.__annotations__, "revision"):
        if name != "settings" and given.get(name) is not None:
            words += [_option(name), str(given[name])]
    for key, value in (given.get("settings") or {}).items():
        text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
        words += ["--set", f"{key}={text}"]
    return shlex.join(words)
