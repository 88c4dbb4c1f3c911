"""Speech LLMs: whether full size holds together, what the paper's systems weigh, how fast training is.

    python benchmarks/slam.py wiring WORK        two steps, one generation of Whisper-small and Qwen2.5-0.5B (1.5 GB)
    python benchmarks/slam.py sizes              parameters of the paper's systems, counted on the meta device
    python benchmarks/slam.py throughput WORK    our training against one that does what the published code does
    python benchmarks/slam.py sweep WORK         eight depths from one pass over the encoder against the trainings alone

All weights are random, recordings noise, texts invented words. Wall-clock seconds depend on what else the machine does,
so processor seconds stand beside them. The last line printed is one JSON object. Set OMP_NUM_THREADS to say how many
cores are used; each side uses them alike. Where there is a GPU, throughput and sweep compute there, both sides of them;
``--size small`` gives them models for which that is worth while (3 GB on disk).
"""

import argparse
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paretone.memory import peak_rss_bytes, reset_peak_rss

RATE_HZ = 16_000
END = "<|endoftext|>"
PROMPT = "Transcribe speech to text.\n"

# arXiv 2603.27981, section 1, and the model cards of the parts
ENCODERS = {"whisper-small": (768, 12), "whisper-medium": (1024, 24), "whisper-large-v2": (1280, 32)}
QWEN = {"vocab_size": 151936, "num_key_value_heads": 2, "tie_word_embeddings": True}
QWEN_3B = {**QWEN, "hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16, "intermediate_size": 11008}
QWEN_05B = {**QWEN, "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "intermediate_size": 4864}
# millions of parameters of the projector; percent of encoder + projector and of the system in the last two layers
SPEC = {
    "whisper-small": (12.07, 14.1, 0.44),
    "whisper-medium": (14.69, 7.8, 0.74),
    "whisper-large-v2": (17.31, 6.0, 1.05),
}
SPEC_LANGUAGE_MODEL, SPEC_LORA = 3.086, {8: 3.69, 16: 7.37}  # billions; millions by rank

TOY_VOCABULARY = 8000


@dataclass(frozen=True)
class Size:
    """Shapes of random models, the encoder's window and hop (samples), and the seconds that recordings last."""

    encoder: Mapping[str, int]
    window_s: int
    hop: int
    language_model: Mapping[str, Any]
    seconds: tuple[float, float]


SIZES = {
    "toy": Size(
        {"d_model": 144, "encoder_layers": 8, "encoder_attention_heads": 4, "encoder_ffn_dim": 576},
        6,
        320,
        {"hidden_size": 160, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 432}
        | {"vocab_size": TOY_VOCABULARY},
        (1, 6),
    ),
    "small": Size(
        {"d_model": 768, "encoder_layers": 12, "encoder_attention_heads": 12, "encoder_ffn_dim": 3072},
        30,
        160,
        QWEN_05B,
        (2, 20),
    ),
}


@contextmanager
def timed(into: dict[str, Any], name: str) -> Iterator[None]:
    """Puts wall-clock and processor seconds of the context into a record; a GPU has done its work at either end."""
    settle()
    wall, processor = time.perf_counter(), time.process_time()
    yield
    settle()
    into[f"{name}_s"] = round(time.perf_counter() - wall, 2)
    into[f"{name}_cpu_s"] = round(time.process_time() - processor, 2)


def settle() -> None:
    """Waits until the GPU, where there is one, has done what it was given."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device_name() -> str:
    """What computes."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


# parts on disk


def save_whisper(
    folder: Path, *, window_s: int = 30, hop: int = 160, dtype: torch.dtype = torch.bfloat16, **shape: int
) -> None:
    """A random Whisper, its feature extractor and a tokenizer of bytes."""
    from transformers import (
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
        WhisperTokenizer,
    )

    positions = window_s * RATE_HZ // hop // 2
    config = WhisperConfig(num_mel_bins=80, max_source_positions=positions, **shape)
    WhisperForConditionalGeneration(config).to(dtype).save_pretrained(folder)
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=window_s, hop_length=hop)
    tokenizer = WhisperTokenizer(vocab={letter: i for i, letter in enumerate(alphabet())}, merges=[], pad_token=END)
    WhisperProcessor(extractor, tokenizer).save_pretrained(folder)


def save_qwen(folder: Path, tokenizer: Any, dtype: torch.dtype, shape: Mapping[str, Any]) -> None:
    """A random Qwen2 and its tokenizer."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(**shape, bos_token_id=None, eos_token_id=tokenizer.eos_token_id)
    Qwen2ForCausalLM(config).to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def alphabet() -> list[str]:
    """A letter for every byte."""
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def make_tokenizer(texts: list[str], pieces: int) -> Any:
    """A byte-level BPE learned from ``texts``, with the end token; of bytes alone without texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=pieces, special_tokens=[END], initial_alphabet=alphabet(), show_progress=False
    )
    inner.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=END, pad_token=END)


