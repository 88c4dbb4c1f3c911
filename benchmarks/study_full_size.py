"""One cell of each full-size study, on random weights and noise: whether the whole road holds, what it takes.

    python benchmarks/study_full_size.py hubert WORK     clustering-hubert-large: best at 50 %, fine-tuned a step
    python benchmarks/study_full_size.py whisper WORK    clustering-whisper-large-v3: best at 60 %, fine-tuned a step
    python benchmarks/study_full_size.py slam WORK       slam-encoder-depth: Whisper-small, Qwen2.5-3B, LoRA, two steps

WORK gets models and data under the names that the studies say (1.3, 3.1 and 7 GB), written once. The studies are run as
they stand, from WORK, with ``--only`` for the cell and ``--set`` for what a machine without GPU can't give. The last
line printed is one JSON object. Needs 20 GB of memory for the last two.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import soundfile
import torch
from full_size import make_hubert_large
from slam_full_size import QWEN_3B, whisper_shape
from slam_parts import RATE_HZ, alphabet, make_tokenizer, noise, save_qwen, save_whisper
from study import write_data

STUDIES = Path(__file__).resolve().parents[1] / "studies"
SAID = "EN TO TRE FIRE FEM"
HERE = ["budget.gpus=0", "budget.cpus=1", "budget.memory_gb=22", "keep=models"]


class Cell(NamedTuple):
    """What one run of this file does."""

    study: str
    only: list[str]
    changes: list[str]
    make: Callable[[Path], None]


def make_hubert(work: Path) -> None:
    """HuBERT-large with a tokenizer of letters, and a little noise laid out as LibriSpeech is."""
    from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

    folder = work / "facebook" / "hubert-large-ls960-ft"
    if not (folder / "processor_config.json").exists():
        make_hubert_large(folder)
        letters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ETAONIHSRDLUMWCFGYPBVK'XJQZ"]
        (folder / "letters.json").write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
        extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
        Wav2Vec2Processor(extractor, Wav2Vec2CTCTokenizer(str(folder / "letters.json"))).save_pretrained(folder)
    make_librispeech(work / "LIBRISPEECH")


def make_whisper(work: Path) -> None:
    """Whisper-large-v3 in bfloat16 with a tokenizer of bytes, and the same noise."""
    folder = work / "openai" / "whisper-large-v3"
    if not (folder / "processor_config.json").exists():
        shape = {f"{part}_layers": 32 for part in ("encoder", "decoder")}
        shape |= {f"{part}_attention_heads": 20 for part in ("encoder", "decoder")}
        shape |= {f"{part}_ffn_dim": 5120 for part in ("encoder", "decoder")}
        save_whisper(folder, mels=128, d_model=1280, vocab_size=51866, **shape)
    make_librispeech(work / "LIBRISPEECH")


def make_slam(work: Path) -> None:
    """Whisper-small, Qwen2.5-3B, and noise in place of Danish."""
    encoder, language_model = work / "openai" / "whisper-small", work / "Qwen" / "Qwen2.5-3B"
    if not (encoder / "processor_config.json").exists():
        save_whisper(encoder, **whisper_shape("whisper-small"))
    if not (language_model / "tokenizer.json").exists():
        torch.set_default_dtype(torch.bfloat16)  # in single precision it would not fit beside what is written
        save_qwen(language_model, make_tokenizer([], len(alphabet()) + 1), torch.bfloat16, QWEN_3B)
    folder = work / "cv22" / "da"
    folder.mkdir(parents=True, exist_ok=True)
    for name, seconds in (("train", [3.0, 3.1, 3.2, 3.3]), ("dev", [3.4]), ("test", [3.5, 3.6])):  # no two alike
        write_data(folder, name, seconds)


def make_librispeech(root: Path) -> None:
    """Three splits of few recordings, as they are unpacked."""
    for number, (split, count) in enumerate((("test-clean", 2), ("dev-clean", 1), ("train-clean-100", 2))):
        chapter = root / split / f"{number + 1}" / "10"
        chapter.mkdir(parents=True, exist_ok=True)
        names = [f"{number + 1}-10-{each:04d}" for each in range(count)]
        for name in names:
            write_noise(chapter / f"{name}.flac", name)
        (chapter / f"{number + 1}-10.trans.txt").write_text("".join(f"{name} {SAID}\n" for name in names))


def write_noise(file: Path, name: str) -> None:
    """Three seconds, of each name other ones."""
    soundfile.write(file, noise(3.0, zlib.crc32(name.encode())), RATE_HZ)


TUNED = ["way=best", "finetune=yes", "seed=0"]
ONE_EPOCH = ["axes.finetune.yes.finetune.epochs=1"]
CELLS = {
    "hubert": Cell("clustering-hubert-large", [*TUNED, "sparsity=0.5"], ONE_EPOCH, make_hubert),
    "whisper": Cell("clustering-whisper-large-v3", [*TUNED, "sparsity=0.6"], ONE_EPOCH, make_whisper),
    "slam": Cell(
        "slam-encoder-depth",
        ["data=da", "encoder=small", "layers=10", "lora=yes"],
        [
            "base.slam.training.epochs=1",
            "base.slam.training.batch=2",
            "base.slam.training.precision=fp32",  # most CPUs are slow in bfloat16
            "base.slam.decoding.max_new_tokens=16",  # random weights never end an answer
        ],
        make_slam,
    ),
}


def run(cell: Cell, work: Path) -> dict[str, Any]:
    """The cell through the real command line; seconds and peak memory of its stages from their seals."""
    cell.make(work)
    words = [sys.executable, "-m", "paretone", "study", "run", str(STUDIES / f"{cell.study}.yaml"), "--no-ray"]
    words += ["--store", "store", "--json"]
    words += [word for only in cell.only for word in ("--only", only)]
    words += [word for change in HERE + cell.changes for word in ("--set", change)]
    started = time.monotonic()
    done = subprocess.run(words, cwd=work, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    told = json.loads(done.stdout)
    found: dict[str, Any] = {"study": cell.study, "cell": cell.only, "seconds": round(time.monotonic() - started, 1)}
    for seal in sorted((work / "store").glob("*/*/seal.json"), key=lambda path: path.stat().st_mtime):
        facts = json.loads(seal.read_text())
        if facts["finished"] > time.time() - found["seconds"]:
            gigabytes = round(facts["peak_rss_bytes"] / 1e9, 2)
            found[seal.parents[1].name] = {"seconds": round(facts["seconds"], 1), "peak_gb": gigabytes}
    return found | {"done": told["done"], "failed": told["failed"]}


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cell", choices=CELLS)
    parser.add_argument("work", type=Path)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    print(json.dumps(run(CELLS[given.cell], given.work.resolve())))


if __name__ == "__main__":
    main()
