"""Edit counts of words and characters, through jiwer."""

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer


@dataclass(frozen=True)
class Errors:
    """Edit counts of hypotheses against ``words`` reference words (or characters). Counts add; rates don't."""

    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    words: int = 0

    def __add__(self, other: "Errors") -> "Errors":
        return Errors(
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
            self.words + other.words,
        )

    @property
    def total(self) -> int:
        """All edits."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float | None:
        """Edits per reference word; None where there is no reference word."""
        return self.total / self.words if self.words else None


@dataclass(frozen=True)
class Edit:
    """One step of an alignment: equal words, a substitution, a deletion (``heard`` empty) or an insertion."""

    said: str
    heard: str


def align(references: Sequence[str], hypotheses: Sequence[str]) -> list[list[Edit]]:
    """The alignment with fewest edits, word by word, of each utterance. An empty reference is allowed."""
    if not references:
        return []
    output = jiwer.process_words(list(references), list(hypotheses))
    return [
        [edit for chunk in chunks for edit in _edits(chunk, said, heard)]
        for chunks, said, heard in zip(output.alignments, output.references, output.hypotheses, strict=True)
    ]


def _edits(chunk: jiwer.AlignmentChunk, said: list[str], heard: list[str]) -> list[Edit]:
    left = said[chunk.ref_start_idx : chunk.ref_end_idx]
    right = heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
    length = max(len(left), len(right))
    return [
        Edit(a, b)
        for a, b in zip(left + [""] * (length - len(left)), right + [""] * (length - len(right)), strict=True)
    ]


def count_edits(alignment: Sequence[Edit]) -> Errors:
    """The counts of one aligned utterance."""
    return Errors(
        substitutions=sum(bool(e.said and e.heard) and e.said != e.heard for e in alignment),
        deletions=sum(not e.heard for e in alignment),
        insertions=sum(not e.said for e in alignment),
        words=sum(bool(e.said) for e in alignment),
    )


def count_words(reference: str, hypothesis: str) -> Errors:
    """Word errors of one utterance; with an empty reference every word heard is an insertion."""
    return count_edits(align([reference], [hypothesis])[0])


def count_characters(references: Sequence[str], hypotheses: Sequence[str]) -> Errors:
    """Character errors of all utterances together; the space between words is a character."""
    if not references:
        return Errors()
    output = jiwer.process_characters(list(references), list(hypotheses))
    return Errors(
        output.substitutions, output.deletions, output.insertions, output.hits + output.substitutions + output.deletions
    )
