"""How sure a word error rate is, whether two differ, and what difference could be seen: all over utterances."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from paretone.results.counts import Errors

DRAWS = 10_000
ALPHA = 0.05
POWER = 0.8
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
    return interval95(rates)


def paired_bootstrap(errors: Sequence[Errors], baseline: Sequence[Errors], *, seed: int, draws: int = DRAWS) -> Verdict:
    """Whether the word error rate of ``errors`` differs from that of ``baseline`` on the same utterances.

    Every draw takes the same utterances for both. The p-value is twice the smaller share of draws on one side of zero,
    ties on both sides, never below 2 / (draws + 1).

    Source: Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP 2004.
    """
    edits = _column(errors, lambda e: e.total) - _column(baseline, lambda e: e.total)
    words = _column(errors, lambda e: e.words)
    deltas = _resampled_rates(edits, words, seed, draws)
    return verdict_of(float(edits.sum() / words.sum()), deltas)


def detectable_delta(errors: Sequence[Errors], baseline: Sequence[Errors]) -> float | None:
    """The smallest difference of word error rates, either way, that a paired test on these utterances sees reliably.

    That is a true difference which a two-sided test at `ALPHA` finds in a share `POWER` of test sets like this one:
    m = 0.842 + 1.960 = 2.80 standard errors of the difference. With n utterances of w words in which the systems differ
    by d errors, and delta = sum(d) / sum(w), the standard error is sqrt(n / (n - 1) * sum((d - delta * w)^2)) / sum(w).

    It is never below m^2 = 7.85 errors, and just that for systems that don't differ at all. Counts are whole numbers,
    so a change of k errors has a spread of at least sqrt(k) of its own, and k >= m * sqrt(k) means k >= m^2.

    Returns:
        A fraction of the reference words, or None for a single utterance, whose spread is unknown.

    Source: Bloom, "Minimum detectable effects", Evaluation Review 19 (1995); the standard error is that of a ratio,
    Cochran, "Sampling Techniques" (1977), section 2.11.
    """
    if len(errors) < 2:
        return None
    edits = _column(errors, lambda e: e.total) - _column(baseline, lambda e: e.total)
    words = _column(errors, lambda e: e.words)
    residuals = edits - edits.sum() / words.sum() * words
    spread = math.sqrt(len(errors) / (len(errors) - 1) * float(residuals @ residuals))
    multiple = NormalDist().inv_cdf(POWER) + NormalDist().inv_cdf(1 - ALPHA / 2)
    return max(multiple * spread, multiple**2) / float(words.sum())


def joint_rates(edits: np.ndarray, words: np.ndarray, *, seed: int, draws: int = DRAWS) -> np.ndarray:
    """Corpus rates of many systems over resampled utterances, every draw the same utterances for all of them.

    Args:
        edits: (systems, utterances) counts, or differences of counts.
        words: (utterances,) reference words.

    Returns:
        (systems, draws), without those draws in which no word was spoken.
    """
    rng = np.random.default_rng(seed)
    size = len(words)
    block = max(1, _CELLS // size)
    both = np.concatenate([edits, words[None]]).astype(np.float64).T  # (utterances, systems + 1)
    sums = []
    for first in range(0, draws, block):
        rows = min(block, draws - first)
        chosen = rng.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        times = np.bincount(chosen.ravel(), minlength=rows * size).reshape(rows, size)
        sums.append(times @ both)
    total = np.concatenate(sums).T
    total = total[:, total[-1] > 0]
    return total[:-1] / total[-1]


def verdict_of(delta: float, deltas: np.ndarray) -> Verdict:
    """The verdict of a paired bootstrap from the differences in its draws; see `paired_bootstrap`."""
    smaller = min(np.count_nonzero(deltas <= 0), np.count_nonzero(deltas >= 0))
    return Verdict(delta, interval95(deltas), min(1.0, 2 * (smaller + 1) / (len(deltas) + 1)))


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


def interval95(rates: np.ndarray) -> Interval:
    """The 95 % percentile interval of resampled rates."""
    low, high = np.percentile(rates, (2.5, 97.5))
    return float(low), float(high)
