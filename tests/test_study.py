"""Studies: from a file to cells, through stages that are shared, to Results that survive whatever happens."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml

import paretone
from paretone.errors import UserError
from paretone.study.engines import InProcess, OnRay
from paretone.study.export import COLUMNS, export
from paretone.study.grid import cells_of
from paretone.study.layout import Layout, lay_out
from paretone.study.overview import register, state_of
from paretone.study.running import Driver, Ran
from paretone.study.schema import Budget, StudyFile, read_study
from paretone.study.showing import unneeded, without_study
from paretone.study.stages import analyse as analyse_stage
from paretone.study.stages import evaluate as evaluate_stage
from paretone.study.store import STORE_FILE, Store
from paretone.study.work import Task, carry_out

PROGRAM = str(Path(sys.executable).with_name("paretone"))
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    tiny.save_tiny(folder / "whisper", "whisper")
    tiny.save_tiny(folder / "hubert", "hubert")
    tiny.save_tiny_lm(folder / "lm")
    for name, count, offset in (("train", 8, 0), ("test", 3, 100)):
        tiny.save_recordings(folder, name, count, offset)
    return folder


def compressing(place: Path, **changes: Any) -> dict[str, Any]:
    """Two methods by two sizes of a model that recognises nothing: four cells of little work."""
    content = {
        "name": "small",
        "base": {"model": str(place / "hubert"), "evaluate": {"data": str(place / "test.jsonl")}},
        "axes": {
            "method": {"cluster": {"compress.method": "cluster"}, "magnitude": {"compress.method": "magnitude"}},
            "sparsity": {"key": "compress.sparsity", "values": [0.25, 0.5]},
        },
    }
    return content | changes


def training(place: Path, **changes: Any) -> dict[str, Any]:
    """Depth by LoRA by seed of a speech LLM: eight trainings of four updates."""
    content = {
        "name": "depth",
        "base": {
            "slam": {
                "encoder": {"model": str(place / "whisper")},
                "language_model": {"model": str(place / "lm")},
                "projector": {"settings": {"k": 4, "hidden": 16}},
                "data": {"train": str(place / "train.jsonl")},
                "training": {"epochs": 2, "batch": 4, "learning_rate": 0.01},
                "decoding": {"beams": 1, "max_new_tokens": 6},
            },
            "evaluate": {"data": str(place / "test.jsonl")},
        },
        "axes": {
            "layers": {"key": "slam.encoder.keep", "values": [2, 1]},
            "lora": {"no": {}, "yes": {"slam.lora": {"r": 2, "alpha": 4}}},
        },
        "seeds": [0, 1],
        "reference": {"layers": 2, "lora": "no"},
        "plain": [str(place / "whisper")],
    }
    return content | changes


def written(folder: Path, content: Mapping[str, Any]) -> Path:
    file = folder / f"{content['name']}.yaml"
    file.write_text(yaml.safe_dump(dict(content), sort_keys=False))
    return file


def laid(folder: Path, content: Mapping[str, Any]) -> Layout:
    return lay_out(read_study(written(folder, content)))


def run_here(layout: Layout, store: Store, says: list[str] | None = None, engine: Any = None) -> Ran:
    store.open()
    register(layout, store, file="study.yaml")
    say: Callable[[str], None] = (says if says is not None else []).append
    return Driver(layout, store, engine or InProcess(), say=say, tell=lambda ran: None).run()


def numbers(store: Store) -> dict[str, tuple[Any, ...]]:
    """What every cell found, without what differs from run to run: times, memory, dates."""
    found = {}
    for file in sorted((store.root / "evaluate").glob("*/result.json")):
        told = json.loads(file.read_text())
        heard = (file.parent / "transcripts.jsonl").read_text()
        kept = ("wer", "cer", "substitutions", "deletions", "insertions", "words", "parameters", "macs")
        found[file.parent.name] = (*(told[key] for key in kept), told["model"]["digest"], heard)
    return found


@pytest.fixture(scope="module")
def calm(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The depth study, run to its end with nothing in its way."""
    folder = tmp_path_factory.mktemp("calm")
    store = Store(folder / "store")
    run_here(laid(folder, training(place)), store)
    return store


