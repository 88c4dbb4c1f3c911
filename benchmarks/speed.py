"""Speed and memory at full size: ours beside the bare Gram products, scikit-learn and Torch-Pruning.

    pip install -e '.[bench]'
    python benchmarks/speed.py WORK [--models hubert-large whisper-large-v3] [--what cluster best ...]

Everything with random weights of a fixed seed and half of the units. Each measurement is a process of its own with
torch's default threads; bare products come before and after each compression, and ratios are to their mean, so that
a machine that also does something else does not decide. Prints one JSON object a line, then a table.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from full_size import MAKERS, compress_once, made

from paretone.checkpoint import Checkpoint, open_checkpoint
from paretone.groups import Group, Units, units_of
from paretone.memory import peak_rss_bytes
from paretone.plan.resolve import blueprint_of

SPARSITY = 0.5
COMMANDS = {
    "cluster": ["--method", "cluster"],
    "paper": ["--preset", "paper"],
    "best": ["--preset", "best"],
}
SEED = 0


def groups_of(source: Path) -> tuple[Checkpoint, tuple[Group, ...]]:
    """The checkpoint and its modules."""
    checkpoint = open_checkpoint(source)
    return checkpoint, blueprint_of(checkpoint, str(source)).table().groups


def units_in(checkpoint: Checkpoint, group: Group) -> Units:
    """The unit vectors of one module."""
    return units_of(group, checkpoint.read([slot.tensor for slot in group.slots]))


def bare(source: Path) -> dict[str, Any]:
    """Seconds for one product of every module's unit vectors with their transpose, nothing else counted."""
    checkpoint, groups = groups_of(source)
    seconds = cpu_s = 0.0
    for group in groups:
        units = units_in(checkpoint, group)
        vectors = torch.cat([units.incoming, units.outgoing], dim=1)
        started, cpu = time.perf_counter(), time.process_time()
        vectors @ vectors.T
        seconds, cpu_s = seconds + time.perf_counter() - started, cpu_s + time.process_time() - cpu
    return {"seconds": seconds, "cpu_s": cpu_s}


def imports(source: Path) -> dict[str, Any]:
    """Peak memory once everything is imported that a compression imports."""
    import paretone.cli
    import paretone.methods.closed_form
    import paretone.methods.cluster
    import paretone.transform.compress  # noqa: F401

    open_checkpoint(source)
    torch.randn(64, 64) @ torch.randn(64, 64)
    return {"peak_rss_bytes": peak_rss_bytes()}


def kmeans(source: Path) -> dict[str, Any]:
    """scikit-learn's k-means++ and our clustering of one FFN: seconds, and inertia worked out alike for both."""
    from sklearn.cluster import KMeans

    from paretone.methods.cluster import fold

    checkpoint, groups = groups_of(source)
    units = units_in(checkpoint, next(g for g in groups if g.kind == "ffn"))
    vectors, keep = torch.cat([units.incoming, units.outgoing], dim=1), int(units.width * SPARSITY)
    started = time.perf_counter()
    ours = fold(units, keep, torch.Generator().manual_seed(SEED)).members
    halfway = time.perf_counter()
    theirs = KMeans(keep, init="k-means++", n_init=1, random_state=SEED).fit(vectors.numpy()).labels_
    seconds, sklearn_s = halfway - started, time.perf_counter() - halfway
    return {
        "seconds": seconds,
        "sklearn_s": sklearn_s,
        "inertia": inertia(vectors, ours),
        "sklearn_inertia": inertia(vectors, torch.from_numpy(theirs).long()),
    }


def inertia(vectors: torch.Tensor, labels: torch.Tensor) -> float:
    """Sum of squared distances to the means of the clusters ``labels``, in float64."""
    points = vectors.double()
    sums = torch.zeros(int(labels.max()) + 1, points.shape[1], dtype=torch.float64).index_add_(0, labels, points)
    return float((points - (sums / labels.bincount().unsqueeze(1))[labels]).square().sum())


