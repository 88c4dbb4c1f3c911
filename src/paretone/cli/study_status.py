"""What ``paretone study status`` shows of a study: once, or for as long as it runs."""

import time
from collections import Counter
from collections.abc import Callable, Iterator

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from paretone.cli.words import span
from paretone.study.overview import State, cell_name

STATES = ("done", "running", "failed", "waiting")
ROWS = 20  # labels of an axis that still fit a table
EVERY_S = 2.0


def print_state(state: State) -> None:
    """Prints where a study stands."""
    Console(soft_wrap=True).print(_standing(state))


def follow(read: Callable[[], State]) -> None:
    """Shows what ``read`` gives, again and again, until no cell waits or runs; the last state stays."""
    state = read()
    with Live(_standing(state), console=Console(), auto_refresh=False) as live:
        while state.counts["waiting"] or state.counts["running"]:
            time.sleep(EVERY_S)
            state = read()
            live.update(_standing(state), refresh=True)


def _standing(state: State) -> Group:
    counts, eta = state.counts, state.eta_s()
    told = ", ".join(f"{counts[name]} {name}" for name in STATES)
    first = f"{state.name}: {len(state.cells)} cells: {told}" + (f"; {span(eta)} to go" if eta else "")
    axis = next((axis for axis, labels in state.axes.items() if 2 <= len(labels) <= ROWS), None)
    table = [] if axis is None else [_by_label(state, axis)]
    return Group(Text(first), *table, *map(Text, _running(state)), *map(Text, _failed(state)))


def _by_label(state: State, axis: str) -> Table:
    """Cells in each state, a row per label of an axis."""
    place = list(state.axes).index(axis)
    counts: dict[str, Counter[str]] = {}
    for cell in state.cells:
        counts.setdefault(cell.labels[place], Counter())[cell.state] += 1
    table = Table(box=SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(axis)
    for name in STATES:
        table.add_column(name, justify="right")
    for label, found in counts.items():
        table.add_row(label, *(str(found[name] or "") for name in STATES))
    return table


def _running(state: State) -> Iterator[str]:
    for place, who in state.running.items():
        cell = cell_name(state.axes, who["cell"]) if who["cell"] else "another study"
        kind = place.partition("/")[0]
        since = span(max(0.0, time.time() - who["since"]))
        yield f"  running: {kind} for {cell}, {since} on {who['host']}, process {who['pid']}"


def _failed(state: State) -> Iterator[str]:
    for cell in state.cells:
        if cell.state == "failed":
            reason = cell.reason.splitlines()[0] if cell.reason else ""
            yield f"  failed: {cell_name(state.axes, cell.labels)}: {reason} (paretone study show {cell.place[9:]})"
