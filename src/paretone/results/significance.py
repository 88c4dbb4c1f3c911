"""How sure a word error rate is, and whether two differ: bootstrap over utterances."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from paretone.results.counts import Errors

DRAWS = 10_000
_CELLS = 2_000_000  # indices drawn at a time, so that memory does not grow with the corpus

Interval = tuple[float, float]


@dataclass(frozen=True)
class Verdict:
    """A difference of corpus word error rates, its 95 % interval and its two-sided p-value."""

    delta: float
    ci95: Interval
    p_value: float


def wer_interval(errors: Sequence[Errors], *, seed: int, draws: int = DRAWS) -> Interval:
    """The 95 % percentile interval of the corpus word error rate over resampled utterances.

    Args:
        errors: the counts of each utterance; together they hold at least one reference word.
        seed: the only source of randomness.
    """
    edits, words = _column(errors, lambda e: e.total), _column(errors, lambda e: e.words)
    rates = _resampled_rates(edits, words, seed, draws)
    return _interval95(rates)


def paired_bootstrap(errors: Sequence[Errors], baseline: Sequence[Errors], *, seed: int, draws: int = DRAWS) -> Verdict:
    """Whether the word error rate of ``errors`` differs from that of ``baseline`` on the same utterances.

    Every draw takes the same utterances for both. The p-value is twice the smaller share of draws on one side of zero,
    ties on both sides, never below 2 / (draws + 1).

    Source: Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004.
    """
    edits = _column(errors, lambda e: e.total) - _column(baseline, lambda e: e.total)
    words = _column(errors, lambda e: e.words)
    deltas = _resampled_rates(edits, words, seed, draws)
    smaller = min(np.count_nonzero(deltas <= 0), np.count_nonzero(deltas >= 0))
    return Verdict(
        delta=float(edits.sum() / words.sum()),
        ci95=_interval95(deltas),
        p_value=min(1.0, 2 * (smaller + 1) / (len(deltas) + 1)),
    )


def _column(errors: Sequence[Errors], value: Callable[[Errors], int]) -> np.ndarray:
    return np.array([value(e) for e in errors], dtype=np.int64)


def _resampled_rates(edits: np.ndarray, words: np.ndarray, seed: int, draws: int) -> np.ndarray:
    rates = np.concatenate(list(_rate_blocks(edits, words, seed, draws)))
    return rates[np.isfinite(rates)]  # a draw of utterances without any reference word has no rate


def _rate_blocks(edits: np.ndarray, words: np.ndarray, seed: int, draws: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    block = max(1, _CELLS // len(words))
    for first in range(0, draws, block):
        chosen = rng.integers(len(words), size=(min(block, draws - first), len(words)))
        with np.errstate(divide="ignore", invalid="ignore"):
            yield edits[chosen].sum(axis=1) / words[chosen].sum(axis=1)


def _interval95(rates: np.ndarray) -> Interval:
    low, high = np.percentile(rates, (2.5, 97.5))
    return float(low), float(high)
