"""Modules two at a time: one's matrix products beside what the other does on one core."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Done = TypeVar("Done")

_AHEAD = 4  # small modules stand beside large ones: two are at work, two more wait for their turn or to be fetched
_MOST_BYTES = 1_000_000_000  # that two may take together


def two_at_a_time(function: Callable[[Item], Done], items: Iterable[Item], *, bytes_each: int) -> Iterator[Done]:
    """``function`` of each of ``items``, in their order; each of two workers has half of torch's threads.

    Where torch has one thread only, so has all of this; where two of ``bytes_each`` are too much, one worker has all.
    """
    import torch

    threads, waiting = torch.get_num_threads(), deque[Future[Done]]()
    workers = 2 if threads > 1 and 2 * bytes_each <= _MOST_BYTES else 1
    torch.set_num_threads(threads // workers)  # new threads take over what was set last
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) == _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            torch.set_num_threads(threads)
