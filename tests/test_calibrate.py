"""Calibration: rows are those of the plain model, fitting to them pays where they come from, and the record is kept."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from test_closed_form import attention, feed_forward, rng, run_attention, run_ffn
from tiny import save_tiny, tiny_audio

import paretone
from paretone.checkpoint import open_checkpoint
from paretone.data import open_data, probes, refuse_seen
from paretone.errors import UserError
from paretone.families import table_of
from paretone.groups import Group
from paretone.methods import closed_form
from paretone.model import load
from paretone.modules import Attention, FeedForward, Seen
from paretone.plan import read_plan
from paretone.transform import calibrate
from paretone.transform.activations import collect

FAMILIES = ("hubert", "wav2vec2", "wavlm", "whisper")


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A manifest of three recordings whose words nobody wrote down."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    lines = []
    for number, seconds in enumerate((0.9, 0.6, 0.4)):
        soundfile.write(folder / f"{number}.wav", tiny_audio(seconds, number), 16_000)
        lines.append(json.dumps({"audio": f"{number}.wav", "text": None}))
    (folder / "unlabelled.jsonl").write_text("\n".join(lines))
    return folder / "unlabelled.jsonl"


# --- the rows ---------------------------------------------------------------------------------------------------------


def plain_reads(model: Any, processor: Any, waves: list[np.ndarray], names: list[str]) -> dict[str, torch.Tensor]:
    """(places, features) of everything that the modules ``names`` read while the whole model hears ``waves``."""
    taken: dict[str, list[torch.Tensor]] = {name: [] for name in names}

    def keeper(name: str) -> Callable[..., None]:
        def keep(_: Any, args: tuple[torch.Tensor, ...], options: dict[str, torch.Tensor]) -> None:
            taken[name].append((args or (options["hidden_states"],))[0].flatten(0, -2))

        return keep

    extractor = processor.feature_extractor
    inputs: list[Any] = [extractor(wave, sampling_rate=16_000, return_tensors="pt") for wave in waves]
    is_whisper = model.config.model_type == "whisper"
    tokens: list[Any] = [None] * len(waves)
    if is_whisper:
        tokens = [
            model.generate(each.input_features, max_length=24, num_beams=1, force_unique_generate_call=True)
            for each in inputs
        ]
    for name in names:
        model.get_submodule(name).register_forward_pre_hook(keeper(name), with_kwargs=True)
    with torch.inference_mode():
        for each, written in zip(inputs, tokens, strict=True):
            if is_whisper:
                model(input_features=each.input_features, decoder_input_ids=written)
            else:
                model(each.input_values)
    return {name: torch.cat(rows) for name, rows in taken.items()}


def readers(group: Group, family: str) -> dict[str, str]:
    """What was seen -> the module of the plain model that reads it; WavLM's attention hides its own parts."""
    if group.kind == "ffn":
        return {"inputs": group.slots[0].tensor.removesuffix(".weight")}
    if family == "wavlm":
        return {"inputs": group.name}
    parts = {"inputs": f"{group.name}.q_proj", "context": f"{group.name}.out_proj"}
    return parts | ({"memory": f"{group.name}.k_proj"} if group.memory_norm else {})


@pytest.mark.parametrize("family", FAMILIES)
def test_streamed_rows_are_those_of_the_plain_model(family: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "model", family, max_shard_size="40KB")
    waves = [tiny_audio(seconds, seed) for seed, seconds in enumerate((0.9, 0.4))]
    (tmp_path / "rows").mkdir()
    checkpoint = open_checkpoint(folder)
    rows = collect(checkpoint, waves, tmp_path / "rows", seed=0)
    groups = table_of(checkpoint.config, checkpoint.shapes, "here").groups
    wanted = {(group.name, part): name for group in groups for part, name in readers(group, family).items()}
    reads = plain_reads(*load(folder), waves, sorted(set(wanted.values())))
    for (module, part), reader in wanted.items():
        seen = getattr(rows.seen(module), part)
        torch.testing.assert_close(
            seen, reads[reader], rtol=2e-3, atol=2e-3, msg=lambda m, p=part, n=module: f"{n} {p}: {m}"
        )


def test_few_places_are_kept_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paretone.transform.activations.MOST_ROWS", 20)
    checkpoint = open_checkpoint(save_tiny(tmp_path / "model", "hubert"))
    name = "hubert.encoder.layers.1.feed_forward"
    kept = []
    for number, seed in enumerate((0, 0, 1)):
        (tmp_path / str(number)).mkdir()
        kept.append(collect(checkpoint, [tiny_audio(0.9), tiny_audio(0.4, 1)], tmp_path / str(number), seed=seed))
    first, again, other = (rows.seen(name) for rows in kept)
    assert first is not None
    assert again is not None
    assert other is not None
    assert first.inputs.shape == (20, 32)
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.equal(first.inputs, other.inputs)


