"""Mixed widths: equal to a masked stock model, loadable everywhere, and never quietly wrong."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import CHARACTERS, HEADS, TINY, save_processor, save_tiny, tiny_audio, tiny_inputs
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCTC,
    AutoModelForSpeechSeq2Seq,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
    WhisperProcessor,
    pipeline,
)

import paretone
from paretone.errors import UserError
from paretone.model import REMOTE_CODE, auto_map_for, load, modeling_paretone
from paretone.model.modeling_paretone import NarrowWavLMAttention, WidthError

AUTO = {"hubert": AutoModelForCTC, "wav2vec2": AutoModelForCTC, "wavlm": AutoModelForCTC}
HEAD_DIM = 8

# What stays of each narrowed module: heads or hidden units. Other modules keep their stock width.
WAVEFORM_KEEP = {
    "encoder.layers.0.attention": [0, 2],
    "encoder.layers.1.attention": [3],
    "encoder.layers.0.feed_forward": list(range(5, 40)),
    "encoder.layers.2.feed_forward": [63],
}
WHISPER_KEEP = {
    "encoder.layers.0.self_attn": [1, 2],
    "encoder.layers.2.fc1": list(range(0, 64, 2)),
    "decoder.layers.0.encoder_attn": [0],
    "decoder.layers.1.self_attn": [0, 1, 3],
    "decoder.layers.2.encoder_attn": [2, 3],
    "decoder.layers.2.fc1": list(range(10)),
}
KEEP = {family: WHISPER_KEEP if family == "whisper" else WAVEFORM_KEEP for family in TINY}
NORMS = [{"pre_norm": pre, "layer_norm": layer} for pre in (False, True) for layer in (False, True)]
ATTENTIONS = {"wavlm": ["eager"]}  # stock WavLM has one path only
VARIANTS = [
    (family, attention, options)
    for family in TINY
    for attention in ATTENTIONS.get(family, ["eager", "sdpa"])
    for options in ([{}] if family == "whisper" else NORMS)
]
FAMILIES = list(TINY)


def columns(heads: list[int]) -> list[int]:
    return [HEAD_DIM * head + column for head in heads for column in range(HEAD_DIM)]


def consumer(name: str) -> str:
    if name.endswith("feed_forward"):
        return f"{name}.output_dense"
    return name.replace("fc1", "fc2") if name.endswith("fc1") else f"{name}.out_proj"


def producers(name: str) -> list[str]:
    if name.endswith("feed_forward"):
        return [f"{name}.intermediate_dense"]
    return [name] if name.endswith("fc1") else [f"{name}.{part}_proj" for part in "qkv"]


def masked(stock: PreTrainedModel, keep: dict[str, list[int]]) -> PreTrainedModel:
    """A copy of ``stock`` in which nothing reads the heads and units that are not kept."""
    model = copy.deepcopy(stock)
    for name, kept in keep.items():
        weight = model.base_model.get_submodule(consumer(name)).weight
        chosen = columns(kept) if name.endswith(("attention", "attn")) else kept
        rest = [column for column in range(weight.shape[1]) if column not in chosen]
        with torch.no_grad():
            weight[:, rest] = 0
    return model


def sliced(stock: PreTrainedModel, keep: dict[str, list[int]]) -> dict[str, Tensor]:
    prefix = "" if stock.base_model is stock else f"{stock.base_model_prefix}."
    tensors = {name: tensor.clone() for name, tensor in stock.state_dict().items() if name != "proj_out.weight"}
    for name, kept in keep.items():
        rows = columns(kept) if name.endswith(("attention", "attn")) else kept
        for producer in producers(name):
            for part in ("weight", "bias"):
                if f"{prefix}{producer}.{part}" in tensors:
                    tensors[f"{prefix}{producer}.{part}"] = tensors[f"{prefix}{producer}.{part}"][rows]
        tensors[f"{prefix}{consumer(name)}.weight"] = tensors[f"{prefix}{consumer(name)}.weight"][:, rows]
        if (gate := f"{prefix}{name}.gru_rel_pos_const") in tensors:
            tensors[gate] = tensors[gate][:, kept]
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def write_mixed(folder: Path, stock: PreTrainedModel, keep: dict[str, list[int]]) -> Path:
    """A compressed checkpoint as the package lays it out, sliced by hand."""
    folder.mkdir(exist_ok=True)
    config = stock.config.to_dict()
    family = config["model_type"]
    config |= {
        "architectures": [type(stock).__name__],
        "layer_widths": {name: len(kept) for name, kept in keep.items()},
        "auto_map": auto_map_for(family),
    }
    if family == "wavlm":
        config["position_bias_heads"] = {name: kept for name, kept in keep.items() if name.endswith("attention")}
    (folder / "config.json").write_text(json.dumps(config))
    save_file(sliced(stock, keep), folder / "model.safetensors", metadata={"format": "pt"})
    if stock.can_generate():
        stock.generation_config.save_pretrained(folder)
    shutil.copy(REMOTE_CODE, folder)
    save_processor(folder, family, ctc=type(stock) is not type(stock.base_model))
    return folder


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One compressed checkpoint of each family."""
    root = tmp_path_factory.mktemp("mixed")
    return {family: write_mixed(root / family, TINY[family](), KEEP[family]) for family in FAMILIES}


