"""Which utterances of a split are kept, whatever order they come in, and why the others are not."""

import hashlib
import heapq
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from paretone.data.audio import measure_audio
from paretone.data.records import ABOUT, BadUtteranceError, Entry
from paretone.data.sources import Entries
from paretone.errors import UserError
from paretone.progress import track

CLIPS = "clips"
REASONS = (
    "other_language",
    "empty_text",
    "too_many_characters",
    "too_short",
    "too_long",
    "missing_audio",
    "bad_audio",
    "comes_twice",
    "over_max_hours",
)
MOST_MISSING = 0.01  # Common Voice lists a few recordings that were lost; more, and the corpus is not all here
EXAMPLES = 3  # names that the summary gives for each reason

_AT_ONCE = 64  # recordings measured together, and held in memory where they are streamed


@dataclass(frozen=True)
class Limits:
    """Which utterances are kept; all bounds are inside."""

    min_s: float = 0.5
    max_s: float = 30.0
    max_characters: int = 500
    max_hours: float | None = None
    seed: int = 0

    def check(self) -> None:
        """Raises UserError if no utterance could be kept."""
        if self.max_hours is not None and not self.max_hours > 0:
            raise UserError(f"max_hours is {self.max_hours:g}; it must be above 0")
        if not 0 <= self.min_s < self.max_s:
            raise UserError(f"min_s is {self.min_s:g} and max_s {self.max_s:g}; 0 <= min_s < max_s must hold")
        if self.max_characters < 1:
            raise UserError(f"max_characters is {self.max_characters}; it must be 1 or more")
        if self.seed < 0:
            raise UserError(f"seed is {self.seed}; it must be 0 or more")


@dataclass(frozen=True)
class Line:
    """One utterance of a manifest. Milliseconds add without rounding, so sums don't depend on the order."""

    id: str
    audio: str
    text: str
    language: str | None
    speaker: str | None
    duration_ms: int
    about: Mapping[str, str]

    def to_json(self) -> str:
        """As the manifest holds it; what is not known is left out."""
        fields: dict[str, Any] = {"id": self.id, "audio": self.audio, "text": self.text, "language": self.language}
        fields |= {"speaker": self.speaker, "duration_s": self.duration_ms / 1000}
        fields |= {key: self.about[key] for key in ABOUT if key in self.about}
        return json.dumps({key: value for key, value in fields.items() if value is not None}, ensure_ascii=False)


class Choice:
    """The longest start of a random order that lasts at most ``cap_ms``, whatever order its members come in.

    The place of a member is told by its key alone. Once those seen so far last longer, the last of them is out, and
    with it all that would come after it.
    """

    def __init__(self, cap_ms: int | None) -> None:
        self._cap_ms = cap_ms
        self._last_first: list[tuple[int, str, Line]] = []
        self._length_ms = 0
        self._end: int | None = None

    def admits(self, key: int) -> bool:
        """Whether a member with this key may still be in it."""
        return self._end is None or key < self._end

    def add(self, key: int, line: Line) -> Iterator[Line]:
        """Takes one more; yields those that are out because of it, perhaps itself."""
        heapq.heappush(self._last_first, (-key, line.id, line))
        self._length_ms += line.duration_ms
        while self._cap_ms is not None and self._length_ms > self._cap_ms:
            negative, _, out = heapq.heappop(self._last_first)
            self._end, self._length_ms = -negative, self._length_ms - out.duration_ms
            yield out

    def lines(self) -> list[Line]:
        """Its members, by id."""
        return sorted((line for _, _, line in self._last_first), key=lambda line: line.id)


@dataclass(frozen=True, order=True)
class Dropped:
    """One utterance that is left out."""

    name: str
    detail: str
    reason: str


