"""One stage carried out, in this process: claimed, done within its limits, sealed; or its failure noted."""

import errno
import gc
import os
import shutil
import socket
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from paretone.errors import UserError
from paretone.memory import peak_rss_bytes, reset_peak_rss
from paretone.study.limits import LimitError, limits
from paretone.study.schema import Budget
from paretone.study.stages import Stage, work_of
from paretone.study.store import Store

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
Status = Literal["done", "busy", "failed", "died", "full"]


@dataclass(frozen=True)
class Task:
    """A stage as a worker gets it: plain words, so that it travels."""

    kind: str
    given: Mapping[str, Any]
    place: str
    inputs: Mapping[str, str]
    store: str
    budget: Budget
    attempt: int

    @classmethod
    def of(cls, stage: Stage, store: Store, budget: Budget, attempt: int) -> "Task":
        """What a worker has to know of ``stage``."""
        inputs = {role: each.place for role, each in {**stage.after, **stage.inputs}.items()}
        return cls(stage.kind, stage.given, stage.place, inputs, str(store.root), budget, attempt)


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    ``busy`` means that another process is at it, ``died`` that the worker ended, ``full`` that the disk is full.
    ``is_hopeless`` marks failures that would come again, ``is_new`` stages that were not done before.
    """

    status: Status
    reason: str = ""
    seconds: float = 0.0
    is_hopeless: bool = False
    is_new: bool = False


def carry_out(task: Task) -> Outcome:
    """Does a task, unless it is done or another process is at it; only an interrupt comes out as an exception."""
    store = Store(Path(task.store))
    try:
        with store.claim(task.place) as is_mine:
            if store.has(task.place):
                return Outcome("done")
            if not is_mine:
                return Outcome("busy")
            return _done(task, store)
    except OSError as error:
        return Outcome("full" if error.errno in FULL_DISK else "failed", str(error))


def _done(task: Task, store: Store) -> Outcome:
    started = time.monotonic()
    try:
        facts = _work(task, store)
        store.put(task.place, store.scratch(task.place) / "out", facts)
    except (UserError, LimitError, Exception) as error:
        if _is_full_disk(error):
            return Outcome("full", str(error))
        is_ours = isinstance(error, UserError | LimitError)
        reason = str(error) if is_ours else f"{type(error).__name__}: {error}"
        trace = "" if isinstance(error, UserError) else traceback.format_exc()
        store.fail(task.place, reason, trace, task.attempt)
        return Outcome("failed", reason, time.monotonic() - started, is_ours)
    return Outcome("done", seconds=facts["seconds"], is_new=True)


def _work(task: Task, store: Store) -> dict[str, Any]:
    """Runs the stage; what it left when it was cut stays only where it can go on."""
    started, work = time.monotonic(), work_of(task.kind)
    scratch = store.scratch(task.place)
    if not work.RESUMES:
        shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True, exist_ok=True)
    for cut in (scratch / "out", *scratch.glob(".out.partial-*"), *scratch.glob(".out.old-*")):
        shutil.rmtree(cut, ignore_errors=True)
    _use_threads(task.budget)
    gc.collect()
    gc.freeze()  # what outlives stages, modules above all, is not looked through again: half of a small cell's time
    reset_peak_rss()
    inputs = {role: store.folder(place) for role, place in task.inputs.items()}
    with limits(minutes=task.budget.minutes, memory_gb=task.budget.memory_gb):
        work.run(task.given, inputs, scratch / "out")
    return {
        "seconds": round(time.monotonic() - started, 3),
        "before": _seconds_before(task, store),
        "peak_rss_bytes": peak_rss_bytes(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "attempt": task.attempt,
        "finished": time.time(),
    }


def _seconds_before(task: Task, store: Store) -> dict[str, float]:
    """Of all stages that this one stands on, by place: some go once a study is done with them."""
    found: dict[str, float] = {}
    for place in task.inputs.values():
        found |= store.seconds_of(place)
    return found


def _use_threads(budget: Budget) -> None:
    """As many as the stage has CPUs, so that its numbers don't depend on where it runs."""
    import torch

    threads = max(1, int(budget.cpus))
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def _is_full_disk(error: BaseException) -> bool:
    return any(isinstance(each, OSError) and each.errno in FULL_DISK for each in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
