"""``paretone inspect``, ``paretone report`` and ``paretone demo``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from paretone.cli import options as o
from paretone.terminal import new_console


def inspect(model: o.Model, revision: o.Revision = None, as_json: o.Json = False) -> None:
    """Show what a model is made of and what can shrink; no weights are read."""
    from paretone.transform import inspect as look

    found = look(model, revision=revision)
    if as_json:
        print(json.dumps(found))
        return
    _show_model(found)


def _show_model(found: dict[str, Any]) -> None:
    from rich.table import Table

    for key in ("model", "family", "architecture", "dtype", "parameters", "size_bytes", "macs", "reference"):
        value = found[key]
        print(f"{key:<13} {value:,}" if isinstance(value, int) else f"{key:<13} {value}")
    table = Table("module", "kind", "width", "parameters", box=None, pad_edge=False)
    for module in found["modules"]:
        table.add_row(module["name"], module["kind"], f"{module['width']:,}", f"{module['parameters']:,}")
    new_console(120).print(table)


def report(
    result: Annotated[list[Path], typer.Argument(help="result.json files, or folders that hold them.")],
    out: Annotated[Path, typer.Option(help="The page to write; its plots lie beside it.")],
) -> None:
    """Draw a self-contained page from results: Pareto plot, errors, widths, changed words, commands."""
    from paretone.report import write_report

    write_report(result, out)
    print(out)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for models, results and the page.")] = Path("demo"),
) -> None:
    """Compress two recognisers in three ways at 30 to 80 %, measure them and a speech LLM, draw the page; offline."""
    from paretone.cli.demonstration import run_demo

    run_demo(out)