# --- what they are good for -------------------------------------------------------------------------------------------


def narrow_rows(places: int = 400, model: int = 16) -> torch.Tensor:
    """Rows that lie near five directions, unlike those of the Gaussian model."""
    generator = rng(7)
    few = torch.randn(places, 5, generator=generator, dtype=torch.float64)
    directions = torch.randn(5, model, generator=generator, dtype=torch.float64)
    return 0.6 * few @ directions + 0.1 * torch.randn(places, model, generator=generator, dtype=torch.float64)


def test_an_ffn_fitted_to_rows_is_nearer_to_its_output_on_their_like() -> None:
    rows, unheard = narrow_rows().split(200)
    module = feed_forward()
    errors = {}
    for name, given in (("gaussian", module), ("seen", replace(module, seen=Seen(rows.float())))):
        made = closed_form.rewrite(given, 10, 0, rng()).module
        assert isinstance(made, FeedForward)
        errors[name] = float((run_ffn(made, unheard) - run_ffn(module, unheard)).square().mean())
    assert errors["seen"] < 0.5 * errors["gaussian"]


@pytest.mark.parametrize(("keep", "head_dim"), [(6, 2), (3, 4), (4, 2)])
def test_an_attention_fitted_to_rows_is_nearer_to_its_output_on_their_like(keep: int, head_dim: int) -> None:
    rows, unheard = narrow_rows().split(200)
    module = attention()
    seen = replace(module, seen=Seen(rows.float(), context=context_of(module, rows).float()))
    errors = {}
    for name, given in (("gaussian", module), ("seen", seen)):
        made = closed_form.rewrite(given, keep, head_dim, rng()).module
        assert isinstance(made, Attention)
        assert (made.width, made.head_dim) == (keep, head_dim)
        errors[name] = float((run_attention(made, unheard) - run_attention(module, unheard)).square().mean())
    assert errors["seen"] < errors["gaussian"]


def context_of(module: Attention, x: torch.Tensor) -> torch.Tensor:
    """(places, heads * head_dim) what the heads hand to the output projection."""
    identity = torch.eye(module.width * module.head_dim, dtype=torch.float64)
    output = identity.unflatten(1, (module.width, module.head_dim)).movedim(1, 0)
    return run_attention(replace(module, output=output, output_bias=torch.zeros(len(identity))), x)


def test_at_full_size_rows_change_nothing() -> None:
    module = replace(attention(), seen=Seen(narrow_rows().float()))
    assert closed_form.rewrite(module, module.width, module.head_dim, rng()).module is module


def test_the_analysis_foretells_the_error_on_rows_that_were_seen() -> None:
    rows = narrow_rows(4000)
    module = replace(feed_forward(), seen=Seen(rows.float()))
    analysis = closed_form.analyse(module)
    made = closed_form.rewrite(module, 10, 0, rng(), analysis).module
    assert isinstance(made, FeedForward)
    error = float((run_ffn(made, rows) - run_ffn(module, rows)).square().sum(dim=1).mean())
    foretold = float(analysis.error[list(analysis.keep).index(10)])
    assert error == pytest.approx(foretold, rel=0.25)


# --- the road ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_calibrated_model_says_so_and_is_made_the_same_twice(family: str, recordings: Path, tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "model", family)
    for name in ("once", "again"):
        paretone.compress(source, tmp_path / name, target_params=0.7, calibrate=recordings)
    files = sorted(path.name for path in (tmp_path / "once").iterdir())
    assert all((tmp_path / "once" / f).read_bytes() == (tmp_path / "again" / f).read_bytes() for f in files)
    digest = open_data(recordings, labelled=False).digest
    says = f"calibrated on unlabelled, {digest}, 3 clips"
    assert json.loads((tmp_path / "once" / "provenance.json").read_text())["learnt_from"] == [says]
    assert says in (tmp_path / "once" / "README.md").read_text()
    calibration = read_plan(tmp_path / "once" / "plan.json").steps[0].calibration
    assert calibration is not None
    assert (calibration.digest, calibration.clips) == (digest, 3)
    assert len(json.loads((tmp_path / "once" / "calibration.json").read_text())["audio_sha256"]) == 3
    load(tmp_path / "once")
    # a plan file makes the same model
    paretone.compress(source, tmp_path / "planned", plan=tmp_path / "once" / "plan.json")
    weights = "model.safetensors"
    assert (tmp_path / "planned" / weights).read_bytes() == (tmp_path / "once" / weights).read_bytes()


