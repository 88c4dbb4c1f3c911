"""What a page tells of speech LLMs: how large their parts are, how often they were stopped, and errors by language."""

from collections.abc import Mapping
from dataclasses import dataclass

from paretone.report.study import Entry, Study
from paretone.results.schema import GroupScores, Measures

ALL = "all"
GUARDS = ("silence", "loops", "unfinished")


@dataclass(frozen=True)
class Split:
    """The errors in one language, or in all words together, and the baseline's on the same words where there is one."""

    name: str
    ours: GroupScores | Measures
    theirs: GroupScores | Measures | None

    @property
    def delta_wer(self) -> float | None:
        """This WER minus the baseline's, None where one of them is not known."""
        if self.theirs is None or self.ours.wer is None or self.theirs.wer is None:
            return None
        return self.ours.wer - self.theirs.wer


@dataclass(frozen=True)
class System:
    """One speech LLM of a study; ``splits`` is empty where a single language and no baseline leave nothing to split."""

    entry: Entry
    splits: tuple[Split, ...]

    @property
    def encoder(self) -> int | None:
        """Parameters of the encoder."""
        return self.entry.measures.parts.get("encoder")

    @property
    def hearing(self) -> int | None:
        """Parameters of encoder and projector."""
        parts = self.entry.measures.parts
        return parts["encoder"] + parts["projector"] if {"encoder", "projector"} <= parts.keys() else None

    @property
    def is_compared(self) -> bool:
        """Whether a baseline's errors stand beside its own."""
        return any(split.theirs for split in self.splits)

    @property
    def guards(self) -> list[int | None]:
        """How often each of `GUARDS` held, None where that was not recorded."""
        held = self.entry.measures.decoding.get("guards")
        return [None if held is None else held.get(name, 0) for name in GUARDS]


def systems(study: Study) -> list[System]:
    """The speech LLMs among a study's models, in its order."""
    return [System(entry, _splits(entry)) for entry in study.entries if entry.measures.parts]


def by_language(ours: Measures, theirs: Measures | None) -> list[Split]:
    """The errors of a model in each language."""
    before = theirs.by_language if theirs else {}
    return [Split(name, scores, before.get(name)) for name, scores in ours.by_language.items()]


def held_guards(measures: Measures) -> dict[str, int]:
    """The guards of `GUARDS` that held at least once, and how often."""
    held: Mapping[str, int] = measures.decoding.get("guards") or {}
    return {name: held[name] for name in GUARDS if held.get(name)}


def _splits(entry: Entry) -> tuple[Split, ...]:
    ours, theirs = entry.measures, entry.result.baseline if entry.result else None
    if theirs is None and len(ours.by_language) < 2:
        return ()
    found = by_language(ours, theirs)
    if [split.ours.utterances for split in found] == [ours.utterances]:
        return tuple(found)  # one language holds everything
    return (*found, Split(ALL, ours, theirs))