def same_as_calm(store: Store, calm: Store) -> bool:
    """Whether a store of its cells of seed 0, and the plain model, has the same numbers."""
    found, expected = numbers(store), numbers(calm)
    return len(found) == 5 and all(expected[cell] == told for cell, told in found.items())


# --- from the file to the cells ---------------------------------------------------------------------------------------


def test_every_combination_is_a_cell_that_rules_take_away_and_includes_add(place: Path) -> None:
    content = training(
        place,
        exclude=[{"layers": 1, "lora": "yes"}],
        include=[{"layers": 2, "lora": "rank 4", "slam.lora": {"r": 4, "alpha": 8}}],
    )
    cells = cells_of(StudyFile.model_validate(content))
    assert [cell.name for cell in cells] == [
        "layers=2 lora=no seed=0",
        "layers=2 lora=no seed=1",
        "layers=2 lora=yes seed=0",
        "layers=2 lora=yes seed=1",
        "layers=1 lora=no seed=0",
        "layers=1 lora=no seed=1",
        "layers=2 lora=rank 4 seed=0",
        "layers=2 lora=rank 4 seed=1",
    ]
    assert cells[-1].content["slam"]["lora"] == {"r": 4, "alpha": 8}
    assert cells[-1].content["slam"]["training"]["seed"] == 1
    assert "lora" not in cells[0].content["slam"]


def test_an_include_may_name_an_axis_that_is_called_like_a_section(place: Path) -> None:
    axes = {"sparsity": {"key": "compress.sparsity", "values": [0.5]}, "finetune": {"no": {}, "yes": {"finetune": {}}}}
    include = [{"sparsity": 0, "finetune": "no", "compress": None}]
    cells = cells_of(StudyFile.model_validate(compressing(place, axes=axes, include=include)))
    assert cells[-1].labels == {"sparsity": "0", "finetune": "no"}
    assert cells[-1].content["compress"] is None


