"""What a stage may take: time and memory, watched from a thread of the same process."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

EVERY_S = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")


class LimitError(Exception):
    """A stage took more than its budget allows."""


@contextmanager
def limits(*, minutes: float | None, memory_gb: float | None) -> Iterator[None]:
    """Raises `LimitError` in the main thread, between two of its instructions, when the body takes more.

    Off the main thread nothing is watched. Memory is what this process holds resident.
    """
    nothing = minutes is None and memory_gb is None
    if nothing or threading.current_thread() is not threading.main_thread():
        yield
        return
    over = threading.Event()
    reasons: list[str] = []

    def interrupt(signum: int, frame: FrameType | None) -> None:
        if not over.is_set():
            raise LimitError(reasons[0])

    def watch() -> None:
        started = time.monotonic()
        while not over.wait(EVERY_S):
            reason = _reason(time.monotonic() - started, minutes, memory_gb)
            if reason:
                reasons.append(reason)
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR2)
                return

    before = signal.signal(signal.SIGUSR2, interrupt)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        signal.signal(signal.SIGUSR2, before)


def _reason(elapsed_s: float, minutes: float | None, memory_gb: float | None) -> str | None:
    if minutes is not None and elapsed_s > 60 * minutes:
        return f"took more than its {minutes:g} minutes (budget.minutes)"
    if memory_gb is not None:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
        if resident > memory_gb * 1e9:
            return f"took {resident / 1e9:.2f} GB, more than its {memory_gb:g} GB of memory (budget.memory_gb)"
    return None
