"""What ``paretone study status`` shows of a study: once, or for as long as it runs."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from paretone.cli.training import INTERRUPTED
from paretone.study.overview import State, cell_name
from paretone.terminal import new_console, new_table, span

STATES = ("done", "running", "failed", "waiting")
ROWS = 20  # labels of an axis that still fit a table
WIDTH = 160  # where there is no terminal
EVERY_S = 2.0


def print_state(state: State) -> None:
    """Prints where a study stands."""
    new_console(WIDTH).print(_standing(state), soft_wrap=True)


def follow(read: Callable[[], State]) -> None:
    """Shows what ``read`` gives, again and again, until no cell waits or runs; without a terminal, what is new of it.

    An interrupt is the usual way out, and loses nothing: it ends the process without a word.
    """
    console = new_console(WIDTH)
    try:
        if console.is_terminal:
            with Live(console=console, auto_refresh=False) as live:
                for state in _states(read):
                    live.update(_standing(state), refresh=True)
            return
        last = None
        for state in _states(read):
            if (now := (state.counts, state.running.keys())) != last:
                print_state(state)
            last = now
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)  # the command line itself would say that something was removed


def _states(read: Callable[[], State]) -> Iterator[State]:
    """Every state until it is over twice in a row: a stage that is tried again has failed for a moment."""
    was_over = False
    while True:
        state = read()
        yield state
        counts = state.counts
        is_over = not (counts["waiting"] or counts["running"] or state.running)
        if is_over and was_over:
            return
        was_over = is_over
        time.sleep(EVERY_S)


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
    table = new_table()
    table.add_column(Text(axis), overflow="fold")
    for name in STATES:
        table.add_column(name, justify="right", no_wrap=True)
    for label, found in counts.items():
        table.add_row(Text(label), *(str(found[name] or "") for name in STATES))
    return table


def _running(state: State) -> Iterator[str]:
    for place, who in state.running.items():
        since = span(max(0.0, time.time() - who["since"]))
        yield f"  running: {place.partition('/')[0]} for {who['for']}, {since} on {who['host']}, process {who['pid']}"


def _failed(state: State) -> Iterator[str]:
    for cell in state.cells:
        if cell.state == "failed":
            reason = cell.reason.splitlines()[0] if cell.reason else ""
            yield f"  failed: {cell_name(state.axes, cell.labels)}: {reason} (paretone study show {cell.place[9:]})"
