"""Speech LLMs trained from recipes: what moves, what comes back, what an interrupt and a cache change (nothing)."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
import yaml

from paretone import api
from paretone.data import open_data, read_audio
from paretone.errors import UserError
from paretone.evaluation import evaluate
from paretone.model import load
from paretone.plan import parse_settings
from paretone.train.slam import training
from paretone.train.slam.recipe import checked_slam_recipe, read_slam_recipe
from paretone.train.slam.samples import BucketOrder

PROGRAM = str(Path(sys.executable).with_name("paretone"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slam")
    tiny.save_tiny(folder / "whisper", "whisper")
    tiny.save_tiny_lm(folder / "lm")
    for name, count, offset in (("train", 12, 0), ("dev", 3, 100)):
        tiny.save_recordings(folder, name, count, offset)
    return folder


def recipe(place: Path, **changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "encoder": {"model": str(place / "whisper"), "keep": 2},
        "language_model": {"model": str(place / "lm")},
        "projector": {"settings": {"k": 4, "hidden": 16}},
        "data": {"train": str(place / "train.jsonl")},
        "training": {"epochs": 2, "batch": 4, "learning_rate": 0.01, "seed": 3},
        "decoding": {"beams": 1, "max_new_tokens": 8},
    }
    for key, value in changes.items():
        content[key] = {**content.get(key, {}), **value} if isinstance(value, dict) else value
    return content


def trained(place: Path, out: Path, **changes: Any) -> dict[str, torch.Tensor]:
    api.train_slam(checked_slam_recipe(recipe(place, **changes), "test"), out)
    model, _ = load(out)
    return dict(model.state_dict())


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_learns_and_can_be_used(place: Path, tmp_path: Path) -> None:
    done = api.train_slam(
        checked_slam_recipe(
            recipe(
                place,
                lora={"r": 2, "alpha": 4},
                data={"dev": str(place / "dev.jsonl")},
                training={"epochs": 8, "learning_rate": 0.03},
            ),
            "test",
        ),
        tmp_path / "run",
    )
    losses = [entry["loss"] for entry in done.record["curve"] if "loss" in entry]
    assert losses[-1] < losses[0]
    assert done.record["updates"] <= 24
    parts = done.record["parts"]
    model, _ = load(tmp_path / "run")
    lora = sum(p.numel() for n, p in model.named_parameters() if "lora_" in n)
    assert parts["trainable"] == parts["projector"] + lora
    assert evaluate(tmp_path / "run", place / "dev.jsonl").wer == pytest.approx(done.record["dev_wer"])
    with pytest.raises(UserError, match="was fine-tuned on 12 of the 12 recordings"):
        evaluate(tmp_path / "run", place / "train.jsonl")
    api.merge_slam(tmp_path / "run", tmp_path / "merged")
    assert evaluate(tmp_path / "merged", place / "dev.jsonl").wer == evaluate(tmp_path / "run", place / "dev.jsonl").wer


def test_the_logged_loss_is_the_mean_over_all_labels(place: Path, tmp_path: Path) -> None:
    """Of one update on everything at once: what the fresh model itself says of these recordings."""
    how = {"projector": {"settings": {"k": 4, "hidden": 16, "dropout": 0.0}}}
    content = recipe(place, training={"epochs": 1, "batch": 12, "learning_rate": 1e-9}, **how)
    done = api.train_slam(checked_slam_recipe(content, "test"), tmp_path / "run")
    model, processor = load(tmp_path / "run")
    found = open_data(place / "train.jsonl")
    waves = [read_audio(each.audio) for each in found.utterances]
    with torch.no_grad():
        loss = float(model(**processor(waves, [each.text for each in found.utterances])).loss)
    assert done.record["curve"][0]["loss"] == pytest.approx(loss, abs=1e-3)


def test_equal_recipes_give_equal_weights_and_other_seeds_others(place: Path, tmp_path: Path) -> None:
    first = trained(place, tmp_path / "a")
    assert same(first, trained(place, tmp_path / "b"))
    assert not same(first, trained(place, tmp_path / "c", training={"seed": 4}))


def test_gradient_checkpointing_changes_nothing_but_memory(place: Path, tmp_path: Path) -> None:
    how = {"lora": {"r": 2, "alpha": 4}}
    plain = trained(place, tmp_path / "a", training={"epochs": 1}, **how)
    lean = trained(place, tmp_path / "b", training={"epochs": 1, "gradient_checkpointing": True}, **how)
    for name, tensor in plain.items():
        assert torch.allclose(tensor, lean[name], atol=1e-5), name


def test_accumulation_changes_nothing_but_rounding(place: Path, tmp_path: Path) -> None:
    """Four batches of one and one batch of four have the same mean over tokens; without dropout the same update."""
    how = {"projector": {"settings": {"k": 4, "hidden": 16, "dropout": 0.0}}}
    whole = trained(place, tmp_path / "a", training={"batch": 12, "epochs": 1}, **how)
    parts = trained(place, tmp_path / "b", training={"batch": 1, "accumulate": 12, "epochs": 1}, **how)
    for name, tensor in whole.items():
        assert torch.allclose(tensor, parts[name], atol=2e-4), name


def test_cached_features_train_as_the_encoder_does(place: Path, tmp_path: Path) -> None:
    cache = {"features": {"cache": str(tmp_path / "cache")}}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(place, **cache)))
    told = json.loads(cli("slam", "features", str(path), "--depths", "1,2,3", "--json"))
    assert told["recordings"] == told["heard"] == 12
    direct, cached = trained(place, tmp_path / "a"), trained(place, tmp_path / "b", **cache)
    for name, tensor in direct.items():
        assert torch.allclose(tensor, cached[name], atol=0.03), name  # features are bfloat16
    assert json.loads(cli("slam", "features", str(path), "--depths", "2,3", "--json"))["heard"] == 0
    shard = next(Path(told["folder"]).glob("depth-002/*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-10])  # damaged: named by its digest, made again
    assert same(cached, trained(place, tmp_path / "c", **cache))


def test_a_cache_that_would_grow_too_large_is_refused(place: Path, tmp_path: Path) -> None:
    cache = {"features": {"cache": str(tmp_path / "cache"), "gb": 1e-6}}
    with pytest.raises(UserError, match=r"features of 12 recordings at 1 depths take some .* GB"):
        trained(place, tmp_path / "a", **cache)


@pytest.mark.parametrize("way", [{"drop": [0]}, {"drop_middle": 1}, {"drop_similar": {"layers": 1, "data": ""}}])
def test_other_layers_can_go(place: Path, tmp_path: Path, way: dict[str, Any]) -> None:
    if "drop_similar" in way:
        way["drop_similar"]["data"] = str(place / "dev.jsonl")
    content = recipe(place)
    content["encoder"] = {"model": str(place / "whisper"), **way}
    content["training"]["epochs"] = 1
    api.train_slam(checked_slam_recipe(content, "test"), tmp_path / "run")
    model, _ = load(tmp_path / "run")
    kept = model.config.audio_source["layers"]
    assert len(model.audio_tower.layers) == len(kept) == 2
    if "drop" in way:
        assert kept == [1, 2]
    if "drop_middle" in way:
        assert kept == [0, 2]


def test_a_projector_can_start_from_another_run(place: Path, tmp_path: Path) -> None:
    first = trained(place, tmp_path / "nl")
    start = {"projector": {"start": str(tmp_path / "nl")}, "training": {"learning_rate": 1e-9, "epochs": 1}}
    again = trained(place, tmp_path / "da", **start)
    for name, tensor in first.items():
        assert torch.allclose(tensor, again[name], atol=1e-6), name


def test_a_killed_run_goes_on_to_the_same_weights(place: Path, tmp_path: Path) -> None:
    whole = trained(place, tmp_path / "whole", training={"epochs": 12})
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(place, training={"epochs": 12}, out=str(tmp_path / "cut"))))
    command = [PROGRAM, "slam", "train", str(path), "--checkpoint-every", "0"]
    unfinished = tmp_path / "cut.unfinished"
    for how in (signal.SIGKILL, signal.SIGTERM):
        with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as process:
            before = len(list(unfinished.glob("checkpoint-*/complete.json")))
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline:
                whole_ones = {p.parent.name for p in unfinished.glob("checkpoint-*/complete.json")}
                if whole_ones and (before == 0 or len(whole_ones) > 0):
                    break
                time.sleep(0.01)
            process.send_signal(how)
            process.wait(60)
            assert process.returncode in (-how, 130)
        assert not (tmp_path / "cut").exists()
    told = json.loads(cli("slam", "train", str(path), "--resume", "--json"))
    assert told["updates"] == 36
    model, _ = load(tmp_path / "cut")
    assert same(whole, dict(model.state_dict()))


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def cli(*words: str, code: int = 0) -> str:
    done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_bad_recipes_get_one_line(place: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    for change, said in (
        ({"encoder": {"keep": 4}}, "encoder.keep is 4"),
        ({"encoder": {"drop": [1]}}, "keep and drop exclude each other"),
        ({"lora": {"targets": ["q_prj"]}}, "did you mean 'q_proj'"),
        ({"trainig": {}}, "unknown key 'trainig'; did you mean 'training'"),
        ({"training": {"epoch": 1}}, "unknown key 'training.epoch'; did you mean 'epochs'"),
        ({"training": {"batch_s": 3}}, "batch and batch_s exclude each other"),
        ({"preset": "harmonised-sv"}, "harmonised-en, harmonised-nl, harmonised-da"),
        ({"projector": {"name": "linear"}}, "projector 'linear' is none of"),
        ({"language_model": {"model": str(place / "whisper")}}, "is no causal language model"),
        ({"training": {"patience": 2}}, "no effect without data.dev"),
        ({"training": {"learning_rate": 1e30}}, "is not a number"),
    ):
        path.write_text(yaml.safe_dump(recipe(place, **change)))
        with pytest.raises(UserError, match=said.replace("(", r"\(")):
            api.train_slam(path, tmp_path / "run")
        assert not (tmp_path / "run").exists()
    path.write_text(yaml.safe_dump(recipe(place)))
    line = cli("slam", "train", str(path), code=2)
    assert line.count("\n") == 1
    assert "give --out" in line
    assert "nothing to go on with" in cli("slam", "train", str(path), "--out", str(tmp_path / "x"), "--resume", code=2)


def test_presets_are_the_papers(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    base = {"encoder": {"model": "a"}, "language_model": {"model": "b"}, "data": {"train": "c"}}
    path.write_text(yaml.safe_dump({**base, "preset": "harmonised-da", "lora": {}}))
    read = read_slam_recipe(path, {"training.seed": 7})
    assert (read.training.batch, read.training.epochs, read.training.seed) == (4, 8, 7)
    assert read.lora is not None
    assert (read.lora.r, read.lora.alpha, read.lora.dropout) == (8, 16, 0.1)
    changed = read_slam_recipe(path, parse_settings(["lora={r: 4, alpha: 5}", "lora.targets=a,b", "encoder.keep=3"]))
    assert changed.lora is not None
    assert (changed.lora.r, changed.lora.targets, changed.encoder.keep) == (4, ("a", "b"), 3)
    path.write_text(yaml.safe_dump({**base, "preset": "harmonised-en"}))
    read = read_slam_recipe(path)
    assert (read.training.batch, read.training.epochs, read.lora, read.decoding.beams) == (8, 2, None, 2)


def test_batches_hold_so_many_seconds_and_all_recordings_once() -> None:
    lengths = [0.3, 1.2, 5.5, 0.9, 2.0, 2.1, 7.7, 0.1, 3.0]
    order = BucketOrder(lengths, 0, batch=None, batch_s=8)
    first, second = list(order), None
    order.epoch = 1
    second = list(order)
    assert sorted(i for each in first for i in each) == list(range(9))
    assert first != second
    assert len(first) == len(second) == len(order)
    for each in first:
        assert len(each) == 1 or len(each) * max(-(-lengths[i] // 1) for i in each) <= 8


def test_two_processes_train_as_one_does(place: Path, tmp_path: Path) -> None:
    """Two batches of two at once are one update of two batches of two."""
    how = {"projector": {"settings": {"k": 4, "hidden": 16, "dropout": 0.0}}, "data": {"dev": str(place / "dev.jsonl")}}
    one = trained(place, tmp_path / "one", training={"batch": 2, "accumulate": 2}, **how)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(place, training={"batch": 2}, out=str(tmp_path / "two"), **how)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", PROGRAM]
    done = subprocess.run(
        [*command, "slam", "train", str(path)],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(" updates in ") == 1
    two, _ = load(tmp_path / "two")
    for name, tensor in two.state_dict().items():
        assert torch.allclose(tensor, one[name], atol=1e-4), name
    assert not (tmp_path / "two.unfinished").exists()
    record = json.loads((tmp_path / "two" / "training.json").read_text())
    assert (record["updates"], record["processes"]) == (6, 2)
    assert record["dev_wer"] == json.loads((tmp_path / "one" / "training.json").read_text())["dev_wer"]


@pytest.mark.parametrize("family", ["whisper", "hubert"])
def test_a_pruned_encoder_can_learn_from_the_whole_one(place: Path, tmp_path: Path, family: str) -> None:
    if not (place / family).exists():
        tiny.save_tiny(place / family, family)
    content = recipe(place, data={"dev": str(place / "dev.jsonl")})
    content["encoder"] = {"model": str(place / family), "keep": 2, "distil": {"epochs": 1, "learning_rate": 1e-3}}
    first = api.train_slam(checked_slam_recipe(content, "test"), tmp_path / "short")
    content["encoder"]["distil"]["epochs"] = 12
    done = api.train_slam(checked_slam_recipe(content, "test"), tmp_path / "run")
    assert done.record["distilled_mse"] < 0.8 * first.record["distilled_mse"]
    model, _ = load(tmp_path / "run")
    assert model.config.audio_source is None
    assert evaluate(tmp_path / "run", place / "dev.jsonl").wer == pytest.approx(done.record["dev_wer"])
    api.merge_slam(tmp_path / "run", tmp_path / "merged")
    assert same(dict(model.audio_tower.state_dict()), dict(load(tmp_path / "merged")[0].audio_tower.state_dict()))
    assert same(dict(model.state_dict()), trained_again(content, tmp_path / "again"))


def test_an_encoder_stored_in_bfloat16_learns_in_float32(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where frozen parts stay as they are stored."""
    assembled = training._assembled
    monkeypatch.setattr(training, "_assembled", lambda recipe, device: assembled(recipe, "cuda"))
    content = recipe(place, training={"precision": "fp32"})
    half = tiny.save_tiny(tmp_path / "half", "whisper", dtype=torch.bfloat16)
    content["encoder"] = {"model": str(half), "keep": 2, "distil": {"epochs": 1, "learning_rate": 1e-3}}
    api.train_slam(checked_slam_recipe(content, "test"), tmp_path / "run")
    model, _ = load(tmp_path / "run")
    assert model.audio_tower.dtype == torch.float32
    assert not torch.equal(model.audio_tower.conv1.weight, model.audio_tower.conv1.weight.bfloat16().float())


def trained_again(content: dict[str, Any], out: Path) -> dict[str, torch.Tensor]:
    api.train_slam(checked_slam_recipe(content, "test"), out)
    return dict(load(out)[0].state_dict())