# full size


def whisper_shape(name: str) -> dict[str, int]:
    """Configuration fields of one of ``ENCODERS``."""
    size, layers = ENCODERS[name]
    parts = ("encoder", "decoder")
    fields = {f"{part}_layers": layers for part in parts}
    fields |= {f"{part}_attention_heads": size // 64 for part in parts}
    fields |= {f"{part}_ffn_dim": 4 * size for part in parts}
    return {"d_model": size, **fields}


def make_full_size(work: Path) -> tuple[Path, Path]:
    """Folders of a Whisper-small and a Qwen2.5-0.5B with random weights, written the first time."""
    encoder, language_model = work / "whisper-small", work / "qwen-0.5b"
    torch.manual_seed(0)
    if not (encoder / "tokenizer_config.json").exists():
        save_whisper(encoder, **whisper_shape("whisper-small"))
    if not (language_model / "tokenizer.json").exists():
        save_qwen(language_model, make_tokenizer([], 257), torch.bfloat16, QWEN_05B)
    return encoder, language_model


def wiring(given: argparse.Namespace) -> dict[str, Any]:
    """Two training steps and one generation of a full-size system, in float32 as every training on a CPU."""
    from paretone.model.slam.adapters import Lora
    from paretone.model.slam.assembly import new_slam

    encoder, language_model = make_full_size(given.work)
    record: dict[str, Any] = {"what": "wiring", "threads": torch.get_num_threads()}
    reset_peak_rss()
    with timed(record, "load"):
        model, processor = new_slam(str(encoder), str(language_model), lora=Lora(), dtype="float32")
    record["load_peak_gb"] = peak_gb()
    record["parts"] = dict(model.part_sizes())
    record["parts"]["adapters"] = sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)
    record["parts"]["language_model"] -= record["parts"]["adapters"]
    reset_peak_rss()
    steps(model, processor, record)
    record["step_peak_gb"] = peak_gb()
    heard = processor([noise(10.0, 0)], sampling_rate=RATE_HZ)
    reset_peak_rss()
    with timed(record, "generate"):
        answer = model.eval().generate(**heard, min_new_tokens=20, max_new_tokens=20)
    record["generate_peak_gb"], record["generated"] = peak_gb(), answer.shape[1]
    for name, size in record["parts"].items():
        print(f"{name}: {size / 1e6:.2f} M parameters")
    for name in ("load", "first_step", "second_step", "generate"):
        print(f"{name}: {record[name + '_s']} s, {record[name + '_cpu_s']} of them computing")
    return record


def steps(model: Any, processor: Any, record: dict[str, Any]) -> None:
    """Two steps on 10 s of noise, the first of which touches memory for the first time; the loss must be a number.

    Everything that is to be trained must have moved then, and nothing else may have a gradient.
    """
    moving = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(moving.values(), lr=1e-4, weight_decay=0.01)
    before = {name: p.detach().clone() for name, p in moving.items()}
    batch = processor([noise(10.0, 0)], ["they said that it would rain in the afternoon"], sampling_rate=RATE_HZ)
    model.train()
    record["losses"] = []
    for number in ("first", "second"):
        with timed(record, f"{number}_step"):
            with timed(record, f"{number}_forward"):
                loss = model(**batch).loss
            with timed(record, f"{number}_backward"):
                loss.backward()
            with timed(record, f"{number}_update"):
                optimizer.step()
                optimizer.zero_grad(set_to_none=False)
        record["losses"].append(float(loss.detach()))
    assert np.isfinite(record["losses"]).all()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == set(moving)
    assert not any(torch.equal(before[name], p) for name, p in moving.items())


def peak_gb() -> float:
    """Of resident memory since the last reset."""
    return round(peak_rss_bytes() / 1e9, 2)


# the paper's sizes


