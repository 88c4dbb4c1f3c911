"""One way into all data: a path or a hub id becomes checked utterances."""

from collections.abc import Iterator
from importlib.resources import files
from itertools import islice
from pathlib import Path

from paretone.data.audio import measure_audio
from paretone.data.corpora import MANIFEST_FILE, find_corpus, read_common_voice, read_manifest
from paretone.data.hub import HUB_NAME, read_hub
from paretone.data.records import BadUtteranceError, Data, Entry, SkippedAudio, Utterance, digest_of
from paretone.errors import UserError
from paretone.progress import track


def open_data(
    data: str | Path,
    *,
    limit: int | None = None,
    skip_bad: bool = False,
    language: str | None = None,
    split: str = "test",
    labelled: bool = True,
) -> Data:
    """List utterances and check that every recording can be read to its end.

    Args:
        data: a JSONL manifest, or a folder with manifest.jsonl or with train.jsonl, dev.jsonl, test.jsonl; a
            LibriSpeech folder; a Common Voice folder or one of its tables; an embedded set such as "digits"; or a
            Hugging Face id, ``organisation/name[:config[:split]]``.
        limit: at most so many utterances, from the start.
        skip_bad: leave out recordings that cannot be read and empty references, and list them in ``skipped``.
        language: for utterances whose language the data does not tell.
        split: which one of a folder that holds several or a hub id that names none.
        labelled: whether the words that are said are needed; without it they are not read, and are empty.

    Raises:
        UserError: if there is no such data, a line is malformed, an id comes twice, or, without ``skip_bad``, a
            recording is bad or a reference empty.
    """
    if limit is not None and limit < 1:
        raise UserError(f"limit is {limit}; it must be 1 or more")
    utterances: list[Utterance] = []
    skipped: list[SkippedAudio] = []
    for entry in track(_distinct(islice(_entries(str(data), split, labelled), limit)), "checking audio", total=limit):
        try:
            utterances.append(_check(entry, language, labelled))
        except BadUtteranceError as error:
            if not skip_bad:
                raise
            skipped.append(SkippedAudio(entry.name, error.reason))
    if not utterances:
        what = f"all {len(skipped)} utterances are bad, the first: {skipped[0].reason}" if skipped else "no utterances"
        raise UserError(f"{data}: {what}; give other data")
    found = tuple(utterances)
    return Data(_name_of(str(data)), str(data), digest_of(found), found, tuple(skipped), _attribution(data))


def _entries(data: str, split: str, labelled: bool) -> Iterator[Entry]:
    path = Path(data)
    if path.is_dir():
        return find_corpus(path, split, labelled=labelled)
    if path.exists():
        return read_common_voice(path) if path.suffix == ".tsv" else read_manifest(path, labelled=labelled)
    embedded = _embedded(data)
    if embedded is not None:
        return read_manifest(embedded)
    if HUB_NAME.fullmatch(data) and path.suffix not in (".jsonl", ".json", ".tsv", ".txt"):
        return read_hub(data, split)
    raise UserError(f"{data}: no such data; give a JSONL manifest, a LibriSpeech or Common Voice folder, or a hub id")


def _attribution(data: str | Path) -> str | None:
    """The corpus's own words of thanks and licence."""
    place = _embedded(str(data)) or Path(data)
    file = (place if place.is_dir() else place.parent) / "ATTRIBUTION.md"
    return " ".join(file.read_text(encoding="utf-8").split()) if file.exists() else None


def _embedded(name: str) -> Path | None:
    """The manifest of a data set that comes with the package."""
    if not name.replace("-", "").isalnum():
        return None
    manifest = Path(str(files("paretone"))) / "embedded" / name / MANIFEST_FILE
    return manifest if manifest.exists() else None


def _distinct(entries: Iterator[Entry]) -> Iterator[Entry]:
    seen: set[str] = set()
    for entry in entries:
        if entry.id in seen:
            raise UserError(f"{entry.name}: id {entry.id!r} comes twice; give every utterance its own id")
        seen.add(entry.id)
        yield entry


def _check(entry: Entry, language: str | None, labelled: bool) -> Utterance:
    where = str(entry.audio) if isinstance(entry.audio, Path) else entry.name
    if labelled and not (entry.text or "").strip():
        raise BadUtteranceError(where, "empty reference, so it has no word error rate")
    return Utterance(
        id=entry.id,
        audio=entry.audio,
        name=entry.name,
        text=(entry.text or "") if labelled else "",
        language=entry.language or language,
        speaker=entry.speaker,
        duration_s=measure_audio(entry.audio, name=where),
    )


def _name_of(data: str) -> str:
    path = Path(data)
    if not path.exists():
        return data
    stem = path.resolve()
    return stem.parent.name if stem.name == MANIFEST_FILE else stem.stem if stem.is_file() else stem.name
