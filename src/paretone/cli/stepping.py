"""``paretone waterfall``."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paretone.cli import options as o
from paretone.terminal import new_console, new_table

if TYPE_CHECKING:
    from rich.table import Table

    from paretone.results.schema import Measures
    from paretone.stepwise import Stage

COLUMNS = ("step", "WER % (95 %)", "ΔWER of step (95 %)", "parameters", "bytes", "MACs", "RTFx")


def waterfall(
    model: o.Model,
    recipe: Annotated[Path, typer.Option(help="YAML file: an ordered list of steps.")],
    data: o.Data,
    out: Annotated[Path, typer.Option(help="Folder for step-1, step-2, ...: a result each.")],
    limit: o.Limit = None,
    seed: o.Seed = None,
    keep_models: Annotated[bool, typer.Option("--keep-models", help="Leave the models in OUT/models.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Measure anew what --out holds.")] = False,
    as_json: o.Json = False,
) -> None:
    """Measure what each step of a recipe costs in words and gains in size and speed; goes on where it was cut."""
    from paretone.api import waterfall as measure

    stages = measure(
        model,
        recipe,
        data,
        out,
        limit=limit,
        seed=seed,
        overwrite=overwrite,
        keep_models=keep_models,
        command=["paretone", *sys.argv[1:]],
    )
    if as_json:
        print(json.dumps({"model": model, "data": data, "steps": [stage.summary() for stage in stages]}))
        return
    _show(stages)


def _show(stages: "Sequence[Stage]") -> None:
    new_console(140).print(steps_table(stages))
    for stage, before in zip(stages, (_original(stages), *(stage.result for stage in stages)), strict=False):
        print(_gain(stage, before))


def steps_table(stages: "Sequence[Stage]") -> "Table":
    """A line per step under the original's."""
    table = new_table()
    for place, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if place else "left", no_wrap=place > 0)
    original = _original(stages)
    table.add_row("original", *_sizes(original), f"{original.rtfx:.1f}")
    for stage in stages:
        table.add_row(_name(stage), *_sizes(stage.result, stage), f"{stage.result.rtfx:.1f} ({stage.speed:.2f} ×)")
    return table


def _original(stages: "Sequence[Stage]") -> "Measures":
    original = stages[0].result.baseline
    assert original is not None
    return original


def _name(stage: "Stage") -> str:
    from paretone.report.study import Step

    return f"{stage.number} {Step.model_validate(stage.step.model_dump()).label}"


def _sizes(measures: "Measures", stage: "Stage | None" = None) -> tuple[str, ...]:
    from paretone.report.words import percent_range, scaled

    return (
        f"{100 * measures.wer:.1f} ({percent_range(measures.wer_ci95)})",
        _delta(stage) if stage else "",
        *(scaled(size) for size in (measures.parameters, measures.size_bytes, measures.macs)),
    )


def _delta(stage: "Stage") -> str:
    from paretone.report.words import point_range, points

    return f"{points(stage.against_last.delta_wer)} ({point_range(stage.against_last.delta_wer_ci95)})"


def _gain(stage: "Stage", before: "Measures") -> str:
    """``step 2: -31.0 % parameters, ...; cost +0.4 points of WER (-0.2 to +1.1)``."""
    from paretone.report.words import fixed

    now = stage.result
    changes = {"parameters": (now.parameters, before.parameters), "bytes": (now.size_bytes, before.size_bytes)}
    changes["MACs"] = (now.macs, before.macs)
    sizes = [f"{fixed(100 * (new / old - 1))} % {what}" for what, (new, old) in changes.items()]
    faster = stage.speed / stage.speed_before
    return f"step {stage.number}: {', '.join(sizes)}, speed × {faster:.2f}; {_delta(stage)} points of WER"
