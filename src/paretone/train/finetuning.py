"""A recogniser that is trained further, as a task."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from paretone.checkpoint import Checkpoint
from paretone.model.hearing import Recogniser
from paretone.train.batches import BatchOrder, Collator, loss_of
from paretone.train.samples import Sample
from paretone.train.settings import Settings
from paretone.train.task import Dev, Task
from paretone.train.unfinished import Unfinished
from paretone.train.weights import as_stored, write_weights


@dataclass
class Finetuning(Task):
    """CTC or Whisper; ``checkpoint`` is where the model came from."""

    ready: Recogniser
    checkpoint: Checkpoint
    samples: Sequence[Sample]
    settings: Settings
    run: Unfinished
    dev: Dev | None
    checkpoint_every_s: float

    def __post_init__(self) -> None:
        """Makes what belongs to the model."""
        self.model, self.processor = self.ready.model, self.ready.processor

    @cached_property
    def order(self) -> BatchOrder:
        """By seconds; Whisper hears every recording as one window, so all are alike."""
        lengths = [0.0 if self.ready.is_whisper else sample.utterance.duration_s for sample in self.samples]
        return BatchOrder(lengths, self.settings.batch, self.settings.seed)

    @cached_property
    def _collator(self) -> Collator:
        return Collator(self.ready)

    def prepare(self) -> None:
        """Source: transformers' ``freeze_feature_encoder``; for Whisper its two convolutions.

        Whisper's sinusoids are never trained: its class says so, but loading a checkpoint forgets it.
        """
        freezes = self.settings.freeze_front_end
        if self.ready.is_whisper:
            encoder = self.model.get_encoder()
            encoder.embed_positions.requires_grad_(False)
            for convolution in (encoder.conv1, encoder.conv2):
                convolution.requires_grad_(not freezes)
        elif freezes:
            self.model.freeze_feature_encoder()

    def collate(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """See `Collator`."""
        return self._collator(samples)

    def loss(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        """CTC, or the cross entropy of each next token."""
        return loss_of(model, batch)

    def keep(self, folder: Path) -> None:
        """Under the names and types of the source."""
        write_weights(self.model, self.checkpoint, folder)

    def as_delivered(self) -> AbstractContextManager[None]:
        """In the types of the source."""
        return as_stored(self.model, self.checkpoint)
