"""The paper's three findings in miniature: depth, LoRA and language on the mini models, several seeds each.

    python benchmarks/slam_findings.py WORK RUNS --encoder mini-whisper --language-model mini-lm [--seeds 0 1 2]
    python benchmarks/slam_findings.py WORK RUNS --tables

WORK is what training/mini_whisper.py prepared. For each language, 0 and 2 of the encoder's layers gone, with the
projector alone and with LoRA, and each seed: a training (features of all depths come from one pass) and an evaluation
on test-xx.jsonl. What is there is not made again. The tables pool the seeds; intervals resample utterances, with all
seeds of an utterance together.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np

LANGUAGES = ("da", "nl", "en")
REMOVED = (0, 2)
RECORDINGS = {"da": 400, "nl": 1000, "en": 1600}  # the first of train-xx.jsonl, which is in random order
EPOCHS = {"da": 20, "nl": 8, "en": 5}  # 500 updates for each
RESAMPLES = 2000


@dataclass(frozen=True)
class Cell:
    """One way of training, over all seeds."""

    language: str
    removed: int
    lora: bool

    def folder(self, runs: Path, seed: int) -> Path:
        """Where its run lies."""
        return runs / f"{self.language}-minus{self.removed}-{'lora' if self.lora else 'projector'}-{seed}"


def cells() -> Iterator[Cell]:
    """All of them, by language."""
    for language in LANGUAGES:
        for removed in REMOVED:
            for lora in (False, True):
                yield Cell(language, removed, lora)


def recipe_of(cell: Cell, work: Path, runs: Path, encoder: str, lm: str, layers: int, seed: int) -> dict:
    """The recipe of one training."""
    content = {
        "encoder": {"model": encoder, "keep": layers - cell.removed},
        "language_model": {"model": lm},
        "projector": {"settings": {"k": 2, "hidden": 320, "dropout": 0.1}, "match_embeddings": True},
        "data": {
            "train": str(work / f"train-{cell.language}.jsonl"),
            "limit": RECORDINGS[cell.language],
            "dev": str(work / f"dev-{cell.language}.jsonl"),
            "dev_limit": 24,
        },
        "training": {"epochs": EPOCHS[cell.language], "batch": 16, "learning_rate": 2e-3, "seed": seed},
        "decoding": {"beams": 1, "max_new_tokens": 60},
        "features": {"cache": str(runs / "features")},
    }
    return content | ({"lora": {"r": 8, "alpha": 16}} if cell.lora else {})


def run(work: Path, runs: Path, encoder: str, lm: str, seeds: Sequence[int]) -> None:
    """Trains and evaluates what is missing."""
    import paretone
    from paretone.checkpoint import locate
    from paretone.model.slam.assembly import stored_depth
    from paretone.train.slam.recipe import checked_slam_recipe
    from paretone.train.slam.training import fill_features

    layers = stored_depth(encoder, None)
    for language in LANGUAGES:
        out = runs / f"whisper-{language}"
        if not out.exists():
            paretone.evaluate(locate(encoder), work / f"test-{language}.jsonl", out=out, command=["slam_findings"])
        whole = Cell(language, 0, lora=False)
        content = recipe_of(whole, work, runs, encoder, lm, layers, 0)
        fill_features(checked_slam_recipe(content, "features"), [layers - removed for removed in REMOVED])
    for seed in seeds:
        for cell in cells():
            folder, result = cell.folder(runs, seed), cell.folder(runs / "results", seed)
            if result.exists():
                continue
            recipe = checked_slam_recipe(recipe_of(cell, work, runs, encoder, lm, layers, seed), str(folder))
            if not folder.exists():
                paretone.train_slam(recipe, folder)
            found = paretone.evaluate(
                folder, work / f"test-{cell.language}.jsonl", out=result, command=["slam_findings"]
            )
            print(folder.name, f"{found.wer:.1%}", flush=True)


def errors_of(folders: Sequence[Path]) -> dict[str, np.ndarray]:
    """By utterance, summed over the folders: substitutions, deletions, insertions, reference words."""
    total: dict[str, np.ndarray] = {}
    for folder in folders:
        for line in (folder / "transcripts.jsonl").read_text(encoding="utf-8").splitlines():
            each = json.loads(line)
            made = jiwer.process_words(each["text"], each["hypothesis"].lower())
            counts = [
                made.substitutions,
                made.deletions,
                made.insertions,
                made.hits + made.substitutions + made.deletions,
            ]
            total[each["id"]] = total.get(each["id"], np.zeros(4)) + counts
    return total


def change(of: dict[str, np.ndarray], against: dict[str, np.ndarray], seed: int = 0) -> tuple[float, float, float]:
    """Difference of WER in points and its 95 % interval by paired bootstrap over utterances."""
    rng = np.random.default_rng(seed)
    ids = sorted(of)
    a, b = (np.array([counts[i] for i in ids]) for counts in (of, against))
    rates = lambda c, at: c[at][:, :3].sum() / c[at][:, 3].sum()  # noqa: E731
    whole = np.arange(len(ids))
    drawn = [rng.integers(len(ids), size=len(ids)) for _ in range(RESAMPLES)]
    deltas = [100 * (rates(a, at) - rates(b, at)) for at in drawn]
    low, high = np.quantile(deltas, [0.025, 0.975])
    return 100 * float(rates(a, whole) - rates(b, whole)), float(low), float(high)


def tables(runs: Path, seeds: Sequence[int]) -> None:
    """Prints what was found."""
    print(
        "| language | layers gone | trained | WER % | S / D / I per 100 words | against projector only, whole encoder |"
    )
    print("|---|---|---|---|---|---|")
    for language in LANGUAGES:
        base = None
        for cell in (each for each in cells() if each.language == language):
            folders = [cell.folder(runs / "results", seed) for seed in seeds]
            folders = [folder for folder in folders if folder.exists()]
            if not folders:
                continue
            found = errors_of(folders)
            base = base or found
            total = np.sum(list(found.values()), axis=0)
            parts = " / ".join(f"{100 * n / total[3]:.1f}" for n in total[:3])
            delta, low, high = change(found, base)
            trained = "projector + LoRA" if cell.lora else "projector"
            wer = 100 * total[:3].sum() / total[3]
            said = "" if found is base else f"{delta:+.1f} [{low:+.1f}, {high:+.1f}]"
            print(f"| {language} | {cell.removed} | {trained} ({len(folders)} seeds) | {wer:.1f} | {parts} | {said} |")
        plain = runs / f"whisper-{language}"
        if plain.exists():
            total = np.sum(list(errors_of([plain]).values()), axis=0)
            parts = " / ".join(f"{100 * n / total[3]:.1f}" for n in total[:3])
            print(f"| {language} | 0 | the Whisper itself | {100 * total[:3].sum() / total[3]:.1f} | {parts} | |")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--encoder", default="mini-whisper")
    parser.add_argument("--language-model", default="mini-lm")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--tables", action="store_true")
    given = parser.parse_args()
    if not given.tables:
        run(given.work, given.runs, given.encoder, given.language_model, given.seeds)
    tables(given.runs, given.seeds)


if __name__ == "__main__":
    main()
