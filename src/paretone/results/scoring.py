"""Scores of transcripts, with or without a baseline's; no model and no audio is needed."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretone.errors import UserError
from paretone.results.counts import Edit, Errors, align, count_characters, count_edits
from paretone.results.mapsswe import matched_pairs
from paretone.results.normalise import AUTO, choose, normaliser, resolve
from paretone.results.schema import Comparison, GroupScores, Scores
from paretone.results.significance import detectable_delta, paired_bootstrap, wer_interval
from paretone.results.transcripts import Transcript, read_transcripts
from paretone.results.words import changed_words

LENGTHS = ("0-2 s", "2-5 s", "5-10 s", "10-20 s", "20 s-")
_BOUNDS_S = (2.0, 5.0, 10.0, 20.0)  # a length that is just a bound belongs to the longer ones


@dataclass(frozen=True)
class Marked:
    """Transcripts after normalisation, aligned and counted utterance by utterance."""

    transcripts: Sequence[Transcript]
    normalisers: list[str]
    references: list[str]
    hypotheses: list[str]
    alignments: list[list[Edit]]
    errors: list[Errors]


def score(
    transcripts: str | Path, against: str | Path | None = None, *, normaliser: str | None = None, seed: int = 0
) -> Comparison:
    """Score a transcripts file as `paretone.evaluate` did, and compare it with another of the same utterances.

    Args:
        transcripts: a transcripts.jsonl or a folder that holds one.
        against: the baseline's transcripts.
        normaliser: which one to use instead of the one that the transcripts name; see `results.normalise`.
        seed: of the bootstrap.

    Raises:
        UserError: if a file is not readable, the two differ in utterances or references, or no word was spoken.
    """
    ours = read_transcripts(transcripts)
    theirs = None if against is None else read_transcripts(against)
    return compare(ours, theirs, normaliser=normaliser, seed=seed)


def compare(
    transcripts: Sequence[Transcript],
    baseline: Sequence[Transcript] | None = None,
    *,
    normaliser: str | None = None,
    seed: int = 0,
) -> Comparison:
    """The scores of ``transcripts``, the same of ``baseline``, and the difference between them."""
    names = normalisers_of(transcripts, normaliser)
    ours = mark(transcripts, names)
    if baseline is None:
        return Comparison(**_scores(ours, seed), word_changes=changed_words(ours.alignments, None))
    theirs = mark(_in_order_of(transcripts, baseline), names)
    return Comparison(
        **_scores(ours, seed),
        **_verdicts(ours, theirs, seed),
        baseline=Scores(**_scores(theirs, seed)),
        word_changes=changed_words(ours.alignments, theirs.alignments),
    )


def normalisers_of(transcripts: Sequence[Transcript], name: str | None) -> list[str]:
    """The normaliser of each utterance: the one asked for, else the recorded one, else the automatic choice."""
    chosen = choose(name or AUTO, [t.text for t in transcripts], [t.language for t in transcripts])
    if name is not None:
        return chosen
    return [
        resolve(t.normaliser) if t.normaliser else fallback for t, fallback in zip(transcripts, chosen, strict=True)
    ]


def _in_order_of(transcripts: Sequence[Transcript], baseline: Sequence[Transcript]) -> list[Transcript]:
    """The baseline's transcripts in our order; both must hold the same references."""
    by_id = {each.id: each for each in baseline}
    for ours in transcripts:
        theirs = by_id.get(ours.id)
        if theirs is None or theirs.text != ours.text:
            what = "is missing from" if theirs is None else "has another reference in"
            raise UserError(f"utterance {ours.id!r} {what} the baseline's transcripts; compare runs on the same data")
    if len(by_id) != len(transcripts):
        extra = next(iter(by_id.keys() - {each.id for each in transcripts}))
        raise UserError(f"utterance {extra!r} is only in the baseline's transcripts; compare runs on the same data")
    return [by_id[each.id] for each in transcripts]


def mark(transcripts: Sequence[Transcript], names: list[str] | None = None) -> Marked:
    """Normalise, align and count transcripts.

    Args:
        names: the normaliser of each; the recorded ones, else the automatic choice, where none are given.

    Raises:
        UserError: if no reference holds a word.
    """
    names = normalisers_of(transcripts, None) if names is None else names
    functions = [normaliser(name) for name in names]
    references = [function(t.text) for function, t in zip(functions, transcripts, strict=True)]
    hypotheses = [function(t.hypothesis) for function, t in zip(functions, transcripts, strict=True)]
    alignments = align(references, hypotheses)
    errors = [count_edits(alignment) for alignment in alignments]
    if not sum(errors, Errors()).words:
        raise UserError("no reference holds a word, so there is no word error rate; give references with words")
    return Marked(transcripts, names, references, hypotheses, alignments, errors)


def _scores(marked: Marked, seed: int) -> dict[str, Any]:
    """The fields of `Scores`."""
    words = sum(marked.errors, Errors())
    characters = count_characters(marked.references, marked.hypotheses)
    return {
        "normaliser": "+".join(sorted(set(marked.normalisers))),
        "wer": words.total / words.words,
        "cer": characters.total / characters.words,
        "substitutions": words.substitutions,
        "deletions": words.deletions,
        "insertions": words.insertions,
        "words": words.words,
        "utterances": len(marked.errors),
        "character_errors": characters.total,
        "characters": characters.words,
        "wer_ci95": wer_interval(marked.errors, seed=seed),
        "by_speaker": _by(marked, lambda t: t.speaker),
        "by_language": _by(marked, lambda t: t.language),
        "by_length": _by(marked, _length, order=LENGTHS.index),
    }


def _verdicts(ours: Marked, theirs: Marked, seed: int) -> dict[str, Any]:
    """The fields of `Verdicts`."""
    resampled = paired_bootstrap(ours.errors, theirs.errors, seed=seed)
    matched = matched_pairs(ours.references, ours.hypotheses, theirs.hypotheses)
    return {
        "delta_wer": resampled.delta,
        "delta_wer_ci95": resampled.ci95,
        "p_value": resampled.p_value,
        "p_mapsswe": matched.p_value,
        "mapsswe_z": matched.z,
        "mapsswe_segments": matched.segments,
        "detectable_delta_wer": detectable_delta(ours.errors, theirs.errors),
    }


def _length(transcript: Transcript) -> str | None:
    return None if transcript.duration_s is None else LENGTHS[bisect_right(_BOUNDS_S, transcript.duration_s)]


def _by(
    marked: Marked, key: Callable[[Transcript], str | None], *, order: Callable[[str], int] | None = None
) -> dict[str, GroupScores]:
    """Scores of each group that ``key`` makes, by name or in ``order``; None belongs to no group."""
    groups: dict[str, list[Errors]] = {}
    for transcript, errors in zip(marked.transcripts, marked.errors, strict=True):
        name = key(transcript)
        if name is not None:
            groups.setdefault(name, []).append(errors)
    return {name: _group(groups[name]) for name in sorted(groups, key=order)}


def _group(errors: list[Errors]) -> GroupScores:
    total = sum(errors, Errors())
    return GroupScores(
        wer=total.rate,
        substitutions=total.substitutions,
        deletions=total.deletions,
        insertions=total.insertions,
        words=total.words,
        utterances=len(errors),
    )
