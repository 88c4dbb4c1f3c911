"""Whether two systems differ, by NIST's matched pairs sentence-segment word error test (MAPSSWE), as SCTK does it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BUFFER = 2  # words that both systems must get right between two segments, as in sc_stats
ENOUGH = 50  # with fewer segments the statistic is only roughly normal
# sclite charges 3 for an insertion, 3 for a deletion and 4 for a substitution (SCTK 2.4.10, word.c, wwd_WORD): so much
# is saved by pairing two words instead of deleting the one and inserting the other
_EQUAL = 3 + 3
_SUBSTITUTED = 3 + 3 - 4


@dataclass(frozen=True)
class MatchedPairs:
    """The verdict of the matched pairs test.

    ``z`` is positive where the first system has more errors. It and ``p_value`` are None where the systems differ by
    the same number of errors in every segment (or in the only one): without spread there is no statistic. sc_stats
    prints 0 there and calls the systems the same.
    """

    segments: int
    z: float | None
    p_value: float | None


def matched_pairs(references: Sequence[str], ours: Sequence[str], theirs: Sequence[str]) -> MatchedPairs:
    """Test whether two systems make equally many errors in the segments in which at least one of them makes any.

    Each utterance is cut where both systems get `BUFFER` words in a row right and put nothing in between. The mean
    difference of the error counts over its standard error is taken as normal, two-tailed; NIST calls the systems
    different where |z| > 1.960. With fewer than `ENOUGH` segments that is only roughly right.

    Both are aligned with sclite's costs, not with those of the word error rate, so that all counts equal NIST's.

    Args:
        references: normalised texts, one per utterance; ``ours`` and ``theirs`` are what was heard.

    Source: Gillick and Cox, "Some statistical issues in the comparison of speech recognition algorithms", ICASSP 1989;
    SCTK 2.4.10, mtchprs.c.
    """
    segments: list[tuple[int, int]] = []
    for reference, our, their in zip(references, ours, theirs, strict=True):
        said = reference.split()
        segments += cut(align_as_sclite(said, our.split()), align_as_sclite(said, their.split()))
    return judge(segments)


def judge(segments: Sequence[tuple[int, int]]) -> MatchedPairs:
    """The verdict from the error counts (first system, second system) of every segment."""
    differences = [ours - theirs for ours, theirs in segments]
    if not any(differences):
        return MatchedPairs(len(segments), 0.0, 1.0)
    if len(set(differences)) == 1:
        return MatchedPairs(len(segments), None, None)
    z = float(np.mean(differences) / np.std(differences, ddof=1) * math.sqrt(len(segments)))
    return MatchedPairs(len(segments), z, math.erfc(abs(z) / math.sqrt(2)))


def cut(ours: Sequence[int], theirs: Sequence[int]) -> list[tuple[int, int]]:
    """The error counts of both systems in each segment of one utterance, in order.

    The ends of the utterance bound a segment too.

    Args:
        ours: errors by place, as `align_as_sclite` returns them; ``theirs`` likewise.
    """
    segments: list[tuple[int, int]] = []
    right = BUFFER
    for place, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        if not our and not their:
            right += place % 2
            continue
        before = (0, 0) if right >= BUFFER else segments.pop()
        segments.append((before[0] + our, before[1] + their))
        right = 0
    return segments


def align_as_sclite(said: Sequence[str], heard: Sequence[str]) -> list[int]:
    """The errors at every place of one utterance, aligned at least cost with sclite's choice among equal costs.

    Libraries with the same costs choose other alignments among equals, and so come to other segments. Of equal ways to
    a pair of beginnings sclite takes the one that ends in two words paired, then in an insertion.

    Returns:
        2 x words + 1 counts: insertions before the first word, 1 if that word was missed, insertions before the second
        word, and so on; the last is of insertions after the last word.

    Source: SCTK 2.4.10, net_dp.c, calculate_internal_cells.
    """
    errors = [place % 2 for place in range(2 * len(said) + 1)]
    i, j = len(said), len(heard)
    while i and j and said[i - 1] == heard[j - 1]:  # a pair of equal words is always among the best
        i, j = i - 1, j - 1
        errors[2 * i + 1] = 0
    saved = _savings(said[:i], heard[:j])
    while i or j:
        equal = i and j and said[i - 1] == heard[j - 1]
        if i and j and saved[i, j] == saved[i - 1, j - 1] + (_EQUAL if equal else _SUBSTITUTED):
            i, j = i - 1, j - 1
            errors[2 * i + 1] = int(not equal)
        elif j and (not i or saved[i, j - 1] >= saved[i - 1, j]):
            j -= 1
            errors[2 * i] += 1
        else:
            i -= 1
    return errors


def _savings(said: Sequence[str], heard: Sequence[str]) -> np.ndarray:
    """How much the best alignment of each pair of beginnings saves against deleting and inserting all of their words.

    Returns:
        (len(said) + 1, len(heard) + 1), int32.
    """
    numbers = {word: number for number, word in enumerate({*said, *heard})}
    rows, columns = (np.array([numbers[word] for word in words], dtype=np.int32) for words in (said, heard))
    saved = np.zeros((len(said) + 1, len(heard) + 1), dtype=np.int32)
    for i, row in enumerate(rows):
        best = saved[i].copy()
        np.maximum(best[1:], saved[i, :-1] + np.where(columns == row, _EQUAL, _SUBSTITUTED), out=best[1:])
        np.maximum.accumulate(best, out=saved[i + 1])
    return saved
