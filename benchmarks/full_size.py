"""Full-size models with random weights: seconds, peak memory, and whether the result loads and runs.

    python benchmarks/full_size.py WORK [--models hubert-large whisper-large-v3] [--sparsity 0.5 0.1] [--method cluster]

Writes the checkpoints to WORK once (1.3 and 6.2 GB), compresses each through the real command line, loads the result
and runs it on noise. Prints one JSON object a line.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch


def make_hubert_large(folder: Path) -> None:
    """HubertForCTC in the shape of facebook/hubert-large-ls960-ft."""
    from transformers import HubertConfig, HubertForCTC, Wav2Vec2FeatureExtractor

    config = HubertConfig(
        hidden_size=1024,
        num_hidden_layers=24,
        num_attention_heads=16,
        intermediate_size=4096,
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=True,
    )
    HubertForCTC(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)


def make_whisper_large(folder: Path) -> None:
    """WhisperForConditionalGeneration in the shape of openai/whisper-large-v3."""
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    config = WhisperConfig(
        vocab_size=51866,
        num_mel_bins=128,
        d_model=1280,
        encoder_layers=32,
        decoder_layers=32,
        encoder_attention_heads=20,
        decoder_attention_heads=20,
        encoder_ffn_dim=5120,
        decoder_ffn_dim=5120,
    )
    WhisperForConditionalGeneration(config).save_pretrained(folder, max_shard_size="3GB")
    WhisperFeatureExtractor(feature_size=128).save_pretrained(folder)


MAKERS = {"hubert-large": make_hubert_large, "whisper-large-v3": make_whisper_large}


def made(work: Path, name: str) -> Path:
    """The folder of a full-size model below ``work``, written the first time."""
    source = work / name
    if not (source / "config.json").exists():
        torch.manual_seed(0)
        MAKERS[name](source)
    return source


def compress_once(source: Path, out: Path, *options: object) -> dict[str, Any]:
    """What the real command line says of compressing ``source`` to ``out``, whatever was there."""
    shutil.rmtree(out, ignore_errors=True)
    words = ["compress", source, out, *options, "--json"]
    command = [str(Path(sys.executable).with_name("paretone")), *map(str, words)]
    done: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return done


def run_once(folder: Path) -> dict[str, object]:
    """Loads a model through ``paretone.load`` and runs it once on noise."""
    import paretone

    started = time.perf_counter()
    model, _ = paretone.load(folder)
    loaded = time.perf_counter()
    with torch.no_grad():
        if model.config.model_type == "whisper":
            features = torch.randn(1, model.config.num_mel_bins, 2 * model.config.max_source_positions)
            output = model(input_features=features, decoder_input_ids=torch.tensor([[1, 2, 3]])).logits
        else:
            output = model(torch.randn(1, 160_000)).logits
    return {
        "class": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "load_s": round(loaded - started, 1),
        "forward_s": round(time.perf_counter() - loaded, 1),
        "finite": bool(torch.isfinite(output).all()),
    }


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--models", nargs="+", choices=MAKERS, default=list(MAKERS))
    parser.add_argument("--sparsity", nargs="+", type=float, default=[0.5, 0.1])
    parser.add_argument("--method", default="cluster")
    parser.add_argument("--no-forward", action="store_true", help="only compress")
    given = parser.parse_args()
    for name in given.models:
        source = made(given.work, name)
        for sparsity in given.sparsity:
            out = given.work / f"{name}-{given.method}-{sparsity:g}"
            done = compress_once(source, out, "--method", given.method, "--sparsity", sparsity)
            kept = {k: v for k, v in done.items() if isinstance(v, int | float)}
            ran = {} if given.no_forward else run_once(out)
            print(json.dumps({"model": name, "method": given.method, "sparsity": sparsity, **kept, **ran}), flush=True)
            shutil.rmtree(out)


if __name__ == "__main__":
    main()
