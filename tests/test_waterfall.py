"""A recipe measured step by step, and the figure drawn from its results."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import soundfile
from rich.console import Console
from tiny import save_tiny, tiny_audio

import paretone
from paretone import UserError
from paretone.cli.stepping import steps_table
from paretone.results import read_result, score

RECIPE = """
steps:
  - {method: depth, settings: {keep: 2}}
  - {method: random, units: ffn, target_params: 0.7}
  - {method: closed_form, units: heads, sparsity: 0.5, settings: {heads: truncate}}
seed: 3
"""


def command(*words: Any, code: int = 0, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs paretone and checks its exit code."""
    script = str(Path(sys.executable).with_name("paretone"))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([script, *map(str, words)], capture_output=True, text=True, env=environment, cwd=cwd)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny HuBERT, two utterances of noise, a recipe, and that recipe measured step by step."""
    root = tmp_path_factory.mktemp("place")
    save_tiny(root / "model", "hubert")
    lines = []
    for number, text in enumerate(["one two", "three"]):
        soundfile.write(root / f"{number}.wav", tiny_audio(1 + number / 2, seed=number), 16_000)
        lines.append(json.dumps({"audio": f"{number}.wav", "text": text, "language": "en"}) + "\n")
    (root / "data.jsonl").write_text("".join(lines))
    (root / "recipe.yaml").write_text(RECIPE)
    words = ["waterfall", "model", "--recipe", "recipe.yaml", "--data", "data.jsonl", "--out", "steps", "--keep-models"]
    (root / "told.json").write_text(command(*words, "--json", cwd=root).stdout)
    return root


def measure(place: Path, **words: Any) -> "list[paretone.stepwise.Stage]":  # type: ignore[name-defined]
    """The same run as the fixture's, from Python."""
    told: dict[str, Any] = {"recipe": place / "recipe.yaml", "data": place / "data.jsonl", "out": place / "steps"}
    return paretone.waterfall(place / "model", **{**told, **words})


def test_every_step_is_told_with_what_it_cost_and_gained(place: Path) -> None:
    steps = json.loads((place / "told.json").read_text())["steps"]
    assert [step["method"] for step in steps] == ["depth", "random", "closed_form"]
    assert [step["step"] for step in steps] == [1, 2, 3]
    assert steps[0]["parameters"] > steps[1]["parameters"] > steps[2]["parameters"]
    original = read_result(place / "steps" / "step-1").baseline
    assert original is not None
    assert steps[1]["parameters"] == pytest.approx(0.7 * original.parameters, rel=0.005)  # a share of the source
    assert sum(step["step_delta_wer"] for step in steps) == pytest.approx(steps[2]["total_delta_wer"])
    again = score(place / "steps/step-3/transcripts.jsonl", place / "steps/step-2/transcripts.jsonl")
    assert steps[2]["step_delta_wer_ci95"] == pytest.approx(again.delta_wer_ci95)


def test_the_last_model_equals_that_of_the_whole_recipe_byte_for_byte(place: Path) -> None:
    command("compress", "model", "whole", "--recipe", "recipe.yaml", cwd=place)
    whole, last = place / "whole", place / "steps/models/step-3"
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in last.iterdir())
    for name in names:
        assert (whole / name).read_bytes() == (last / name).read_bytes(), name


def test_each_plan_begins_the_next(place: Path) -> None:
    plans = [read_result(place / f"steps/step-{number}").model.plan or {} for number in (1, 2, 3)]
    assert plans[0]["steps"] == plans[2]["steps"][:1]
    assert plans[1]["steps"] == plans[2]["steps"][:2]


