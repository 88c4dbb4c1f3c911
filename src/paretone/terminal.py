"""Tables and times as the terminal shows them."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def new_console(width: int, *, stderr: bool = False) -> "Console":
    """A console as wide as the terminal, or ``width`` columns where it is none: a pipe cuts no table to eighty."""
    from rich.console import Console

    return Console(stderr=stderr, width=None if (sys.stderr if stderr else sys.stdout).isatty() else width)


def new_table() -> "Table":
    """A table of few lines, without columns yet."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(box=SIMPLE_HEAD, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)


def span(seconds: float) -> str:
    """A time: ``9.5 s``, ``45 s``, ``12 min``, ``2.6 h``."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