def sizes(_: argparse.Namespace | None = None) -> dict[str, Any]:
    """Parameters of the paper's systems, whole and without the last two layers, beside what the spec says."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with torch.device("meta"):
        language_model = Qwen2ForCausalLM(Qwen2Config(**QWEN_3B))
        systems = {name: counted(name, language_model) for name in ENCODERS}
        lora = {rank: lora_size(language_model, rank) for rank in SPEC_LORA}
    found = {"what": "sizes", "language_model": count(language_model), "systems": systems, "lora": lora}
    print(f"language model {found['language_model'] / 1e9:.3f} B (spec {SPEC_LANGUAGE_MODEL})")
    for rank, size in lora.items():
        print(f"LoRA r={rank} {size / 1e6:.2f} M (spec {SPEC_LORA[rank]})")
    for name, system in systems.items():
        projector, of_front, of_system = SPEC[name]
        print(
            f"{name}: encoder {system['encoder'] / 1e6:.2f} M, projector {system['projector'] / 1e6:.2f} M "
            f"(spec {projector}), both {system['front'] / 1e6:.2f} M, system {system['system'] / 1e9:.3f} B; last two "
            f"layers {100 * system['gone_of_encoder']:.1f} % of the encoder, {100 * system['gone_of_front']:.2f} % of "
            f"encoder + projector (spec {of_front}), {100 * system['gone_of_system']:.3f} % of the system "
            f"(spec {of_system})"
        )
    return found


def counted(name: str, language_model: Any) -> dict[str, float]:
    """Parameters of a system, and the share of each sum that goes with the last two layers of the encoder."""
    whole, cut = (system(name, language_model, gone).part_sizes() for gone in (0, 2))
    gone = whole["encoder"] - cut["encoder"]
    front = whole["encoder"] + whole["projector"]
    everything = front + whole["language_model"]
    return {
        "encoder": whole["encoder"],
        "projector": whole["projector"],
        "front": front,
        "system": everything,
        "gone": gone,
        "gone_of_encoder": gone / whole["encoder"],
        "gone_of_front": gone / front,
        "gone_of_system": gone / everything,
    }


def system(name: str, language_model: Any, gone: int) -> Any:
    """A speech LLM around an encoder without its last ``gone`` layers."""
    from transformers import WhisperConfig, WhisperModel

    from paretone.model.slam.configuration import SlamAsrConfig
    from paretone.model.slam.encoders import cut_tower
    from paretone.model.slam.modeling import SlamAsrForConditionalGeneration

    shape = WhisperConfig(**whisper_shape(name))
    tower = cut_tower(WhisperModel(shape), range(shape.encoder_layers - gone))
    config = SlamAsrConfig(audio_config=tower.config, text_config=language_model.config, prompt_ids=[0])
    return SlamAsrForConditionalGeneration(config, audio_tower=tower, language_model=language_model)


def lora_size(language_model: Any, rank: int) -> int:
    """Parameters of the paper's adapters of a rank."""
    import copy

    from paretone.model.slam.adapters import Lora, add_lora

    adapted = copy.deepcopy(language_model)
    add_lora(adapted, Lora(r=rank, alpha=2 * rank))
    return sum(p.numel() for name, p in adapted.named_parameters() if "lora_" in name)


def count(module: torch.nn.Module) -> int:
    """Parameters, tied ones once."""
    return sum(p.numel() for p in module.parameters())


# toy models and recordings


def noise(seconds: float, seed: int) -> np.ndarray:
    """Float32."""
    return (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * RATE_HZ))).astype(np.float32)


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


WHISPER_TOKENS = {"pad_token_id": 256, "bos_token_id": 256, "eos_token_id": 256, "decoder_start_token_id": 256}


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


# throughput


def throughput(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of audio learned from in a second: ours from kept features, and what the published code does."""
    from paretone.data import open_data

    toys = make_toys(given.work, given.recordings, SIZES[given.size])
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


# a sweep over depths


def sweep(given: argparse.Namespace) -> dict[str, Any]:
    """Eight depths from one pass over the encoder, beside the same trainings alone, which only read features."""
    from paretone.train.slam.training import fill_features

    toys = make_toys(given.work, given.recordings, SIZES[given.size])
    warm_up(given, toys)
    cache, depths = given.work / "cache", range(1, SIZES[given.size].encoder["encoder_layers"] + 1)
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
    for measure in (wiring, sizes, throughput, sweep):
        command = commands.add_parser(measure.__name__, help=(measure.__doc__ or "").split("\n")[0])
        command.set_defaults(measure=measure)
        if measure is not sizes:
            command.add_argument("work", type=Path)
        if measure in (throughput, sweep):
            command.add_argument("--size", choices=SIZES, default="toy", help="small: Whisper-small, Qwen2.5-0.5B")
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
