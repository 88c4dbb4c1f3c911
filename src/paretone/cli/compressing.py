"""``paretone plan`` and ``paretone compress``."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paretone.cli import options as o
from paretone.memory import return_freed_memory
from paretone.terminal import new_console

if TYPE_CHECKING:
    from paretone.plan import Plan


def plan(
    model: o.Model,
    sparsity: o.Sparsity = None,
    target_params: o.TargetParams = None,
    target_bytes: o.TargetBytes = None,
    target_macs: o.TargetMacs = None,
    recipe: o.RecipeFile = None,
    preset: o.Preset = None,
    method: o.Method = None,
    allocation: o.Allocation = None,
    units: o.UnitKind = None,
    inputs: o.Inputs = None,
    calibrate: o.Calibrate = None,
    calibrate_limit: o.CalibrateLimit = None,
    settings: o.Settings = None,
    seed: o.Seed = None,
    revision: o.Revision = None,
    out: Annotated[Path | None, typer.Option(help="Write the plan here, for compress --plan.")] = None,
    as_json: o.Json = False,
) -> None:
    """Show every module's old and new width and the sizes before and after, and compress nothing.

    Say how small by one of --sparsity, --target-params, --target-bytes, --target-macs or --recipe. Weights are read
    only where an allocation weighs modules, as those of the presets do.
    """
    how = o.how(locals())
    return_freed_memory()
    from paretone.api import make_plan
    from paretone.folders import write_file

    made = make_plan(model, revision=revision, **how)
    if out is not None:
        write_file(out, made.to_json())
    if as_json:
        print(made.to_json(), end="")
        return
    _show_widths(made)
    _show_sizes(made)


def compress(
    model: o.Model,
    out: Annotated[Path, typer.Argument(help="Folder for the smaller model; appears only when it is complete.")],
    sparsity: o.Sparsity = None,
    target_params: o.TargetParams = None,
    target_bytes: o.TargetBytes = None,
    target_macs: o.TargetMacs = None,
    recipe: o.RecipeFile = None,
    plan: Annotated[
        Path | None, typer.Option(help="A plan written by paretone plan --out; says everything itself.")
    ] = None,
    preset: o.Preset = None,
    method: o.Method = None,
    allocation: o.Allocation = None,
    units: o.UnitKind = None,
    inputs: o.Inputs = None,
    calibrate: o.Calibrate = None,
    calibrate_limit: o.CalibrateLimit = None,
    settings: o.Settings = None,
    seed: o.Seed = None,
    revision: o.Revision = None,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
) -> None:
    """Make a model smaller, without training and, unless some is given to --calibrate, without data.

    Say how small by one of --sparsity, --target-params, --target-bytes, --target-macs, --recipe or --plan. Without
    --preset and --method, preset best does it.
    """
    how = o.how(locals())
    return_freed_memory()
    from paretone.api import compress as carry_out

    done = carry_out(model, out, revision=revision, overwrite=overwrite, **how)
    for notice in done.notices:
        print(f"note: {notice}", file=sys.stderr)
    if as_json:
        print(json.dumps(done.summary()))
        return
    _show_sizes(done.plan)
    print(f"{done.out} in {done.seconds:.1f} s, peak memory {done.peak_rss_bytes / 1e9:.2f} GB")
    print(f"What did it cost? paretone evaluate {done.out} --data DATA --baseline {model}")


def _show_widths(plan: "Plan") -> None:
    from rich.table import Table

    table = Table("module", "kind", "width", "new width", box=None, pad_edge=False)
    for module in plan.modules:
        changed = module.width_after != module.width_before
        after = "dropped" if module.width_after == 0 else f"{module.width_after:,}"
        before = f"{module.width_before:,}"
        if module.head_dim_before != module.head_dim_after and module.width_after:
            changed = True
            before, after = f"{before} x {module.head_dim_before}", f"{after} x {module.head_dim_after}"
        table.add_row(module.name, module.kind, before, after, style="bold" if changed else "dim")
    new_console(120).print(table)


def _show_sizes(plan: "Plan") -> None:
    rows = [
        ("parameters", plan.parameters_before, plan.parameters_after),
        ("bytes", plan.bytes_before, plan.bytes_after),
        ("MACs", plan.macs_before, plan.macs_after),
    ]
    for name, before, after in rows:
        print(f"{name:<10} {before:>17,} -> {after:>17,}  {after / before:6.1%}")
    print(f"MACs are multiply-accumulates for {plan.reference}.")
