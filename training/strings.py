"""Real spoken digit strings, put together from the Free Spoken Digit Dataset.

A string is two to six recordings of one speaker with random gaps. Recordings 0 to 7 of each digit and speaker are
held out (0 to 4 is the data set's own test split), and one speaker is never heard in training.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

RATE_HZ = 16_000
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
HELD_OUT_TAKES = range(8)
UNHEARD_SPEAKER = "lucas"
RECORDING_NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[a-z]+)_(?P<take>\d+)\.(wav|flac)")


@dataclass(frozen=True)
class Recording:
    """One spoken digit (or, from other corpora, one whole string), mono float32 at its native rate."""

    samples: np.ndarray
    rate_hz: int
    text: str
    speaker: str
    take: int


def read_recordings(corpus: Path) -> list[Recording]:
    """All digit recordings below ``corpus``: a clone of the public data set or any tree that keeps its file names."""
    found = []
    for path in sorted(corpus.rglob("*")):
        if match := RECORDING_NAME.fullmatch(path.name):
            samples, rate_hz = soundfile.read(path, dtype="float32")
            found.append(Recording(samples, rate_hz, DIGITS[int(match["digit"])], match["speaker"], int(match["take"])))
    if not found:
        raise SystemExit(f"{corpus} holds no file named like 7_jackson_32.wav; give the folder of the data set")
    return found


def read_digit_sentences(corpus: Path) -> list[Recording]:
    """Real digit strings of other speakers, where ``corpus`` also holds speechocean762 (its manifest and audio)."""
    manifest = corpus / "en-speechocean762.jsonl"
    if not manifest.exists():
        return []
    found = []
    for line in manifest.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        text = entry["text"].lower()
        if set(text.split()) <= set(DIGITS):
            samples, rate_hz = soundfile.read(corpus / entry["audio"], dtype="float32")
            found.append(Recording(samples, rate_hz, text, entry["speaker"], take=-1))
    return found


def resample(samples: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
    """``samples`` at another rate."""
    return samples if from_hz == to_hz else soxr.resample(samples, from_hz, to_hz).astype(np.float32)


def join(parts: list[np.ndarray], rate_hz: int, rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """One waveform with a gap of 30 to 350 ms around each part, and where each part begins and ends (samples)."""
    pieces, spans, position = [], [], 0
    for part in parts:
        gap = int(rng.uniform(0.03, 0.35) * rate_hz)
        pieces += [np.zeros(gap, np.float32), part]
        spans.append((position + gap, position + gap + len(part)))
        position += gap + len(part)
    pieces.append(np.zeros(int(rng.uniform(0.05, 0.3) * rate_hz), np.float32))
    return np.concatenate(pieces), spans


def level_to(samples: np.ndarray, rms: float) -> np.ndarray:
    """``samples`` scaled to the root mean square ``rms``."""
    return samples * np.float32(rms / (np.sqrt(np.mean(samples**2)) + 1e-9))
