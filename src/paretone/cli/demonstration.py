"""The demo: the whole main road on the embedded models, and a speech LLM in three languages, offline."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from paretone.api import compress
from paretone.errors import UserError
from paretone.progress import track
from paretone.report import read_results, terminal_table, write_report

if TYPE_CHECKING:
    from paretone.evaluation import Run

WAYS: dict[str, dict[str, str]] = {
    "magnitude": {"method": "magnitude"},
    "paper": {"preset": "paper"},
    "best": {"preset": "best"},
}
SPARSITIES = (0.3, 0.5, 0.6, 0.8)
MODELS = ("digits-hubert", "digits-whisper")
DATA = "digits"
SPEECH_LLM, ITS_RIVAL = "mini-slam", "mini-whisper"
LANGUAGES = ("da", "nl", "en")


@dataclass(frozen=True)
class Cell:
    """One model compressed one way."""

    model: str
    way: str
    sparsity: float

    @property
    def name(self) -> str:
        """Folder of its checkpoint and of its result."""
        return f"{self.model}-{self.way}-{self.sparsity:.0%}".removesuffix("%")


@dataclass(frozen=True)
class Listening:
    """The speech LLM beside a plain Whisper on phrases of one language."""

    language: str

    @property
    def name(self) -> str:
        """Folder of its result."""
        return f"{SPEECH_LLM}-{self.language}"


def run_demo(out: Path) -> None:
    """Compresses, measures and draws everything into ``out``; continues where an interrupted demo stopped."""
    started = time.monotonic()
    models, results, page = out / "models", out / "results", out / "report.html"
    if page.exists():  # a complete demo is made anew
        for folder in (models, results):
            shutil.rmtree(folder, ignore_errors=True)
    elif out.exists() and any(out.iterdir()) and not results.exists():
        raise UserError(f"{out} is not empty and no demo; give another folder")
    cells = list(_cells())
    for cell in track(cells, "compressing and measuring", len(cells)):
        if isinstance(cell, Cell):
            _run(cell, models / cell.name, results / cell.name)
        else:
            _listen(cell, results / cell.name)
    found = [results / cell.name for cell in cells]
    write_report(found, page)
    console = Console()
    console.print(terminal_table(read_results(found)))
    console.print(f"{page.resolve()} in {time.monotonic() - started:.0f} s", soft_wrap=True)


def _cells() -> Iterator[Cell | Listening]:
    for model in MODELS:
        for way in WAYS:
            for sparsity in SPARSITIES:
                yield Cell(model, way, sparsity)
    yield from map(Listening, LANGUAGES)


@cache
def _original(model: str) -> "Run":
    from paretone.evaluation import decode_once

    return decode_once(model, DATA)


def _run(cell: Cell, model: Path, result: Path) -> None:
    from paretone.evaluation import evaluate

    if not model.exists():
        compress(
            cell.model,
            model,
            sparsity=cell.sparsity,
            preset=WAYS[cell.way].get("preset"),
            method=WAYS[cell.way].get("method"),
        )
    if not result.exists():
        command = ["paretone", "evaluate", str(model), "--data", DATA, "--baseline", cell.model, "--out", str(result)]
        evaluate(model, DATA, baseline=_original(cell.model), out=result, command=command)


def _listen(cell: Listening, result: Path) -> None:
    from paretone.evaluation import evaluate

    if not result.exists():
        data = f"phrases-{cell.language}"
        command = ["paretone", "evaluate", SPEECH_LLM, "--data", data, "--baseline", ITS_RIVAL, "--out", str(result)]
        evaluate(SPEECH_LLM, data, baseline=ITS_RIVAL, out=result, command=command)
