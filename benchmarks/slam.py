"""Speech LLMs: how fast training is.

    python benchmarks/slam.py throughput WORK    our training against one that does what the published code does
    python benchmarks/slam.py sweep WORK         eight depths from one pass over the encoder against the trainings alone

With ``--size mini`` both sides train on the package's own mini-whisper, mini-lm and phrases. Else weights are random,
recordings noise, texts invented words. Wall-clock seconds depend on what else the machine does,
so processor seconds stand beside them. The last line printed is one JSON object. Set OMP_NUM_THREADS to say how many
cores are used; each side uses them alike. Where there is a GPU both sides compute there; ``--size small`` gives them
models for which that is worth while (3 GB on disk).
"""

import argparse
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from slam_parts import (
    QWEN,
    QWEN_05B,
    RATE_HZ,
    device_name,
    make_tokenizer,
    noise,
    save_qwen,
    save_whisper,
    timed,
)

PROMPT = "Transcribe speech to text.\n"
WHISPER_TOKENS = {"pad_token_id": 256, "bos_token_id": 256, "eos_token_id": 256, "decoder_start_token_id": 256}
TOY_VOCABULARY = 8000


@dataclass(frozen=True)
class Size:
    """Shapes of random models, the encoder's window and hop (samples), and the seconds that recordings last."""

    encoder: Mapping[str, int]
    window_s: int
    hop: int
    language_model: Mapping[str, Any]
    seconds: tuple[float, float]


TOY = Size(
    {"d_model": 144, "encoder_layers": 8, "encoder_attention_heads": 4, "encoder_ffn_dim": 576},
    6,
    320,
    {"hidden_size": 160, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 432},
    (1, 6),
)
SIZES = {
    "toy": replace(TOY, language_model={**TOY.language_model, "vocab_size": TOY_VOCABULARY}),
    "toy-qwen": TOY,  # with Qwen2.5's own vocabulary
    "small": Size(
        {"d_model": 768, "encoder_layers": 12, "encoder_attention_heads": 12, "encoder_ffn_dim": 3072},
        30,
        160,
        QWEN_05B,
        (2, 20),
    ),
}

MINI = "mini"


def parts_of(given: argparse.Namespace) -> tuple[Path, Path, Path]:
    """Folders of an encoder and a language model, and a manifest of recordings."""
    if given.size == MINI:
        return embedded_parts(given.work, given.recordings)
    return make_toys(given.work, given.recordings, SIZES[given.size])


