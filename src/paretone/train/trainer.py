"""transformers' Trainer with our batches, our loss, and checkpoints that a kill can't spoil."""

import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerState, TrainingArguments

from paretone.errors import UserError
from paretone.folders import DISK_ERRORS
from paretone.progress import bar
from paretone.train.task import Task
from paretone.train.together import Share, is_main, wait, world
from paretone.train.watch import Watch, is_over, stop_on_signals

WEIGHTS_FILE = "weights.pt"
STATE_FILE = "trainer_state.json"


@dataclass(frozen=True)
class Trained:
    """How a training went.

    Attributes:
        updates: how many there were.
        best_update: the one whose weights are kept; the last one without a dev set.
        dev_wer: of the weights that are kept.
        curve: what was logged, by update: loss of a label, learning rate, gradient norm; and dev WER after each epoch.
        seconds: over all pieces of an interrupted run.
    """

    updates: int
    best_update: int
    dev_wer: float | None
    curve: list[dict[str, float]]
    seconds: float


def run_training(task: Task) -> Trained:
    """Trains, going on from the last checkpoint of the run; the weights to keep are in ``task.run.best`` then.

    Interrupted, it finishes the update it is at, saves a checkpoint and raises KeyboardInterrupt with a message.

    Raises:
        UserError: if the loss is no number any more, a recording has become unreadable, or the disk is full.
    """
    started, last = time.monotonic(), task.run.last_checkpoint()
    before = task.run.seconds_before(last)
    task.prepare()
    state = TrainerState.load_from_json(str(last / STATE_FILE)) if last else TrainerState()

    def clock() -> float:
        return before + time.monotonic() - started

    with _disk_errors(task.run.folder):
        if last is not None and is_over(task, state):  # only writing OUT was left
            load_weights(task, last)
        else:
            with stop_on_signals() as stop, bar("training", task.updates, state.global_step) as shown:
                trainer = _Trainer(task, Watch(task, shown, stop, clock))
                trainer.train(resume_from_checkpoint=str(last) if last else None)
                state = trainer.state
        if task.dev is None and is_main():
            with task.run.new_best() as folder:
                task.keep(folder)
    wait()
    return _trained(state, clock())


def _trained(state: TrainerState, seconds: float) -> Trained:
    curve = [entry for entry in state.log_history if "loss" in entry or "dev_wer" in entry]
    dev = [entry for entry in curve if "dev_wer" in entry]
    best = min(dev, key=lambda entry: entry["dev_wer"], default=None)  # the first of equals
    return Trained(
        updates=state.global_step,
        best_update=int(best["step"]) if best else state.global_step,
        dev_wer=best["dev_wer"] if best else None,
        curve=curve,
        seconds=seconds,
    )


def load_weights(task: Task, checkpoint: Path) -> None:
    """Puts the weights of a run's checkpoint into the model."""
    task.load_state(torch.load(checkpoint / WEIGHTS_FILE, map_location="cpu", weights_only=True))


class _Trainer(Trainer):
    """The loss of an update is the mean over its labels, however many batches it is accumulated from."""

    def __init__(self, task: Task, watch: Watch) -> None:
        self.task = task
        super().__init__(
            model=task.model,
            args=_arguments(task),
            train_dataset=list(task.samples),
            callbacks=[watch],
        )
        self.remove_callback(PrinterCallback)  # it writes to standard output
        self.model_accepts_loss_kwargs = True  # has the labels of an update counted for compute_loss
        self._loss_shifts_labels = False  # ... all of them: from 5.24 on, causal models' first one is left out

    def get_train_dataloader(self) -> DataLoader:
        order = self.task.order if world() == 1 else Share(self.task.order)
        loader: DataLoader = DataLoader(
            self.train_dataset,  # type: ignore[arg-type]
            batch_sampler=order,
            collate_fn=self.task.collate,
        )
        return loader if world() > 1 else self.accelerator.prepare(loader)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """bf16 is switched on here and not in accelerate, whose switch would stay on while the dev set is decoded."""
        is_bf16 = self.task.settings.precision == "bf16"
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=is_bf16), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")  # WavLM's own call
            # DistributedDataParallel takes the mean over processes, and the labels are those of all
            loss = self.task.loss(model, inputs) / num_items_in_batch * world()
        if not torch.isfinite(loss):
            number, heard = self.state.global_step + 1, self.task.names(inputs)
            of = f" ({heard})" if heard else ""
            raise UserError(f"the loss of update {number} is not a number{of}; start anew with a lower learning rate")
        return loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Nobody reads them, and counting the parameters anew at each step costs small models some percent."""
        return 0

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """The state as it is: ``save_pretrained`` leaves out tied tensors and may rename others."""
        folder = Path(output_dir or self.task.run.folder)
        folder.mkdir(parents=True, exist_ok=True)
        if is_main():
            torch.save(dict(self.task.state()), folder / WEIGHTS_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        load_weights(self.task, Path(resume_from_checkpoint))


def _arguments(task: Task) -> TrainingArguments:
    settings, has_cuda = task.settings, torch.cuda.is_available()
    checkpointing: dict[str, Any] = {}
    if settings.gradient_checkpointing:
        # transformers 5.24 gave it another name
        name = f"{'activation' if hasattr(TrainingArguments, 'activation_checkpointing') else 'gradient'}_checkpointing"
        checkpointing = {name: True, f"{name}_kwargs": {"use_reentrant": False}}
    args = TrainingArguments(
        output_dir=str(task.run.folder),
        num_train_epochs=settings.epochs,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=math.ceil(settings.warm_up * task.updates),
        lr_scheduler_type=settings.scheduler[0],
        lr_scheduler_kwargs=settings.scheduler[1],
        optim="adamw_torch_fused",  # on a CPU a fifth of the time of the plain loop
        max_grad_norm=1.0,
        seed=settings.seed,
        use_cpu=not has_cuda,
        logging_steps=max(1, task.updates_per_epoch // 10),
        logging_nan_inf_filter=False,
        save_strategy="no",  # Watch says when
        save_total_limit=2,  # while one is being written, the one before is whole
        report_to=list(settings.report_to) or "none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=has_cuda,
        **checkpointing,
    )
    args._n_gpu = min(1, args.n_gpu)  # no DataParallel: it would multiply the batch
    return args


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turns a full or broken disk into the user's to mend; torch tells of it in a RuntimeError of its own."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise UserError(f"{folder} can't be written: {error.strerror}; the last whole checkpoint stays") from error
    except RuntimeError as error:
        if "PytorchStreamWriter" not in str(error) and "inline_container" not in str(error):
            raise
        raise UserError(f"{folder} can't be written, the disk may be full; the last whole checkpoint stays") from error
