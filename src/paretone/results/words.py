"""Which words a model hears wrongly, and which it hears differently from a baseline."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from paretone.results.counts import Edit
from paretone.results.schema import WordChange

MOST_WORDS = 20


@dataclass(frozen=True)
class Tally:
    """How often each word was said, and what was heard where it was missed; the empty string where nothing was."""

    said: Mapping[str, int] = field(default_factory=dict)
    missed: Mapping[str, Counter[str]] = field(default_factory=dict)

    def __add__(self, other: "Tally") -> "Tally":
        missed = {word: Counter(heard) for word, heard in self.missed.items()}
        for word, heard in other.missed.items():
            missed.setdefault(word, Counter()).update(heard)
        return Tally(Counter(self.said) + Counter(other.said), missed)


def tally(alignments: Sequence[Sequence[Edit]]) -> Tally:
    """Count the reference words of aligned utterances."""
    missed: dict[str, Counter[str]] = {}
    for alignment in alignments:
        for edit in alignment:
            if edit.said and edit.said != edit.heard:
                missed.setdefault(edit.said, Counter())[edit.heard] += 1
    return Tally(Counter(edit.said for alignment in alignments for edit in alignment if edit.said), missed)


def changed_words(
    alignments: Sequence[Sequence[Edit]], baseline: Sequence[Sequence[Edit]] | None, *, most: int = MOST_WORDS
) -> list[WordChange]:
    """The reference words whose number of errors changed most, or without a baseline those with most errors.

    Ties go to the word with more errors, then to the alphabet. Words without any error on either side are left out.
    """
    return changed_tallies(tally(alignments), None if baseline is None else tally(baseline), most=most)


def changed_tallies(ours: Tally, baseline: Tally | None, *, most: int = MOST_WORDS) -> list[WordChange]:
    """`changed_words` of what was counted before."""
    before = None if baseline is None else baseline.missed
    changes = [
        WordChange(
            word=word,
            count=ours.said[word],
            baseline_errors=None if before is None else before.get(word, Counter()).total(),
            errors=ours.missed.get(word, Counter()).total(),
            heard_as=dict(sorted(ours.missed.get(word, Counter()).items(), key=lambda item: (-item[1], item[0]))),
        )
        for word in sorted(ours.missed.keys() | (before or {}).keys())
    ]
    return sorted(changes, key=lambda c: (-abs(c.errors - (c.baseline_errors or 0)), -c.errors, c.word))[:most]
