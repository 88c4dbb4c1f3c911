"""Corpora on disk: JSONL manifests, LibriSpeech folders and Common Voice folders."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from paretone.data.records import ABOUT, Entry
from paretone.errors import UserError, did_you_mean

MANIFEST_FILE = "manifest.jsonl"
SPLITS = ("train", "dev", "test")
_AUDIO_SUFFIXES = (".flac", ".wav", ".ogg", ".opus", ".mp3")


def read_manifest(path: Path, *, labelled: bool = True) -> Iterator[Entry]:
    """Entries of a JSONL manifest: ``audio`` (relative to the manifest) and ``text``, optional ``id``, ``language``,
    ``speaker``, ``gender``, ``age`` and ``accents``; other keys are ignored. Without an ``id`` the audio's name is one.
    Text is needed and read where the manifest is taken as ``labelled``.

    Raises:
        UserError: with file and line number, if a line is not such an object.
    """
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            yield _manifest_entry(path, f"{path}, line {number}", line, labelled)


def _manifest_entry(path: Path, where: str, line: str, labelled: bool) -> Entry:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}: not JSON ({error.msg} at column {error.colno}); give one JSON object a line"
        ) from error
    if not isinstance(fields, dict):
        raise UserError(f"{where}: {type(fields).__name__} instead of a JSON object with 'audio' and 'text'")
    audio = _string(fields, "audio", where)
    if not audio:
        guess = next((did_you_mean("audio", [key]) for key in fields if "audio" in key), "")
        raise UserError(f"{where}: no 'audio'; give the path of the recording, relative to the manifest{guess}")
    if labelled and "text" not in fields:
        raise UserError(f"{where}: no 'text'; give the words that are said in {audio}{did_you_mean('text', fields)}")
    return Entry(
        id=_string(fields, "id", where) or audio,
        audio=path.parent / audio,
        name=audio,
        text=_string(fields, "text", where) if labelled else None,
        language=_string(fields, "language", where) or None,
        speaker=_string(fields, "speaker", where) or None,
        about={key: value for key in ABOUT if (value := _string(fields, key, where))},
    )


def _string(fields: dict[str, Any], key: str, where: str) -> str | None:
    value = fields.get(key)
    if value is not None and not isinstance(value, str):
        raise UserError(f"{where}: {key!r} is {json.dumps(value)}, not a string; write it in quotes")
    return value


def read_librispeech(folder: Path) -> Iterator[Entry]:
    """Entries of every ``*.trans.txt`` below a folder; the recordings lie beside it, in English."""
    for listing in sorted(folder.rglob("*.trans.txt")):
        for number, line in enumerate(read_lines(listing), 1):
            if not line.strip():
                continue
            name, _, text = line.strip().partition(" ")
            if not text:
                raise UserError(
                    f"{listing}, line {number}: {name!r} has no words; a line is an id, a space and the words"
                )
            audio = _with_any_suffix(listing.parent / name)
            yield Entry(name, audio, str(audio.relative_to(folder)), text, "en", name.split("-")[0])


def _with_any_suffix(stem: Path) -> Path:
    candidates = [stem.parent / (stem.name + suffix) for suffix in _AUDIO_SUFFIXES]
    return next((path for path in candidates if path.exists()), candidates[0])


def read_common_voice(table: Path) -> Iterator[Entry]:
    """Entries of one Common Voice table (test.tsv and the like); the recordings lie in ``clips`` beside it."""
    for fields in read_table(read_lines(table), str(table), ("path", "sentence")):
        yield common_voice_entry(fields, table.parent / "clips")


def read_table(lines: Sequence[str], where: str, needed: Sequence[str]) -> Iterator[dict[str, str]]:
    """Rows of a table as Common Voice writes them: tabs between columns, names in the first line, no quotes.

    Raises:
        UserError: with file and line number, if a needed column is missing or a line has more or fewer.
    """
    rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    header = next(rows, [])
    for column in needed:
        if column not in header:
            raise UserError(f"{where}: no column {column!r}; its columns are {', '.join(header) or 'missing'}")
    for number, row in enumerate(rows, 2):
        if not row:
            continue
        if len(row) != len(header):
            raise UserError(f"{where}, line {number}: {len(row)} columns where the first line has {len(header)}")
        yield dict(zip(header, row, strict=True))


def common_voice_entry(fields: Mapping[str, str], clips: Path) -> Entry:
    """One row of a Common Voice table, whose recording lies in ``clips``."""
    name = fields["path"]
    audio = clips / (name if Path(name).suffix else f"{name}.mp3")
    said = {**fields, "accents": fields.get("accents") or fields.get("accent") or ""}  # singular before release 7
    return Entry(
        name,
        audio,
        f"clips/{audio.name}",
        fields["sentence"],
        fields.get("locale") or None,
        fields.get("client_id"),
        {key: said[key] for key in ABOUT if said.get(key)},
    )


def read_durations(lines: Sequence[str], where: str) -> dict[str, float]:
    """Seconds of every clip as a Common Voice ``clip_durations.tsv`` tells them."""
    clip, duration = "clip", "duration[ms]"
    try:
        return {row[clip]: int(row[duration]) / 1000 for row in read_table(lines, where, (clip, duration))}
    except ValueError as error:
        raise UserError(f"{where}: a duration is no whole number of milliseconds ({error})") from error


def find_corpus(folder: Path, split: str = "test", *, labelled: bool = True) -> Iterator[Entry]:
    """The entries of a folder, whichever kind of corpus it holds; where it holds several splits, those of ``split``."""
    if (folder / MANIFEST_FILE).exists():
        return read_manifest(folder / MANIFEST_FILE, labelled=labelled)
    if (folder / f"{split}.jsonl").exists():
        return read_manifest(folder / f"{split}.jsonl", labelled=labelled)
    tables = sorted(table.name for table in folder.glob("*.tsv"))
    if f"{split}.tsv" in tables:
        return read_common_voice(folder / f"{split}.tsv")
    if tables:
        raise UserError(f"{folder} holds no {split}.tsv; give one of its tables as data: {', '.join(tables)}")
    if next(folder.rglob("*.trans.txt"), None):
        return read_librispeech(folder)
    raise UserError(
        f"{folder} holds no data: neither {MANIFEST_FILE} or {split}.jsonl, nor a LibriSpeech *.trans.txt, nor Common "
        f"Voice's {split}.tsv with clips/; give a JSONL manifest or one of these folders"
    )


def read_lines(path: Path) -> list[str]:
    """Lines as a text editor counts them: JSON strings may hold the other characters that Python breaks lines at."""
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); give a JSONL manifest or a table") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
