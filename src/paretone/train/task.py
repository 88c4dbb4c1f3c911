"""What one training has to do with."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from paretone.data import Data
from paretone.train.together import world
from paretone.train.unfinished import Unfinished


@dataclass(frozen=True)
class Dev:
    """Held-out data and how its errors are counted: from above, so that it is the very way of an evaluation."""

    data: Data
    word_error_rate: Callable[[Any, Any], float]  # of a model and its processor


class Task(ABC):
    """A model, what it learns from and how; what `run_training` needs to know, whatever kind of model it is.

    Attributes:
        settings: resolved; with ``epochs``, ``accumulate``, ``learning_rate``, ``weight_decay``, ``warm_up``, ``seed``,
            ``precision``, ``gradient_checkpointing``, ``patience``, ``report_to`` and ``scheduler``, a name and
            arguments of transformers.
        samples: what `collate` makes batches of.
        order: batches of indices of ``samples``, as many in every epoch; has an ``epoch``.
        run: where it lives meanwhile.
    """

    model: Any
    processor: Any
    settings: Any
    samples: Sequence[Any]
    order: Any
    run: Unfinished
    dev: Dev | None
    checkpoint_every_s: float

    @property
    def updates_per_epoch(self) -> int:
        """Steps of the optimizer; each process hears batches of its own."""
        rounds = -(-len(self.order) // world())
        return -(-rounds // self.settings.accumulate)

    @property
    def updates(self) -> int:
        """Of all epochs."""
        return int(self.updates_per_epoch * self.settings.epochs)

    @abstractmethod
    def prepare(self) -> None:
        """Freezes what is not trained."""

    @abstractmethod
    def collate(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        """A batch; ``labels`` hold -100 where there is none."""

    @abstractmethod
    def loss(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        """The summed loss of a batch's labels."""

    def names(self, batch: dict[str, Tensor]) -> str:
        """The recordings of a batch, to tell which one went wrong; empty where that is not known."""
        return ""

    def state(self) -> Mapping[str, Tensor]:
        """Every tensor that training changes; the whole model's, if nothing less is said."""
        state: Mapping[str, Tensor] = self.model.state_dict()
        return state

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Puts them back."""
        self.model.load_state_dict(state)

    @abstractmethod
    def keep(self, folder: Path) -> None:
        """Writes the weights as they will be delivered into an empty folder."""

    def as_delivered(self) -> AbstractContextManager[None]:
        """Rounds the weights, for as long as the context lasts, to what `keep` keeps of them; nothing, by default."""
        return nullcontext()
