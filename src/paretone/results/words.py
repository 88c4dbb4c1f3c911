"""Which words a model hears wrongly, and which it hears differently from a baseline."""

from collections import Counter
from collections.abc import Sequence

from paretone.results.counts import Edit
from paretone.results.schema import WordChange

MOST_WORDS = 20


def changed_words(
    alignments: Sequence[Sequence[Edit]], baseline: Sequence[Sequence[Edit]] | None, *, most: int = MOST_WORDS
) -> list[WordChange]:
    """The reference words whose number of errors changed most, or without a baseline those with most errors.

    Ties go to the word with more errors, then to the alphabet. Words without any error on either side are left out.
    """
    counts = Counter(edit.said for alignment in alignments for edit in alignment if edit.said)
    errors = _errors(alignments)
    before = None if baseline is None else _errors(baseline)
    changes = [
        WordChange(
            word=word,
            count=counts[word],
            baseline_errors=None if before is None else before.get(word, Counter()).total(),
            errors=errors.get(word, Counter()).total(),
            heard_as=dict(sorted(errors.get(word, Counter()).items(), key=lambda item: (-item[1], item[0]))),
        )
        for word in sorted(errors.keys() | (before or {}).keys())
    ]
    return sorted(changes, key=lambda c: (-abs(c.errors - (c.baseline_errors or 0)), -c.errors, c.word))[:most]


def _errors(alignments: Sequence[Sequence[Edit]]) -> dict[str, Counter[str]]:
    """For each reference word that was missed, what was heard in its place; the empty string where nothing was."""
    missed: dict[str, Counter[str]] = {}
    for alignment in alignments:
        for edit in alignment:
            if edit.said and edit.said != edit.heard:
                missed.setdefault(edit.said, Counter())[edit.heard] += 1
    return missed
