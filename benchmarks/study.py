"""Studies: what running them adds to their own work, and what fifty kills change (nothing).

    python benchmarks/study.py trivial WORK --cells 1000    cells of a tiny model and one recording, on two workers
    python benchmarks/study.py status WORK --cells 10000    ``paretone study status`` on a store of so many cells
    python benchmarks/study.py faults WORK --kills 50       drivers and workers killed at random moments
    python benchmarks/study.py sharing WORK                 mini trainings as a study, and one after another
    python benchmarks/study.py nodes WORK --store STORE     a mini study, or a part, on two nodes, beside STORE's

The last two run from the folder that holds mini-corpus (see studies/mini-slam-encoder-depth.yaml).

The last line printed is one JSON object. Every number is of this machine, with whatever else it does.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from slam_parts import RATE_HZ, noise

PROGRAM = [sys.executable, "-m", "paretone"]
STUDIES = Path(__file__).resolve().parents[1] / "studies"
STUDY = STUDIES / "mini-slam-encoder-depth.yaml"
PARTS = {  # of studies, for two nodes
    "depth": (STUDY, ["data=da", "layers=7", "layers=2", "seed=0"]),
    "clustering": (STUDIES / "mini-clustering.yaml", ["finetune=no"]),
}
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def study_words(file: Path, store: Path, *more: str) -> list[str]:
    """The command that runs a study."""
    return [*PROGRAM, "study", "run", str(file), "--store", str(store), "--json", *more]


def write_study(folder: Path, content: Mapping[str, Any]) -> Path:
    """Its file."""
    file = folder / f"{content['name']}.yaml"
    file.write_text(yaml.safe_dump(dict(content), sort_keys=False), encoding="utf-8")
    return file


def write_data(folder: Path, name: str, seconds: list[float]) -> Path:
    """Noise, of which invented words are said."""
    import soundfile

    lines = []
    for number, length in enumerate(seconds):
        soundfile.write(folder / f"{name}-{number}.flac", noise(length, number), RATE_HZ)
        said = " ".join(["en", "to", "tre", "fire", "fem"][: 1 + number % 5])
        lines.append(json.dumps({"audio": f"{name}-{number}.flac", "text": said, "language": "da"}))
    (folder / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder / f"{name}.jsonl"


def tiny_parts(folder: Path) -> tuple[Path, Path]:
    """A random Whisper and a random language model: those of the tests."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import tiny

    return tiny.save_tiny(folder / "whisper", "whisper"), tiny.save_tiny_lm(folder / "lm")


def trivial(given: argparse.Namespace) -> dict[str, Any]:
    """Wall time of many cells that do next to nothing, and what of it is not their own work."""
    whisper, _ = tiny_parts(given.work)
    data = write_data(given.work, "one", [0.5])
    content = {
        "name": "trivial",
        "base": {"model": str(whisper), "evaluate": {"data": str(data)}},
        "repetitions": given.cells + given.workers,
    }
    file, store = write_study(given.work, content), given.work / "store"
    few = write_study(given.work, content | {"name": "warm", "repetitions": given.workers})
    run(study_words(few, store))  # so that no first import of the machine is timed
    warm = set((store / "evaluate").glob("*/seal.json"))
    started = time.monotonic()
    told = run(study_words(file, store, "--workers", str(given.workers)))
    wall_s = time.monotonic() - started
    seals = [json.loads(path.read_text()) for path in set((store / "evaluate").glob("*/seal.json")) - warm]
    own_s = sum(seal["seconds"] for seal in seals)
    overhead_s = (told["seconds"] * given.workers - own_s) / given.cells
    return {
        "cells": told["stages_run"],
        "wall_s": round(wall_s, 1),
        "running_s": told["seconds"],
        "own_s": round(own_s, 1),
        "overhead_per_cell_s": round(overhead_s, 3),
    }


