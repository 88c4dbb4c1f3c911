"""A recipe measured step by step: what each step costs in words and gains in size and speed."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretone.checkpoint import locate, open_checkpoint
from paretone.data import open_data
from paretone.errors import UserError
from paretone.evaluation import evaluate
from paretone.folders import check_apart, check_new_folder, write_file
from paretone.plan import Plan, Recipe, StepPlan
from paretone.progress import track
from paretone.results import Comparison, Result, read_result, score
from paretone.results.schema import BASELINE_TRANSCRIPTS_FILE, TRANSCRIPTS_FILE
from paretone.transform import compress, make_plan
from paretone.version import __version__

RUN_FILE = "waterfall.json"
MODELS = "models"


@dataclass(frozen=True)
class Stage:
    """The model that a step and all before it leave.

    Attributes:
        number: of the step, from 1.
        result: against the original.
        against_last: its words against those of the stage before, the original for the first.
        speed_before: of the stage before, as ``speed``.
    """

    number: int
    step: StepPlan
    result: Result
    against_last: Comparison
    speed_before: float

    @property
    def speed(self) -> float:
        """RTFx relative to the original's in the same run."""
        return _speed(self.result)

    def summary(self) -> dict[str, Any]:
        """The object that ``paretone waterfall --json`` prints for this stage."""
        told = ("method", "preset", "allocation", "units", "sparsity", "target_params", "target_bytes", "target_macs")
        sizes = ("wer", "wer_ci95", "parameters", "size_bytes", "macs", "rtfx")
        deltas = ("delta_wer", "delta_wer_ci95", "p_value")
        return {
            "step": self.number,
            **{name: getattr(self.step, name) for name in told},
            **{name: getattr(self.result, name) for name in sizes},
            "speed": self.speed,
            **{f"step_{name}": getattr(self.against_last, name) for name in deltas},
            **{f"total_{name}": getattr(self.result, name) for name in deltas},
        }


@dataclass(frozen=True)
class Run:
    """What is measured, and where."""

    model: str
    recipe: Recipe
    data: str
    out: Path
    limit: int | None
    keep_models: bool

    def result_folder(self, number: int) -> Path:
        """Where the result of a step lies once it is complete."""
        return self.out / f"step-{number}"

    def is_done(self, number: int) -> bool:
        """Whether nothing is left to do for a step."""
        return self.result_folder(number).exists() and (not self.keep_models or self.model_folder(number).exists())

    def model_folder(self, number: int) -> Path:
        """Where the model of a step lies, while it is measured or for good."""
        return self.out / MODELS / f"step-{number}"


def measure_steps(
    run: Run, *, overwrite: bool, command_of_step: Callable[[int], str], command: Sequence[str]
) -> list[Stage]:
    """Compresses by the first step, the first two, and so on; measures each against the original on the same data.

    The recipe is resolved once and every model made from the original, so the last one equals what ``compress`` makes
    of the recipe. Results appear when they are complete; those that an earlier, equal run left are used again.

    Args:
        overwrite: whether the steps in ``run.out`` are measured anew, whatever they are of.
        command_of_step: number of the step -> the way to make its model, for the record.
        command: what was typed, for the record.

    Raises:
        UserError: if anything can't be used, or ``run.out`` holds something else, or steps of other words.
    """
    check_apart(locate(run.model), run.out)
    now = _identity(run)
    _check_folder(run, now, overwrite)
    numbers = range(1, len(run.recipe.steps) + 1)
    left = [number for number in numbers if overwrite or not run.is_done(number)]
    if left:
        plan = make_plan(run.model, run.recipe)
        _claim(run, now, overwrite)
        for number in track(left, "measuring steps", len(left)):
            first = plan.model_copy(update={"steps": plan.steps[:number]})
            _measure(run, number, first, command_of_step(number), command)
    return _stages(run, len(numbers))


def _measure(run: Run, number: int, plan: Plan, made_by: str, command: Sequence[str]) -> None:
    """Makes the model of one step and writes its result, each unless it is there; the model stays where asked."""
    folder, out = run.model_folder(number), run.result_folder(number)
    try:
        if not folder.exists():
            compress(run.model, folder, plan, command=made_by)
        if not out.exists():
            evaluate(folder, run.data, baseline=run.model, limit=run.limit, out=out, command=command)
    finally:
        if not run.keep_models:
            shutil.rmtree(folder, ignore_errors=True)
            if folder.parent.exists() and not any(folder.parent.iterdir()):
                folder.parent.rmdir()


def _check_folder(run: Run, now: Mapping[str, Any], overwrite: bool) -> None:
    """Refuses a folder that holds something else, or steps of other words that may not be replaced."""
    file = run.out / RUN_FILE
    if overwrite or not file.exists():
        check_new_folder(run.out, overwrite=overwrite, ours=(RUN_FILE,))
        return
    then = _read_identity(file)
    others = [name for name in now if then.get(name) != now[name]]
    if others:
        raise UserError(
            f"{run.out} holds steps of another {' and '.join(others)}; give another folder or pass --overwrite"
        )


def _claim(run: Run, now: Mapping[str, Any], overwrite: bool) -> None:
    if overwrite:
        for folder in (*run.out.glob("step-*"), run.out / MODELS):
            shutil.rmtree(folder, ignore_errors=True)
    write_file(run.out / RUN_FILE, json.dumps(now, indent=2) + "\n")


def _identity(run: Run) -> dict[str, Any]:
    """All that the results depend on."""
    return {
        "format": 1,
        "version": __version__,
        "model": open_checkpoint(locate(run.model)).digest(),
        "recipe": run.recipe.model_dump(mode="json"),
        "data": open_data(run.data, limit=run.limit).digest,
    }


def _read_identity(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{file} is not JSON; give another folder or pass --overwrite") from error
    return found if isinstance(found, dict) else {}


def _stages(run: Run, count: int) -> list[Stage]:
    stages, speed, last = [], 1.0, run.result_folder(1) / BASELINE_TRANSCRIPTS_FILE
    for number in range(1, count + 1):
        here = run.result_folder(number)
        result, heard = read_result(here), here / TRANSCRIPTS_FILE
        step = Plan.model_validate(result.model.plan).steps[-1]
        stages.append(Stage(number, step, result, score(heard, last), speed))
        speed, last = _speed(result), heard
    return stages


def _speed(result: Result) -> float:
    assert result.baseline is not None
    return result.rtfx / result.baseline.rtfx
