"""Common Voice as its mirrors on the hub keep it: tables in ``transcript``, clips in tar archives in ``audio``.

    transcript/da/train.tsv    audio/da/train/da_train_0.tar

``datasets`` read such repositories by a script of theirs until it stopped running scripts (4.0).
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from paretone.data.corpora import SPLITS, common_voice_entry, read_durations, read_table
from paretone.data.records import Entry
from paretone.errors import UserError

TABLES, ARCHIVES = "transcript", "audio"


@dataclass(frozen=True)
class Mirror:
    """Where such a repository lies.

    Attributes:
        files: a file system of fsspec, local or the hub's.
        root: the repository's folder there.
        name: what errors call it.
    """

    files: Any
    root: str
    name: str

    def languages(self) -> list[str]:
        """Those that have tables."""
        return self._names(TABLES)

    def splits(self, language: str) -> list[str]:
        """Those of train, dev and test that the language has."""
        names = self._names(f"{TABLES}/{language}")
        return [split for split in SPLITS if f"{split}.tsv" in names]

    def entries(self, language: str, split: str) -> Iterator[Entry]:
        """Entries with the bytes of their clips, in the order of the archives, each read once from start to end.

        Entries whose clip is in no archive come last, with a path where there is none.
        """
        place = f"{ARCHIVES}/{language}/{split}"
        archives = [name for name in self._names(place) if name.endswith(".tar")]
        if not archives:
            raise UserError(f"{self.name}: no tar archives in {place}; the clips of {split} should lie there")
        wanted = self._listed(language, split)
        for archive in archives:
            yield from self._clips(f"{place}/{archive}", wanted)
        yield from wanted.values()

    def _listed(self, language: str, split: str) -> dict[str, Entry]:
        folder = f"{TABLES}/{language}"
        listed_s = {}
        if "clip_durations.tsv" in self._names(folder):
            listed_s = read_durations(*self._lines(f"{folder}/clip_durations.tsv"))
        found: dict[str, Entry] = {}
        for fields in read_table(*self._lines(f"{folder}/{split}.tsv"), needed=("path", "sentence")):
            entry = common_voice_entry(fields, Path(ARCHIVES, language, split))
            name = Path(entry.name).name
            if name in found:
                raise UserError(f"{self.name}: {name} comes twice in {folder}/{split}.tsv")
            found[name] = replace(entry, id=name, name=name, listed_s=listed_s.get(name))
        return found

    def _clips(self, archive: str, wanted: dict[str, Entry]) -> Iterator[Entry]:
        """Takes what it finds out of ``wanted``."""
        try:
            with (
                self.files.open(f"{self.root}/{archive}", "rb", block_size=0) as raw,  # 0: a stream, no seeking
                tarfile.open(fileobj=raw, mode="r|") as members,
            ):
                for member in members:
                    name = PurePosixPath(member.name).name
                    if name in wanted and (file := members.extractfile(member)) is not None:
                        yield replace(wanted.pop(name), audio=file.read())
        except tarfile.TarError as error:
            raise UserError(f"{self.name}: {archive} is damaged or cut ({error}); fetch it again") from error

    def _names(self, folder: str) -> list[str]:
        try:
            return sorted(PurePosixPath(path).name for path in self.files.ls(f"{self.root}/{folder}", detail=False))
        except FileNotFoundError:
            return []

    def _lines(self, path: str) -> tuple[list[str], str]:
        where = f"{self.name}: {path}"
        try:
            return self.files.cat_file(f"{self.root}/{path}").decode("utf-8-sig").split("\n"), where
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not UTF-8 text (byte {error.start})") from error
