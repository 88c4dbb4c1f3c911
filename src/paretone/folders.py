"""Output folders that appear only when they are complete."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paretone.errors import UserError

DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EIO,
    errno.ENAMETOOLONG,
)


@contextmanager
def new_folder(out: Path, *, overwrite: bool = False, ours: tuple[str, ...] = ()) -> Iterator[Path]:
    """A temporary sibling of ``out`` that takes its name at the end, or vanishes with any error or interrupt.

    Args:
        overwrite: whether a folder that exists may be replaced; the old one stays until the new one is complete.
        ours: files of which at least one must lie in a folder that is replaced, so that nothing else is lost.

    Raises:
        UserError: if ``out`` exists and may not be replaced, or can't be written.
    """
    check_new_folder(out, overwrite=overwrite, ours=ours)
    out = out.absolute()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    except OSError as error:
        raise UserError(f"{out} can't be written: {error.strerror}; give another folder") from error
    try:
        yield partial
        partial.chmod(0o777 & ~_umask())
        _swap(partial, out)
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise UserError(f"{out} can't be written: {error.strerror}; nothing was left there") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_new_folder(out: Path, *, overwrite: bool = False, ours: tuple[str, ...] = ()) -> None:
    """Raises UserError where ``new_folder`` would, before any work is done."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; give a folder")
    if not out.exists():
        parent = next(p for p in out.absolute().parents if p.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise UserError(f"{out} can't be made: {parent} is not a folder one can write to; give another folder")
        return
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise UserError(f"{out} is not empty; give another folder or pass --overwrite")
    if ours and not any((out / name).exists() for name in ours):
        raise UserError(
            f"{out} holds none of {', '.join(ours)}, so it was not written by this command and is not overwritten"
        )


def check_apart(folder: Path, out: Path, *, what: str = "model") -> None:
    """Raises UserError if ``out`` lies in the ``folder`` of a model, or of ``what`` it is, or the other way round."""
    source, target = folder.resolve(), out.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise UserError(
            f"OUT {out} and the {what} {folder} lie in one another; inputs are never changed, give another OUT"
        )


def _swap(partial: Path, out: Path) -> None:
    if not out.exists():
        partial.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.old-", dir=out.parent))
    out.rename(old / out.name)
    try:
        partial.rename(out)
    except OSError:
        (old / out.name).rename(out)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_file(path: Path, text: str) -> None:
    """Writes ``text`` to ``path``, which is whole or not there at all.

    Raises:
        UserError: if it can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} can't be written: {error.strerror}") from error
