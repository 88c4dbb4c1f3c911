"""Which recordings are heard together, and what the model gets of them."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from paretone.data import RATE_HZ, read_audio
from paretone.model.hearing import Recogniser
from paretone.train.samples import Sample

IGNORED = -100  # what transformers takes for "no label here"


class BatchOrder(Sampler[list[int]]):
    """Batches of like length in an order that follows from the seed and ``epoch`` alone.

    Recordings are shuffled, cut into chunks of up to 50 batches (at least four, where there are as many), sorted by
    length within a chunk and cut into batches, which are shuffled again. Source: transformers' LengthGroupedSampler.
    """

    def __init__(self, lengths: Sequence[float], batch: int, seed: int) -> None:
        self.lengths, self.seed, self.epoch = np.asarray(lengths), seed, 0
        self.batch_size, self.drop_last = batch, False  # accelerate asks for them

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.lengths) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """Indices batch by batch; one batch may be smaller than the others."""
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.lengths))
        chunk = self.batch_size * max(1, min(50, len(order) // (4 * self.batch_size)))
        parts = (order[first : first + chunk] for first in range(0, len(order), chunk))
        order = np.concatenate([part[np.argsort(-self.lengths[part], kind="stable")] for part in parts])
        batches = [order[first : first + self.batch_size] for first in range(0, len(order), self.batch_size)]
        yield from (batches[i].tolist() for i in rng.permutation(len(batches)))


class Collator:
    """Reads the recordings of a batch and pads them and their labels."""

    def __init__(self, ready: Recogniser) -> None:
        self.ready = ready

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """The arguments of `loss_of`."""
        waves = [read_audio(sample.utterance.audio, name=sample.utterance.name) for sample in samples]
        return self._whisper(samples, waves) if self.ready.is_whisper else self._ctc(samples, waves)

    def _ctc(self, samples: Sequence[Sample], waves: Sequence[np.ndarray]) -> dict[str, Tensor]:
        extractor: Any = self.ready.processor.feature_extractor
        # each alone, as in decoding: no padding in the mean that it is normalised by
        values = [torch.as_tensor(extractor(wave, sampling_rate=RATE_HZ).input_values[0]) for wave in waves]
        padded = torch.nn.utils.rnn.pad_sequence(values, batch_first=True)
        batch = {
            "input_values": padded,
            "frames": torch.tensor([self.ready.frames(len(value)) for value in values]),
            "labels": _padded([sample.labels for sample in samples], IGNORED),
        }
        if not self.ready.needs_equal_lengths:  # such models have known padding, and no masks, all their lives
            lengths = torch.tensor([[len(value)] for value in values])
            batch["attention_mask"] = torch.arange(padded.shape[1]) < lengths  # an integer mask would index
        return batch

    def _whisper(self, samples: Sequence[Sample], waves: Sequence[np.ndarray]) -> dict[str, Tensor]:
        extractor: Any = self.ready.processor.feature_extractor
        features = [extractor(wave, sampling_rate=RATE_HZ, return_tensors="pt").input_features for wave in waves]
        # the prompt is given, not learned: what follows its last token is the first label
        inputs = [(*sample.prompt, *sample.labels[:-1]) for sample in samples]
        labels = [(*[IGNORED] * (len(sample.prompt) - 1), *sample.labels) for sample in samples]
        return {
            "input_features": torch.cat(features),
            "decoder_input_ids": _padded(inputs, self.ready.model.config.pad_token_id),
            "labels": _padded(labels, IGNORED),
        }


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def loss_of(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """The summed loss of a batch's labels: CTC, or for Whisper the cross entropy of each next token."""
    labels = batch["labels"]
    if "input_features" in batch:
        inputs = {name: batch[name] for name in ("input_features", "decoder_input_ids")}
        logits = model(**inputs, use_cache=False).logits.float()
        return torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="sum")
    logits = model(batch["input_values"], attention_mask=batch.get("attention_mask")).logits
    scores = torch.nn.functional.log_softmax(logits, dim=-1, dtype=torch.float32).transpose(0, 1)
    is_label = labels != IGNORED
    with torch.backends.cudnn.flags(enabled=False):  # cuDNN's loss knows neither long texts nor impossible ones
        return torch.nn.functional.ctc_loss(
            scores,
            labels[is_label],
            batch["frames"],
            is_label.sum(dim=1),
            blank=model.config.pad_token_id,
            reduction="sum",
            zero_infinity=True,
        )