def rival(source: Path) -> dict[str, Any]:
    """Torch-Pruning's magnitude pruning of heads and FFN units; what it can't handle is listed to be ignored."""
    import torch_pruning as tp
    from transformers import AutoModelForCTC, AutoModelForSpeechSeq2Seq

    is_whisper = "whisper" in source.name
    started = time.perf_counter()
    model = (AutoModelForSpeechSeq2Seq if is_whisper else AutoModelForCTC).from_pretrained(source).eval()
    loaded = time.perf_counter()
    before = sum(p.numel() for p in model.parameters())
    example: Any = torch.randn(1, 16_000)
    if is_whisper:
        features = torch.randn(1, model.config.num_mel_bins, 2 * model.config.max_source_positions)
        example = {"input_features": features, "decoder_input_ids": torch.tensor([[1, 2, 3]])}
    pruner = tp.pruner.BasePruner(
        model,
        example,
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=SPARSITY,
        ignored_layers=_ignored(model, is_whisper),
        num_heads=_heads(model),
        prune_num_heads=True,
        prune_head_dims=False,
        head_pruning_ratio=SPARSITY,
        output_transform=lambda output: output.logits.sum(),
    )
    pruner.step()
    return {
        "load_s": loaded - started,
        "seconds": time.perf_counter() - loaded,
        "parameters_after": sum(p.numel() for p in model.parameters()) / before,
        "peak_rss_bytes": peak_rss_bytes(),
    }


def _ignored(model: Any, is_whisper: bool) -> list[Any]:
    """What must keep its size: all that writes to the residual stream, the front end and the output layer."""
    last = ("out_proj", "fc2", "output_dense", "lm_head", "proj_out", "conv", "conv1", "conv2", "embed_tokens")
    ignored = [part for name, part in model.named_modules() if name.split(".")[-1] in last]
    return ignored + ([] if is_whisper else [model.hubert.feature_extractor, model.hubert.feature_projection])


def _heads(model: Any) -> dict[Any, int]:
    """Heads of every projection that is split into them."""
    attentions = [part for _, part in model.named_modules() if hasattr(part, "q_proj")]
    return {linear: a.num_heads for a in attentions for linear in (a.q_proj, a.k_proj, a.v_proj)}


ALONE = {function.__name__: function for function in (bare, imports, kmeans, rival)}
NEEDS = {"kmeans": "scikit-learn", "rival": "torch-pruning"}


def measured(work: Path, model: str, what: str) -> dict[str, Any]:
    """One measurement in a process of its own."""
    if what in COMMANDS:
        return compressed(work, model, what)
    command = [sys.executable, __file__, str(work), "--alone", what, "--models", model]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and what in NEEDS and "ModuleNotFoundError" in done.stderr:
        return {"missing": f"{NEEDS[what]}; pip install -e '.[bench]'"}
    if done.returncode:
        raise RuntimeError(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compressed(work: Path, model: str, what: str) -> dict[str, Any]:
    """The real command line, with bare products before and after it."""
    before = measured(work, model, "bare")["seconds"]
    out = work / f"{model}-{what}"
    started = time.perf_counter()
    done = compress_once(work / model, out, *COMMANDS[what], "--sparsity", SPARSITY)
    wall_s = time.perf_counter() - started
    shutil.rmtree(out)
    floor = (before + measured(work, model, "bare")["seconds"]) / 2
    beyond = done["peak_rss_bytes"] - measured(work, model, "imports")["peak_rss_bytes"]
    return {
        "seconds": done["seconds"],
        "wall_s": wall_s,
        "bare_s": floor,
        "ratio": done["seconds"] / floor,
        "peak_rss_bytes": done["peak_rss_bytes"],
        "beyond_imports_bytes": beyond,
    }


def table(rows: Iterable[dict[str, Any]]) -> str:
    """The rows as a markdown table."""
    lines = ["| model | what | measured |", "|---|---|---|"]
    for row in rows:
        words = [f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()]
        lines.append(f"| {row['model']} | {row['what']} | {' · '.join(words[2:])} |")
    return "\n".join(lines)


def main() -> None:
    """Reads the command line."""
    every = ["bare", *COMMANDS, "imports", "kmeans", "rival"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--models", nargs="+", choices=MAKERS, default=list(MAKERS))
    parser.add_argument("--what", nargs="+", choices=every, default=every)
    parser.add_argument("--alone", choices=ALONE, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.manual_seed(SEED)
    if given.alone:
        print(json.dumps(ALONE[given.alone](given.work / given.models[0])))
        return
    rows = []
    for model in given.models:
        made(given.work, model)
        for what in given.what:
            rows.append({"model": model, "what": what, **measured(given.work, model, what)})
            print(json.dumps(rows[-1]), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
