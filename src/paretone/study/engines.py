"""Where tasks run: in this process, or on Ray."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from paretone.errors import UserError
from paretone.study.schema import Budget
from paretone.study.work import Outcome, Task, carry_out

GRACE_S = 30.0  # beyond its minutes, for a stage that hangs outside of Python, where its own watch can't reach it


class Engine(Protocol):
    """Runs tasks, several at once."""

    slots: int

    def check(self, budget: Budget) -> None:
        """Raises UserError if no machine here can ever hold a task of ``budget``."""

    def submit(self, task: Task) -> None:
        """Takes a task on."""

    def wait(self) -> list[tuple[Task, Outcome]]:
        """Tasks that have ended; returns after a moment even if none has."""

    def close(self) -> None:
        """Ends whatever still runs."""


class InProcess:
    """One task after another, in this process: for debugging."""

    slots = 1

    def __init__(self) -> None:
        self._tasks: list[Task] = []

    def check(self, budget: Budget) -> None:
        """The machine is this one."""
        _check_fits(budget, [{"CPU": os.cpu_count() or 1, "GPU": _gpus(), "memory": _memory_bytes()}])

    def submit(self, task: Task) -> None:
        """Waits for `wait`."""
        self._tasks.append(task)

    def wait(self) -> list[tuple[Task, Outcome]]:
        """Runs the next one."""
        if not self._tasks:
            time.sleep(0.2)
            return []
        task = self._tasks.pop(0)
        return [(task, carry_out(task))]

    def close(self) -> None:
        """Nothing outlasts a call."""


class OnRay:
    """Tasks on a Ray of this machine that ends with us, or on the cluster at ``address``.

    Args:
        workers: how many tasks at once, on a Ray of our own; as many as the CPUs allow, by default.
    """

    def __init__(self, *, address: str | None, workers: int | None, budget: Budget) -> None:
        ray = _ray()
        self._ray = ray
        self._running: dict[Any, tuple[Task, float]] = {}
        how: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": False}
        if address is None:
            cpus = (workers or max(1, int((os.cpu_count() or 1) / budget.cpus))) * budget.cpus
            how |= {
                "num_cpus": max(1, int(-(-cpus // 1))),
                "include_dashboard": False,
                "object_store_memory": 100 * 2**20,  # nothing of size is passed: stages meet through folders
            }
        else:
            _check_answers(address)
        with _own_signals():
            try:
                ray.init(address=address or "local", **how)
            except ConnectionError as error:
                raise UserError(f"--address {address}: no Ray cluster answers there: {error}") from error
        self._remote = ray.remote(max_retries=0)(carry_out)
        total = ray.cluster_resources().get("CPU", 1)
        self.slots = (workers or max(1, int(total / budget.cpus))) + 1  # one more waits, so that no worker does

    def check(self, budget: Budget) -> None:
        """Nodes as they are now."""
        _check_fits(budget, [node["Resources"] for node in self._ray.nodes() if node["Alive"]])

    def submit(self, task: Task) -> None:
        """Reserves what the budget says."""
        how: dict[str, Any] = {"num_cpus": task.budget.cpus, "num_gpus": task.budget.gpus}
        if task.budget.memory_gb is not None:
            how["memory"] = int(task.budget.memory_gb * 1e9)
        self._running[self._remote.options(**how).remote(task)] = (task, time.monotonic())

    def wait(self) -> list[tuple[Task, Outcome]]:
        """Ends those that hang, too."""
        if not self._running:
            time.sleep(0.2)
            return []
        done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=0.5)
        ended = [(self._running.pop(ref)[0], self._outcome(ref)) for ref in done]
        self._end_hanging()
        return ended

    def _outcome(self, ref: Any) -> Outcome:
        errors = self._ray.exceptions
        try:
            outcome: Outcome = self._ray.get(ref)
        except errors.OutOfMemoryError:
            return Outcome("failed", "the machine ran out of memory, so Ray ended its worker (budget.memory_gb)")
        except errors.TaskCancelledError:
            return Outcome("failed", "hung beyond its minutes and was ended (budget.minutes)")
        except (errors.RayTaskError, errors.RaySystemError, errors.RayError) as error:
            return Outcome("died", f"its worker ended: {' '.join(str(error).split())[:300]}")
        return outcome

    def _end_hanging(self) -> None:
        """A stage can't always be cut from inside; time in the queue counts, which is short."""
        for ref, (task, since) in list(self._running.items()):
            minutes = task.budget.minutes
            if minutes is not None and time.monotonic() - since > 2 * 60 * minutes + GRACE_S:
                self._ray.cancel(ref, force=True)

    def close(self) -> None:
        """Ends tasks that run, and a Ray of our own."""
        for ref in self._running:
            self._ray.cancel(ref, force=True)
        self._ray.shutdown()


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise UserError("studies run on Ray: pip install 'paretone[study]', or pass --no-ray") from error
    logging.getLogger("ray").setLevel(logging.ERROR)  # its note on tokens would greet each run
    return ray


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray takes SIGTERM for itself when it starts; an interrupt stays an interrupt."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _check_answers(address: str) -> None:
    """Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if "//" in address or not colon or not port.isdecimal():
        return  # auto, ray://..., and whatever else Ray knows
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise UserError(f"--address {address}: nothing answers there ({error}); is the Ray cluster up?") from error


def _check_fits(budget: Budget, machines: list[Mapping[str, float]]) -> None:
    wanted = {"CPU": budget.cpus, "GPU": budget.gpus, "memory": (budget.memory_gb or 0) * 1e9}
    if any(all(have.get(name, 0) >= much for name, much in wanted.items()) for have in machines):
        return
    most = {name: max((have.get(name, 0) for have in machines), default=0) for name in wanted}
    raise UserError(
        f"budget: a cell takes {budget.cpus:g} CPUs, {budget.gpus:g} GPUs and {budget.memory_gb or 0:g} GB, and no "
        f"machine has that; the most here are {most['CPU']:g} CPUs, {most['GPU']:g} GPUs and "
        f"{most['memory'] / 1e9:.1f} GB"
    )


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _memory_bytes() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