def test_recordings_that_a_model_was_calibrated_on_are_told_apart(recordings: Path, tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "model", "hubert")
    paretone.compress(source, tmp_path / "small", sparsity=0.5, calibrate=recordings, calibrate_limit=2)
    with pytest.raises(UserError, match="was calibrated on 2 of the 3 recordings"):
        refuse_seen("small", tmp_path / "small", open_data(recordings, labelled=False))
    refuse_seen("model", source, open_data(recordings, labelled=False))
    # and those of a source stay
    other = tmp_path / "recordings" / "2.jsonl"
    other.write_text('{"audio": "2.wav"}')
    paretone.compress(tmp_path / "small", tmp_path / "smaller", sparsity=0.2, calibrate=other)
    with pytest.raises(UserError, match="was calibrated on 3 of the 3 recordings"):
        refuse_seen("smaller", tmp_path / "smaller", open_data(recordings, labelled=False))


def test_without_calibration_nothing_of_it_is_written(tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "model", "hubert")
    paretone.compress(source, tmp_path / "small", sparsity=0.5)
    plan = json.loads((tmp_path / "small" / "plan.json").read_text())
    assert not {"inputs", "calibration"} & set(plan["steps"][0])
    assert not (tmp_path / "small" / "calibration.json").exists()
    assert json.loads((tmp_path / "small" / "provenance.json").read_text())["learnt_from"] == ["data-free"]


def test_synthetic_probes_need_no_data_and_leave_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "probes", lambda seed: (sound[:9000] for sound in probes(seed, clips=2)))
    source = save_tiny(tmp_path / "model", "hubert")
    paretone.compress(source, tmp_path / "small", sparsity=0.5, inputs="synthetic-probe")
    assert read_plan(tmp_path / "small" / "plan.json").steps[0].tier == "synthetic-probe"
    assert "synthetic-probe" in (tmp_path / "small" / "README.md").read_text()
    assert not (tmp_path / "small" / "calibration.json").exists()
    paretone.compress(source, tmp_path / "plain", sparsity=0.5)
    weights = "model.safetensors"
    assert (tmp_path / "plain" / weights).read_bytes() != (tmp_path / "small" / weights).read_bytes()


def test_probes_are_sound_of_speech_level_and_follow_their_seed() -> None:
    first, again, other = (list(probes(seed, clips=3)) for seed in (0, 0, 1))
    for sound, same in zip(first, again, strict=True):
        assert np.array_equal(sound, same)
        assert 2 <= len(sound) / 16_000 <= 8
        assert 0.005 < np.sqrt(np.mean(sound**2)) < 0.15
    assert not np.array_equal(first[0][:1000], other[0][:1000])


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"method": "cluster", "calibrate": "digits"}, "calibrate has no effect with cluster"),
        ({"method": "magnitude", "inputs": "synthetic-probe"}, "inputs has no effect with magnitude"),
        ({"calibrate": "digits", "inputs": "gaussian"}, "inputs has no effect beside calibrate"),
        ({"calibrate_limit": 5}, "calibrate_limit has an effect with calibrate only"),
        ({"calibrate": "digits", "calibrate_limit": 0}, "greater than or equal to 1"),
        ({"calibrate": "nowhere.jsonl"}, "no such data"),
    ],
)
def test_words_without_effect_are_refused_and_leave_nothing(
    words: dict[str, Any], message: str, tmp_path: Path
) -> None:
    source = save_tiny(tmp_path / "model", "hubert")
    with pytest.raises(UserError, match=message):
        paretone.compress(source, tmp_path / "small", sparsity=0.5, **words)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_plan_whose_recordings_have_changed_is_refused(recordings: Path, tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "model", "hubert")
    plan = paretone.make_plan(source, sparsity=0.5, method="closed_form", calibrate=recordings)
    soundfile.write(recordings.parent / "1.wav", tiny_audio(0.7, 9), 16_000)
    with pytest.raises(UserError, match="the plan was calibrated on sha256:"):
        paretone.compress(source, tmp_path / "small", plan=plan)
    assert not (tmp_path / "small").exists()


def test_an_interrupted_run_leaves_nothing(recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save_tiny(tmp_path / "model", "hubert")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["paretone.transform.compress"], "write_weights", interrupt)
    with pytest.raises(KeyboardInterrupt):
        paretone.compress(source, tmp_path / "small", sparsity=0.5, calibrate=recordings)
    assert not any(temporary.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "recordings", "temporary"]
