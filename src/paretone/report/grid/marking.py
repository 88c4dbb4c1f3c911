"""What a cell's transcripts come to: counts by utterance, and all that a comparison needs, marked once."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paretone.errors import UserError
from paretone.results import Errors, Transcript
from paretone.results.mapsswe import align_as_sclite
from paretone.results.scoring import mark
from paretone.results.words import Tally, tally


@dataclass(frozen=True)
class Heard:
    """Marked transcripts, by id.

    Attributes:
        ids: of the utterances, sorted.
        references: normalised.
        languages: the empty string where it isn't known.
        counts: (utterances, 4): substitutions, deletions, insertions and reference words.
        places: errors of each utterance by place, as `results.mapsswe.align_as_sclite` returns them.
        words: how each reference word fared.
    """

    ids: tuple[str, ...]
    references: tuple[str, ...]
    languages: tuple[str, ...]
    counts: np.ndarray
    places: tuple[tuple[int, ...], ...]
    words: Tally

    @property
    def said(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Equal for cells that heard the same utterances: other sets may have the same ids."""
        return self.ids, self.references

    @property
    def edits(self) -> np.ndarray:
        """(utterances,) errors of all kinds."""
        return self.counts[:, :3].sum(axis=1)

    def errors(self, language: str | None = None) -> Errors:
        """The counts of all utterances, or of those in one language."""
        chosen = [language in (None, own) for own in self.languages]
        return errors_of(self.counts[chosen])


def errors_of(counts: np.ndarray) -> Errors:
    """The sum of (utterances, 4) counts."""
    return Errors(*(int(total) for total in counts.sum(axis=0)))


def hear(transcripts: Sequence[Transcript]) -> Heard:
    """Normalise, align and count transcripts, once.

    Raises:
        UserError: if no reference holds a word.
    """
    ordered = sorted(transcripts, key=lambda each: each.id)
    marked = mark(ordered)
    pairs = zip(marked.references, marked.hypotheses, strict=True)
    return Heard(
        ids=tuple(each.id for each in ordered),
        references=tuple(marked.references),
        languages=tuple(each.language or "" for each in ordered),
        counts=np.array([(e.substitutions, e.deletions, e.insertions, e.words) for e in marked.errors], dtype=np.int64),
        places=tuple(tuple(align_as_sclite(said.split(), heard.split())) for said, heard in pairs),
        words=tally(marked.alignments),
    )


def check_same(ours: Heard, theirs: Heard, what: str) -> None:
    """Refuse two cells that did not hear the same references.

    Args:
        what: names both, for the message.
    """
    if ours.ids != theirs.ids:
        odd = sorted(set(ours.ids) ^ set(theirs.ids))[0]
        raise UserError(f"{what}: utterance {odd!r} is in one of them only; compare cells on the same data")
    for name, our, their in zip(ours.ids, ours.references, theirs.references, strict=True):
        if our != their:
            raise UserError(f"{what}: utterance {name!r} has two references, or normalisers; compare equal data")
