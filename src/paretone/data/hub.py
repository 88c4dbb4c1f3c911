"""Data sets of the Hugging Face hub, streamed; their audio is decoded here, never by ``datasets``."""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from paretone.data.mirror import TABLES, Mirror
from paretone.data.records import ABOUT, Entry
from paretone.errors import UserError, did_you_mean

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
    datasets = import_datasets(name)
    split = match["split"] or ("validation" if split == "dev" else split)  # the hub's own word
    with one_line(name, f"split {split!r}"):
        streamed = datasets.load_dataset(match["id"], match["config"] or None, split=split, streaming=True)
        yield from streamed_entries(streamed, name)


def import_datasets(name: str) -> Any:
    """The package; it comes with an extra."""
    try:
        import datasets
    except ImportError as error:
        raise UserError(f"{name}: reading the hub needs the package datasets; pip install 'paretone[hub]'") from error
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # one line says it, not one per retry
    return datasets


@contextmanager
def one_line(name: str, what: str) -> Iterator[None]:
    """Turns what ``datasets`` and the network raise into one line that names the data set and ``what`` of it."""
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"{name}: datasets can't read this format here ({' '.join(str(error).split())}); install what it "
            "names, or give a JSONL manifest"
        ) from error
    except Exception as error:
        if not _comes_from_outside(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{name}: neither a local path nor readable from the Hugging Face hub, {what} ({reason}); "
            "check the name and the network, or download it and give a JSONL manifest"
        ) from error


def _comes_from_outside(error: Exception) -> bool:
    """huggingface_hub passes errors of its HTTP library on, which changes its name; they are no OSError."""
    kinds = [f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__]
    return isinstance(error, (OSError, ValueError, RuntimeError)) or any(
        kind.startswith("httpx") or kind.startswith("datasets.exceptions.") for kind in kinds
    )


def streamed_entries(streamed: Any, name: str) -> Iterator[Entry]:
    """Entries of one split as ``load_dataset`` streams it."""
    datasets = import_datasets(name)
    return entries_of(streamed.cast_column(_audio_column(streamed, name), datasets.Audio(decode=False)), name)


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
            audio=_content(audio),
            name=f"{name}, row {number} ({Path(label).name})",
            text=row[text],
            language=_first(row, _LANGUAGE_COLUMNS),
            speaker=_first(row, _SPEAKER_COLUMNS),
            about={key: value for key in ABOUT if isinstance(value := row.get(key), str) and value},
        )


def _content(audio: Mapping[str, Any]) -> Path | bytes:
    if audio["bytes"] is not None:
        return bytes(audio["bytes"])
    if "://" not in audio["path"]:
        return Path(audio["path"])
    import fsspec

    with fsspec.open(audio["path"]) as file:
        return bytes(file.read())


def _first(row: Mapping[str, Any], columns: tuple[str, ...]) -> str | None:
    value = next((row[column] for column in columns if row.get(column) is not None), None)
    return None if value is None else str(value)


def pin(name: str, revision: str | None) -> str | None:
    """The commit that ``revision`` of the data set ``name`` is now, so that one run never reads two.

    It is told by the local cache, in which every commit's README has a folder; None where the data set has no README.
    """
    datasets = import_datasets(name)
    with one_line(name, f"revision {revision or 'main'!r}"):
        try:
            readme = datasets.DownloadManager().download(f"hf://datasets/{name}@{revision or 'main'}/README.md")
        except FileNotFoundError as error:
            if type(error.__cause__).__name__ not in ("EntryNotFoundError", "RemoteEntryNotFoundError"):
                raise  # no such data set or revision, or no way to it
            return None
    return Path(readme).parent.name


def hub_mirror(name: str, revision: str) -> Mirror | None:
    """A data set of the hub as a Common Voice mirror, if it is one."""
    import fsspec

    with one_line(name, f"revision {revision!r}"):
        mirror = Mirror(fsspec.filesystem("hf"), f"datasets/{name}@{revision}", name)
        return mirror if mirror.files.isdir(f"{mirror.root}/{TABLES}") else None


def local_mirror(folder: Path) -> Mirror | None:
    """A folder as a copy of such a mirror, if it is one."""
    if not (folder / TABLES).is_dir():
        return None
    from fsspec.implementations.local import LocalFileSystem

    return Mirror(LocalFileSystem(), str(folder.absolute()), str(folder))


def streamed_splits(
    place: str, name: str, config: str | None, language: str | None, revision: str | None
) -> Mapping[str, Any]:
    """Every split of a data set, nothing of it read yet.

    Args:
        place: its id on the hub, or a folder in one of the hub's formats.
        name: what errors call it.
        config: one of its configurations; by default the one that ``language`` names, or the only one.
    """
    datasets = import_datasets(name)
    with one_line(name, f"configuration {config or language or 'default'!r}"):
        configs = datasets.get_dataset_config_names(place, revision=revision)
        chosen = _configuration(name, configs, config, language)
        splits: Mapping[str, Any] = datasets.load_dataset(place, chosen, revision=revision, streaming=True)
        return splits


def _configuration(name: str, configs: list[str], config: str | None, language: str | None) -> str:
    if config is not None:
        if config not in configs:
            raise UserError(
                f"{name}: no configuration {config!r}; there are {', '.join(configs)}{did_you_mean(config, configs)}"
            )
        return config
    if language in configs:
        return str(language)
    if len(configs) == 1 or "default" in configs:
        return configs[0] if len(configs) == 1 else "default"
    if language is not None:
        raise UserError(
            f"{name} holds no {language!r}; there are {', '.join(configs)}{did_you_mean(language, configs)}"
        )
    raise UserError(f"{name} holds {', '.join(configs)}; say which by --language or write ID:CONFIG")