def output(model: PreTrainedModel, family: str) -> Tensor:
    inputs = {name: x.to(model.dtype) if x.is_floating_point() else x for name, x in tiny_inputs(family).items()}
    with torch.no_grad():
        result = model(**inputs)
    return result.logits if "logits" in result else result.last_hidden_state


def edit_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


# --- the same function as the masked model ---------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "attention", "options"), VARIANTS)
@pytest.mark.parametrize("ctc", [True, False])
def test_narrow_layers_equal_masked_ones(family, attention, options, ctc, tmp_path):
    stock = TINY[family](ctc=ctc, **options)
    stock.set_attn_implementation(attention)
    model, _ = load(write_mixed(tmp_path, stock, KEEP[family]), attn_implementation=attention)
    assert type(model).__name__ == f"Mixed{type(stock).__name__}"
    assert model.config._attn_implementation == attention
    reference = masked(stock, KEEP[family])
    assert (output(reference, family) - output(stock, family)).abs().max() > 0.1
    assert (output(model, family) - output(reference, family)).abs().max() < 1e-5
    # Outputs reach 5, where the rounding of float32 alone is 1e-6: the sharp comparison is in float64.
    assert (output(model.double(), family) - output(reference.double(), family)).abs().max() < 1e-12


@pytest.mark.parametrize("narrowed", [[0], [1], [2], [0, 2], [0, 1, 2]])
def test_stock_and_narrow_wavlm_layers_hand_on_one_position_bias(narrowed, tmp_path):
    stock = TINY["wavlm"]()
    keep = {f"encoder.layers.{layer}.attention": [3, 1] for layer in narrowed}
    model, _ = load(write_mixed(tmp_path, stock, keep))
    expected = output(masked(stock, keep).double(), "wavlm")
    assert (output(model.double(), "wavlm") - expected).abs().max() < 1e-12


