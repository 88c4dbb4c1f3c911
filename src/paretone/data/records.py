"""What data is made of: entries as a corpus lists them, and utterances that were found sound."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from paretone.errors import UserError

ABOUT = ("gender", "age", "accents")  # what a corpus may tell of a speaker


@dataclass(frozen=True, slots=True)
class Entry:
    """One utterance as listed; nothing is checked yet.

    Attributes:
        name: what the corpus calls the recording.
        about: those of `ABOUT` that the corpus tells, in its own words.
        listed_s: length that the corpus tells.
    """

    id: str
    audio: Path | bytes
    name: str
    text: str | None
    language: str | None = None
    speaker: str | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    listed_s: float | None = None


@dataclass(frozen=True)
class Utterance:
    """One recording that can be read to its end, and what is said in it."""

    id: str
    audio: Path | bytes
    name: str
    text: str
    language: str | None
    speaker: str | None
    duration_s: float


@dataclass(frozen=True)
class SkippedAudio:
    """One recording that was left out, and why."""

    audio: str
    reason: str


class BadUtteranceError(UserError):
    """One recording or reference that cannot be used; ``name`` and ``reason`` are the two halves of the message."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}; repair it, leave it out, or pass --skip-bad")
        self.name = name
        self.reason = reason


@dataclass(frozen=True)
class Data:
    """Utterances in the order of their corpus.

    Attributes:
        digest: covers ids, texts and audio.
        attribution: whom the recordings are owed to and their licence, where the corpus has an ATTRIBUTION.md.
    """

    name: str
    path: str
    digest: str
    utterances: tuple[Utterance, ...]
    skipped: tuple[SkippedAudio, ...]
    attribution: str | None = None

    @property
    def audio_s(self) -> float:
        """Seconds of audio."""
        return sum(utterance.duration_s for utterance in self.utterances)


def digest_of(utterances: tuple[Utterance, ...]) -> str:
    """``sha256:…`` over the id, text and audio bytes of every utterance."""
    total = hashlib.sha256()
    for each in utterances:
        for part in (each.id.encode(), each.text.encode(), digest_of_audio(each.audio)):
            total.update(len(part).to_bytes(8, "big") + part)
    return f"sha256:{total.hexdigest()}"


def digest_of_audio(audio: Path | bytes) -> bytes:
    """SHA-256 of a recording's bytes, whatever its name."""
    if isinstance(audio, bytes):
        return hashlib.sha256(audio).digest()
    with audio.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
