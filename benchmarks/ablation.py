"""Every method and every ingredient on and off, at 10 to 60 % and beyond, measured; and docs/ablation.md from it.

    python benchmarks/ablation.py RESULTS --model digits-hubert --data digits               measure what is missing
    python benchmarks/ablation.py RESULTS --model open-ctc=WORK/ctc/model --data open=WORK/test.jsonl --ways main
    python benchmarks/ablation.py RESULTS --model digits-hubert --data digits --finetune TRAIN   and after three epochs
    python benchmarks/ablation.py RESULTS --tables                                          print the document

A cell is one model, one data set, one way and one sparsity: a normal result folder. The original is measured once; the
tables compare transcripts with its transcripts of the same utterances.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPARSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
HARD = (0.5, 0.6, 0.7, 0.8)  # where ingredients of a good method tell
ORIGINAL = "original"

MAIN: dict[str, dict[str, Any]] = {
    "magnitude, uniform": {"method": "magnitude"},
    "magnitude, tiers": {"method": "magnitude", "allocation": "variance-tiers"},
    "cluster mean, uniform": {"method": "cluster", "settings": {"outgoing": "mean"}},
    "cluster mean, tiers": {
        "method": "cluster",
        "allocation": "variance-tiers",
        "settings": {"outgoing": "mean"},
    },
    "cluster sum, uniform": {"method": "cluster"},
    "cluster sum, tiers": {"preset": "paper"},
    "closed form, uniform": {"method": "closed_form"},
    "best": {"preset": "best"},
}
CLOSED: dict[str, dict[str, Any]] = {
    "closed form, uniform": {},
    "best": {"allocation": "error"},
    "by error, heads truncated only": {"allocation": "error", "settings": {"heads": "truncate"}},
    "FFN only": {"units": "ffn"},
    "FFN only, by magnitude, no refit": {"units": "ffn", "settings": {"search": "magnitude", "refit": False}},
    "FFN only, by magnitude": {"units": "ffn", "settings": {"search": "magnitude"}},
    "FFN only, no refit": {"units": "ffn", "settings": {"refit": False}},
    "FFN only, merged": {"units": "ffn", "settings": {"bank": "merge"}},
    "FFN only, merged, no refit": {"units": "ffn", "settings": {"bank": "merge", "refit": False}},
    "FFN only, merged and repaired": {"units": "ffn", "settings": {"bank": "merge-repaired"}},
    "heads only, truncated": {"units": "heads", "settings": {"heads": "truncate"}},
    "heads only, merged": {"units": "heads", "settings": {"heads": "merge"}},
    "heads only, dropped": {"units": "heads", "settings": {"heads": "drop"}},
}
INGREDIENTS = {name: {"method": "closed_form", **how} for name, how in CLOSED.items()}
GROUPS = {"main": (MAIN, SPARSITIES), "ingredients": (INGREDIENTS, HARD)}
TUNED = ("magnitude, tiers", "cluster sum, tiers", "best")


@dataclass(frozen=True)
class Cell:
    """One model on one data set, compressed one way; ``tuned`` after three epochs of fine-tuning."""

    model: str
    data: str
    way: str
    sparsity: float
    tuned: bool = False

    def folder(self, root: Path) -> Path:
        """Where its result lies."""
        way = self.way.replace(", ", "-").replace(" ", "_") + ("-tuned" if self.tuned else "")
        return root / self.model / self.data / way / f"{self.sparsity:g}"


def named(text: str) -> tuple[str, str]:
    """``name=path`` as two, a bare name as itself twice."""
    name, equals, path = text.partition("=")
    return (name, path) if equals else (Path(text).stem if "/" in text else text, text)


def wanted(model: str, data: str, groups: Sequence[str], sparsities: Sequence[float] | None) -> Iterator[Cell]:
    """The original, then all cells of the groups."""
    yield Cell(model, data, ORIGINAL, 0.0)
    for group in groups:
        ways, usual = GROUPS[group]
        for sparsity in sparsities or usual:
            for way in ways:
                yield Cell(model, data, way, sparsity)


def measure(cell: Cell, root: Path, model: str, data: str) -> None:
    """Compresses and evaluates one cell."""
    import paretone

    with tempfile.TemporaryDirectory() as scratch:
        small = Path(scratch) / "model"
        how = {**INGREDIENTS, **MAIN}.get(cell.way)
        if how is not None:
            paretone.compress(model, small, sparsity=cell.sparsity, **how)
        command = ["python", "benchmarks/ablation.py", cell.model, cell.data, cell.way, f"{cell.sparsity:g}"]
        paretone.evaluate(small if how else model, data, out=cell.folder(root), command=command)


def tune(cell: Cell, root: Path, model: str, data: str, train: str) -> None:
    """Compresses, fine-tunes for three epochs and evaluates one cell."""
    import paretone

    with tempfile.TemporaryDirectory() as scratch:
        small, tuned = Path(scratch) / "model", Path(scratch) / "tuned"
        paretone.compress(model, small, sparsity=cell.sparsity, **MAIN[cell.way])
        paretone.finetune(small, tuned, train, epochs=3)
        command = ["python", "benchmarks/ablation.py", cell.model, cell.data, cell.way, f"{cell.sparsity:g}", "tuned"]
        paretone.evaluate(tuned, data, out=cell.folder(root), command=command)


# --- tables -----------------------------------------------------------------------------------------------------------


def tables(root: Path) -> Iterator[str]:
    """Markdown: for each model and data set, ways down and sparsities across."""
    for original in sorted(root.glob(f"*/*/{ORIGINAL}/0/result.json")):
        model, data = original.parts[-5:-3]
        yield from _head(original.parent, model, data)
        for title, ways, sparsities, tuned in (
            ("Methods", MAIN, SPARSITIES, False),
            ("Ingredients of the closed form", [*INGREDIENTS, "oracle"], HARD, False),
            ("After three epochs of fine-tuning", dict.fromkeys(TUNED), SPARSITIES, True),
        ):
            rows = [
                (way, [_entry(Cell(model, data, way, s, tuned).folder(root), original.parent) for s in sparsities])
                for way in ways
            ]
            rows = [(way, row) for way, row in rows if any(row)]
            if rows:
                yield f"\n### {title}\n"
                yield "| way | " + " | ".join(f"{s:.0%}" for s in sparsities) + " |"
                yield "|---" * (len(sparsities) + 1) + "|"
                yield from (f"| {way} | " + " | ".join(row) + " |" for way, row in rows)


def _head(original: Path, model: str, data: str) -> Iterator[str]:
    from paretone.results import read_result

    base = read_result(original)
    low, high = base.wer_ci95
    yield (
        f"\n## {model} on {data}\n\nUncompressed {base.wer:.1%} [{100 * low:.1f}, {100 * high:.1f}], "
        f"{base.parameters:,} parameters, {base.words:,} words in {base.utterances} utterances."
    )


def _entry(folder: Path, original: Path) -> str:
    """WER with its interval, the share of parameters and the p-value of the difference to the original."""
    from paretone.results import read_result, score

    if not folder.exists():
        return ""
    result, base = read_result(folder), read_result(original)
    verdict = score(folder, original)
    p_mapsswe = getattr(verdict, "p_mapsswe", None)
    p_value = verdict.p_value if p_mapsswe is None else p_mapsswe
    low, high = result.wer_ci95
    mark = "" if p_value is None or p_value >= 0.05 else "*"
    share = result.parameters / base.parameters
    return f"{100 * result.wer:.1f}{mark} [{100 * low:.1f}, {100 * high:.1f}] · {share:.0%}"


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--model", help="name, or name=path")
    parser.add_argument("--data", help="name, or name=path")
    parser.add_argument("--ways", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--only", nargs="+", help="names of ways")
    parser.add_argument("--sparsities", nargs="+", type=float)
    parser.add_argument("--finetune", metavar="TRAIN", help="data: also measure after three epochs on it")
    parser.add_argument("--tables", action="store_true")
    given = parser.parse_args()
    if given.tables:
        print("\n".join(tables(given.root)))
        return
    from paretone.progress import track

    (model, model_path), (data, data_path) = named(given.model), named(given.data)
    cells = list(wanted(model, data, given.ways, given.sparsities))
    if given.finetune:
        cells = [
            Cell(model, data, way, sparsity, tuned=True) for sparsity in given.sparsities or SPARSITIES for way in TUNED
        ]
    cells = [cell for cell in cells if not given.only or cell.way in (*given.only, ORIGINAL)]
    todo = [cell for cell in cells if not cell.folder(given.root).exists()]
    for cell in track(todo, "measuring", len(todo)):
        if cell.tuned:
            tune(cell, given.root, model_path, data_path, given.finetune)
        else:
            measure(cell, given.root, model_path, data_path)


if __name__ == "__main__":
    main()
