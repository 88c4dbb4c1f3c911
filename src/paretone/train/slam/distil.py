"""A pruned encoder taught to give what the whole one gives, before a projector is trained on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paretone.checkpoint import read_tensors, write_tensors
from paretone.data import read_audio
from paretone.errors import UserError
from paretone.model.slam.encoders import encode
from paretone.train.slam.samples import BucketOrder, SlamSample, bucket_order
from paretone.train.task import Dev, Task
from paretone.train.unfinished import Unfinished

STATE = "encoder.safetensors"


@dataclass
class Distilling(Task):
    """The mean squared difference between what two encoders give, behind their final norms.

    Attributes:
        model: the encoder that learns; all of it does but Whisper's sinusoids.
        teacher: the whole one.
    """

    model: Any
    teacher: Any
    processor: Any
    samples: Sequence[SlamSample]
    settings: Any
    run: Unfinished
    checkpoint_every_s: float
    dev: Dev | None = None

    @cached_property
    def order(self) -> BucketOrder:
        """By seconds of audio."""
        return bucket_order(self.samples, self.settings)

    def prepare(self) -> None:
        """Lets the encoder learn."""
        self.model.requires_grad_(True)
        if self.model.config.model_type == "whisper":
            self.model.embed_positions.requires_grad_(False)
        self.teacher.requires_grad_(False).eval()

    def collate(self, samples: Sequence[SlamSample]) -> dict[str, Tensor]:
        """Features of the audio; ``labels`` only count what is heard."""
        waves = [read_audio(sample.utterance.audio, name=sample.utterance.name) for sample in samples]
        inputs = self.processor.inputs(waves)
        heard = inputs["attention_mask"].bool()
        given = inputs["input_features"] if "input_features" in inputs else inputs["input_values"]
        return {"inputs": given, "mask": heard, "labels": torch.where(heard, 0, -100)}

    def loss(self, model: Any, batch: dict[str, Tensor]) -> Tensor:
        """Summed so that, over the labels of an update, it is the mean over positions."""
        given, mask = batch["inputs"], batch["mask"]
        self.teacher.to(given.device)
        with torch.no_grad():
            wanted, places = encode(self.teacher, given, mask)
        found, _ = encode(model, given, mask)
        pairs = zip(found.values(), wanted.values(), strict=True)
        errors = next((a.float() - b.float()).square().mean(dim=-1) for a, b in pairs)
        inside = torch.ones_like(errors) if places is None else places.to(errors.dtype)
        return (errors * inside).sum() * (mask.sum() / inside.sum())

    def keep(self, folder: Path) -> None:
        """The encoder, in float32."""
        write_tensors(
            folder / STATE, {name: tensor.detach().cpu().contiguous() for name, tensor in self.state().items()}
        )


def distil(task: Distilling) -> float:
    """Trains the encoder, or takes it from where it was trained before; returns the last mean squared difference.

    Raises:
        UserError: among several processes, which this does not know.
    """
    from paretone.train.together import world
    from paretone.train.trainer import run_training

    if world() > 1:
        raise UserError("encoder.distil runs in one process; distil first, or leave torchrun out")
    task.run.folder.mkdir(exist_ok=True)
    done = task.run.folder / "distilled"
    if done.exists():
        task.load_state(read_tensors(task.run.best / STATE))
        loss = float(done.read_text())
    else:
        loss = run_training(task).curve[-1]["loss"]
        done.write_text(str(loss))
    task.model.requires_grad_(False).eval()
    return loss