def test_a_cut_run_goes_on_where_it_stopped(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "steps"
    first = measure(place, out=out, recipe=_short_recipe(tmp_path))
    assert sorted(path.name for path in out.iterdir()) == ["step-1", "step-2", "waterfall.json"]
    kept = (out / "step-1/result.json").read_bytes()
    (out / "step-2/result.json").unlink()
    (out / "step-2").rename(tmp_path / "cut")
    again = measure(place, out=out, recipe=tmp_path / "short.yaml")
    assert (out / "step-1/result.json").read_bytes() == kept
    assert [stage.result.wer for stage in again] == [stage.result.wer for stage in first]


def _short_recipe(folder: Path) -> Path:
    text = "steps: [{method: depth, settings: {keep: 2}}, {method: magnitude, units: ffn, sparsity: 0.5}]"
    (folder / "short.yaml").write_text(text)
    return folder / "short.yaml"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"seed": 4}, "steps of another recipe;"),
        ({"limit": 1}, "steps of another data;"),
        ({"limit": 1, "seed": 4}, "steps of another recipe and data;"),
    ],
)
def test_steps_of_another_run_are_refused_and_stay(place: Path, words: dict[str, int], message: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in place.rglob("*")}
    with pytest.raises(UserError, match=message) as caught:
        measure(place, **words)
    assert "--overwrite" in str(caught.value)
    assert {path: path.stat().st_mtime_ns for path in place.rglob("*")} == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_something_else_is_never_touched(place: Path, tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "letter").write_text("dear")
    with pytest.raises(UserError, match=r"not empty|not written by this command"):
        measure(place, out=tmp_path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["letter"]


def test_a_recipe_that_cannot_be_planned_leaves_nothing(place: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(RECIPE.replace("0.7}", "0.01}"))
    words = ["waterfall", "model", "--recipe", tmp_path / "bad.yaml", "--data", "data.jsonl", "--out", tmp_path / "o"]
    done = command(*words, code=2, cwd=place)
    assert done.stderr.startswith("error: step 2 (random): target_params 0.01")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "o").exists()


def test_the_folder_may_not_lie_in_the_model(place: Path) -> None:
    with pytest.raises(UserError, match="lie in one another"):
        measure(place, out=place / "model" / "steps")
    assert not (place / "model" / "steps").exists()


def test_the_table_and_the_sentences_tell_every_step(place: Path) -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(steps_table(measure(place, keep_models=True)))
    text = console.export_text().replace("\N{NO-BREAK SPACE}", " ")
    for name in ("original", "1 depth keep=2", "2 random ffn to 70 %", "3 closed_form heads 50 %"):
        assert name in text


def test_the_page_draws_the_steps_from_results_alone(place: Path, tmp_path: Path) -> None:
    paretone.write_report([place / "steps"], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "What each step added to the WER of model" in page
    assert "closed_form heads 50" in page
    assert (tmp_path / "report_files/waterfall.svg").exists()
    paretone.write_report([place / "steps/step-3"], tmp_path / "one.html")  # a step alone is no chain
    assert "Step by step" not in (tmp_path / "one.html").read_text()
    assert not (tmp_path / "one_files/waterfall.svg").exists()


@pytest.mark.parametrize(
    ("step", "recorded"),
    [
        ("{method: cluster, sparsity: 0.5}", {}),
        ("{preset: portable, sparsity: 0.5}", {}),  # its profile and multiple are said by its name
        ("{method: cluster, sparsity: 0.5, multiple: 8}", {"multiple": 8}),
        (
            '{method: cluster, units: ffn, sparsity: 0.5, rules: [{match: "*.0.*", keep: 40}]}',
            {"rules": [{"match": "*.0.*", "sparsity": None, "keep": 40}]},
        ),
    ],
)
def test_a_plan_records_what_no_flag_can_say(place: Path, tmp_path: Path, step: str, recorded: dict[str, Any]) -> None:
    (tmp_path / "recipe.yaml").write_text(f"steps: [{step}]")
    plan = paretone.make_plan(place / "model", recipe=tmp_path / "recipe.yaml")
    assert plan.steps[0].recipe_only == recorded
    assert type(plan).model_validate_json(plan.to_json()) == plan
