"""Progress bars on standard error; nothing where standard error is no terminal."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

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