def run(words: list[str]) -> Any:
    """The JSON that a command prints."""
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def status(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of telling where a study of many cells stands, whole process."""
    from paretone.study.store import SEAL_FILE, Store

    store = Store(given.work / "store").open()
    places = [f"evaluate/{number:020x}" for number in range(given.cells)]
    for place in places[: given.cells // 2]:
        folder = store.folder(place)
        folder.mkdir(parents=True)
        (folder / SEAL_FILE).write_text('{"files": {}, "seconds": 1.0}')
    cells = [[[str(number)], [place, f"train/{number:020x}"]] for number, place in enumerate(places)]
    axes = {"number": [str(number) for number in range(given.cells)]}
    store.register("many", {"about": "", "axes": axes, "reference": {}, "cells": cells, "plain": [], "file": ""})
    words = [*PROGRAM, "study", "status", "many", "--store", str(store.root)]
    took = []
    for _ in range(5):
        started = time.monotonic()
        subprocess.run(words, env=ENVIRONMENT, check=True, capture_output=True)
        took.append(round(time.monotonic() - started, 2))
    return {"cells": given.cells, "seconds": took}


def small_depth(work: Path) -> dict[str, Any]:
    """Depth by LoRA by seed of a tiny speech LLM."""
    whisper, lm = tiny_parts(work)
    train, test = write_data(work, "train", [0.4 + 0.1 * i for i in range(12)]), write_data(work, "test", [0.5, 0.9])
    return {
        "name": "faults",
        "base": {
            "slam": {
                "encoder": {"model": str(whisper)},
                "language_model": {"model": str(lm)},
                "projector": {"settings": {"k": 4, "hidden": 16}},
                "data": {"train": str(train)},
                "training": {"epochs": 4, "batch": 4, "learning_rate": 0.01},
                "decoding": {"beams": 1, "max_new_tokens": 6},
            },
            "evaluate": {"data": str(test)},
        },
        "axes": {
            "layers": {"key": "slam.encoder.keep", "values": [2, 1]},
            "lora": {"no": {}, "yes": {"slam.lora": {"r": 2, "alpha": 4}}},
        },
        "seeds": list(range(12)),
        "retries": 3,
    }


def found_in(store: Path) -> dict[str, Any]:
    """What each cell found, without times, dates and paths."""
    kept = ("wer", "cer", "substitutions", "deletions", "insertions", "words", "parameters", "macs")
    found = {}
    for file in sorted((store / "evaluate").glob("*/result.json")):
        told = json.loads(file.read_text())
        heard = (file.parent / "transcripts.jsonl").read_text()
        found[file.parent.name] = [*(told[key] for key in kept), heard]
    return found


def weights_in(store: Path) -> dict[str, dict[str, str]]:
    """Digests of what each training wrote; a model's own digest covers the paths of its parts, too."""
    seals = {file.parent.name: json.loads(file.read_text()) for file in (store / "train").glob("*/seal.json")}
    return {
        name: {file: digest for file, digest in seal["files"].items() if file.endswith(".safetensors")}
        for name, seal in seals.items()
    }


def differing(here: Mapping[str, Any], there: Mapping[str, Any]) -> int:
    """How many of what both have are not the same."""
    return sum(here[name] != there[name] for name in here.keys() & there.keys())


def faults(given: argparse.Namespace) -> dict[str, Any]:
    """Kills processes at random moments, starts again, and compares with a run that nothing disturbed."""
    file = write_study(given.work, small_depth(given.work))
    calm, store = given.work / "calm", given.work / "store"
    run(study_words(file, calm))
    rng, kills = random.Random(given.seed), {"worker": 0, "driver": 0}
    starts = 0
    while True:
        driver = subprocess.Popen(
            study_words(file, store), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        starts += 1
        while driver.poll() is None:
            time.sleep(rng.uniform(0.05, 1.5))
            if sum(kills.values()) < given.kills:
                kill_one(driver, store, rng, kills)
        if driver.returncode == 0:
            break
        if driver.returncode != -signal.SIGKILL:
            print(driver.stderr.read() if driver.stderr else "", file=sys.stderr)
    whole = run(study_words(file, store))
    before, after = found_in(calm), found_in(store)
    return {
        "kills": kills,
        "driver_starts": starts,
        "cells": whole["cells"],
        "done": whole["done"],
        "lost": len(before.keys() - after.keys()),
        "more_than_once": len(after) - whole["done"],
        "different": differing(before, after),
        "different_weights": differing(weights_in(calm), weights_in(store)),
        "damaged": len(whole["damaged"]),
        "left_in_scratch": len(list((store / "scratch").glob("*"))),
    }


def kill_one(driver: Any, store: Path, rng: random.Random, kills: dict[str, int]) -> None:
    """A worker at its stage, or now and then the driver."""
    if rng.random() < 0.03:
        driver.kill()
        driver.wait()
        kills["driver"] += 1
        return
    from paretone.study.store import Store

    for who in Store(store).claims().values():
        try:
            os.kill(who["pid"], signal.SIGKILL)
        except ProcessLookupError:
            continue
        kills["worker"] += 1
        return


def sharing(given: argparse.Namespace) -> dict[str, Any]:
    """Mini trainings at several depths as a study, and one after another in processes of their own on all cores."""
    content = yaml.safe_load(STUDY.read_text())
    content |= {"name": "sharing", "seeds": [0], "include": [], "datasets": {"da": content["datasets"]["da"]}}
    del content["axes"]["width"], content["reference"]["width"]
    content["axes"]["layers"]["values"] = content["axes"]["layers"]["values"][: given.depths]
    content["budget"] = {"cpus": 1}
    alone = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    file = write_study(Path.cwd(), content)
    started = time.monotonic()
    told = run(study_words(file, given.work / "store", "--workers", str(given.workers)))
    together_s = time.monotonic() - started
    started = time.monotonic()
    from paretone.study.layout import lay_out
    from paretone.study.schema import read_study

    for number, laid in enumerate(lay_out(read_study(file)).cells):
        recipe, out = given.work / f"{number}.yaml", given.work / f"run-{number}"
        recipe.write_text(json.dumps(laid.cell.content["slam"]))
        test = laid.cell.content["evaluate"]["data"]
        subprocess.run([*PROGRAM, "slam", "train", str(recipe), "--out", str(out)], env=alone, check=True)
        words = ["evaluate", str(out), "--data", test, "--baseline", "mini-whisper", "--out", f"{out}-result"]
        subprocess.run([*PROGRAM, *words], env=alone, check=True, stdout=subprocess.DEVNULL)
    alone_s = time.monotonic() - started
    return {
        "cells": told["done"],
        "study_s": round(together_s, 1),
        "alone_s": round(alone_s, 1),
        "times": round(alone_s / together_s, 2),
    }


def nodes(given: argparse.Namespace) -> dict[str, Any]:
    """A part of a mini study on a Ray of two nodes; what differs in ``--store``."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=1)
    study, labels = PARTS[given.part]
    only = [word for label in labels for word in ("--only", label)]
    try:
        told = run(study_words(study, given.work / "store", "--address", cluster.address, *only))
    finally:
        cluster.shutdown()
    here, there = found_in(given.work / "store"), found_in(given.store)
    weights = weights_in(given.work / "store")
    workers = {json.loads(seal.read_text())["pid"] for seal in (given.work / "store").glob("*/*/seal.json")}
    return {
        "cells": told["done"],
        "seconds": told["seconds"],
        "workers": len(workers),
        "missing": len(here.keys() - there.keys()),
        "different": differing(here, there),
        "trainings": len(weights),
        "different_weights": differing(weights, weights_in(given.store)),
    }


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for measure in (trivial, status, faults, sharing, nodes):
        command = commands.add_parser(measure.__name__, help=(measure.__doc__ or "").split("\n")[0])
        command.set_defaults(measure=measure)
        command.add_argument("work", type=Path, help="an empty folder")
        command.add_argument("--cells", type=int, default=1000 if measure is trivial else 10_000)
        command.add_argument("--workers", type=int, default=2)
        command.add_argument("--kills", type=int, default=50)
        command.add_argument("--depths", type=int, default=8)
        command.add_argument("--seed", type=int, default=0)
        command.add_argument("--part", choices=PARTS, default="depth", help="of nodes")
        command.add_argument("--store", type=Path, help="of nodes: where the mini study has run")
    given = parser.parse_args()
    shutil.rmtree(given.work, ignore_errors=True)
    given.work.mkdir(parents=True)
    given.work = given.work.resolve()
    print(json.dumps(given.measure(given)))


if __name__ == "__main__":
    main()
