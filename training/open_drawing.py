"""Endless augmented utterances from the memory map that ``open_corpus.prepare`` wrote."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from strings import RATE_HZ, level_to

MARGIN = RATE_HZ // 10  # silence kept around an utterance that is cut to what is spoken


@dataclass(frozen=True)
class Timed:
    """A text and when its characters are spoken: character ``characters[k]`` at sample ``samples[k]``, both rising.

    ``exact`` where the beginning of each word is known; else only the first and last sample are.
    """

    text: str
    characters: np.ndarray
    samples: np.ndarray
    exact: bool

    def moved(self, *, cut: int = 0, speed: float = 1.0, offset: int = 0) -> "Timed":
        """The same after ``cut`` samples went from the front, ``speed`` was applied and ``offset`` put before it."""
        return replace(self, samples=(self.samples - cut) / speed + offset)


@dataclass(frozen=True)
class Example:
    """One waveform (float32) and what is said in it, in order."""

    wave: np.ndarray
    parts: tuple[Timed, ...]
    language: str | None = None  # where a model is told

    @property
    def text(self) -> str:
        return " ".join(part.text for part in self.parts)


def timing(line: dict) -> Timed:
    """When the characters of an index line are spoken, in samples from its start."""
    text, starts = line["text"], line["word_starts"]
    if not starts:
        return Timed(text, np.array([0, len(text)]), np.array([line["first"], line["last"]], float), exact=False)
    begins = [0, *(i + 1 for i, c in enumerate(text) if c == " ")]
    # eSpeak's first word begins at 0, before the onset; the end is where it becomes quiet
    samples = np.maximum.accumulate(np.maximum([*starts, line["last"]], line["first"]).astype(float))
    return Timed(text, np.array([*begins, len(text)]), samples, exact=True)


class Speech:
    """All utterances below ``work``; training ones are drawn, those of dev come in their order."""

    def __init__(self, work: Path) -> None:
        self.audio = np.memmap(work / "audio.i16", dtype=np.int16, mode="r")
        lines = [json.loads(line) for line in (work / "index.jsonl").read_text(encoding="utf-8").splitlines()]
        self.dev = [line for line in lines if line["part"] == "dev"]
        training = [line for line in lines if line["part"] == "train"]
        self.real = [line for line in training if not line["synthetic"]]
        self.synthetic = [line for line in training if line["synthetic"]]

    def samples(self, line: dict) -> np.ndarray:
        """float32 in [-1, 1]."""
        start = line["start"]
        return self.audio[start : start + line["length"]].astype(np.float32) / 32768

    def draw(self, rng: np.random.Generator, *, longest_s: float, real_share: float, join: float) -> Example:
        """One example; with probability ``join`` further utterances follow as long as they fit."""
        limit = int(longest_s * RATE_HZ)
        while True:
            line = self._line(rng, real_share)
            joined = rng.random() < join
            wave, timed = self._one(line, rng, whole=not joined and rng.random() < 0.6)
            if len(wave) <= limit:
                break
        waves, parts = [wave], [timed]
        misses = 0
        while joined and misses < 4:
            wave, timed = self._one(self._line(rng, real_share), rng, whole=False)
            gap = int(rng.uniform(0.0, 0.3) * RATE_HZ)
            position = sum(map(len, waves)) + gap
            if position + len(wave) > limit:
                misses += 1
                continue
            waves += [np.zeros(gap, np.float32), wave * np.float32(rng.uniform(0.6, 1.5))]
            parts.append(timed.moved(offset=position))
        return Example(_disturb(np.concatenate(waves), rng), tuple(parts))

    def _line(self, rng: np.random.Generator, real_share: float) -> dict:
        pool = self.real if rng.random() < real_share else self.synthetic
        return pool[rng.integers(len(pool))]

    def _one(self, line: dict, rng: np.random.Generator, *, whole: bool) -> tuple[np.ndarray, Timed]:
        samples, timed = self.samples(line), timing(line)
        speed = rng.uniform(0.88, 1.14)
        cut = 0 if whole else max(0, line["first"] - MARGIN)
        samples = samples[cut:] if whole else samples[cut : line["last"] + MARGIN]
        at = np.arange(0, len(samples) - 1, speed, dtype=np.float32)
        faster = np.interp(at, np.arange(len(samples), dtype=np.float32), samples).astype(np.float32)
        return faster, timed.moved(cut=cut, speed=speed)


def _disturb(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another microphone, room noise and gain."""
    tilted = samples.copy()
    tilted[1:] += np.float32(rng.uniform(-0.5, 0.5)) * samples[:-1]
    tilted = level_to(tilted, 0.05)
    if rng.random() < 0.7:
        noise = rng.standard_normal(len(samples), dtype=np.float32)
        if rng.random() < 0.5:  # coloured: most energy at low frequencies, as in rooms
            noise = np.convolve(noise, np.exp(-np.arange(12) / rng.uniform(0.5, 5)).astype(np.float32), mode="same")
        tilted = tilted + level_to(noise, 0.05 * 10 ** (-rng.uniform(10, 50) / 20))
    return (tilted * np.float32(10 ** (rng.uniform(-15, 6) / 20))).astype(np.float32)
