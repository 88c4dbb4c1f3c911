"""What a speech LLM learns from: recordings and token rows, in batches of like length."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from paretone.data import Data, Utterance
from paretone.data.records import digest_of_audio
from paretone.errors import UserError
from paretone.results.normalise import normaliser

SHORTEST_S = 0.1


@dataclass(frozen=True)
class SlamSample:
    """One recording and its answer in tokens, the end included."""

    utterance: Utterance
    labels: tuple[int, ...]

    @cached_property
    def key(self) -> str:
        """What the recording is called in a cache of features; made when it is first asked for."""
        return digest_of_audio(self.utterance.audio).hex()[:32]


def slam_samples(
    data: Data, processor: Any, *, text: str, window_s: float, longest: int
) -> tuple[list[SlamSample], list[str]]:
    """Samples of all utterances that can be learned from, and what is to be said about the others.

    Args:
        text: normaliser of the answers, or "none".
        window_s: the longest recording that the encoder hears.
        longest: most tokens of an answer.

    Raises:
        UserError: if none are left.
    """
    written = (lambda said: " ".join(said.split())) if text == "none" else normaliser(text)
    left_out: Counter[str] = Counter()
    samples = []
    for utterance in data.utterances:
        answer = written(utterance.text)
        labels = processor.answer(answer)
        if not answer:
            left_out["have no text left"] += 1
        elif not SHORTEST_S <= utterance.duration_s <= window_s:
            left_out[f"are not {SHORTEST_S} to {window_s:g} s long"] += 1
        elif len(labels) > longest:
            left_out[f"have a text of more than {longest} tokens"] += 1
        else:
            samples.append(SlamSample(utterance, tuple(labels)))
    notices = [f"{n} of {len(data.utterances)} utterances {why} and were left out" for why, n in left_out.most_common()]
    if not samples:
        raise UserError(f"{data.name}: nothing to learn from: {'; '.join(notices)}; give other data")
    return samples, notices


class BucketOrder(Sampler[list[int]]):
    """Batches of recordings of like length, in another order every epoch.

    Recordings are shuffled once and sorted by whole seconds, so that each batch is padded little; a batch holds
    ``batch`` of them, or as many as last ``batch_s`` seconds once padded. Which ones share a batch is the same in every
    epoch, so that epochs have equally many updates.
    """

    def __init__(self, lengths: Sequence[float], seed: int, *, batch: int | None, batch_s: float | None) -> None:
        self.seed, self.epoch = seed, 0
        self.batch_size, self.drop_last = 1, False  # accelerate asks for them
        rng = np.random.default_rng([seed, 0])
        seconds = [math.ceil(length) for length in lengths]
        order = sorted(rng.permutation(len(seconds)).tolist(), key=lambda i: seconds[i])
        self.batches: list[list[int]] = []
        for i in order:
            last = self.batches[-1] if self.batches else []
            fits = len(last) < batch if batch is not None else (len(last) + 1) * seconds[i] <= (batch_s or 0)
            if last and fits:
                last.append(i)
            else:
                self.batches.append([i])

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        """Indices batch by batch."""
        rng = np.random.default_rng([self.seed, 1, self.epoch])
        yield from (self.batches[i] for i in rng.permutation(len(self.batches)))


def bucket_order(samples: Sequence[SlamSample], settings: Any) -> BucketOrder:
    """The order of a training with these settings, by seconds of audio."""
    lengths = [sample.utterance.duration_s for sample in samples]
    return BucketOrder(lengths, settings.seed, batch=settings.batch, batch_s=settings.batch_s)
