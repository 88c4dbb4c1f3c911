"""Several processes at one training, as torchrun or ``accelerate launch`` start them; alone nothing of it happens."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.data import Sampler

from paretone.train.unfinished import Unfinished, folder_of, unfinished


def world() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this one writes and speaks."""
    return int(os.environ.get("RANK", "0")) == 0


def join() -> None:
    """Meets the others."""
    if world() > 1:
        from accelerate import PartialState

        PartialState()


def wait() -> None:
    """Until all are here."""
    if world() > 1:
        import torch.distributed

        torch.distributed.barrier()


def agreed(value: Any) -> Any:
    """The main process's value, in all of them."""
    if world() == 1:
        return value
    import torch.distributed

    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def anywhere(flag: bool) -> bool:
    """Whether it is true in any of them."""
    if world() == 1:
        return flag
    import torch
    import torch.distributed

    total = torch.tensor(int(flag))
    if torch.cuda.is_available():
        total = total.cuda()
    torch.distributed.all_reduce(total)
    return bool(total)


class Share(Sampler[list[int]]):
    """Every so many-th batch of an order: those of this process. Where they don't come out even, the first come again.

    accelerate would do this itself for batches that are all of one size.
    """

    def __init__(self, order: Any) -> None:
        self.order = order
        self.batch_size, self.drop_last = 1, False

    def __len__(self) -> int:
        """As many in every process."""
        return -(-len(self.order) // world())

    def __iter__(self) -> Iterator[list[int]]:
        """Indices batch by batch."""
        batches = list(self.order)
        batches += batches[: len(self) * world() - len(batches)]
        yield from batches[int(os.environ["RANK"]) :: world()]


@contextmanager
def one_run(out: Path, run: dict[str, Any], *, restart: bool) -> Iterator[Unfinished]:
    """`unfinished`, begun or found by the main process and shared with the others."""
    if not is_main():
        wait()
        yield Unfinished(folder_of(out))
        wait()
        return
    with unfinished(out, run, restart=restart) as found:
        wait()
        yield found
        wait()
