"""What one training has to do with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from paretone.checkpoint import Checkpoint
from paretone.data import Data
from paretone.model.hearing import Recogniser
from paretone.train.batches import BatchOrder
from paretone.train.samples import Sample
from paretone.train.settings import Settings
from paretone.train.unfinished import Unfinished


@dataclass(frozen=True)
class Dev:
    """Held-out data and how its errors are counted: from above, so that it is the very way of an evaluation."""

    data: Data
    word_error_rate: Callable[[Any, Any], float]  # of a model and its processor


@dataclass(frozen=True)
class Task:
    """A model, what it learns from, how, and where it lives meanwhile; ``settings`` are resolved."""

    ready: Recogniser
    checkpoint: Checkpoint
    samples: Sequence[Sample]
    settings: Settings
    run: Unfinished
    dev: Dev | None
    checkpoint_every_s: float

    @cached_property
    def order(self) -> BatchOrder:
        """By seconds; Whisper hears every recording as one window, so all are alike."""
        lengths = [0.0 if self.ready.is_whisper else sample.utterance.duration_s for sample in self.samples]
        return BatchOrder(lengths, self.settings.batch, self.settings.seed)

    @property
    def updates_per_epoch(self) -> int:
        """Steps of the optimizer."""
        return -(-len(self.order) // self.settings.accumulate)

    @property
    def updates(self) -> int:
        """Of all epochs."""
        return self.updates_per_epoch * self.settings.epochs
