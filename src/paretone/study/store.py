"""A store: one folder per stage, named by its digest, whole or not there at all.

STORE/store.json                      which format
STORE/evaluate/DIGEST/                result.json, transcripts.jsonl: a cell
STORE/train|finetune|compress/DIGEST/ models on the way
STORE/analyse/DIGEST/                 what serves all sizes of a source
STORE/features/                       what encoders give
STORE/<kind>/DIGEST/seal.json         SHA-256 of each file, seconds, machine
STORE/failures/DIGEST.json            why a stage failed last
STORE/locks/DIGEST                    held by the process that is at it
STORE/scratch/DIGEST/                 where it works meanwhile
STORE/studies/NAME.json               cells of each study that ran here
"""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretone.errors import UserError
from paretone.folders import write_file
from paretone.version import __version__

FORMAT = 1
SEAL_FILE = "seal.json"
STORE_FILE = "store.json"
KINDS = ("analyse", "compress", "finetune", "features", "train", "evaluate")
QUICKEN = ("analyse", "features")  # kinds that others do without, too


@dataclass(frozen=True)
class Store:
    """Results and models of studies, on one machine or a shared file system."""

    root: Path

    def open(self) -> "Store":
        """Makes the store where there is none, or checks that it is one of ours.

        Raises:
            UserError: if it can't be written, is something else, or of another format.
        """
        note = self.root / STORE_FILE
        if note.exists():
            self.check()
        elif self.root.exists() and (not self.root.is_dir() or any(map(_is_strange, self.root.iterdir()))):
            raise UserError(f"{self.root} is no store and not empty; give another --store")
        else:
            write_file(note, json.dumps({"format": FORMAT, "paretone": __version__}) + "\n")
        if not os.access(self.root, os.W_OK):
            raise UserError(f"store {self.root} can't be written; give another --store, or the right to write there")
        return self

    def check(self) -> None:
        """Raises UserError where this version can't read the store."""
        note = self.root / STORE_FILE
        try:
            found = json.loads(note.read_text(encoding="utf-8"))
            number, version = found["format"], found["paretone"]
        except FileNotFoundError as error:
            raise UserError(f"{self.root} is no store: there is no {STORE_FILE}; give --store") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{note} is damaged; restore it, or give another --store") from error
        if number != FORMAT:
            raise UserError(
                f"store {self.root} has format {number}, of paretone {version}; this is paretone {__version__}, which "
                f"reads format {FORMAT}: use that version, or give another --store"
            )

    # --- what is there --------------------------------------------------------------------------------------------

    def folder(self, place: str) -> Path:
        """Where the outcome of the stage at ``place``, ``kind/digest``, lies or will lie."""
        return self.root / place

    def has(self, place: str) -> bool:
        """Whether a stage is done; its files are not looked at."""
        return (self.folder(place) / SEAL_FILE).exists()

    def damage(self, place: str) -> str | None:
        """What is wrong with the files of a stage that is done; None if they are as they were sealed."""
        folder = self.folder(place)
        try:
            sealed = json.loads((folder / SEAL_FILE).read_text(encoding="utf-8"))["files"]
        except (OSError, ValueError, KeyError, TypeError):
            return f"{SEAL_FILE} can't be read"
        there = {str(path.relative_to(folder)) for path in _files(folder)}
        for name, digest in sealed.items():
            if name not in there:
                return f"{name} is missing"
            if _digest(folder / name) != digest:
                return f"{name} is not what was written"
        return None

    def seal_of(self, place: str) -> dict[str, Any]:
        """Seconds and machine of a stage that is done."""
        content: dict[str, Any] = json.loads((self.folder(place) / SEAL_FILE).read_text(encoding="utf-8"))
        return content

    def seconds_of(self, place: str) -> dict[str, float]:
        """What a stage took and what stood before it, by place; nothing where its seal is gone or can't be read."""
        try:
            seal = self.seal_of(place)
            return {**seal.get("before", {}), place: float(seal["seconds"])}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def done(self, kind: str) -> set[str]:
        """Places of all stages of a kind that are done."""
        folder = self.root / kind
        if not folder.exists():
            return set()
        with os.scandir(folder) as entries:
            return {f"{kind}/{entry.name}" for entry in entries if not entry.name.startswith(".")}

    # --- making ---------------------------------------------------------------------------------------------------

    def scratch(self, place: str) -> Path:
        """Where a stage works."""
        return self.root / "scratch" / place.rpartition("/")[2]

    def put(self, place: str, made: Path, facts: Mapping[str, Any]) -> None:
        """Takes the folder ``made`` into the store: sealed, and then there at once."""
        files = {str(path.relative_to(made)): _digest(path) for path in _files(made)}
        write_file(made / SEAL_FILE, json.dumps({"files": files, **facts}, indent=1) + "\n")
        target = self.folder(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        made.rename(target)
        shutil.rmtree(self.scratch(place), ignore_errors=True)
        self.failure_file(place).unlink(missing_ok=True)

    def remove(self, place: str) -> None:
        """Takes a stage out: gone at once, whatever is cut afterwards."""
        target = self.folder(place)
        gone = self.root / "scratch" / f".gone-{target.name}-{os.getpid()}"
        gone.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            target.rename(gone)
            shutil.rmtree(gone, ignore_errors=True)

    def sweep(self) -> None:
        """Takes away what processes that were killed just after a stage was done left of it; nothing in use."""
        for folder in (self.root / "scratch").glob("*"):
            if folder.name.startswith(".gone-"):
                shutil.rmtree(folder, ignore_errors=True)
            elif any(self.has(f"{kind}/{folder.name}") for kind in KINDS):
                with self.claim(folder.name) as is_mine:
                    if is_mine:
                        shutil.rmtree(folder, ignore_errors=True)
        for file in (self.root / "locks").glob("*"):
            with self.claim(file.name):
                pass  # giving a claim up takes its file away

    @contextmanager
    def claim(self, place: str) -> Iterator[bool]:
        """Whether this process alone may work at a stage; the system ends a claim with its process, however it ends."""
        file = self.root / "locks" / place.rpartition("/")[2]
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _locked(handle) or not _is_same(handle, file):
                yield False
                return
            who = {"place": place, "host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}
            os.truncate(handle, 0)
            os.pwrite(handle, json.dumps(who).encode(), 0)
            try:
                yield True
            finally:
                file.unlink(missing_ok=True)  # while it is held: whoever opened it meanwhile sees that it is gone
        finally:
            os.close(handle)

    def claims(self) -> dict[str, dict[str, Any]]:
        """Who is at which stage now, by place."""
        found = {}
        for file in sorted((self.root / "locks").glob("*")):
            with suppress(OSError, ValueError), file.open() as handle:
                if not _locked(handle.fileno(), fcntl.LOCK_SH):
                    who = json.loads(handle.read())
                    found[who["place"]] = who
        return found

    # --- failures and studies -------------------------------------------------------------------------------------

    def failure_file(self, place: str) -> Path:
        """Where it says why a stage failed last."""
        return self.root / "failures" / f"{place.rpartition('/')[2]}.json"

    def fail(self, place: str, reason: str, trace: str, attempts: int) -> None:
        """Notes why a stage failed."""
        told = {"place": place, "reason": reason, "traceback": trace, "attempts": attempts, "version": __version__}
        write_file(self.failure_file(place), json.dumps(told | {"when": time.time()}, indent=1) + "\n")

    def failures(self) -> dict[str, dict[str, Any]]:
        """Notes of all stages that failed last, by place."""
        found = {}
        for file in sorted((self.root / "failures").glob("*.json")):
            with suppress(OSError, ValueError):
                told = json.loads(file.read_text(encoding="utf-8"))
                found[told["place"]] = told
        return found

    def register(self, name: str, content: Mapping[str, Any]) -> None:
        """Notes the cells of a study that runs here."""
        write_file(self.root / "studies" / f"{name}.json", json.dumps(content) + "\n")

    def study(self, name: str) -> dict[str, Any]:
        """What was noted of a study.

        Raises:
            UserError: if it never ran here.
        """
        file = self.root / "studies" / f"{name}.json"
        try:
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise UserError(f"study {name} never ran in {self.root}; paretone study run starts it") from error
        except (OSError, ValueError) as error:
            raise UserError(f"{file} is damaged; paretone study run writes it again") from error
        return content

    def studies(self) -> list[str]:
        """Names of the studies that ran here."""
        return sorted(path.stem for path in (self.root / "studies").glob("*.json"))


def _is_strange(path: Path) -> bool:
    """Whether a file is none of a store that another driver is just making."""
    return path.name not in (STORE_FILE, "studies", "locks") and not path.name.startswith(f".{STORE_FILE}.")


def _locked(handle: int, how: int = fcntl.LOCK_EX) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_same(handle: int, file: Path) -> bool:
    """Whether a lock file is still there under its name; else another process has just finished with it."""
    try:
        now = file.stat()
    except FileNotFoundError:
        return False
    mine = os.fstat(handle)
    return (mine.st_dev, mine.st_ino) == (now.st_dev, now.st_ino)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SEAL_FILE)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
