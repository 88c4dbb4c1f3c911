"""Checkpoints through disk: every method on every family, and what compressing promises."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import TINY, save_tiny, tiny_inputs

import paretone
from paretone.checkpoint import Entry, TensorWriter, locate, open_checkpoint
from paretone.errors import UserError
from paretone.evaluation import count_macs
from paretone.families import known_families, table_of
from paretone.methods import known_methods, works_on_layers
from paretone.transform import inspect

FAMILIES = known_families()
VARIANTS = [
    pytest.param(family, {"pre_norm": pre_norm, "layer_norm": layer_norm}, id=f"{family}-{pre_norm:d}{layer_norm:d}")
    for family in FAMILIES
    if family != "whisper"
    for pre_norm, layer_norm in ((True, True), (False, False))
] + [pytest.param("whisper", {}, id="whisper")]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One tiny checkpoint of each family."""
    root = tmp_path_factory.mktemp("sources")
    return {family: save_tiny(root / family, family) for family in FAMILIES}


def logits(folder: Path, family: str) -> torch.Tensor:
    model, _ = paretone.load(folder)
    with torch.no_grad():
        output = model(**tiny_inputs(family))
    return output.logits if "logits" in output else output.last_hidden_state


def weights(folder: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(path)
    return tensors


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


def edit(folder: Path, change: Any) -> None:
    """Rewrites the single weight file of a checkpoint."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file({name: t.contiguous() for name, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("method", known_methods())
@pytest.mark.parametrize(("family", "options"), VARIANTS)
def test_every_method_on_every_family_gives_a_model_of_the_planned_size(
    family: str, options: dict[str, bool], method: str, tmp_path: Path
) -> None:
    source = save_tiny(tmp_path / "source", family, **options)
    done = paretone.compress(source, tmp_path / "out", sparsity=0.5, method=method)
    model, _ = paretone.load(tmp_path / "out")
    assert sum(p.numel() for p in model.parameters()) == done.plan.parameters_after < done.plan.parameters_before
    assert sum(t.nbytes for t in weights(tmp_path / "out").values()) == done.plan.bytes_after
    assert bool(torch.isfinite(logits(tmp_path / "out", family)).all())
    for module in done.plan.modules:
        before = module.width_before * (module.head_dim_before or 1)
        after = module.width_after * (module.head_dim_after or 1)
        assert after in ({0, before} if works_on_layers(method) else {before // 2})


@pytest.mark.parametrize("method", [name for name in known_methods() if name != "depth"])
@pytest.mark.parametrize("family", FAMILIES)
def test_base_models_compress_as_their_task_models_do(family: str, method: str, tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "source", family, ctc=False)
    done = paretone.compress(source, tmp_path / "out", sparsity=0.25, method=method)
    model, _ = paretone.load(tmp_path / "out")
    assert sum(p.numel() for p in model.parameters()) == done.plan.parameters_after


@pytest.mark.parametrize("method", known_methods())
@pytest.mark.parametrize("family", FAMILIES)
def test_sparsity_0_gives_the_same_tensors_bit_for_bit(
    family: str, method: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    paretone.compress(sources[family], tmp_path / "out", sparsity=0, method=method)
    before, after = weights(sources[family]), weights(tmp_path / "out")
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(logits(sources[family], family), logits(tmp_path / "out", family))


@pytest.mark.parametrize(("family", "options"), VARIANTS)
def test_clustering_doubled_ffn_units_back_to_half_restores_the_logits(
    family: str, options: dict[str, bool], tmp_path: Path
) -> None:
    source = save_tiny(tmp_path / "doubled", family, **options)
    before = logits(source, family)
    checkpoint = open_checkpoint(source)
    groups = [g for g in table_of(checkpoint.config, checkpoint.shapes, "").groups if g.kind == "ffn"]

    def double(tensors: dict[str, torch.Tensor]) -> None:
        for slot in (slot for group in groups for slot in group.slots):
            half = 0.5 if slot.role == "consumer" else 1.0
            tensors[slot.tensor] = torch.cat([tensors[slot.tensor] * half] * 2, dim=slot.axis)

    edit(source, double)
    config = json.loads((source / "config.json").read_text())
    config |= {key: 2 * config[key] for key in {g.config_key for g in groups}}
    (source / "config.json").write_text(json.dumps(config))
    paretone.compress(source, tmp_path / "out", sparsity=0.5, units="ffn", method="cluster")
    after = logits(tmp_path / "out", family)
    assert (after - before).abs().max() < 1e-5 * max(1.0, float(before.abs().max()))


@pytest.mark.parametrize("family", FAMILIES)
def test_one_width_for_all_ffns_loads_as_the_stock_class(family: str, sources: dict[str, Path], tmp_path: Path) -> None:
    paretone.compress(sources[family], tmp_path / "out", sparsity=0.5, units="ffn", method="cluster")
    assert not (tmp_path / "out" / "modeling_paretone.py").exists()
    assert "layer_widths" not in (tmp_path / "out" / "config.json").read_text()
    assert type(paretone.load(tmp_path / "out")[0]).__module__.startswith("transformers.")


@pytest.mark.parametrize("family", FAMILIES)
def test_dropping_layers_equals_running_without_them(family: str, sources: dict[str, Path], tmp_path: Path) -> None:
    paretone.compress(sources[family], tmp_path / "out", method="depth", settings={"layers": [0, 2]})
    stock = TINY[family]()
    base = stock.base_model
    for stack in [base.encoder, base.decoder] if family == "whisper" else [base.encoder]:
        del stack.layers[1]
    if family == "whisper":
        for index, layer in enumerate(base.decoder.layers):
            layer.self_attn.layer_idx = layer.encoder_attn.layer_idx = index
    with torch.no_grad():
        expected = stock(**tiny_inputs(family)).logits
    assert torch.equal(logits(tmp_path / "out", family), expected)


def test_wavlm_without_its_first_layer_keeps_the_shared_position_table(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    paretone.compress(sources["wavlm"], tmp_path / "out", method="depth", settings={"layers": [1, 2]})
    name = "wavlm.encoder.layers.0.attention.rel_attn_embed.weight"
    assert torch.equal(weights(tmp_path / "out")[name], weights(sources["wavlm"])[name])
    paretone.load(tmp_path / "out")


@pytest.mark.parametrize("family", FAMILIES)
def test_two_rounds_of_pruning_keep_what_the_second_would_have_kept_of_the_first(
    family: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    """Compressing a compressed model equals one recipe of two steps, position bias and alignment heads included."""
    (tmp_path / "recipe.yaml").write_text(
        "steps:\n- {method: magnitude, sparsity: 0.25}\n- {method: magnitude, sparsity: 0.34}\n"
    )
    paretone.compress(sources[family], tmp_path / "once", recipe=tmp_path / "recipe.yaml")
    paretone.compress(sources[family], tmp_path / "first", sparsity=0.25, method="magnitude")
    paretone.compress(tmp_path / "first", tmp_path / "second", sparsity=0.34, method="magnitude")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "once" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    assert torch.equal(logits(tmp_path / "once", family), logits(tmp_path / "second", family))


def test_a_recipe_of_depth_then_width_names_the_layers_that_are_left(sources: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        """
steps:
  - method: depth
    settings: {layers: [1, 2]}
  - method: cluster
    sparsity: 0.5
    settings: {outgoing: mean}
    rules:
      - {match: "*.layers.0.*", sparsity: 0}
      - {match: "*.feed_forward", keep: 16}
"""
    )
    plan = paretone.compress(sources["hubert"], tmp_path / "out", recipe=tmp_path / "recipe.yaml").plan
    widths = {m.name.removeprefix("hubert.encoder.layers."): m.width_after for m in plan.modules}
    assert widths == {
        "0.attention": 0,
        "0.feed_forward": 0,
        "1.attention": 4,
        "1.feed_forward": 64,
        "2.attention": 2,
        "2.feed_forward": 16,
    }
    model, _ = paretone.load(tmp_path / "out")
    assert sum(p.numel() for p in model.parameters()) == plan.parameters_after


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["cluster", "magnitude", "random"])
def test_a_parameter_target_is_met_within_half_a_percent(
    family: str, method: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    for target in (0.95, 0.8, 0.7):
        plan = paretone.make_plan(sources[family], target_params=target, method=method)
        assert plan.parameters_after / plan.parameters_before == pytest.approx(target, rel=0.005)
    paretone.compress(sources[family], tmp_path / "out", target_params=0.7, method=method)
    model, _ = paretone.load(tmp_path / "out")
    assert sum(p.numel() for p in model.parameters()) == plan.parameters_after


@pytest.mark.parametrize("family", FAMILIES)
def test_planned_parameters_and_macs_are_those_of_the_running_model(
    family: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    for name, options in {"a": {"sparsity": 0.5}, "b": {"method": "depth", "sparsity": 0.4}}.items():
        plan = paretone.compress(sources[family], tmp_path / name, **options).plan
        model, _ = paretone.load(tmp_path / name, attn_implementation="eager")
        assert plan.macs_after == pytest.approx(count_macs(model), rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision_survives_and_is_summed_in_float32(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    half = save_tiny(tmp_path / "half", family, dtype=dtype)
    paretone.compress(half, tmp_path / "out", sparsity=0.5, method="cluster")
    full = tmp_path / "full"
    full.mkdir()
    save_file({k: v.float() for k, v in weights(half).items()}, full / "model.safetensors", {"format": "pt"})
    (full / "config.json").write_bytes((half / "config.json").read_bytes())
    paretone.compress(full, tmp_path / "exact", sparsity=0.5, method="cluster")
    ours, exact = weights(tmp_path / "out"), weights(tmp_path / "exact")
    for name, tensor in ours.items():
        assert tensor.dtype == dtype
        assert torch.equal(tensor, exact[name].to(dtype))


def test_equal_input_plan_and_seed_give_equal_bytes(sources: dict[str, Path], tmp_path: Path) -> None:
    for method in known_methods():
        for out in ("a", "b"):
            paretone.compress(sources["whisper"], tmp_path / method / out, sparsity=0.5, method=method, seed=7)
        assert files(tmp_path / method / "a") == files(tmp_path / method / "b")
    paretone.compress(sources["whisper"], tmp_path / "other", sparsity=0.5, method="random", seed=8)
    assert files(tmp_path / "other")["model.safetensors"] != files(tmp_path / "random" / "a")["model.safetensors"]


def test_a_plan_file_gives_the_bytes_of_the_words_that_made_it(sources: dict[str, Path], tmp_path: Path) -> None:
    plan = paretone.make_plan(sources["hubert"], target_params=0.8, method="random", seed=3)
    (tmp_path / "plan.json").write_text(plan.to_json())
    paretone.compress(sources["hubert"], tmp_path / "a", plan=tmp_path / "plan.json")
    paretone.compress(sources["hubert"], tmp_path / "b", target_params=0.8, method="random", seed=3)
    paretone.compress(sources["hubert"], tmp_path / "c", plan=tmp_path / "b" / "plan.json")
    models = [files(tmp_path / name)["model.safetensors"] for name in "abc"]
    assert models[0] == models[1] == models[2]


def test_many_shards_in_give_the_same_model_as_one(tmp_path: Path) -> None:
    one = save_tiny(tmp_path / "one", "whisper")
    many = save_tiny(tmp_path / "many", "whisper", max_shard_size="50KB")
    assert len(list(many.glob("*.safetensors"))) > 3
    for source in (one, many):
        paretone.compress(source, tmp_path / f"{source.name}-out", sparsity=0.5)
    ours, theirs = weights(tmp_path / "one-out"), weights(tmp_path / "many-out")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_large_model_is_written_in_shards_that_transformers_reads(tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "source", "hubert")
    checkpoint = open_checkpoint(source)
    out = tmp_path / "out"
    out.mkdir()
    with TensorWriter(out, checkpoint.entries, max_shard_bytes=40_000) as writer:
        for name in reversed(checkpoint.entries):
            writer.write(name, checkpoint.read([name])[name])
    assert len(list(out.glob("*.safetensors"))) > 2
    for name in ("config.json", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json"):
        if (source / name).exists():
            (out / name).write_bytes((source / name).read_bytes())
    for name in ("vocab.json", "special_tokens_map.json"):
        if (source / name).exists():
            (out / name).write_bytes((source / name).read_bytes())
    assert torch.equal(logits(out, "hubert"), logits(source, "hubert"))


def test_a_written_file_is_what_safetensors_itself_would_read(tmp_path: Path) -> None:
    tensors = {
        "half": torch.ones(3, dtype=torch.bfloat16),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "count": torch.tensor([1, 2], dtype=torch.int64),
        "view": torch.arange(6.0).reshape(2, 3).T,
    }
    names = {torch.bfloat16: "BF16", torch.float32: "F32", torch.int64: "I64"}
    layout = {n: Entry("", names[t.dtype], tuple(t.shape)) for n, t in tensors.items()}
    with TensorWriter(tmp_path, layout) as writer:
        for name, tensor in tensors.items():
            writer.write(name, tensor)
    with safe_open(tmp_path / "model.safetensors", "pt") as read:
        assert read.metadata() == {"format": "pt"}
        for name, tensor in tensors.items():
            assert torch.equal(read.get_tensor(name), tensor)


def test_the_output_carries_what_a_reader_needs(sources: dict[str, Path], tmp_path: Path) -> None:
    paretone.compress(sources["whisper"], tmp_path / "out", sparsity=0.5, seed=2)
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert provenance["source_digest"] == open_checkpoint(sources["whisper"]).digest()
    assert provenance["seeds"] == [2]
    assert provenance["paretone"] == paretone.__version__
    assert provenance["command"] == f"paretone compress {sources['whisper']} OUT --sparsity 0.5 --seed 2"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "trust_remote_code=True" in card
    assert "81,056" in card  # the parameters before
    for name in ("tokenizer.json", "generation_config.json", "modeling_paretone.py", "plan.json"):
        assert (tmp_path / "out" / name).exists()


def test_alignment_heads_follow_their_heads_and_layers(sources: dict[str, Path], tmp_path: Path) -> None:
    def left(out: str, **options: Any) -> tuple[list[list[int]] | None, int]:
        done = paretone.compress(sources["whisper"], tmp_path / out, **options)
        generation = json.loads((tmp_path / out / "generation_config.json").read_text())
        return generation.get("alignment_heads"), len(done.notices)

    # the source has [1, 0] and [2, 3]
    assert left("layer", method="depth", settings={"layers": [0, 2]}) == ([[1, 3]], 1)
    assert left("none", method="depth", settings={"keep": 1}) == (None, 1)
    assert left("encoder", method="depth", settings={"keep": 1, "stack": "encoder"}) == ([[1, 0], [2, 3]], 0)
    assert left("ffn", sparsity=0.5, units="ffn") == ([[1, 0], [2, 3]], 0)
    clustered, notices = left("heads", sparsity=0.5, units="heads", method="cluster")
    assert notices == 0
    assert clustered is not None
    assert [layer for layer, _ in clustered] == [1, 2]
    assert all(0 <= head < 2 for _, head in clustered)


def test_whispers_tied_embedding_stored_twice_counts_once(tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "source", "whisper")
    before = inspect(str(source))["parameters"]
    edit(source, lambda t: t.update({"proj_out.weight": t["model.decoder.embed_tokens.weight"].clone()}))
    assert inspect(str(source))["parameters"] == before
    paretone.compress(source, tmp_path / "out", sparsity=0.5)
    model, _ = paretone.load(tmp_path / "out")
    assert model.proj_out.weight is model.model.decoder.embed_tokens.weight


def test_inspect_and_plan_read_no_weights(tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "source", "hubert")
    edit(source, lambda t: t["hubert.encoder.layers.1.feed_forward.output_dense.weight"].fill_(float("nan")))
    assert inspect(str(source))["modules"][1]["width"] == 64
    assert paretone.make_plan(source, sparsity=0.5, method="cluster").parameters_after > 0


# --- bad input: one clear line, nothing written, nothing lost ---------------------------------------------------------


def broken(kind: str, folder: Path) -> Path:
    """A tiny HuBERT that is broken in one way."""
    save_tiny(folder, "hubert", max_shard_size="50KB" if "shard" in kind else "5GB")
    weight = folder / "model.safetensors"
    shard = next(iter(sorted(folder.glob("model-0*.safetensors"))), weight)
    config = json.loads((folder / "config.json").read_text())
    name = "hubert.encoder.layers.0.feed_forward.intermediate_dense.weight"
    match kind:
        case "empty folder":
            for path in folder.iterdir():
                path.unlink()
        case "pickle":
            weight.rename(folder / "pytorch_model.bin")
        case "cut":
            weight.write_bytes(weight.read_bytes()[:-100])
        case "no header":
            weight.write_bytes(b"")
        case "shard cut":
            shard.write_bytes(shard.read_bytes()[:-100])
        case "shard renamed":
            shard.rename(folder / "other.safetensors")
        case "renamed":
            weight.rename(folder / "weights.safetensors")
        case "nan":
            edit(folder, lambda t: t[name].__setitem__((3, 5), float("nan")))
        case "inf":
            edit(folder, lambda t: t["lm_head.weight"].__setitem__((0, 0), float("inf")))
        case "family":
            (folder / "config.json").write_text(json.dumps(config | {"model_type": "bert"}))
        case "architecture":
            (folder / "config.json").write_text(json.dumps(config | {"architectures": ["HubertForPets"]}))
        case "config":
            (folder / "config.json").write_text("{")
        case "tensor gone":
            edit(folder, lambda t: t.pop(name))
    return folder


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty folder", "holds no config.json"),
        ("pickle", "pytorch_model.bin.*convert"),
        ("cut", "model.safetensors is damaged or cut short"),
        ("no header", "model.safetensors is damaged or cut short"),
        ("shard cut", "model-00001-of-.*damaged or cut short"),
        ("shard renamed", "model-00001-of-.*is missing"),
        ("renamed", "holds neither model.safetensors.*weights.safetensors"),
        ("nan", "'hubert.encoder.layers.0.feed_forward.intermediate_dense.weight' holds NaN"),
        ("inf", "'lm_head.weight' holds NaN or infinite"),
        ("family", "model_type 'bert' is not supported.*hubert, wav2vec2, wavlm, whisper"),
        ("architecture", "'HubertForPets' is not supported"),
        ("config", "config.json is not JSON"),
        ("tensor gone", "intermediate_dense.weight' is missing"),
    ],
)
def test_a_broken_model_is_refused_in_one_line(kind: str, message: str, tmp_path: Path) -> None:
    source = broken(kind, tmp_path / "source")
    before = files(source)
    with pytest.raises(UserError, match=message) as caught:
        paretone.compress(source, tmp_path / "out", sparsity=0.5)
    assert "\n" not in str(caught.value)
    assert files(source) == before
    assert [p.name for p in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing says how small"),
        ({"sparsity": 1.0}, "sparsity.*less than 1"),
        ({"sparsity": -0.1}, "sparsity.*greater than or equal to 0"),
        ({"sparsity": float("nan")}, "sparsity"),
        ({"sparsity": 0.9, "method": "cluster"}, "leaves .*attention no head of 4"),
        ({"sparsity": 0.5, "target_params": 0.5}, "exclude each other"),
        ({"target_params": 1.5}, "target_params.*less than or equal to 1"),
        ({"target_params": 0.1, "method": "cluster"}, "can shed leaves"),
        ({"target_params": 0.97, "units": "heads", "method": "random"}, None),
        ({"sparsity": 0.5, "method": "clutser"}, "did you mean 'cluster'"),
        ({"sparsity": 0.5, "units": "neurons"}, "units"),
        ({"sparsity": 0.5, "method": "cluster", "settings": {"outgoin": "sum"}}, "did you mean 'outgoing'"),
        ({"sparsity": 0.5, "method": "cluster", "settings": {"outgoing": "median"}}, "outgoing"),
        ({"sparsity": 0.5, "method": "cluster", "settings": {"rounds": -1}}, "rounds.*greater than or equal to 0"),
        ({"sparsity": 0.5, "method": "depth", "units": "ffn"}, "units has no effect"),
        ({"sparsity": 0.5, "method": "depth", "settings": {"stack": "decoder"}}, "has no decoder"),
        ({"target_params": 0.9, "method": "depth"}, "whole layers can't meet"),
        ({"recipe": "absent.yaml"}, "can't be read"),
        ({"plan": "absent.json"}, "can't be read"),
        ({"plan": "absent.json", "method": "cluster"}, "--method has no effect beside --plan"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused_in_one_line(
    options: dict[str, Any], message: str | None, sources: dict[str, Path], tmp_path: Path
) -> None:
    if message is None:  # coarse units that do reach their target
        paretone.compress(sources["hubert"], tmp_path / "out", **options)
        return
    with pytest.raises(UserError, match=message) as caught:
        paretone.compress(sources["hubert"], tmp_path / "out", **options)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("steps: []", "steps.*at least 1"),
        ("stepps: []", "unknown key 'stepps'; did you mean 'steps'"),
        ("steps: [{method: cluster, sparsty: 0.5}]", "did you mean 'sparsity'"),
        ("steps: [{sparsity: 0.5, rules: [{mtach: '*', keep: 1}]}]", "did you mean 'match'"),
        ("steps: [{sparsity: 0.5, rules: [{match: '*.fc1', keep: 1}]}]", "matches no module"),
        (
            "steps: [{method: cluster, sparsity: 0.5, rules: [{match: '*', keep: 2}, {match: '*.1.*', keep: 1}]}]",
            "rule 2.*earlier",
        ),
        (
            "steps: [{method: cluster, sparsity: 0.5, rules: [{match: '*.attention', sparsity: 0.5}]}]",
            "rule 1.*no effect",
        ),
        ("steps: [{sparsity: 0.5, rules: [{match: '*.attention', keep: 9}]}]", "can't keep 9"),
        ("steps: [{sparsity: 0.5, rules: [{match: '*.attention'}]}]", "give sparsity or keep"),
        ("steps: [{method: depth, sparsity: 0.5, rules: [{match: '*', keep: 1}]}]", "rules have no effect"),
        ("steps: [{method: cluster}]", "needs sparsity, target_params, target_bytes, target_macs or rules"),
        ("- a\n- b: [", "not YAML"),
        ("just words", "the whole"),
    ],
)
def test_a_recipe_line_without_effect_or_sense_is_refused(
    recipe: str, message: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(recipe)
    with pytest.raises(UserError, match=message) as caught:
        paretone.make_plan(sources["hubert"], recipe=tmp_path / "recipe.yaml")
    assert "\n" not in str(caught.value)


def test_a_glob_for_layer_1_does_not_hit_layer_11(sources: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(
        "steps: [{method: magnitude, rules: [{match: 'hubert.encoder.layers.1.*', sparsity: 0.5}]}]"
    )
    plan = paretone.make_plan(sources["hubert"], recipe=tmp_path / "recipe.yaml")
    changed = [m.name for m in plan.modules if m.width_after != m.width_before]
    assert changed == ["hubert.encoder.layers.1.attention", "hubert.encoder.layers.1.feed_forward"]


def test_a_plan_for_another_model_is_refused(sources: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(paretone.make_plan(sources["whisper"], sparsity=0.5).to_json())
    with pytest.raises(UserError, match="the plan does not fit"):
        paretone.compress(sources["hubert"], tmp_path / "out", plan=tmp_path / "plan.json")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["modules"][0].update(keep=99), "can't keep 99"),
        (lambda s: s["modules"][0].update(keep=0), "modules.0.keep.*greater than or equal to 1"),
        (lambda s: s["modules"].append(s["modules"][0]), "is listed twice"),
        (lambda s: s.update(method="clutser"), "did you mean 'cluster'"),
        (lambda s: s["settings"].update(outgoing="max"), "outgoing"),
        (lambda s: s.update(method="depth", settings={}), "can't do that"),
        (lambda s: s.update(layers=[{"name": "x", "depth": 3, "keep": [3]}]), "layers of 0 to 2"),
        (lambda s: s.update(extra=1), "extra"),
    ],
)
def test_a_plan_edited_into_nonsense_is_refused(
    change: Any, message: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    plan = json.loads(paretone.make_plan(sources["hubert"], sparsity=0.5, method="cluster").to_json())
    change(plan["steps"][0])
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(UserError, match=message) as caught:
        paretone.compress(sources["hubert"], tmp_path / "out", plan=tmp_path / "plan.json")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_output_that_exists_is_kept_unless_it_is_ours_and_overwriting_is_asked(
    sources: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    paretone.compress(sources["hubert"], out, sparsity=0.25)
    before = files(out)
    with pytest.raises(UserError, match="not empty; give another folder or pass --overwrite"):
        paretone.compress(sources["hubert"], out, sparsity=0.5)
    assert files(out) == before
    paretone.compress(sources["hubert"], out, sparsity=0.5, overwrite=True)
    assert files(out)["plan.json"] != before["plan.json"]
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(UserError, match="not overwritten"):
        paretone.compress(sources["hubert"], photos, sparsity=0.5, overwrite=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is a file"):
        paretone.compress(sources["hubert"], tmp_path / "file", sparsity=0.5)
    for inside in (sources["hubert"], sources["hubert"] / "out"):
        with pytest.raises(UserError, match="lie in one another"):
            paretone.compress(sources["hubert"], inside, sparsity=0.5, overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "out", "photos"]


def test_a_failed_overwrite_leaves_the_old_output(sources: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    paretone.compress(sources["hubert"], out, sparsity=0.25)
    before = files(out)
    bad = broken("nan", tmp_path / "bad")
    with pytest.raises(UserError, match="NaN"):
        paretone.compress(bad, out, sparsity=0.5, overwrite=True)
    assert files(out) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad", "out"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_named(sources: dict[str, Path], tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir()
    locked.chmod(stat.S_IREAD | stat.S_IEXEC)
    with pytest.raises(UserError, match="locked"):
        paretone.compress(sources["hubert"], locked / "out", sparsity=0.5)


# --- hub ids, in the hub's own cache format ------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A local cache with one model in two revisions."""
    root = tmp_path / "hub" / "models--someone--tiny-hubert"
    for number, commit in enumerate(("a" * 40, "b" * 40)):
        save_tiny(root / "snapshots" / commit, "hubert", seed=number)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("a" * 40)
    (root / "refs" / "v2").write_text("b" * 40)
    return tmp_path / "hub"


HUB_SCRIPT = """
import sys
from paretone.checkpoint import locate
from paretone.errors import UserError
try:
    print(locate(sys.argv[1], sys.argv[2] or None))
except UserError as error:
    print("refused:", error)
"""


def located(hub: Path, model: str, revision: str = "") -> str:
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(hub)}
    return subprocess.run(
        [sys.executable, "-c", HUB_SCRIPT, model, revision], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_a_hub_id_is_found_in_the_cache_at_its_revision(hub: Path) -> None:
    assert located(hub, "someone/tiny-hubert").endswith("a" * 40)
    assert located(hub, "someone/tiny-hubert", "v2").endswith("b" * 40)
    assert located(hub, "someone/tiny-hubert", "b" * 40).endswith("b" * 40)


def test_a_hub_id_without_network_is_refused_in_one_line(hub: Path) -> None:
    assert re.match(r"refused: .*'someone/else'.*HF_HUB_OFFLINE is set", located(hub, "someone/else"))
    assert re.match(r"refused: .*'v9'.*HF_HUB_OFFLINE is set", located(hub, "someone/tiny-hubert", "v9"))


@pytest.mark.parametrize(
    ("model", "revision", "message"),
    [
        ("digits-hubbert", None, "embedded models are"),
        ("./nowhere/model", None, "there is no such folder"),
        ("/nowhere/model", None, "there is no such folder"),
        (".", "main", "--revision main has no effect"),
        (__file__, None, "is a file"),
    ],
)
def test_a_model_that_is_not_there_is_refused(model: str, revision: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        locate(model, revision)
