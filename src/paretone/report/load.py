"""Finding and reading result files."""

from collections.abc import Iterable
from pathlib import Path

from paretone.errors import UserError
from paretone.results.schema import RESULT_FILE, Result, read_result


def find_results(paths: Iterable[Path]) -> list[Path]:
    """The result files that ``paths`` name, each once, in the order given.

    Args:
        paths: result files, folders that hold a ``result.json``, or folders of such folders at any depth.

    Raises:
        UserError: if a path does not exist, or a folder holds no result.
    """
    files: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found = sorted(path.rglob(RESULT_FILE))
            if not found:
                raise UserError(f"{path}: no {RESULT_FILE} in this folder or below; run paretone evaluate --out first")
        elif path.exists():
            found = [path]
        else:
            raise UserError(f"{path} does not exist; give a {RESULT_FILE}, or a folder that holds one")
        files.update(dict.fromkeys(file.resolve() for file in found))
    if not files:
        raise UserError(f"no result given; give at least one {RESULT_FILE}, or a folder that holds one")
    return list(files)


def read_results(paths: Iterable[Path]) -> list[Result]:
    """Read every result that ``paths`` name, as `find_results` finds them.

    Raises:
        UserError: as `find_results` does, or if a file is not a result of this format.
    """
    return [read_result(file) for file in find_results(paths)]