def embedded_parts(work: Path, recordings: int) -> tuple[Path, Path, Path]:
    """The package's own; phrases of the three languages in turn."""
    from paretone.checkpoint import locate

    encoder, language_model = locate("mini-whisper"), locate("mini-lm")
    by_language = []
    for language in ("da", "nl", "en"):
        manifest = encoder.parent / f"phrases-{language}" / "manifest.jsonl"
        entries = [json.loads(line) for line in manifest.read_text(encoding="utf-8").splitlines()]
        by_language.append([{**each, "audio": str(manifest.parent / each["audio"])} for each in entries])
    chosen = [entry for entries in zip(*by_language, strict=False) for entry in entries][:recordings]
    if len(chosen) < recordings:
        raise SystemExit(f"--recordings {recordings}: there are {len(chosen)} phrases")
    data = work / "toys" / "data"
    data.mkdir(parents=True, exist_ok=True)
    (data / "train.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in chosen), encoding="utf-8")
    return encoder, language_model, data / "train.jsonl"


def make_words(rng: np.random.Generator, words: int) -> list[str]:
    """Invented words of two to four syllables."""
    syllables = [c + v + e for c in "bdfghklmnprstv" for v in ("a", "e", "i", "o", "u", "aa") for e in ("", "n", "s")]
    return ["".join(rng.choice(syllables, rng.integers(2, 5))) for _ in range(words)]


def make_toys(work: Path, recordings: int, size: Size) -> tuple[Path, Path, Path]:
    """Folders of a random encoder and language model, and a manifest of recordings.

    On a GPU our training leaves frozen parts in the type that they are stored in, so that is float32 there, the other
    side's.
    """
    import soundfile

    shutil.rmtree(work / "toys", ignore_errors=True)
    encoder, language_model, data = (work / "toys" / name for name in ("whisper", "qwen", "data"))
    data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    words = make_words(rng, 6000)
    decoder = {"decoder_layers": 1, "decoder_attention_heads": 4, "decoder_ffn_dim": 64, "vocab_size": 300}
    dtype = torch.float32 if torch.cuda.is_available() else torch.bfloat16
    tokenizer = make_tokenizer([" ".join(words), *[PROMPT] * 50], TOY_VOCABULARY)
    shape = {**QWEN, **size.language_model, "pad_token_id": tokenizer.eos_token_id}
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        save_whisper(
            encoder,
            window_s=size.window_s,
            hop=size.hop,
            dtype=dtype,
            **size.encoder,
            **decoder,
            **WHISPER_TOKENS,
        )
        save_qwen(language_model, tokenizer, torch.float32, shape)
    lines = []
    for number, seconds in enumerate(rng.uniform(*size.seconds, recordings)):
        soundfile.write(data / f"{number}.flac", noise(seconds, number), RATE_HZ)
        said = " ".join(rng.choice(words, max(1, round(2.5 * seconds))))  # as fast as people read aloud
        lines.append(json.dumps({"audio": f"{number}.flac", "text": said}))
    (data / "train.jsonl").write_text("\n".join(lines))
    return encoder, language_model, data / "train.jsonl"


def recipe(given: argparse.Namespace, toys: tuple[Path, Path, Path], cache: Path | None, **changes: Any) -> Any:
    """The recipe of a toy training; ``changes`` are keys of its encoder."""
    from paretone.train.slam.recipe import checked_slam_recipe

    encoder, language_model, data = map(str, toys)
    content: dict[str, Any] = {
        "encoder": {"model": encoder, **changes},
        "language_model": {"model": language_model},
        "data": {"train": data},
        "training": {"epochs": given.epochs, "batch": given.batch, "precision": given.precision},
    }
    if given.lora_rank:
        content["lora"] = {"r": given.lora_rank, "alpha": 2 * given.lora_rank}
    if cache is not None:
        content["features"] = {"cache": str(cache)}
    return checked_slam_recipe(content, "benchmark")


def trained(read: Any, out: Path) -> dict[str, Any]:
    """Seconds of a training: of the whole call, and of the loop alone; and its last loss."""
    from paretone.train.slam.training import train_slam

    shutil.rmtree(out, ignore_errors=True)
    record: dict[str, Any] = {}
    with timed(record, "call"):
        done = train_slam(read, out, dev=no_dev)
    record |= {"loop_s": round(done.record["seconds"], 2), "updates": done.record["updates"]}
    return record | {"loss": [entry["loss"] for entry in done.record["curve"]][-1]}


def no_dev(_: str) -> Any:
    """There is no dev set."""
    raise AssertionError


def throughput(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of audio learned from in a second: ours from kept features, and what the published code does."""
    from paretone.data import open_data

    toys = parts_of(given)
    warm_up(given, toys)
    audio_s = given.epochs * open_data(str(toys[2])).audio_s
    record: dict[str, Any] = {"what": "throughput", "threads": torch.get_num_threads(), "audio_s": round(audio_s, 1)}
    record |= setting(given)
    record["published"] = published(given, toys)
    record["ours"] = from_features(given, toys)
    if given.direct:
        record["ours_without_cache"] = trained(recipe(given, toys, None), given.work / "run")
    per_s = {
        "published": audio_s / record["published"]["loop_s"],
        "ours": audio_s / record["ours"]["loop_s"],
        "ours and the filling": audio_s / (record["ours"]["loop_s"] + record["ours"]["fill_s"]),
    }
    for name, rate in per_s.items():
        print(f"{name}: {rate:.1f} s of audio a second, {rate / per_s['published']:.2f} times the published loop")
    theirs, training, fill = (
        record[side][f"{what}_cpu_s"] for side, what in (("published", "call"), ("ours", "call"), ("ours", "fill"))
    )
    print(
        f"processor seconds with loading and saving: published {theirs:.1f}, ours {training:.1f} "
        f"({theirs / training:.2f} times) and filling {fill:.1f} (together {theirs / (training + fill):.2f} times)"
    )
    return record | {"audio_s_per_s": {name: round(rate, 2) for name, rate in per_s.items()}}


def setting(given: argparse.Namespace) -> dict[str, Any]:
    """What was asked for, and what computes."""
    asked = ("size", "precision", "recordings", "epochs", "batch", "lora_rank")
    return {"device": device_name()} | {name: getattr(given, name) for name in asked}


def warm_up(given: argparse.Namespace, toys: tuple[Path, Path, Path]) -> None:
    """A few steps of each side, so that no import is timed."""
    few = toys[2].with_name("few.jsonl")
    few.write_text("\n".join(toys[2].read_text().splitlines()[:8]))
    parts = (*toys[:2], few)
    published(given, parts)
    from_features(given, parts)


def published(given: argparse.Namespace, toys: tuple[Path, Path, Path]) -> dict[str, Any]:
    """Seconds of the loop of benchmarks/slam_published.py, and with the loading before it."""
    from slam_published import prepare

    record: dict[str, Any] = {}
    with timed(record, "call"):
        training = prepare(
            *toys,
            epochs=given.epochs,
            batch=given.batch,
            lora_rank=given.lora_rank,
            is_bf16=given.precision == "bf16",
        )
        with timed(record, "loop"):
            log = training.run()
    tenth = math.ceil(len(log) / 10 / given.epochs)
    return record | {"updates": len(log), "loss": float(np.mean([entry["loss"] for entry in log[-tenth:]]))}


def from_features(given: argparse.Namespace, toys: tuple[Path, Path, Path]) -> dict[str, Any]:
    """Seconds of our training, and of filling its cache, which takes loading the models once more."""
    from paretone.train.slam.training import fill_features

    cache = given.work / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    read = recipe(given, toys, cache)
    record: dict[str, Any] = {}
    with timed(record, "fill"):
        fill_features(read)
    return record | trained(read, given.work / "run")


def sweep(given: argparse.Namespace) -> dict[str, Any]:
    """Eight depths from one pass over the encoder, beside the same trainings alone, which only read features."""
    from paretone.train.slam.training import fill_features

    toys = parts_of(given)
    warm_up(given, toys)
    layers = json.loads((toys[0] / "config.json").read_text(encoding="utf-8"))["encoder_layers"]
    cache, depths = given.work / "cache", range(1, layers + 1)
    shutil.rmtree(cache, ignore_errors=True)
    record: dict[str, Any] = {"what": "sweep", "threads": torch.get_num_threads()} | setting(given)
    with timed(record, "fill"):
        fill_features(recipe(given, toys, cache), depths)
    runs = [trained(recipe(given, toys, cache, keep=depth), given.work / "run") for depth in depths]
    record |= summed(runs, "trainings")
    if given.direct:
        runs = [trained(recipe(given, toys, None, keep=depth), given.work / "run") for depth in depths]
        record |= summed(runs, "direct")
    for name in ("call_s", "call_cpu_s", "loop_s"):
        alone, fill = record[f"trainings_{name}"], record["fill_cpu_s" if "cpu" in name else "fill_s"]
        record[f"ratio_{name}"] = round((fill + alone) / alone, 3)
        print(f"{name}: filling {fill:.1f}, trainings {alone:.1f}, together {record[f'ratio_{name}']} of the trainings")
    return record


def summed(runs: list[dict[str, Any]], name: str) -> dict[str, float]:
    """Seconds of several trainings together."""
    return {f"{name}_{each}": round(sum(run[each] for run in runs), 2) for each in ("call_s", "call_cpu_s", "loop_s")}


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for measure in (throughput, sweep):
        command = commands.add_parser(measure.__name__, help=(measure.__doc__ or "").split("\n")[0])
        command.set_defaults(measure=measure)
        command.add_argument("work", type=Path)
        command.add_argument("--size", choices=(MINI, *SIZES), default="toy", help="small: Whisper-small, Qwen2.5-0.5B")
        command.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="bf16: autocast")
        command.add_argument("--recordings", type=int, default=160)
        command.add_argument("--epochs", type=int, default=3)
        command.add_argument("--batch", type=int, default=8)
        command.add_argument("--lora-rank", type=int, default=0, help="0 trains the projector alone")
        command.add_argument("--direct", action="store_true", help="also ours with the encoder run at each step")
    given = parser.parse_args()
    print(json.dumps(given.measure(given)))


if __name__ == "__main__":
    main()