def test_datasets_and_repetitions_are_axes(place: Path) -> None:
    content = compressing(place, datasets={"all": {}, "two": {"evaluate.limit": 2}}, repetitions=2)
    cells = cells_of(StudyFile.model_validate(content))
    assert len(cells) == 16
    assert cells[0].labels == {"data": "all", "method": "cluster", "sparsity": "0.25", "repetition": "1"}
    assert cells[-1].content["evaluate"] == {"data": str(place / "test.jsonl"), "limit": 2, "repetition": 2}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exclude": [{"layer": 1}]}, "exclude rule 1: unknown axis 'layer'; did you mean 'layers'?"),
        ({"exclude": [{"layers": 3}]}, "axis layers has no label '3'; labels: 2, 1"),
        ({"exclude": [{"layers": [1, 2]}]}, "the exclude rules leave no cell of 8"),
        ({"exclude": [{"layers": 1}, {"layers": 1, "seed": 0}]}, None),
        ({"reference": {"lora": "maybe"}}, "reference: axis lora has no label 'maybe'"),
        ({"axes": {"layers": {"key": "slam.encoder.keep", "values": []}}}, "axes.layers: give labels"),
        ({"axes": {"layers": {"key": "slam.encoder.keep", "values": [30]}}}, "layers, so give 1 to"),
        ({"axes": {"layers": {"key": "slam.encoder.kept", "values": [1]}}}, "did you mean 'keep'?"),
        ({"axes": {"layers": {"key": "slm.encoder.keep", "values": [1]}}}, "did you mean 'slam'?"),
        ({"axes": {"seed": {"key": "slam.training.seed", "values": [1]}}}, "has a key of its own: seeds"),
        ({"axes": {"a": {"x": {}, "y": {}}}}, "are the same: a makes no difference there"),
        ({"bugdet": {}}, "did you mean 'budget'?"),
        ({"budget": {"cpus": 0}}, "budget.cpus"),
        ({"base": {"evaluate": {"data": "test.jsonl"}}, "axes": {}}, "model is missing"),
        ({"base": {"model": "digits-hubert", "compress": "no", "evaluate": {}}, "axes": {}}, "compress: give its keys"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(
    place: Path, tmp_path: Path, changes: dict[str, Any], message: str | None
) -> None:
    content = training(place, **changes)
    if message is None:  # a later rule may cover what an earlier one did
        assert len(laid(tmp_path, content).cells) == 4
        return
    if "axes" in changes:
        content["reference"] = {}
    with pytest.raises(UserError) as refused:
        laid(tmp_path, content)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_part_is_what_labels_say(place: Path, tmp_path: Path) -> None:
    gone = {"gone": {"evaluate.data": "gone.jsonl"}, "here": {}}
    layout = laid(tmp_path, training(place, datasets=gone, include=[{"layers": 2, "lora": "rank 4", "slam.lora.r": 4}]))
    part = layout.part({"lora": ["rank 4", "yes"], "data": ["here"], "layers": ["2"]})
    assert {laid.cell.labels["lora"] for laid in part.cells} == {"rank 4", "yes"}
    assert {laid.digest for laid in part.cells} < {laid.digest for laid in layout.cells}
    assert len(part.cells) == 4
    assert part.plain == {}
    assert layout.missing
    assert part.missing == {}
    with pytest.raises(UserError, match="--only: unknown axis 'layer'; did you mean 'layers'"):
        layout.part({"layer": ["2"]})
    with pytest.raises(UserError, match="axis lora has no label 'maybe'; labels: no, yes, rank 4"):
        layout.part({"lora": ["maybe"]})
    with pytest.raises(UserError, match="no cell has all of"):
        layout.part({"lora": ["rank 4"], "layers": ["1"]})


def test_seeds_that_decide_nothing_make_no_cells(place: Path, tmp_path: Path) -> None:
    layout = laid(tmp_path, compressing(place, seeds=[0, 1]))
    assert len(layout.cells) == 4
    assert len(layout.dropped) == 4


def test_equal_work_is_one_stage_whatever_the_names_and_paths(place: Path, tmp_path: Path) -> None:
    one = laid(tmp_path, training(place))
    kinds = [stage.kind for stage in one.stages()]
    assert {kind: kinds.count(kind) for kind in kinds} == {"features": 1, "train": 8, "evaluate": 9}
    moved = tmp_path / "elsewhere"
    moved.symlink_to(place)
    other = laid(tmp_path, training(moved, name="other", axes={"lora": {"no": {}}}, reference={}, retries=3))
    assert {cell.digest for cell in other.cells} <= {cell.digest for cell in one.cells} | {
        cell.digest for cell in other.cells
    }
    again = laid(tmp_path, training(moved))
    assert [cell.digest for cell in again.cells] == [cell.digest for cell in one.cells]


# --- running ----------------------------------------------------------------------------------------------------------


def test_only_what_is_missing_or_changed_runs(place: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    assert len(run_here(laid(tmp_path, compressing(place)), store).done) == 8
    assert run_here(laid(tmp_path, compressing(place)), store).done == []
    axes = compressing(place)["axes"] | {"sparsity": {"key": "compress.sparsity", "values": [0.25, 0.6]}}
    changed = run_here(laid(tmp_path, compressing(place, axes=axes)), store)
    assert sorted(stage.kind for stage in changed.done) == ["compress", "compress", "evaluate", "evaluate"]
    assert len(unneeded(store)) == 4  # those of 0.5
    shared = run_here(laid(tmp_path, compressing(place, name="second", axes=axes)), store)
    assert shared.done == []
    assert without_study(store, "second") == []  # the first still needs them


def test_a_depth_study_hears_once_trains_all_and_is_the_same_again(place: Path, tmp_path: Path, calm: Store) -> None:
    assert len(list((calm.root / "train").iterdir())) == 8
    assert len(numbers(calm)) == 9
    assert state_of(calm, "depth").counts == {"done": 8}
    store = Store(tmp_path / "store")
    run_here(laid(tmp_path, training(place, seeds=[0])), store)
    assert same_as_calm(store, calm)
    rows = export(calm, "depth", tmp_path / "tables")
    assert rows == {"results": 8, "transcripts": 24}
    header, first, *_ = (tmp_path / "tables" / "results.csv").read_text().splitlines()
    assert header.replace('"', "").split(",") == ["layers", "lora", "seed", *COLUMNS]
    assert first.startswith('"2","no","0"')


def test_axes_called_like_a_column_keep_their_labels(place: Path, tmp_path: Path) -> None:
    axes = {"parameters": {"key": "compress.sparsity", "values": [0.5]}}
    store, content = Store(tmp_path / "store"), compressing(place, axes=axes)
    run_here(laid(tmp_path, content), store)
    export(store, "small", tmp_path / "tables")
    header, first = (tmp_path / "tables" / "results.csv").read_text().splitlines()
    assert header.replace('"', "").split(",") == ["axis_parameters", *COLUMNS]
    assert first.startswith('"0.5",')


@pytest.mark.parametrize("is_broken", [False, True])
def test_what_is_known_of_a_source_is_shared_and_changes_no_byte(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_broken: bool
) -> None:
    axes = {
        "way": {"closed form": {"compress.method": "closed_form"}, "best": {"compress.preset": "best"}},
        "sparsity": {"key": "compress.sparsity", "values": [0.25, 0.5]},
    }
    store, layout = Store(tmp_path / "store"), laid(tmp_path, compressing(place, axes=axes))
    assert [stage.kind for stage in layout.stages()].count("analyse") == 1
    with monkeypatch.context() as patched:
        if is_broken:
            patched.setattr(analyse_stage, "run", lambda given, inputs, out: 1 / 0)  # the rest does without
        else:  # nobody else may ask
            patched.setattr(
                import_module("paretone.plan.resolve"), "analyses_of", lambda *_: pytest.fail("known already")
            )
        ran = run_here(layout, store)
    assert len(ran.failed) == is_broken
    assert_cells_are_as_alone(place, tmp_path, layout, store)


def test_trees_are_grown_once_for_all_sizes_and_change_no_byte(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = {
        "way": {
            "sum": {"compress.settings": {"outgoing": "sum"}},
            "mean": {"compress.settings": {"outgoing": "mean"}},
            "tiers": {"compress.allocation": "variance-tiers"},
        },
        "sparsity": {"key": "compress.sparsity", "values": [0.25, 0.5]},
    }
    content = compressing(place, axes=axes)
    content["base"]["compress"] = {"method": "cluster"}
    store, layout = Store(tmp_path / "store"), laid(tmp_path, content)
    assert [stage.kind for stage in layout.stages()].count("analyse") == 1
    elsewhere = axes | {
        "way": {way: {"compress.settings": {"start": "kmeans++", "outgoing": way}} for way in ("sum", "mean")}
    }
    other = laid(tmp_path, content | {"name": "other", "axes": elsewhere})
    assert not any(stage.kind == "analyse" for stage in other.stages())  # k-means++ begins without a tree
    cluster = import_module("paretone.methods.cluster")
    grown = []
    with monkeypatch.context() as patched:
        patched.setattr(cluster, "ward_tree", lambda gram, grow=cluster.ward_tree: grown.append(1) or grow(gram))
        assert not run_here(layout, store).failed
    assert len(grown) == 2 * 3  # attentions and FFNs of three layers
    assert_cells_are_as_alone(place, tmp_path, layout, store)


def assert_cells_are_as_alone(place: Path, tmp_path: Path, layout: Layout, store: Store) -> None:
    assert state_of(store, "small").counts == {"done": len(layout.cells)}
    for cell in layout.cells:
        alone = tmp_path / cell.digest
        paretone.compress(place / "hubert", alone, **cell.cell.content["compress"])
        made = store.folder(cell.stage.inputs["model"].place)
        assert (made / "model.safetensors").read_bytes() == (alone / "model.safetensors").read_bytes()


def test_models_go_where_only_results_are_kept(place: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    layout = laid(tmp_path, compressing(place, keep="results"))
    run_here(layout, store)
    assert len(numbers(store)) == 4
    assert not any((store.root / "compress").iterdir())
    assert run_here(layout, store).done == []
    first = layout.cells[0]
    store.remove(first.stage.place)
    with store.claim(first.stage.place):
        state = state_of(store, "small")
    assert state.running[first.stage.place]["for"] == "method=cluster sparsity=0.25"
    assert state.left == {"compress": 1, "evaluate": 1}
    assert state.eta_s() == sum(state.seconds_each[kind] for kind in state.left)  # compress, too, though all are gone


def test_what_a_kill_left_behind_is_swept_and_what_can_go_on_stays(place: Path, tmp_path: Path) -> None:
    store, layout = Store(tmp_path / "store"), laid(tmp_path, compressing(place))
    run_here(layout, store)
    done, undone, gone = store.scratch(layout.cells[0].stage.place), store.scratch("train/12345"), ".gone-67-8"
    for folder in (done, undone, done.parent / gone):
        folder.mkdir(parents=True)
    locks = store.root / "locks"
    (locks / done.name).write_text("{}")
    with store.claim("train/98765"):
        run_here(layout, store)
        assert [file.name for file in locks.iterdir()] == ["98765"]
    assert list(done.parent.iterdir()) == [undone]


@pytest.mark.parametrize("harm", ["edited", "cut", "seal", "gone"])
def test_damaged_results_are_named_and_made_again(place: Path, tmp_path: Path, harm: str) -> None:
    store = Store(tmp_path / "store")
    layout = laid(tmp_path, compressing(place))
    run_here(layout, store)
    before, folder = numbers(store), store.folder(layout.cells[1].stage.place)
    file = folder / ("seal.json" if harm == "seal" else "result.json")
    if harm == "gone":
        file.unlink()
    elif harm == "edited":
        file.write_text(file.read_text().replace('"wer": ', '"wer": 0'))
    else:
        file.write_bytes(file.read_bytes()[:100])
    says: list[str] = []
    ran = run_here(layout, store, says)
    assert [stage.place for stage in ran.done] == [layout.cells[1].stage.place]
    assert file.name in says[0]
    assert layout.cells[1].stage.place in says[0]
    assert numbers(store) == before


def test_a_damaged_feature_file_is_computed_again(place: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    run_here(laid(tmp_path, training(place, seeds=[0])), store)
    shard = next((store.root / "features").rglob("*.safetensors"))
    before = shard.read_bytes()
    shard.write_bytes(before[:-50])
    run_here(laid(tmp_path, training(place, seeds=[5])), store)
    assert next((store.root / "features").rglob("*.safetensors")).read_bytes() == before
    assert state_of(store, "depth").counts == {"done": 4}


def test_a_failure_is_noted_tried_again_and_stops_no_other(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, layout = Store(tmp_path / "store"), laid(tmp_path, compressing(place))
    broken, tries = layout.cells[0].stage.inputs["model"], []
    sound = evaluate_stage.run

    def fails(given: Any, inputs: Any, out: Path) -> None:
        if inputs["model"].name == broken.digest:
            tries.append(1)
            raise ZeroDivisionError("no luck")
        sound(given, inputs, out)

    monkeypatch.setattr(evaluate_stage, "run", fails)
    ran = run_here(layout, store)
    assert len(tries) == 2  # retries is 1
    assert list(ran.failed.values()) == ["ZeroDivisionError: no luck"]
    assert state_of(store, "small").counts == {"done": 3, "failed": 1}
    noted = store.failures()[layout.cells[0].stage.place]
    assert "no luck" in noted["traceback"]
    assert noted["attempts"] == 2
    monkeypatch.undo()
    assert len(run_here(layout, store).done) == 1
    assert state_of(store, "small").counts == {"done": 4}
    assert store.failures() == {}


@pytest.mark.parametrize(
    ("budget", "reason"),
    [({"minutes": 0.01}, "more than its 0.01 minutes"), ({"memory_gb": 0.05}, "more than its 0.05 GB of memory")],
)
def test_a_stage_beyond_its_budget_fails_with_that_reason(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, budget: dict[str, float], reason: str
) -> None:
    def endless(given: Any, inputs: Any, out: Path) -> None:
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(evaluate_stage, "run", endless)
    store = Store(tmp_path / "store")
    layout = laid(tmp_path, compressing(place, budget=budget, axes={}))
    ran = run_here(layout, store)
    assert reason in next(iter(ran.failed.values()))


def test_a_full_disk_stops_the_study_clearly(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Store, place: str, made: Path, facts: Any) -> None:
        raise OSError(28, "No space left on device")

    store, layout = Store(tmp_path / "store"), laid(tmp_path, compressing(place))
    monkeypatch.setattr(Store, "put", full)
    with pytest.raises(UserError, match="the disk is full; free space, then give the same command"):
        run_here(layout, store)
    monkeypatch.undo()
    assert len(run_here(layout, store).done) == 8


def test_stores_of_another_kind_or_version_are_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="is no store and not empty"):
        Store(tmp_path / "full").open()
    store = Store(tmp_path / "store").open()
    (store.root / STORE_FILE).write_text('{"format": 7, "paretone": "9.1"}')
    with pytest.raises(UserError, match=r"has format 7, of paretone 9\.1"):
        store.open()
    (store.root / STORE_FILE).write_text("{")
    with pytest.raises(UserError, match="damaged"):
        store.open()


def test_cells_that_can_never_fit_are_refused() -> None:
    with pytest.raises(UserError, match="a cell takes 4096 CPUs"):
        InProcess().check(Budget(cpus=4096))
    with pytest.raises(UserError, match="no machine has that"):
        InProcess().check(Budget(memory_gb=1e6))


# --- on Ray -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ray_engine() -> Iterator[OnRay]:
    engine = OnRay(address=None, workers=1, budget=Budget())
    yield engine
    engine.close()


def worker_of(store: Store, deadline_s: float = 60) -> int | None:
    """The process that is at a stage now."""
    until = time.monotonic() + deadline_s
    while time.monotonic() < until:
        for who in store.claims().values():
            return int(who["pid"])
        time.sleep(0.01)
    return None


def test_workers_that_are_killed_are_replaced_and_change_nothing(
    place: Path, tmp_path: Path, calm: Store, ray_engine: OnRay
) -> None:
    layout, store, kills = laid(tmp_path, training(place, seeds=[0])), Store(tmp_path / "store"), []

    def kill() -> None:
        rng = random.Random(0)
        while len(kills) < 4 and (pid := worker_of(store)) is not None:
            time.sleep(rng.uniform(0, 0.4))
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            kills.append(pid)
            time.sleep(0.5)

    assassin = threading.Thread(target=kill, daemon=True)
    assassin.start()
    ran = run_here(layout, store, engine=ray_engine)
    assert kills
    assert ran.failed == {}
    assert same_as_calm(store, calm)


def heed_interrupts() -> None:
    """A shell's background jobs ignore SIGINT, and so would their children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def command(file: Path, store: Store, *words: str) -> list[str]:
    return [PROGRAM, "study", "run", str(file), "--store", str(store.root), *words]


def test_two_drivers_at_once_do_nothing_twice(place: Path, tmp_path: Path) -> None:
    file, store = written(tmp_path, compressing(place)), Store(tmp_path / "store")
    words = command(file, store, "--no-ray", "--json")
    drivers = [subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [json.loads(driver.communicate(timeout=200)[0]) for driver in drivers]
    assert [each["done"] for each in told] == [4, 4]
    assert len({json.loads(seal.read_text())["pid"] for seal in store.root.glob("*/*/seal.json")}) <= 2
    assert sum(each["stages_made"] for each in told) == 8
    assert len(numbers(store)) == 4


def test_drivers_that_are_killed_lose_nothing(place: Path, tmp_path: Path, calm: Store) -> None:
    file, store = written(tmp_path, training(place, seeds=[0])), Store(tmp_path / "store")
    rng = random.Random(1)
    for _ in range(2):
        driver = subprocess.Popen(command(file, store, "--no-ray"), env=ENVIRONMENT, stderr=subprocess.DEVNULL)
        assert worker_of(store) is not None
        time.sleep(rng.uniform(0, 1.0))
        driver.kill()
        driver.wait()
    done = subprocess.run(
        command(file, store, "--no-ray", "--json"), env=ENVIRONMENT, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["done"] == 4
    assert same_as_calm(store, calm)
    assert not list((store.root / "scratch").iterdir())


def test_who_stops_watching_reads_of_no_loss(place: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store").open()
    register(laid(tmp_path, compressing(place)), store, file="study.yaml")
    watching = subprocess.Popen(
        [PROGRAM, "study", "status", "small", "--store", str(store.root), "--watch"], env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed_interrupts,
    )  # fmt: skip
    assert watching.stdout is not None
    assert "4 waiting" in watching.stdout.readline()
    watching.send_signal(signal.SIGINT)
    assert watching.communicate(timeout=60)[1] == ""
    assert watching.returncode == 130


@pytest.mark.parametrize(("number", "words"), [(signal.SIGINT, ["--no-ray"]), (signal.SIGTERM, [])])
def test_an_interrupt_says_how_to_go_on(place: Path, tmp_path: Path, number: signal.Signals, words: list[str]) -> None:
    file, store = written(tmp_path, training(place)), Store(tmp_path / "store")
    driver = subprocess.Popen(
        command(file, store, *words), env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, preexec_fn=heed_interrupts
    )
    assert worker_of(store) is not None
    driver.send_signal(number)
    told = driver.communicate(timeout=60)[1]
    assert driver.returncode == 130
    assert "error: interrupted; cells that are done stay, and the same command goes on" in told
    assert "Traceback" not in told


def test_a_training_can_be_shared_among_processes(place: Path, tmp_path: Path) -> None:
    content = training(place, axes={}, seeds=[0], reference={}, plain=[], budget={"processes": 2})
    store = Store(tmp_path / "store")
    assert run_here(laid(tmp_path, content), store).failed == {}
    record = json.loads(next((store.root / "train").glob("*/training.json")).read_text())
    assert record["processes"] == 2
    assert laid(tmp_path, content | {"budget": {}}).cells[0].digest not in numbers(store)


def test_two_nodes_give_the_same_results(place: Path, tmp_path: Path, calm: Store) -> None:
    from ray.cluster_utils import Cluster

    layout, store = laid(tmp_path, training(place, seeds=[0])), Store(tmp_path / "store")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        engine = OnRay(address=cluster.address, workers=None, budget=Budget())
        try:
            with pytest.raises(UserError, match="no machine has that"):
                engine.check(Budget(cpus=2))  # there are two, but not on one machine
            assert run_here(layout, store, engine=engine).failed == {}
        finally:
            engine.close()
    finally:
        cluster.shutdown()
    assert same_as_calm(store, calm)


# --- the command line -------------------------------------------------------------------------------------------------


def said(*words: str, cwd: Path, code: int = 0) -> str:
    done = subprocess.run([PROGRAM, *words], env=ENVIRONMENT, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def test_labels_are_shown_as_they_are(place: Path, tmp_path: Path) -> None:
    ways = {"[red]cluster": {"compress.method": "cluster"}, "magnitude [/] :smile:": {"compress.method": "magnitude"}}
    axes = compressing(place)["axes"] | {"method": ways}
    file = written(tmp_path, compressing(place, axes=axes))
    assert "magnitude [/] :smile:" in said("study", "plan", str(file), cwd=tmp_path)
    said("study", "run", str(file), "--no-ray", "--only", "sparsity=0.5", cwd=tmp_path)
    told = said("study", "status", "small", cwd=tmp_path)
    assert "[red]cluster" in told
    assert "magnitude [/] :smile:" in told


def test_a_seal_that_cannot_be_read_fails_nobody(place: Path, tmp_path: Path) -> None:
    store, layout = Store(tmp_path / "store"), laid(tmp_path, compressing(place))
    run_here(layout, store)
    for number, harm in enumerate(("{", "[]", "{}")):
        (store.folder(layout.cells[number].stage.place) / "seal.json").write_text(harm)
    assert state_of(store, "small").counts == {"done": 4}  # found out by the next run
    (store.folder(layout.cells[0].stage.inputs["model"].place) / "seal.json").write_text("{")
    store.remove(layout.cells[0].stage.place)
    task = Task.of(layout.cells[0].stage, store, layout.study.budget, 1)
    assert carry_out(task).status == "done"


def test_what_failed_before_waits_once_the_study_runs_again(place: Path, tmp_path: Path) -> None:
    store, layout = Store(tmp_path / "store"), laid(tmp_path, compressing(place))
    register(layout, store.open(), file="study.yaml")
    store.fail(layout.cells[3].stage.place, "no luck", "", 1)
    assert state_of(store, "small").counts["failed"] == 1
    seen: list[int] = []
    Driver(
        layout, store, InProcess(), say=print, tell=lambda ran: seen.append(state_of(store, "small").counts["failed"])
    ).run()
    assert seen == [0] * 8


def test_the_commands_tell_one_story(place: Path, tmp_path: Path) -> None:
    file = written(tmp_path, compressing(place))
    planned = json.loads(said("study", "plan", str(file), "--json", cwd=tmp_path))
    assert len(planned["cells"]) == 4
    source = (place / "hubert" / "model.safetensors").stat().st_size
    sizes = {each["kind"]: (each["bytes_each"], each["most_bytes"]) for each in planned["estimates"]}
    assert sizes == {"compress": (None, 4 * source), "evaluate": (None, None)}
    assert not (tmp_path / "paretone-store").exists()
    assert "4 of 4 cells done" in said("study", "run", str(file), "--no-ray", cwd=tmp_path)
    assert "4 cells: 4 done" in said("study", "status", "small", cwd=tmp_path)
    assert "magnitude     2" in said("study", "status", "small", "--watch", cwd=tmp_path)  # ends: nothing waits
    assert "2 cells" in said("study", "run", str(file), "--no-ray", "--only", "sparsity=0.5", cwd=tmp_path)
    cell = planned["cells"][0]["cell"]
    told = json.loads(said("study", "show", cell[:8], "--json", cwd=tmp_path))
    assert told["cells"] == ["small: method=cluster sparsity=0.25"]
    assert "wer" in told
    assert "1 removed" in said("study", "rm", cell[:8], cwd=tmp_path)
    assert "1 waiting" in said("study", "status", str(file), cwd=tmp_path)
    pages = [
        said("study", "report", "small", "--reference", f"method={way}", cwd=tmp_path)
        for way in ("cluster", "magnitude")
    ]
    assert pages == ["small.html\n"] * 2
    assert "Beside magnitude" in (tmp_path / "small.html").read_text()
    assert "has no label 'x'" in said("study", "report", "small", "--reference", "method=x", cwd=tmp_path, code=2)
    twice = [word for way in ("magnitude", "cluster") for word in ("--reference", f"method={way}")]
    assert "method is compared with one label" in said("study", "report", "small", *twice, cwd=tmp_path, code=2)
    assert "study nothing never ran" in said("study", "status", "nothing", cwd=tmp_path, code=2)
    assert "there is none" in said("study", "show", "ffff", cwd=tmp_path, code=2)
    assert "one of them" in said("study", "rm", cwd=tmp_path, code=2)
    far = ["study", "run", str(file), "--address", "127.0.0.1:1"]
    assert "nothing answers there" in said(*far, cwd=tmp_path, code=2)
    assert "leave --address" in said(*far, "--no-ray", cwd=tmp_path, code=2)


def test_a_disk_that_is_really_full_stops_a_study_that_then_goes_on(place: Path, tmp_path: Path) -> None:
    file, disk = written(tmp_path, compressing(place)), tmp_path / "disk"
    disk.mkdir()
    run = f"'{PROGRAM}' study run '{file}' --no-ray --store '{disk}/store'"
    own = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]  # mounts that nobody else sees
    mount = f"mount -t tmpfs -o size=120k none '{disk}'"
    if shutil.which("unshare") is None or subprocess.run([*own, mount], capture_output=True).returncode:
        pytest.skip("this machine lets users mount nothing")
    script = f"{mount}; {run}; echo first: $?; mount -o remount,size=4m '{disk}'; {run}; echo second: $?"
    done = subprocess.run([*own, script], env=ENVIRONMENT, cwd=tmp_path, capture_output=True, text=True)
    assert "the disk is full; free space, then give the same command" in done.stderr
    assert "Traceback" not in done.stderr
    assert "first: 2" in done.stdout
    assert "4 of 4 cells done" in done.stdout
    assert "second: 0" in done.stdout


def test_a_plan_tells_what_is_not_here_and_a_run_refuses(tmp_path: Path) -> None:
    content = {
        "name": "far",
        "base": {"model": "openai/whisper-tiny", "compress": {"sparsity": 0.5}, "evaluate": {"data": "gone.jsonl"}},
    }
    file = written(tmp_path, content)
    planned = json.loads(said("study", "plan", str(file), "--json", cwd=tmp_path))
    assert sorted(planned["missing"]) == ["data gone.jsonl", "model openai/whisper-tiny"]
    assert len(planned["cells"]) == 1
    assert said("study", "run", str(file), cwd=tmp_path, code=2).count("\n") == 1


def test_the_studies_that_come_with_the_code_can_be_planned() -> None:
    files = sorted((Path(__file__).parents[1] / "studies").glob("*.yaml"))
    assert len(files) >= 5
    for file in files:
        assert cells_of(read_study(file))


def test_a_claim_ends_with_its_process(place: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store").open()
    layout = laid(tmp_path, compressing(place, axes={}))
    with store.claim(layout.cells[0].stage.place) as first, store.claim(layout.cells[0].stage.place) as second:
        assert (first, second) == (True, False)
    from paretone.study.work import Task

    task = Task.of(layout.cells[0].stage, store, Budget(), 1)
    assert carry_out(task).status == "done"
    assert carry_out(task).seconds == 0