class Tally:
    """How many are left out for which reason, and the first few names of each: millions may be."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.first: dict[str, list[Dropped]] = {}

    def add(self, dropped: Dropped) -> None:
        """Counts one more."""
        self.counts[dropped.reason] += 1
        first = self.first.setdefault(dropped.reason, [])
        if len(first) < EXAMPLES or dropped < first[-1]:
            first[:] = sorted([*first, dropped])[:EXAMPLES]

    def summary(self) -> dict[str, Any]:
        """Counts and names by reason, in the order of `REASONS`."""
        found = {}
        for reason in REASONS:
            if reason in self.counts:
                names = [f"{each.name}: {each.detail}" if each.detail else each.name for each in self.first[reason]]
                found[reason] = {"utterances": self.counts[reason], "examples": names}
        return found


@dataclass(frozen=True)
class Sifted:
    """What is left of a split, by id, and what is not."""

    kept: list[Line]
    dropped: Tally
    languages: frozenset[str]

    def lists_nothing(self) -> bool:
        """Whether there was nothing to keep or to drop."""
        return not self.kept and not self.dropped.counts

    def speakers(self) -> set[str]:
        """Those that are known."""
        return {line.speaker for line in self.kept if line.speaker}

    def summary(self) -> dict[str, Any]:
        """Counts of what is left, and of what is not by reason, with a few names."""
        return {
            "utterances": len(self.kept),
            "hours": round(sum(line.duration_ms for line in self.kept) / 3_600_000, 4),
            "speakers": len(self.speakers()),
            "characters": sum(len(line.text) for line in self.kept),
            "words": sum(len(line.text.split()) for line in self.kept),
            "dropped": self.dropped.summary(),
        }

    def explained(self) -> str:
        """Why nothing is left, in half a sentence."""
        found = self.dropped.summary()
        if not found:
            return "it lists no utterances"
        if set(found) == {"other_language"}:
            return f"the languages there are {', '.join(sorted(self.languages))}"
        counts = [f"{each['utterances']} {reason}" for reason, each in found.items()]
        first = next(iter(found.values()))["examples"][0]
        return f"dropped are {', '.join(counts)}, such as {first}"


class Sifting:
    """One pass over the entries of a split."""

    def __init__(self, split: str, folder: Path, limits: Limits, language: str | None) -> None:
        self._split, self._folder, self._limits, self._language = split, folder, limits, language
        hours = limits.max_hours
        self._choice = Choice(None if hours is None else round(hours * 3_600_000))
        self._dropped = Tally()
        self._dropped_when_read: list[tuple[int, Dropped]] = []
        self._languages: set[str] = set()
        self._seen: set[str] = set()

    def run(self, entries: Entries, *, listed: bool) -> Sifted:
        """Sifts them all; recordings that can't be in a capped choice any more are not read."""
        stream: Iterable[Entry] = entries()
        if listed and self._limits.max_hours is not None:
            stream = sorted(stream, key=self._key)  # in this order no more is read than is kept
        stream = iter(track(stream, f"reading {self._split}"))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            while some := list(islice(stream, _AT_ONCE)):
                ready = [entry for entry in some if self._admits(entry)]
                for entry, length in zip(ready, pool.map(_measure, ready), strict=True):
                    self._take(entry, length)
        kept = self._choice.lines()
        self._tally_what_was_read(len(kept))
        return Sifted(kept, self._dropped, frozenset(self._languages))

    def _key(self, entry: Entry) -> int:
        return int.from_bytes(hashlib.sha256(f"{self._limits.seed}\0{entry.id}".encode()).digest())

    def _admits(self, entry: Entry) -> bool:
        """Whether its audio has to be read; notes why not."""
        self._languages |= {entry.language} if entry.language else set()
        fault = self._fault(entry)
        if fault is None and not self._choice.admits(self._key(entry)):
            fault = ("over_max_hours", "")
        if fault is not None:
            self._dropped.add(Dropped(entry.id, fault[1], fault[0]))
        return fault is None

    def _fault(self, entry: Entry) -> tuple[str, str] | None:
        """What is wrong with it by what is listed alone."""
        if entry.id in self._seen:
            if isinstance(entry.audio, Path):
                raise UserError(f"{entry.name}: id {entry.id!r} comes twice; give every utterance its own id")
            return "comes_twice", "the same recording again"
        self._seen.add(entry.id)
        text = (entry.text or "").strip()
        if self._language and entry.language and entry.language != self._language:
            return "other_language", entry.language
        if not text:
            return "empty_text", "no words"
        if len(text) > self._limits.max_characters:
            return "too_many_characters", str(len(text))
        return None if entry.listed_s is None else self._length_fault(entry.listed_s)

    def _length_fault(self, length_s: float) -> tuple[str, str] | None:
        if length_s < self._limits.min_s:
            return "too_short", f"{length_s:.2f} s"
        return ("too_long", f"{length_s:.2f} s") if length_s > self._limits.max_s else None

    def _take(self, entry: Entry, measured: "float | BadUtteranceError") -> None:
        key, length_s = self._key(entry), measured if isinstance(measured, float) else 0.0
        fault = _reading_fault(measured) if isinstance(measured, BadUtteranceError) else self._length_fault(length_s)
        if fault is not None:
            self._dropped_when_read.append((key, Dropped(entry.id, fault[1], fault[0])))
        elif not self._choice.admits(key):
            self._dropped.add(Dropped(entry.id, "", "over_max_hours"))
        else:
            self._keep(entry, key, round(1000 * length_s))

    def _keep(self, entry: Entry, key: int, duration_ms: int) -> None:
        for out in self._choice.add(key, self._line(entry, duration_ms)):
            self._dropped.add(Dropped(out.id, "", "over_max_hours"))
            if isinstance(entry.audio, bytes):
                (self._folder / out.audio).unlink()

    def _line(self, entry: Entry, duration_ms: int) -> Line:
        if isinstance(entry.audio, Path):
            audio = str(entry.audio.absolute())
        else:
            audio = f"{CLIPS}/{self._split}/{entry.id}"
            (self._folder / audio).parent.mkdir(parents=True, exist_ok=True)
            (self._folder / audio).write_bytes(entry.audio)
        text, language = entry.text or "", entry.language or self._language
        return Line(entry.id, audio, text, language, entry.speaker, duration_ms, entry.about)

    def _tally_what_was_read(self, kept: int) -> None:
        """Which recordings were read before a cap was met hangs on their order; what is said of them must not."""
        within = [each for key, each in self._dropped_when_read if self._choice.admits(key)]
        beyond = [each.name for key, each in self._dropped_when_read if not self._choice.admits(key)]
        for each in (*within, *(Dropped(name, "", "over_max_hours") for name in beyond)):
            self._dropped.add(each)
        missing, read = self._dropped.counts["missing_audio"], kept + len(within)
        if missing > MOST_MISSING * read:
            raise UserError(
                f"{self._split}: {missing} of {read} recordings are not there, such as "
                f"{self._dropped.first['missing_audio'][0].name}; fetch or unpack the corpus whole"
            )


def _reading_fault(error: BadUtteranceError) -> tuple[str, str]:
    return ("missing_audio", "no such file") if error.reason == "no such file" else ("bad_audio", error.reason)


def _measure(entry: Entry) -> "float | BadUtteranceError":
    """Seconds, or what is wrong with the recording."""
    try:
        return measure_audio(entry.audio, name=entry.name)
    except BadUtteranceError as error:
        return error
