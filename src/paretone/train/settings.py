"""How to train: checked words, and what they mean for one model on one machine."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paretone.errors import UserError, did_you_mean

PRECISIONS = ("auto", "bf16", "fp32")
DEFAULT_PATIENCE = 2


@dataclass(frozen=True)
class Settings:
    """How to train.

    Epochs, AdamW, the learning rate and the batch are those of arXiv 2606.11836; warm-up, decay and the linear fall of
    the learning rate to 0 are ours.

    Attributes:
        learning_rate: the highest.
        batch: utterances that are heard at once.
        accumulate: batches whose gradients make up one update; an update sees ``batch * accumulate`` utterances.
        warm_up: share of the updates in which the learning rate rises.
        freeze_front_end: leave the convolutions before the Transformer as they are; None does so for CTC models and not
            for Whisper.
        precision: "bf16" computes the forward pass in bfloat16 (weights stay float32), "auto" does so where the
            hardware has it.
        gradient_checkpointing: compute each layer twice and keep less in memory.
        patience: stop when so many epochs in a row brought no better dev WER; None is 2 with a dev set.
        seed: of order, dropout and masks.

    Raises:
        UserError: if a value is out of range.
    """

    epochs: int = 3
    learning_rate: float = 2e-4
    batch: int = 16
    accumulate: int = 1
    warm_up: float = 0.1
    weight_decay: float = 0.01
    freeze_front_end: bool | None = None
    precision: str = "auto"
    gradient_checkpointing: bool = False
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks every value."""
        for name in ("epochs", "batch", "accumulate"):
            self._check(name, lambda value: value >= 1, "1 or more", int)
        self._check("learning_rate", lambda value: value > 0, "more than 0", float)
        self._check("warm_up", lambda value: 0 <= value < 1, "a share of the updates, 0 to below 1", float)
        self._check("weight_decay", lambda value: value >= 0, "0 or more", float)
        self._check("seed", lambda value: 0 <= value < 2**32, "0 to 2³² − 1", int)
        if self.patience is not None:
            self._check("patience", lambda value: value >= 1, "1 or more", int)
        if self.precision not in PRECISIONS:
            hint = did_you_mean(str(self.precision), PRECISIONS)
            raise UserError(f"--precision {self.precision!r} is none of {', '.join(PRECISIONS)}{hint}")

    def _check(self, name: str, holds: Callable[[Any], bool], allowed: str, kind: type) -> None:
        value = getattr(self, name)
        is_kind = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        if not is_kind or not math.isfinite(value) or not holds(value):
            whole = "a whole number, " if kind is int else ""
            raise UserError(f"{option(name)} is {value!r}; it must be {whole}{allowed}")

    @property
    def scheduler(self) -> tuple[str, dict[str, float]]:
        """How the learning rate falls, in transformers' words."""
        return "linear", {}

    @property
    def report_to(self) -> tuple[str, ...]:
        """Nothing is sent anywhere."""
        return ()

    def resolved(self, *, is_whisper: bool, has_dev: bool, device: str) -> "Settings":
        """The same with nothing left open.

        Raises:
            UserError: if ``patience`` is given without a dev set, or the device has no bf16 and it was asked for.
        """
        if self.patience is not None and not has_dev:
            raise UserError("--patience has no effect without --dev; give a dev set or leave it out")
        return dataclasses.replace(
            self,
            freeze_front_end=not is_whisper if self.freeze_front_end is None else self.freeze_front_end,
            precision=precision_on(self.precision, device),
            patience=(self.patience or DEFAULT_PATIENCE) if has_dev else None,
        )


def option(field: str) -> str:
    """The word on the command line for a field."""
    return f"--{field.replace('_', '-')}"


def precision_on(asked: str, device: str) -> str:
    """ "bf16" or "fp32": what was asked for, or what suits the device.

    Raises:
        UserError: if the device has no bf16 and it was asked for.
    """
    import torch

    if device == "cuda":
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        if asked == "bf16" and not has_bf16:
            raise UserError(f"--precision bf16: {torch.cuda.get_device_name()} has no bfloat16; give fp32")
    else:
        # a CPU without these computes bfloat16 too, but more slowly than float32
        flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
        has_bf16 = any(flags.get(name) for name in ("avx512_bf16", "amx_bf16"))
    if asked == "auto":
        return "bf16" if has_bf16 else "fp32"
    return asked