def test_narrow_wavlm_attention_returns_its_weights_on_request(mixed):
    model, _ = load(mixed["wavlm"])
    plain = output(model, "wavlm")
    with torch.no_grad():
        result = model(**tiny_inputs("wavlm"), output_attentions=True)
    assert [tuple(weights.shape) for weights in result.attentions] == [(2, 2, 24, 24), (2, 1, 24, 24), (2, 4, 24, 24)]
    torch.testing.assert_close(result.attentions[0].sum(-1), torch.ones(2, 2, 24))
    torch.testing.assert_close(result.logits, plain)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_loads_and_stays_near(family, dtype, mixed):
    model, _ = load(mixed[family], dtype=dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    exact = output(load(mixed[family])[0], family)
    logits = output(model, family).float()
    assert logits.isfinite().all()
    assert (logits - exact).abs().mean() < 0.1 * exact.abs().mean()


def test_whisper_generates_the_same_with_and_without_cache(mixed):
    model, _ = load(mixed["whisper"])
    features = tiny_inputs("whisper")["input_features"]
    expected = masked(TINY["whisper"](), KEEP["whisper"]).generate(features, max_new_tokens=12)
    assert expected.shape[1] > 3
    assert torch.equal(model.generate(features, max_new_tokens=12), expected)
    assert torch.equal(model.generate(features, max_new_tokens=12, use_cache=False), expected)
    beams = model.generate(features, max_new_tokens=12, num_beams=3)
    assert torch.equal(model.generate(features, max_new_tokens=12, num_beams=3, use_cache=False), beams)
    static = model.generate(features, max_new_tokens=12, cache_implementation="static")
    assert torch.equal(static, expected)


# --- saved, loaded, trained ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_a_round_trip_through_disk_changes_no_bit(family, mixed, tmp_path):
    model, processor = load(mixed[family])
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again, _ = load(tmp_path)
    assert torch.equal(output(again, family), output(model, family))
    assert (tmp_path / REMOTE_CODE.name).read_bytes() == REMOTE_CODE.read_bytes()
    assert again.config.auto_map == auto_map_for(family)
    assert again.config.layer_widths == model.config.layer_widths


@pytest.mark.parametrize("family", FAMILIES)
def test_a_task_checkpoint_loads_as_its_base_model(family, mixed):
    model = AutoModel.from_pretrained(mixed[family])
    assert type(model) is not type(load(mixed[family])[0])
    whole, _ = load(mixed[family])
    assert torch.equal(output(model, family), output(whole.base_model, family))


def test_one_trainer_step_survives_save_and_reload(mixed, tmp_path):
    model, processor = load(mixed["hubert"])
    before = output(model, "hubert")
    inputs = tiny_inputs("hubert")
    rows = [{"input_values": inputs["input_values"][i], "labels": torch.tensor([5, 6, 7])} for i in range(2)]
    settings = TrainingArguments(tmp_path / "run", max_steps=1, report_to=[], use_cpu=True, save_strategy="no")
    trainer = Trainer(model, settings, train_dataset=rows)
    trainer.train()
    trainer.save_model(str(tmp_path / "tuned"))
    processor.save_pretrained(tmp_path / "tuned")
    tuned, _ = load(tmp_path / "tuned")
    after = output(model.eval(), "hubert")
    assert torch.equal(output(tuned, "hubert"), after)
    assert not torch.equal(after, before)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_narrow_weights_with_and_without_checkpointing(family, mixed):
    model, _ = load(mixed[family])
    inputs = tiny_inputs(family)
    labels = inputs.pop("decoder_input_ids", torch.tensor([[5, 6, 7], [8, 9, 10]]))
    model.freeze_feature_encoder() if family != "whisper" else None
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.config.apply_spec_augment = False
    model.train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        for layer in model.modules():
            for name in ("dropout", "activation_dropout"):
                if isinstance(getattr(layer, name, None), float):
                    setattr(layer, name, 0.0)
        model(**inputs, labels=labels).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    narrow = [name for name in gradients[0] if any(kept in name for kept in KEEP[family])]
    assert len(narrow) >= 2 * len(KEEP[family])
    assert all(gradients[0][name].abs().sum() > 0 for name in narrow if not name.endswith("k_proj.bias"))
    for name in gradients[0]:
        torch.testing.assert_close(gradients[1][name], gradients[0][name])


@pytest.mark.parametrize("family", FAMILIES)
def test_a_random_start_is_that_of_the_stock_class(family):
    config = copy.deepcopy(TINY[family]().config)
    config.layer_widths = {name: len(kept) for name, kept in KEEP[family].items()}
    if family == "wavlm":
        config.position_bias_heads = {name: kept for name, kept in KEEP[family].items() if "attention" in name}
    auto = AUTO.get(family, AutoModelForSpeechSeq2Seq)
    model = auto.from_config(config, dtype=torch.bfloat16)
    assert type(model).__module__ == "paretone.model.modeling_paretone"
    for name in KEEP[family]:
        for part in (*producers(name), consumer(name)):
            linear = model.base_model.get_submodule(part)
            assert linear.weight.dtype == torch.bfloat16
            assert 0.15 < linear.weight.float().std() < 0.25  # initializer_range is 0.2
            assert linear.bias is None or not linear.bias.any()
    for module in model.modules():
        if isinstance(module, NarrowWavLMAttention):
            assert (module.gru_rel_pos_const == 1).all()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefix", ["", "Mixed"])
def test_the_asr_pipeline_transcribes(family, prefix, mixed, tmp_path):
    folder = shutil.copytree(mixed[family], tmp_path / "model")
    stock = type(TINY[family]()).__name__
    edit_config(folder, architectures=[prefix + stock])
    recogniser = pipeline("automatic-speech-recognition", model=str(folder))
    assert type(recogniser.model).__name__ == f"Mixed{stock}"
    assert recogniser.type == ("seq2seq_whisper" if family == "whisper" else "ctc")
    processor = load(folder)[1]
    reference = pipeline(
        "automatic-speech-recognition",
        model=masked(TINY[family](), KEEP[family]),
        tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor,
    )
    heard = recogniser(tiny_audio())["text"]
    assert len(heard) > 5
    assert heard == reference(tiny_audio())["text"]


# --- other checkpoints are left alone --------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "ctc"), [(family, ctc) for family in FAMILIES for ctc in (True, False)])
def test_an_uncompressed_checkpoint_keeps_its_stock_class(family, ctc, tmp_path):
    stock = TINY[family](ctc=ctc)
    save_tiny(tmp_path, family, ctc=ctc)
    auto = AUTO.get(family, AutoModelForSpeechSeq2Seq) if ctc else AutoModel
    model, info = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert type(model) is type(stock)
    assert type(auto.from_config(stock.config)) is type(stock)
    assert not info["missing_keys"]
    assert torch.equal(output(model, family), output(stock, family))
    loaded, processor = load(tmp_path)
    assert type(loaded) is type(stock)
    kinds = {True: WhisperProcessor if family == "whisper" else Wav2Vec2Processor}
    assert type(processor) is kinds.get(ctc or family == "whisper", Wav2Vec2FeatureExtractor)
    assert not (tmp_path / REMOTE_CODE.name).exists()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_class_called_by_its_name_follows_the_configuration(family, mixed, tmp_path):
    stock = TINY[family]()
    save_tiny(tmp_path, family)
    own = getattr(modeling_paretone, f"Mixed{type(stock).__name__}")
    assert type(own.from_pretrained(mixed[family])) is own
    assert type(own.from_pretrained(tmp_path)) is type(stock)
    assert type(own.from_pretrained(tmp_path, config=str(tmp_path / "config.json"))) is type(stock)
    with pytest.raises(RuntimeError, match="ignore_mismatched_sizes"):
        type(stock).from_pretrained(mixed[family])


@pytest.mark.parametrize("family", FAMILIES)
def test_configurations_stay_stock(family, mixed):
    config = AutoConfig.from_pretrained(mixed[family])
    assert type(config) is type(TINY[family]().config)
    assert config.num_attention_heads == HEADS


# --- machines with and without the package ---------------------------------------------------------------------------

CHECK = """
import sys, json
import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCTC, AutoModelForSpeechSeq2Seq, AutoProcessor
root, module, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
def check():
    for family in ("hubert", "wav2vec2", "wavlm", "whisper"):
        saved = load_file(f"{root}/{family}.safetensors")
        logits = saved.pop("logits")
        auto = AutoModelForSpeechSeq2Seq if family == "whisper" else AutoModelForCTC
        model = auto.from_pretrained(f"{root}/{family}", **options)
        assert type(model).__name__.startswith("Mixed"), type(model)
        assert type(model).__module__.startswith(module), type(model)
        inputs = {name: x.bool() if name == "attention_mask" else x for name, x in saved.items()}
        with torch.no_grad():
            assert torch.equal(model(**inputs).logits, logits), family
        AutoProcessor.from_pretrained(f"{root}/{family}")
        assert type(AutoModel.from_pretrained(f"{root}/{family}", **options)).__module__.startswith(module)
"""
BLOCKER = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "paretone":
            raise ImportError("No module named 'paretone'")
sys.meta_path.insert(0, Blocker())
"""


def run_python(code: str, root: Path, module: str, options: dict[str, Any], cache: Path) -> None:
    arguments = [str(root), module, json.dumps(options)]
    environment = {**os.environ, "HF_MODULES_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # sums in another order differ in the last bit
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        cwd=cache,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def answered(mixed, tmp_path_factory) -> Path:
    """The compressed checkpoints beside inputs and the logits expected for them."""
    root = tmp_path_factory.mktemp("answered")
    for family, folder in mixed.items():
        shutil.copytree(folder, root / family)
        inputs = {name: x.to(torch.uint8) if x.dtype is torch.bool else x for name, x in tiny_inputs(family).items()}
        save_file({**inputs, "logits": output(load(folder)[0], family)}, root / f"{family}.safetensors")
    return root


IMPORTS = {
    "paretone first": "import paretone\n",
    "auto classes first": "from transformers import AutoModelForCTC\nimport paretone\n",
    "transformers first": "import transformers\nimport paretone\n",
    "a half-imported model": (
        "import paretone\nfrom transformers.models.whisper.modeling_whisper import WhisperModel\n"
        "from transformers import Trainer, pipeline\n"
    ),
}


@pytest.mark.parametrize("imports", IMPORTS.values(), ids=IMPORTS)
def test_importing_the_package_is_enough_in_any_order(imports, answered, tmp_path):
    run_python(imports + CHECK + "check()\n", answered, "paretone.model.modeling_paretone", {}, tmp_path)


def test_remote_code_serves_machines_without_the_package(answered, tmp_path):
    tuned = f"""
model = AutoModelForCTC.from_pretrained(f"{{root}}/wavlm", **options)
model.save_pretrained({str(tmp_path / "again")!r})
again = AutoModelForCTC.from_pretrained({str(tmp_path / "again")!r}, **options)
assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
"""
    code = BLOCKER + CHECK + "check()\n" + tuned
    run_python(code, answered, "transformers_modules", {"trust_remote_code": True}, tmp_path)
    assert (tmp_path / "again" / REMOTE_CODE.name).read_bytes() == REMOTE_CODE.read_bytes()


def test_without_package_and_remote_code_every_family_fails_loudly(answered, tmp_path):
    refusal = """
for family in ("hubert", "wav2vec2", "wavlm", "whisper"):
    for auto in (AutoModel, AutoModelForSpeechSeq2Seq if family == "whisper" else AutoModelForCTC):
        try:
            auto.from_pretrained(f"{root}/{family}")
        except RuntimeError as error:
            assert "ignore_mismatched_sizes" in str(error), error
        else:
            raise SystemExit(f"{family} loaded as a stock class")
"""
    run_python(BLOCKER + CHECK + refusal, answered, "", {}, tmp_path)


def test_importing_the_package_imports_neither_torch_nor_transformers(tmp_path):
    code = "import sys, paretone, paretone.model\nassert not {'torch', 'transformers', 'numpy'} & set(sys.modules)\n"
    run_python(code, tmp_path, "", {}, tmp_path)


# --- refusals --------------------------------------------------------------------------------------------------------


def test_a_missing_tensor_is_named(mixed, tmp_path):
    folder = shutil.copytree(mixed["hubert"], tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.bias"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"missing: lm_head\.bias"):
        load(folder)


def test_a_leftover_tensor_is_named(mixed, tmp_path):
    folder = shutil.copytree(mixed["wavlm"], tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["wavlm.encoder.layers.7.final_layer_norm.bias"] = torch.zeros(32)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"not part of it: wavlm\.encoder\.layers\.7\.final_layer_norm\.bias"):
        load(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tensor_of_another_shape_is_named(family, mixed, tmp_path):
    folder = shutil.copytree(mixed[family], tmp_path / "model")
    name = next(name for name in KEEP[family] if name.endswith(("feed_forward", "fc1")))
    edit_config(folder, layer_widths={n: len(k) for n, k in KEEP[family].items()} | {name: 11})
    with pytest.raises(
        UserError, match=rf"of another shape: .*{consumer(name)}\.weight \(32, \d+\), needed \(32, 11\)"
    ):
        load(folder)


@pytest.mark.parametrize("present", [True, False])
def test_the_mask_embedding_of_training_may_be_absent_or_left_over(present, tmp_path):
    save_tiny(tmp_path, "hubert")
    if present:
        edit_config(tmp_path, mask_time_prob=0.0)
    else:
        tensors = load_file(tmp_path / "model.safetensors")
        del tensors["hubert.masked_spec_embed"]
        save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(output(load(tmp_path)[0], "hubert"), output(TINY["hubert"](), "hubert"))


@pytest.mark.parametrize(
    ("family", "fields", "message"),
    [
        ("hubert", {"layer_widths": {"encoder.layers.9.attention": 2}}, "'encoder.layers.9.attention' is no module"),
        ("hubert", {"layer_widths": {"": 2}}, "'' is neither an attention nor a feed-forward"),
        ("hubert", {"layer_widths": {"encoder.layers.0.layer_norm": 2}}, "neither an attention nor a feed-forward"),
        ("whisper", {"layer_widths": {"decoder.layers.0.fc2": 2}}, "neither an attention nor a feed-forward"),
        ("hubert", {"layer_widths": {"encoder.layers.0.attention": 0}}, "has 1 to 4 heads, not 0"),
        ("hubert", {"layer_widths": {"encoder.layers.0.attention": 5}}, "has 1 to 4 heads, not 5"),
        ("wavlm", {"layer_widths": {"encoder.layers.0.attention": 2.0}}, "has 1 to 4 heads, not 2.0"),
        ("hubert", {"layer_widths": {"encoder.layers.0.feed_forward": -1}}, "has 0 or more hidden units, not -1"),
        ("wavlm", {"position_bias_heads": {}}, "'encoder.layers.0.attention' is missing"),
        ("wavlm", {"position_bias_heads": {"encoder.layers.0.attention": [0, 4]}}, "needs 2 heads below 4"),
        ("wavlm", {"position_bias_heads": {"encoder.layers.0.attention": [0]}}, "needs 2 heads below 4"),
        ("hubert", {"position_bias_heads": {"encoder.layers.0.attention": [0, 1]}}, "no narrowed WavLM attention"),
        ("hubert", {"architectures": ["HubertForSequenceClassification"]}, "Supported: HubertModel, HubertForCTC"),
        ("hubert", {"architectures": None}, "architectures None is not supported"),
        ("hubert", {"model_type": "bert"}, "'bert' is not supported. Supported: hubert, wav2vec2, wavlm, whisper"),
    ],
)
def test_a_wrong_configuration_is_one_clear_line(family, fields, message, mixed, tmp_path):
    folder = shutil.copytree(mixed[family], tmp_path / "model")
    edit_config(folder, **fields)
    with pytest.raises(UserError) as refusal:
        load(folder)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_auto_classes_refuse_unknown_modules_too(mixed, tmp_path):
    folder = shutil.copytree(mixed["hubert"], tmp_path / "model")
    edit_config(folder, layer_widths={"hubert.encoder.layers.0.attention": 2})
    with pytest.raises(WidthError, match=r"'hubert\.encoder\.layers\.0\.attention' is no module of HubertModel"):
        AutoModelForCTC.from_pretrained(folder)


def test_damaged_and_missing_shards_are_named(tmp_path):
    save_tiny(tmp_path, "whisper", max_shard_size="60KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    load(tmp_path)
    whole = shards[0].read_bytes()
    shards[0].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=shards[0].name):
        load(tmp_path)
    shards[0].unlink()
    with pytest.raises(UserError, match=shards[0].name):
        load(tmp_path)


def test_a_model_without_processor_files_is_refused(mixed, tmp_path):
    folder = shutil.copytree(mixed["hubert"], tmp_path / "model")
    (folder / "processor_config.json").unlink()
    with pytest.raises(UserError, match=r"has neither preprocessor_config\.json nor processor_config\.json"):
        load(folder)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("hubert", {"dtype": "float61"}, "did you mean 'float16'"),
        ("hubert", {"attn_implementation": "eagre"}, "did you mean 'eager'"),
        ("wavlm", {"attn_implementation": "sdpa"}, "WavLM has one attention only"),
        ("hubert", {"device": "toaster"}, "device 'toaster' is not usable here"),
    ],
)
def test_a_wrong_option_is_refused(family, options, message, mixed):
    with pytest.raises(UserError, match=message):
        load(mixed[family], **options)


def test_the_vocabulary_of_the_processor_is_the_model_s(mixed):
    model, processor = load(mixed["hubert"])
    assert processor.tokenizer.vocab_size == model.config.vocab_size == len(CHARACTERS)


def test_auto_maps_name_classes_of_the_remote_code():
    for family in FAMILIES:
        for auto_class, target in auto_map_for(family).items():
            module, _, name = target.partition(".")
            assert module == REMOTE_CODE.stem
            assert getattr(modeling_paretone, name)._auto_class == auto_class
    assert paretone.__version__
