"""Batches drawn ahead by worker processes, so that a GPU need not wait for waveforms."""

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import DataLoader, Dataset


class _Drawn(Dataset):
    """``draw(first)``, ``draw(first + 1)``, … up to ``draw(last - 1)``."""

    def __init__(self, draw: Callable[[int], Any], first: int, last: int) -> None:
        self.draw, self.first, self.last = draw, first, last

    def __len__(self) -> int:
        return max(0, self.last - self.first)

    def __getitem__(self, index: int) -> Any:
        return self.draw(self.first + index)


def drawn_ahead(draw: Callable[[int], Any], first: int, last: int, workers: int) -> Iterator[Any]:
    """``draw(i)`` for each i of first … last - 1, in order, drawn by ``workers`` processes (0: here, when asked)."""
    return iter(DataLoader(_Drawn(draw, first, last), batch_size=None, num_workers=workers))
