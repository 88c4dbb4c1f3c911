"""What `prepare` reads: corpora by their splits, on disk or streamed."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from paretone.data import hub
from paretone.data.corpora import (
    MANIFEST_FILE,
    SPLITS,
    read_common_voice,
    read_durations,
    read_librispeech,
    read_lines,
    read_manifest,
)
from paretone.data.mirror import Mirror
from paretone.data.records import Entry, digest_of_audio
from paretone.errors import UserError, did_you_mean

ALL = "all"
DURATIONS_FILE = "clip_durations.tsv"
_HUB_FILES = ("*.parquet", "*.arrow", "metadata.csv", "metadata.jsonl", "*.tar")
_SUFFIXES = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg"}  # of what streams name without one; else MP3

Entries = Callable[[], Iterable[Entry]]


@dataclass(frozen=True)
class Source:
    """A corpus and the splits of it that are wanted.

    Attributes:
        kind: common-voice, librispeech, manifest or hub.
        splits: by name, in the order train, dev, test; nothing is read before one is called.
        listed: whether all entries are known before any audio is there, so that they may be taken in any order.
        revision: commit of a data set of the hub; as it was asked for where the hub names none.
    """

    kind: str
    splits: Mapping[str, Entries]
    listed: bool = True
    revision: str | None = None


def open_source(source: str, *, language: str | None, split: str, revision: str | None) -> Source:
    """Finds out what ``source`` is, and lists its splits.

    Args:
        split: one of train, dev and test, or "all" for those that are there.

    Raises:
        UserError: if it is nothing that is known here, or lacks the language or the split.
    """
    path = Path(source).expanduser()
    match = hub.HUB_NAME.fullmatch(source)
    if path.exists() or match is None or path.suffix in (".jsonl", ".json", ".tsv", ".txt", ".csv"):
        if revision is not None:
            raise UserError(f"--revision {revision} has no effect: {source} is no hub dataset id; leave it out")
        return _open_path(path, language, split)
    return _open_hub(source, match, language, split, revision)


def _open_path(path: Path, language: str | None, split: str) -> Source:
    if path.is_file():
        return _open_file(path, split)
    if not path.is_dir():
        raise UserError(
            f"{path}: no such folder or file; give a Common Voice or LibriSpeech folder, a JSONL manifest, or a hub id"
        )
    manifests = _existing(path, ".jsonl")
    if manifests:
        return Source("manifest", _chosen({name: _manifest(file) for name, file in manifests.items()}, split, path))
    if (path / MANIFEST_FILE).exists():
        return Source("manifest", _only(_manifest(path / MANIFEST_FILE), path / MANIFEST_FILE, split))
    if (mirror := hub.local_mirror(path)) is not None:
        return _open_mirror(mirror, language, split)
    if (found := _open_common_voice(path, language, split)) is not None:
        return found
    if _holds(path, "*.trans.txt"):
        return Source("librispeech", _librispeech(path, split))
    if any(_holds(path, pattern) for pattern in _HUB_FILES):
        streamed = hub.streamed_splits(str(path.absolute()), str(path), None, language, None)
        return Source("hub", _hub_splits(streamed, str(path), None, split), listed=False)
    raise UserError(
        f"{path} holds no data: looked for train.tsv, dev.tsv, test.tsv (Common Voice) here and in the folders of "
        f"languages, *.trans.txt (LibriSpeech), train.jsonl, dev.jsonl, test.jsonl or {MANIFEST_FILE}, transcript/ "
        "(Common Voice on the hub), *.parquet"
    )


def _holds(folder: Path, pattern: str) -> bool:
    return next(folder.rglob(pattern), None) is not None


def _existing(folder: Path, suffix: str) -> dict[str, Path]:
    files = {split: folder / f"{split}{suffix}" for split in SPLITS}
    return {split: file for split, file in files.items() if file.is_file()}


def _chosen(splits: Mapping[str, Entries], split: str, where: object) -> dict[str, Entries]:
    """Those of ``splits`` that are wanted, in the usual order."""
    there = [name for name in SPLITS if name in splits]
    if not there:
        raise UserError(f"{where} holds neither train nor dev nor test")
    if split not in (ALL, *there):
        raise UserError(f"{where} holds no split {split!r}; there are {', '.join(there)}")
    return {name: splits[name] for name in there if split in (ALL, name)}


def _only(entries: Entries, where: Path, split: str) -> dict[str, Entries]:
    """``entries`` as the split that is asked for, or that its file or folder is named after."""
    name = _split_of(where.stem) if split == ALL else split
    if name is None:
        raise UserError(f"{where} doesn't say which split it is; say --split train, dev or test")
    return {name: entries}


def _split_of(name: str) -> str | None:
    """The split that a name such as train-clean-100, dev_other or validation speaks of."""
    match = re.match(r"(train|dev|valid|test)(?:ing|ation)?(?![a-z])", name.lower())
    return None if match is None else "dev" if match[1] == "valid" else match[1]


# --- manifests and tables ---


def _open_file(path: Path, split: str) -> Source:
    if path.suffix == ".tsv":
        return Source("common-voice", _only(_table(path), path, split))
    return Source("manifest", _only(_manifest(path), path, split))


def _manifest(path: Path) -> Entries:
    return lambda: read_manifest(path)


# --- Common Voice ---


def _open_common_voice(folder: Path, language: str | None, split: str) -> Source | None:
    """A folder of one language, or the one above it; None if it is neither."""
    tables = _existing(folder, ".tsv")
    if not tables:
        languages = sorted(each.name for each in folder.iterdir() if each.is_dir() and _existing(each, ".tsv"))
        if not languages:
            return None
        folder = folder / _language(language, languages, str(folder))
        tables = _existing(folder, ".tsv")
    return Source("common-voice", _chosen({name: _table(file) for name, file in tables.items()}, split, folder))


def _language(wanted: str | None, there: list[str], where: str) -> str:
    if wanted is None:
        if len(there) == 1:
            return there[0]
        raise UserError(f"{where} holds {', '.join(there) or 'no language'}; say which by --language")
    if wanted not in there:
        raise UserError(f"{where} holds no {wanted!r}; there are {', '.join(there)}{did_you_mean(wanted, there)}")
    return wanted


def _table(table: Path) -> Entries:
    if not (table.parent / "clips").is_dir():
        raise UserError(f"{table.parent / 'clips'} is missing; {table.name} names its recordings there")
    return lambda: _with_durations(read_common_voice(table), table.parent / DURATIONS_FILE)


def _with_durations(entries: Iterator[Entry], listing: Path) -> Iterator[Entry]:
    listed_s = read_durations(read_lines(listing), str(listing)) if listing.exists() else {}
    for entry in entries:
        yield replace(entry, listed_s=listed_s.get(Path(entry.name).name))


def _open_mirror(mirror: Mirror, language: str | None, split: str, revision: str | None = None) -> Source:
    with hub.one_line(mirror.name, "its tables"):
        chosen = _language(language, mirror.languages(), mirror.name)
        names = mirror.splits(chosen)
    splits = {name: _mirror_split(mirror, chosen, name) for name in names}
    return Source("common-voice", _chosen(splits, split, f"{mirror.name} ({chosen})"), False, revision)


def _mirror_split(mirror: Mirror, language: str, split: str) -> Entries:
    def entries() -> Iterator[Entry]:
        with hub.one_line(mirror.name, f"split {split!r}"):
            yield from mirror.entries(language, split)

    return entries


# --- LibriSpeech ---


def _librispeech_subsets(folder: Path) -> dict[str, list[Path]]:
    """Folders such as train-clean-100 by their split."""
    found: dict[str, list[Path]] = {}
    for each in sorted(folder.iterdir()):
        if each.is_dir() and (split := _split_of(each.name)) and _holds(each, "*.trans.txt"):
            found.setdefault(split, []).append(each)
    return found


def _librispeech(folder: Path, split: str) -> dict[str, Entries]:
    if not (subsets := _librispeech_subsets(folder)):
        return _only(lambda: read_librispeech(folder), folder, split)
    return _chosen({name: _subsets(folders) for name, folders in subsets.items()}, split, folder)


def _subsets(folders: list[Path]) -> Entries:
    return lambda: chain.from_iterable(read_librispeech(folder) for folder in folders)


# --- the hub ---


def _open_hub(source: str, match: re.Match[str], language: str | None, split: str, revision: str | None) -> Source:
    config = match["config"] or None
    commit = hub.pin(match["id"], revision)
    if (mirror := hub.hub_mirror(match["id"], commit or revision or "main")) is not None:
        only = _split_of(match["split"]) if match["split"] and split == ALL else split
        return _open_mirror(mirror, config or language, only or split, commit or revision)
    streamed = hub.streamed_splits(match["id"], source, config, language, commit or revision)
    return Source("hub", _hub_splits(streamed, source, match["split"], split), False, commit or revision)


def _hub_splits(streamed: Mapping[str, Any], name: str, only: str | None, split: str) -> dict[str, Entries]:
    """The hub's own names of splits told by ours; ``only`` is one that the id names."""
    if only is not None:
        if only not in streamed:
            raise UserError(f"{name}: no split {only!r}; there are {', '.join(streamed)}")
        return _only(_hub_split(streamed[only], name, only), Path(only), split)
    named = {_split_of(each): each for each in reversed(list(streamed)) if _split_of(each)}
    splits = {str(ours): _hub_split(streamed[theirs], name, theirs) for ours, theirs in named.items()}
    return _chosen(splits, split, name if splits else f"{name}, whose splits are {', '.join(streamed)},")


def _hub_split(streamed: Any, name: str, split: str) -> Entries:
    def entries() -> Iterator[Entry]:
        with hub.one_line(name, f"split {split!r}"):
            for entry in hub.streamed_entries(streamed, name):
                yield replace(entry, id=_content_id(entry))

    return entries


def _content_id(entry: Entry) -> str:
    """An id that depends on what a row holds and not on its number: the recording's name and a digest of it."""
    name = Path(entry.id.partition(":")[2])
    if isinstance(entry.audio, Path):
        return name.name
    suffix = name.suffix if name.suffix.lower() in (".mp3", ".opus", *_SUFFIXES.values()) else ""
    stem = re.sub(r"[^\w-]+", "_", name.name.removesuffix(suffix))
    kind = suffix or _SUFFIXES.get(entry.audio[:4], ".mp3")
    return f"{stem}-{digest_of_audio(entry.audio).hex()[:8]}{kind}"
