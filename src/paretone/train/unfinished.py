"""The folder beside OUT in which a run lives until it is complete, so that it can be gone on with."""

import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretone.errors import UserError
from paretone.folders import write_file

RUN_FILE = "run.json"
LOCK_FILE = "lock"
COMPLETE_FILE = "complete.json"  # written last: a checkpoint without it was cut short
BEST = "best"


@dataclass(frozen=True)
class Unfinished:
    """A run on disk: what it is, its checkpoints, and the weights that were best on the dev set."""

    folder: Path

    @property
    def best(self) -> Path:
        """Where the weights with the lowest dev WER so far lie."""
        return self.folder / BEST

    def last_checkpoint(self) -> Path | None:
        """The newest whole checkpoint; those that were cut short are removed."""
        whole = []
        for path in self.folder.glob("checkpoint-*"):
            if (path / COMPLETE_FILE).exists():
                whole.append(path)
            else:
                shutil.rmtree(path)
        return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)

    def complete(self, checkpoint: Path, seconds: float) -> None:
        """Marks a checkpoint as whole; ``seconds`` is how long the run has taken up to it."""
        write_file(checkpoint / COMPLETE_FILE, json.dumps({"seconds": seconds}) + "\n")

    @staticmethod
    def seconds_before(checkpoint: Path | None) -> float:
        """How long the run had taken up to ``checkpoint``."""
        return 0.0 if checkpoint is None else float(json.loads((checkpoint / COMPLETE_FILE).read_text())["seconds"])

    @contextmanager
    def new_best(self) -> Iterator[Path]:
        """A folder whose content replaces ``best`` when it is written."""
        partial = self.folder / f"{BEST}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial
        shutil.rmtree(self.best, ignore_errors=True)
        partial.rename(self.best)


def folder_of(out: Path) -> Path:
    """Where the run that will be ``out`` lives while it is unfinished."""
    out = out.absolute()
    return out.with_name(f"{out.name}.unfinished")


@contextmanager
def unfinished(out: Path, run: Mapping[str, Any], *, restart: bool) -> Iterator[Unfinished]:
    """The run of ``out``, begun or found.

    Its folder goes when the context ends well. With an error or an interrupt it stays, if there is a checkpoint in it.

    Args:
        run: everything that decides what comes out, by the words that the user knows it by.
        restart: throw an older run away.

    Raises:
        UserError: if an older run differs from ``run``, or another process is at it.
    """
    folder = folder_of(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK_FILE).open("w")
    except OSError as error:
        raise UserError(f"{folder} can't be written: {error.strerror}; give another OUT") from error
    with lock:
        _lock(lock, folder)
        if restart:
            _empty(folder)
        if (folder / RUN_FILE).exists():
            _refuse_other(folder, run)
        else:
            _empty(folder)
            write_file(folder / RUN_FILE, json.dumps(run, indent=2) + "\n")
        found = Unfinished(folder)
        try:
            yield found
        except BaseException:
            found.last_checkpoint()  # removes what was cut short
            if not any(folder.rglob(COMPLETE_FILE)):  # nothing to go on from
                shutil.rmtree(folder)
            raise
        shutil.rmtree(folder)


def _lock(lock: Any, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise UserError(
            f"{folder} is in use: another process trains there; wait for it, or give another OUT"
        ) from error


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK_FILE:
            path.unlink()


def _refuse_other(folder: Path, run: Mapping[str, Any]) -> None:
    try:
        before = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{folder / RUN_FILE} is damaged; pass --restart to throw that run away") from error
    # as JSON, as the older one was
    differing = [name for name, value in json.loads(json.dumps(run)).items() if before.get(name) != value]
    if differing:
        words = ", ".join(_difference(name, before.get(name), run[name]) for name in differing)
        raise UserError(
            f"{folder} holds an unfinished run that differs: {words}; give the same to go on with it, or pass "
            "--restart to throw it away and start anew"
        )


def _difference(name: str, before: Any, now: Any) -> str:
    is_digest = any(str(value).startswith("sha256:") for value in (before, now))
    return f"another {name}" if is_digest else f"{name} was {before}, now {now}"
