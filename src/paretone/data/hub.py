"""Data sets of the Hugging Face hub, streamed; their audio is decoded here, never by ``datasets``."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from paretone.data.records import Entry
from paretone.errors import UserError

HUB_NAME = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]*))?(:(?P<split>[\w.+-]+))?")
_TEXT_COLUMNS = ("text", "sentence", "transcription", "transcript", "normalized_text")
_LANGUAGE_COLUMNS = ("language", "locale")
_SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id")
_ID_COLUMNS = ("id", "path", "file")


def read_hub(name: str, split: str = "test") -> Iterator[Entry]:
    """Entries of ``organisation/name[:config[:split]]``, downloaded as they are read.

    Args:
        split: where ``name`` does not say it.

    Raises:
        UserError: if ``datasets`` is missing, the hub cannot be reached, or the data set has no audio and text.
    """
    match = HUB_NAME.fullmatch(name)
    if match is None:
        raise UserError(f"{name!r} is no hub id; write organisation/name[:config[:split]]")
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{name}: reading the hub needs the package datasets; pip install 'paretone[hub]'") from error
    split = match["split"] or ("validation" if split == "dev" else split)  # the hub's own word
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # one line says it, not one per retry
    try:
        streamed = datasets.load_dataset(match["id"], match["config"] or None, split=split, streaming=True)
        streamed = streamed.cast_column(_audio_column(streamed, name), datasets.Audio(decode=False))
        yield from entries_of(streamed, name)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{name}: neither a local path nor readable from the Hugging Face hub, split {split!r} ({reason}); "
            "check the name and the network, or download it and give a JSONL manifest"
        ) from error


def _audio_column(streamed: Any, name: str) -> str:
    features = streamed.features or {}
    found = [column for column, kind in features.items() if type(kind).__name__ == "Audio"]
    if found or "audio" in features:
        return found[0] if found else "audio"
    raise UserError(f"{name}: no audio column; its columns are {', '.join(features) or 'unknown'}")


def entries_of(rows: Iterable[Mapping[str, Any]], name: str) -> Iterator[Entry]:
    """Entries of rows whose audio is not decoded: ``{"bytes": …, "path": …}``."""
    for number, row in enumerate(rows):
        column = next((key for key, value in row.items() if isinstance(value, Mapping) and "bytes" in value), None)
        text = next((key for key in _TEXT_COLUMNS if key in row), None)
        if column is None or text is None:
            raise UserError(
                f"{name}: needs an audio column and one of {', '.join(_TEXT_COLUMNS)}; has {', '.join(row)}"
            )
        audio = row[column]
        label = _first(row, _ID_COLUMNS) or audio.get("path") or "row"
        yield Entry(
            id=f"{number}:{Path(label).name}",
            audio=audio["bytes"] if audio["bytes"] is not None else Path(audio["path"]),
            name=f"{name}, row {number} ({Path(label).name})",
            text=row[text],
            language=_first(row, _LANGUAGE_COLUMNS),
            speaker=_first(row, _SPEAKER_COLUMNS),
        )


def _first(row: Mapping[str, Any], columns: tuple[str, ...]) -> str | None:
    value = next((row[column] for column in columns if row.get(column) is not None), None)
    return None if value is None else str(value)
