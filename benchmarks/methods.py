"""Every method at 10 to 60 % on the embedded models, measured; and the tables of RESULTS.md.

    python benchmarks/methods.py RESULTS_FOLDER            measure what is missing there
    python benchmarks/methods.py RESULTS_FOLDER --tables   print the tables from what is there

A cell is one model, one way and one sparsity, measured beside the uncompressed model in the same process.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
MODELS = ("digits-hubert", "digits-whisper")
DATA = ("digits", "digits-unheard")
WAYS: dict[str, dict[str, Any]] = {
    "cluster, sum": {"method": "cluster"},
    "cluster, mean": {"method": "cluster", "settings": {"outgoing": "mean"}},
    "magnitude": {"method": "magnitude"},
    "random": {"method": "random"},
    "depth, last": {"method": "depth"},
    "depth, middle": {"method": "depth", "settings": {"drop": "middle"}},
    "cluster, sum, ffn": {"method": "cluster", "units": "ffn"},
    "cluster, mean, ffn": {"method": "cluster", "units": "ffn", "settings": {"outgoing": "mean"}},
    "magnitude, ffn": {"method": "magnitude", "units": "ffn"},
    "random, ffn": {"method": "random", "units": "ffn"},
    "cluster, sum, heads": {"method": "cluster", "units": "heads"},
    "cluster, mean, heads": {"method": "cluster", "units": "heads", "settings": {"outgoing": "mean"}},
    "magnitude, heads": {"method": "magnitude", "units": "heads"},
    "random, heads": {"method": "random", "units": "heads"},
}


@dataclass(frozen=True)
class Cell:
    """One model compressed one way, on one data set."""

    model: str
    data: str
    way: str
    sparsity: float

    def folder(self, root: Path) -> Path:
        """Where its result lies."""
        return root / self.data / self.model / self.way.replace(", ", "-") / f"{self.sparsity:g}"


def cells(data: str) -> Iterator[Cell]:
    """All cells of one data set; speakers never heard are measured for whole-model compression only."""
    for model in MODELS:
        for way in WAYS:
            if data == "digits" or not way.endswith(("ffn", "heads")):
                for sparsity in SPARSITIES:
                    yield Cell(model, data, way, sparsity)


def measure(cell: Cell, root: Path) -> None:
    """Compresses and evaluates one cell."""
    import paretone

    with tempfile.TemporaryDirectory() as scratch:
        small = Path(scratch) / "model"
        options = WAYS[cell.way]
        paretone.compress(cell.model, small, sparsity=cell.sparsity, **options)
        words = [f"--method {options['method']}", f"--sparsity {cell.sparsity}"]
        words += [f"--units {options['units']}"] if "units" in options else []
        words += [f"--set {key}={value}" for key, value in options.get("settings", {}).items()]
        command = f"paretone compress {cell.model} small {' '.join(words)} && "
        command += f"paretone evaluate small --data {cell.data} --baseline {cell.model}"
        paretone.evaluate(small, cell.data, baseline=cell.model, out=cell.folder(root), command=command.split())


def tables(root: Path) -> Iterator[str]:
    """Markdown: for each data set and model, ways down and sparsities across."""
    from paretone.results import read_result

    for data in DATA:
        for model in MODELS:
            found = {
                (c.way, c.sparsity): read_result(c.folder(root))
                for c in cells(data)
                if c.model == model and c.folder(root).exists()
            }
            if not found:
                continue
            base = next(iter(found.values())).baseline
            low, high = base.wer_ci95
            yield (
                f"\n**{model}** on `{data}`: uncompressed {base.wer:.1%} [{low:.1%}, {high:.1%}], "
                f"{base.parameters:,} parameters, {base.words} words\n"
            )
            yield "| way | " + " | ".join(f"{s:.0%}" for s in SPARSITIES) + " |"
            yield "|---" * (len(SPARSITIES) + 1) + "|"
            for way in WAYS:
                row = [found.get((way, s)) for s in SPARSITIES]
                if any(row):
                    yield f"| {way} | " + " | ".join(_entry(result) for result in row) + " |"


def _entry(result: Any) -> str:
    if result is None:
        return ""
    low, high = result.wer_ci95
    return (
        f"{result.wer:.1%} [{low * 100:.1f}, {high * 100:.1f}] · {result.parameters / result.baseline.parameters:.0%}"
    )


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--tables", action="store_true")
    given = parser.parse_args()
    if given.tables:
        print("\n".join(tables(given.root)))
        return
    from paretone.progress import track

    wanted = [cell for data in DATA for cell in cells(data) if cell.model in given.models]
    todo = [cell for cell in wanted if not cell.folder(given.root).exists()]
    for cell in track(todo, "measuring", len(todo)):
        measure(cell, given.root)


if __name__ == "__main__":
    main()
