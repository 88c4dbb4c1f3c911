"""What keeps a language model from writing where nothing was said, or without end."""

from collections.abc import Sequence

import numpy as np

GUARDS = ("silence", "loops", "unfinished")
SILENCE_RMS = 1e-3  # -60 dB of full scale: quieter than the noise of a quiet room at any usual gain
LONGEST_PHRASE = 20
REPEATS = 4


def is_silent(wave: np.ndarray) -> bool:
    """Whether no 25 ms of a recording are louder than `SILENCE_RMS`."""
    frame = 400
    whole = wave[: len(wave) // frame * frame].reshape(-1, frame) if len(wave) >= frame else wave[None]
    return bool(np.sqrt(np.square(whole, dtype=np.float64).mean(axis=1)).max() < SILENCE_RMS)


def without_loop(tokens: Sequence[int]) -> list[int]:
    """An answer without the repetition that it ends in: a phrase of up to 20 tokens, four times or more, is left once.

    Only for answers that did not come to an end: somebody may well say a word four times.
    """
    for size in range(1, min(LONGEST_PHRASE, len(tokens) // REPEATS) + 1):
        start = len(tokens) - size
        while start >= size and list(tokens[start - size : start]) == list(tokens[start : start + size]):
            start -= size
        if len(tokens) - start >= REPEATS * size:
            return list(tokens[: start + size])
    return list(tokens)
