"""Progress bars on standard error; nothing where standard error is no terminal."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

T = TypeVar("T")


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yields ``items`` behind a progress bar.

    Args:
        description: what is being done, for the reader.
        total: how many items, where ``items`` has no length.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not sys.stderr.isatty():
        yield from items
        return
    with Progress(console=console, transient=True) as progress:
        yield from progress.track(items, description=description, total=total)


class Bar:
    """A progress bar that is moved by hand, and lines that are said above it."""

    def __init__(self, console: "Console", progress: "Progress | None", task: "TaskID | None") -> None:
        self._console, self._progress, self._task = console, progress, task

    def advance(self, description: str) -> None:
        """One more item is done."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=1, description=description)

    def say(self, line: str) -> None:
        """Prints a line on standard error."""
        self._console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


@contextmanager
def bar(description: str, total: int, done: int = 0) -> Iterator[Bar]:
    """A bar of ``total`` items, ``done`` of which are; only its lines are seen where standard error is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not sys.stderr.isatty():
        yield Bar(console, None, None)
        return
    with Progress(console=console, transient=True) as progress:
        yield Bar(console, progress, progress.add_task(description, total=total, completed=done))
