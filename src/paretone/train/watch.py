"""What happens around the updates: epochs, dev set, checkpoints, and stopping."""

import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from paretone.progress import Bar
from paretone.train.task import Dev, Task
from paretone.train.together import agreed, anywhere, is_main, wait


class StopRequest:
    """Whether somebody asked the training to stop."""

    def __init__(self) -> None:
        self.is_asked = False


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """SIGINT and SIGTERM become a request to stop; the second one interrupts at once."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():  # only that one may set handlers
        yield stop
        return

    def ask(signum: int, frame: FrameType | None) -> None:
        if stop.is_asked:
            raise KeyboardInterrupt("interrupted; the same command goes on from the last checkpoint")
        stop.is_asked = True
        print("stopping after this update; once more to stop at once", file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def dev_rates(log: Sequence[Mapping[str, float]]) -> list[float]:
    """The dev WER after each epoch."""
    return [entry["dev_wer"] for entry in log if "dev_wer" in entry]


def is_over(task: Task, state: TrainerState) -> bool:
    """Whether all epochs are done, or the last ``patience`` of them brought no better dev WER."""
    if state.global_step >= task.updates:
        return True
    rates, patience = dev_rates(state.log_history), task.settings.patience
    return patience is not None and len(rates) > patience and min(rates[-patience:]) >= min(rates[:-patience])


class Watch(TrainerCallback):
    """Tells the order its epoch, moves the bar, decodes the dev set, decides about checkpoints and the end.

    Everything it decides by lies in the Trainer's state, so a run that goes on decides alike.
    """

    def __init__(self, task: Task, shown: Bar, stop: StopRequest, clock: Callable[[], float]) -> None:
        """``clock`` gives the seconds that the run has taken so far."""
        self.task, self.shown, self.stop, self.clock = task, shown, stop, clock
        self.saved_at = time.monotonic()

    def on_epoch_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Another order for every epoch."""
        self.task.order.epoch = state.global_step // self.task.updates_per_epoch

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A checkpoint where one is due; at the end of an epoch it waits for the dev set."""
        losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
        self.shown.advance(f"training, loss {losses[-1]:.3f}" if losses else "training")
        if state.global_step % self.task.updates_per_epoch == 0:
            control.should_log = True
        else:
            self.stop.is_asked = anywhere(self.stop.is_asked)
            control.should_save = self.stop.is_asked or agreed(
                time.monotonic() - self.saved_at >= self.task.checkpoint_every_s
            )

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Decodes the dev set and asks for a checkpoint, which then knows the result."""
        epoch = state.global_step // self.task.updates_per_epoch
        loss = next(entry["loss"] for entry in reversed(state.log_history) if "loss" in entry)
        line = f"epoch {epoch} of {self.task.settings.epochs}: loss {loss:.3f}"
        if self.task.dev is not None:
            lowest = min(dev_rates(state.log_history), default=math.inf)
            rate = agreed(self._decode(self.task.dev, lowest) if is_main() else None)
            state.log_history.append({"dev_wer": rate, "epoch": float(epoch), "step": state.global_step})
            line += f", dev WER {rate:.2%}"
        if is_main():
            self.shown.say(line)
        control.should_save = True
        control.should_training_stop = is_over(self.task, state)

    def _decode(self, dev: Dev, lowest: float) -> float:
        """The dev WER of the weights as they would be stored; keeps them if it is lower than the ``lowest`` so far."""
        task = self.task
        # the decoding may draw from the generators that dropout draws from; those of other GPUs are other processes'
        device = task.model.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), task.as_delivered():
            rate = dev.word_error_rate(task.model, task.processor)
        if rate < lowest:
            with task.run.new_best() as folder:
                task.keep(folder)
        return rate

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The checkpoint is whole now; whoever asked to stop can have it."""
        wait()  # every process has saved its random state
        if is_main():
            self.task.run.complete(self.task.run.folder / f"checkpoint-{state.global_step}", self.clock())
        wait()
        self.saved_at = time.monotonic()
        self.stop.is_asked = anywhere(self.stop.is_asked)
        if self.stop.is_asked:
            done = f"interrupted after update {state.global_step} of {self.task.updates}"
            raise KeyboardInterrupt(f"{done}; the same command goes on from there")
