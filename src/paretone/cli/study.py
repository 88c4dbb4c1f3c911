"""``paretone study``: grids of cells."""

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paretone.cli import options as o
from paretone.cli.training import interrupted
from paretone.errors import UserError
from paretone.terminal import new_console, new_table, span

if TYPE_CHECKING:
    from paretone.study.layout import Layout
    from paretone.study.overview import State
    from paretone.study.running import Ran
    from paretone.study.store import Store

app = typer.Typer(help="Run grids of cells: planned, shared, resumable, ending in a page.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(help="YAML study; see docs/studies.md.")]
Named = Annotated[str, typer.Argument(help="YAML study, or the name of one that ran in the store.")]
StoreAt = Annotated[Path, typer.Option("--store", help="Folder that keeps results and models of all studies.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="In place of a key, such as seeds=[0].")
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="AXIS=LABEL", help="Only cells with this label; may be given more than once."),
]
STORE = Path("paretone-store")


@app.command()
def plan(file: File, store: StoreAt = STORE, only: Only = None, changes: Set = None, as_json: o.Json = False) -> None:
    """List every cell, what it shares and what is left to do; run nothing."""
    from paretone.study.overview import estimates
    from paretone.study.store import Store

    layout = _part(_laid_out(file, changes), only)
    where = Store(store)
    if store.exists():
        where.check()
    if as_json:
        print(json.dumps(_plan_json(layout, where), ensure_ascii=False))
        return
    _show_cells(layout, where)
    for each in estimates(layout, where):
        print(_estimate_line(each, layout.study.budget.minutes))
    if layout.study.keep == "results":
        print("models go as soon as all that stands on them is measured (keep: results)")
    _say_dropped(layout)
    for reason in layout.missing.values():
        print(f"not here: {reason}", file=sys.stderr)


@app.command()
def run(
    file: File,
    store: StoreAt = STORE,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join, as 10.0.0.1:6379 or auto; else one starts here.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Cells at once; as many as fit, by default.", min=1)] = None,
    no_ray: Annotated[bool, typer.Option("--no-ray", help="One after another in this process, to debug.")] = False,
    only: Only = None,
    changes: Set = None,
    as_json: o.Json = False,
) -> None:
    """Run what is missing of a study; the same command goes on after any end."""
    from paretone.study.overview import register
    from paretone.study.store import Store

    if no_ray and (address is not None or (workers or 1) > 1):
        raise UserError("--no-ray works on one cell at a time, here; leave --address and --workers out")
    whole = _laid_out(file, changes)
    layout = _part(whole, only)
    if layout.missing:
        raise UserError(next(iter(layout.missing.values())))
    where = Store(store.absolute()).open()
    register(whole, where, file=str(file))
    _say_dropped(layout)
    try:
        with _engine(layout, address, workers, no_ray) as engine, _progress(layout, where) as (say, tell):
            from paretone.study.running import Driver

            ran = Driver(layout, where, engine, say=say, tell=tell).run()
    except KeyboardInterrupt:
        interrupted(KeyboardInterrupt("interrupted; cells that are done stay, and the same command goes on"))
    _ended(layout, where, ran, as_json)


@app.command()
def status(
    study: Named,
    store: StoreAt = STORE,
    watch: Annotated[bool, typer.Option("--watch", help="Follow, until nothing waits or runs.")] = False,
    as_json: o.Json = False,
) -> None:
    """Tell what is done, running, failed and waiting, and when it may be done."""
    from paretone.cli.study_status import follow, print_state

    if watch:
        if as_json:
            raise UserError("--json prints one state; leave --watch out")
        follow(lambda: _state(study, store))
        return
    state = _state(study, store)
    if as_json:
        cells = [dict(zip(state.axes, c.labels, strict=True)) | {"cell": c.place.partition("/")[2], "state": c.state,
                 "reason": c.reason} for c in state.cells]  # fmt: skip
        print(json.dumps({"study": state.name, "counts": state.counts, "eta_s": state.eta_s(), "cells": cells}))
        return
    print_state(state)


@app.command()
def show(
    cell: Annotated[str, typer.Argument(help="Digest of a cell or of another stage; its beginning is enough.")],
    store: StoreAt = STORE,
    as_json: o.Json = False,
) -> None:
    """Show one cell: its Result, or why it failed."""
    from paretone.study.showing import found_stage, told_of

    where = _store(store)
    told = told_of(where, found_stage(where, cell))
    if as_json:
        print(json.dumps(told, ensure_ascii=False))
        return
    for key, value in told.items():
        if value not in (None, "", {}, []):
            print(f"{key}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")


@app.command()
def rm(
    cells: Annotated[list[str] | None, typer.Argument(help="Digests of cells or other stages.")] = None,
    store: StoreAt = STORE,
    study: Annotated[str | None, typer.Option(help="Every cell of a study, and its entry.")] = None,
    unused: Annotated[bool, typer.Option("--unused", help="Stages that no study of this store needs.")] = False,
    as_json: o.Json = False,
) -> None:
    """Remove results and models; what another study needs of a study's stays."""
    from paretone.study.showing import found_stage, unneeded, without_study

    where = _store(store)
    if sum((bool(cells), study is not None, unused)) != 1:
        raise UserError("say what goes: digests, --study NAME, or --unused; one of them")
    if study is not None:
        places = without_study(where, study)
    else:
        places = unneeded(where) if unused else [found_stage(where, each) for each in cells or []]
    for place in places:
        with where.claim(place) as is_mine:
            if not is_mine:
                raise UserError(f"{place} is in use; wait until it is done")
            where.remove(place)
            where.failure_file(place).unlink(missing_ok=True)
    print(json.dumps({"removed": places}) if as_json else f"{len(places)} removed")


@app.command()
def export(
    study: Named,
    out: Annotated[Path, typer.Argument(help="Folder for the tables; appears only when complete.")],
    store: StoreAt = STORE,
    overwrite: o.Overwrite = False,
    as_json: o.Json = False,
) -> None:
    """Write one tidy table (CSV, Parquet), a row per cell and language, and the transcripts."""
    from paretone.study.export import export as carry_out

    rows = carry_out(_store(store), _name(study), out, overwrite=overwrite)
    print(json.dumps({"out": str(out), **rows}) if as_json else f"{out}: {rows['results']} rows")


@app.command()
def report(
    study: Named,
    out: Annotated[Path | None, typer.Option(help="HTML file; STUDY.html by default.")] = None,
    store: StoreAt = STORE,
    reference: Annotated[
        list[str] | None,
        typer.Option(metavar="AXIS=LABEL", help="Compare with these labels, in place of what the study says."),
    ] = None,
    as_json: o.Json = False,
) -> None:
    """Write the page: what is significant, tables; every figure as SVG and PNG beside it, and the page as Markdown."""
    from paretone.report.grid.page import write_grid_report
    from paretone.study.showing import grid_of

    name = _name(study)
    page = out or Path(f"{name}.html")
    words = ["paretone", "study", "report", study, "--store", str(store), "--out", str(page)]
    words += [word for label in reference or [] for word in ("--reference", label)]
    beside = {axis: _one(labels, axis) for axis, labels in _labels(reference, "--reference").items()}
    grid = grid_of(_store(store), name, reference=beside, command=shlex.join(words))
    files = write_grid_report(grid, page)
    print(json.dumps({"files": [str(file) for file in files]}) if as_json else page)


# --- what commands share ----------------------------------------------------------------------------------------------


def _laid_out(file: Path, changes: list[str] | None) -> "Layout":
    from paretone.plan import parse_settings
    from paretone.study.layout import lay_out
    from paretone.study.schema import read_study

    return lay_out(read_study(file, parse_settings(changes or [])))


def _part(layout: "Layout", only: list[str] | None) -> "Layout":
    """The cells that ``--only`` leaves."""
    return layout.part(_labels(only, "--only")) if only else layout


def _labels(words: list[str] | None, option: str) -> dict[str, list[str]]:
    """``axis=label`` words of the command line; labels of one axis add up."""
    found: dict[str, list[str]] = {}
    for word in words or []:
        axis, equals, label = word.partition("=")
        if not equals:
            raise UserError(f"{option} {word!r}: write axis=label")
        found.setdefault(axis, []).append(label)
    return found


def _one(labels: list[str], axis: str) -> str:
    if len(set(labels)) > 1:
        raise UserError(f"--reference: {axis} is compared with one label; given: {', '.join(labels)}")
    return labels[0]


def _store(folder: Path) -> "Store":
    from paretone.study.store import Store

    store = Store(folder)
    store.check()
    return store


def _name(study: str) -> str:
    """The name of a study, from its file where it is one."""
    from paretone.study.schema import read_study

    return read_study(Path(study)).name if study.endswith((".yaml", ".yml")) else study


def _state(study: str, store: Path) -> "State":
    from paretone.study.overview import state_of

    return state_of(_store(store), _name(study))


@contextmanager
def _engine(layout: "Layout", address: str | None, workers: int | None, no_ray: bool) -> Iterator[Any]:
    from paretone.study.engines import InProcess, OnRay

    budget = layout.study.budget
    engine = InProcess() if no_ray else OnRay(address=address, workers=workers, budget=budget)
    try:
        engine.check(budget)
        yield engine
    finally:
        engine.close()


@contextmanager
def _progress(layout: "Layout", store: "Store") -> Iterator[Any]:
    """A bar over cells, with the rest in its words; a line per cell where standard error is no terminal."""
    from paretone.progress import bar

    ends = {stage: laid for laid in layout.cells if (stage := laid.stage)}
    there = sum(store.has(stage.place) for stage in ends)
    seen = 0
    with bar("cells", len(ends), there) as shown:

        def tell(ran: "Ran") -> None:
            nonlocal seen
            for stage in ran.done[seen:]:
                if stage in ends:
                    shown.advance(f"cells ({len(ran.failed)} failed)" if ran.failed else "cells")
                    if not sys.stderr.isatty():
                        shown.say(f"{ends[stage].cell.name}: done after {ran.seconds:.0f} s")
            seen = len(ran.done)

        yield shown.say, tell


def _ended(layout: "Layout", store: "Store", ran: "Ran", as_json: bool) -> None:
    done = sum(store.has(laid.stage.place) for laid in layout.cells)
    failed = [laid for laid in layout.cells if laid.stage in ran.failed]
    told = {
        "study": layout.study.name,
        "cells": len(layout.cells),
        "done": done,
        "failed": {laid.digest: ran.failed[laid.stage] for laid in failed},
        "stages_run": len(ran.done),
        "stages_made": ran.made,
        "damaged": ran.damaged,
        "seconds": round(ran.seconds, 2),
        "store": str(store.root),
    }
    if as_json:
        print(json.dumps(told, ensure_ascii=False))
    else:
        print(f"{layout.study.name}: {done} of {len(layout.cells)} cells done, {len(ran.done)} stages now, "
              f"in {span(ran.seconds)}")  # fmt: skip
    if failed or any(stage in ran.failed for stage in layout.plain.values()):
        raise UserError(
            f"{len(failed)} of {len(layout.cells)} cells failed, the first: {failed[0].cell.name}: "
            f"{ran.failed[failed[0].stage]}; paretone study status {layout.study.name} --store {store.root}"
            if failed
            else "a plain model failed; see paretone study status"
        )


def _show_cells(layout: "Layout", store: "Store") -> None:
    from rich.text import Text

    table = new_table()
    for column in (*layout.study.all_axes(), "cell", "stages", "shared with", "state"):
        table.add_column(Text(column))
    users: dict[Any, int] = {}
    chains = [laid.stage.chain() for laid in layout.cells]
    for chain in chains:
        for stage in chain:
            users[stage] = users.get(stage, 0) + 1
    for laid, chain in zip(layout.cells, chains, strict=True):
        shared = [f"{stage.kind}: {users[stage] - 1}" for stage in chain if users[stage] > 1]
        state = "done" if store.has(laid.stage.place) else "to do"
        kinds = " > ".join(stage.kind for stage in reversed(chain))
        table.add_row(*map(Text, laid.cell.labels.values()), laid.digest[:12], kinds, ", ".join(shared), state)
    new_console(160).print(table)


def _estimate_line(each: Any, minutes: float | None) -> str:
    if each.seconds_each is not None:
        told = f"some {span(each.left * each.seconds_each)} of one worker (median {span(each.seconds_each)} each)"
    elif minutes is not None:
        told = f"at most {span(60 * minutes * each.left)} of one worker (budget; none has run here yet)"
    else:
        told = "time is not known, since none has run here yet"
    if not each.left:
        return f"{each.kind}: {each.stages} stages, all done"
    size = ""
    if each.bytes_each is not None:
        size = f", {each.left * each.bytes_each / 1e9:.2f} GB"
    elif each.most_bytes is not None:
        size = f", at most {each.most_bytes / 1e9:.2f} GB"
    return f"{each.kind}: {each.stages} stages, {each.left} to do, {told}{size}"


def _say_dropped(layout: "Layout") -> None:
    if layout.dropped:
        print(f"note: {len(layout.dropped)} cells are left out: nothing in them depends on their seed", file=sys.stderr)


def _plan_json(layout: "Layout", store: "Store") -> dict[str, Any]:
    from paretone.study.overview import estimates

    return {
        "study": layout.study.name,
        "cells": [
            {
                "labels": laid.cell.labels,
                "cell": laid.digest,
                "stages": [stage.place for stage in laid.stage.chain()],
                "done": store.has(laid.stage.place),
            }
            for laid in layout.cells
        ],
        "estimates": [vars(each) for each in estimates(layout, store)],
        "missing": dict(layout.missing),
    }
