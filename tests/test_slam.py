"""The speech LLM: its parts alone and together, in batches and alone, on disk and back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny
import torch
import transformers

import paretone
from paretone.errors import UserError
from paretone.evaluation import evaluate
from paretone.evaluation.guards import without_loop
from paretone.model import load
from paretone.model.slam import encoders
from paretone.model.slam.adapters import Lora
from paretone.model.slam.assembly import merge_slam, new_slam, save_slam
from paretone.model.slam.encoders import cut_tower, encode
from paretone.model.slam.projectors import make_projector, projectors

FAMILIES = sorted(tiny.TINY)
SMALL: dict[str, dict[str, Any]] = {
    "concat-linear": {"k": 2, "hidden": 20},
    "conv1d": {"k": 2, "hidden": 20},
    "q-former": {"queries": 6, "layers": 1, "heads": 2, "hidden": 16},
}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parts")
    found = {family: tiny.save_tiny(folder / family, family) for family in FAMILIES}
    return found | {"lm": tiny.save_tiny_lm(folder / "lm")}


def made(parts: dict[str, Path], family: str = "whisper", projector: str = "concat-linear", **given: Any) -> Any:
    torch.manual_seed(0)
    return new_slam(
        str(parts[family]), str(parts["lm"]), projector=projector, projector_settings=SMALL[projector], **given
    )


def waves() -> list[np.ndarray]:
    return [tiny.tiny_audio(seconds, seed) for seed, seconds in enumerate((0.4, 1.7, 1.0))]


TEXTS = ["to", "længere end de andre", "drie vier"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("projector", projectors())
def test_a_batch_gives_the_losses_and_texts_of_its_items(parts: dict[str, Path], family: str, projector: str) -> None:
    model, processor = made(parts, family, projector, lora=Lora(4, 8))
    batch = processor(waves(), TEXTS, sampling_rate=16_000)
    with torch.no_grad():
        together = model(**batch)
        answers = model.generate(**{k: v for k, v in batch.items() if k != "labels"}, max_new_tokens=12)
    labels = batch["labels"]
    total = 0.0
    for row, (wave, text) in enumerate(zip(waves(), TEXTS, strict=True)):
        alone = processor([wave], [text], sampling_rate=16_000)
        with torch.no_grad():
            loss = model(**alone)
            answer = model.generate(**{k: v for k, v in alone.items() if k != "labels"}, max_new_tokens=12)[0]
        count = alone["labels"].shape[1]
        assert torch.allclose(together.logits[row, :count], loss.logits[0], atol=1e-4)
        total += float(loss.loss) * count
        both = [processor.tokenizer.decode(each, skip_special_tokens=True) for each in (answers[row], answer)]
        assert both[0] == both[1]
    assert float(together.loss) == pytest.approx(total / int((labels != -100).sum()), abs=1e-4)


def test_the_loss_is_that_of_the_written_out_sequence(parts: dict[str, Path]) -> None:
    """By hand: embeddings in a row, the language model as it is, only the answer and its end counted."""
    model, processor = made(parts)
    item = processor([waves()[1]], ["ja"], sampling_rate=16_000)
    answer = item["labels"]
    with torch.no_grad():
        audio, _ = model.audio_embeddings(item["input_features"], item["attention_mask"])
        embed = model.get_input_embeddings()
        prompt = processor.tokenizer("Transcribe speech to text.\n", return_tensors="pt").input_ids
        sequence = torch.cat([audio, embed(prompt), embed(answer)], dim=1)
        logits = model.language_model(inputs_embeds=sequence).logits
        expected = torch.nn.functional.cross_entropy(logits[0, -answer.shape[1] - 1 : -1], answer[0])
        assert answer[0, -1] == processor.tokenizer.eos_token_id
        assert float(model(**item).loss) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_training_scores_labels_alone_with_the_same_loss_and_gradients(parts: dict[str, Path], family: str) -> None:
    model, processor = made(parts, family, lora=Lora(4, 8, 0.0))
    model.projector.dropout.p = 0.0
    batch = processor(waves(), TEXTS, sampling_rate=16_000)
    found = {}
    for is_training in (True, False):
        model.train(is_training)
        model.zero_grad()
        output = model(**batch)
        assert (output.logits is None) == is_training
        output.loss.backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found[is_training] = torch.cat([output.loss.detach()[None], *gradients])
    assert len(found[True]) > 100
    assert torch.allclose(found[True], found[False], atol=1e-5)


def test_generation_equals_a_manual_loop_and_beams_run(parts: dict[str, Path]) -> None:
    model, processor = made(parts)
    item = processor([waves()[1]], sampling_rate=16_000)
    written: list[int] = []
    with torch.no_grad():
        audio, _ = model.audio_embeddings(item["input_features"], item["attention_mask"])
        embed = model.get_input_embeddings()
        sequence = torch.cat([audio, embed(torch.tensor([model.config.prompt_ids]))], dim=1)
        for _ in range(10):
            token = int(model.language_model(inputs_embeds=sequence).logits[0, -1].argmax())
            written.append(token)
            sequence = torch.cat([sequence, embed(torch.tensor([[token]]))], dim=1)
    assert model.generate(**item, max_new_tokens=10)[0].tolist() == written
    assert model.generate(**item, max_new_tokens=5, num_beams=2).shape[1] <= 5


def test_whole_windows_are_heard_as_whisper_hears_them(parts: dict[str, Path]) -> None:
    whisper, _ = load(parts["whisper"])
    features = tiny.tiny_inputs("whisper")["input_features"]
    with torch.no_grad():
        expected = whisper.get_encoder()(features).last_hidden_state
        found, _ = encode(whisper.get_encoder(), features)
    assert torch.allclose(found[3], expected, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_pass_gives_what_every_cut_encoder_gives(parts: dict[str, Path], family: str) -> None:
    whole, _ = load(parts[family])
    base = whole.base_model
    inputs = tiny.tiny_inputs(family)
    values = inputs["input_features"] if family == "whisper" else inputs["input_values"]
    tower = base.encoder if family == "whisper" else base
    with torch.no_grad():
        depths, _ = encode(tower, values, None, [1, 2, 3])
        for depth in (1, 2, 3):
            fresh, _ = load(parts[family])
            cut = cut_tower(fresh.base_model, list(range(depth)))
            found, _ = encode(cut, values)
            assert torch.allclose(found[depth], depths[depth], atol=1e-5)


def test_pruned_layers_are_gone_from_memory_and_disk(parts: dict[str, Path], tmp_path: Path) -> None:
    whole, _ = made(parts)
    pruned, processor = made(parts, layers=[0, 2])
    layer = sum(p.numel() for p in whole.audio_tower.layers[1].parameters())
    assert whole.part_sizes()["encoder"] - pruned.part_sizes()["encoder"] == layer
    assert pruned.config.audio_config.encoder_layers == 2
    (tmp_path / "run").mkdir()
    save_slam(pruned, processor, tmp_path / "run")
    merged = tmp_path / "merged"
    merged.mkdir()
    merge_slam(tmp_path / "run", merged)
    with (merged / "model.safetensors").open("rb"):
        names = transformers.AutoModelForSpeechSeq2Seq.from_pretrained(merged).state_dict()
    assert not any(name.startswith("audio_tower.layers.2.") for name in names)


@pytest.mark.parametrize("family", FAMILIES)
def test_runs_and_merged_models_come_back_alike(parts: dict[str, Path], tmp_path: Path, family: str) -> None:
    model, processor = made(parts, family, lora=Lora(2, 4))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    (tmp_path / "run").mkdir()
    save_slam(model, processor, tmp_path / "run")
    (tmp_path / "merged").mkdir()
    merge_slam(tmp_path / "run", tmp_path / "merged")
    item = processor([waves()[1]], ["et svar"], sampling_rate=16_000)
    with torch.no_grad():
        expected = model(**item).logits
        for folder in ("run", "merged"):
            again, its_processor = load(tmp_path / folder)
            same = its_processor([waves()[1]], ["et svar"], sampling_rate=16_000)
            assert torch.allclose(again(**same).logits, expected, atol=1e-4), folder
            stock = transformers.AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / folder).eval()
            assert torch.allclose(stock(**same).logits, expected, atol=1e-4), folder
    own = sum(f.stat().st_size for f in (tmp_path / "run").rglob("*.safetensors"))
    assert own < sum(f.stat().st_size for f in (tmp_path / "merged").rglob("*.safetensors")) / 2


def test_a_pipeline_transcribes(parts: dict[str, Path], tmp_path: Path) -> None:
    model, processor = made(parts, max_new_tokens=6)
    (tmp_path / "run").mkdir()
    save_slam(model, processor, tmp_path / "run")
    loaded, its_processor = load(tmp_path / "run")
    pipe = transformers.pipeline(
        "automatic-speech-recognition",
        model=loaded,
        tokenizer=its_processor.tokenizer,
        feature_extractor=its_processor.feature_extractor,
    )
    item = processor([waves()[1]], sampling_rate=16_000)
    expected = processor.tokenizer.decode(model.generate(**item, max_new_tokens=6)[0], skip_special_tokens=True)
    heard = pipe(waves()[1], generate_kwargs={"max_new_tokens": 6, "num_beams": 1})["text"]
    assert heard == expected


def test_adapters_are_float32_in_a_language_model_that_is_not(parts: dict[str, Path], tmp_path: Path) -> None:
    """Updates of 1e-4 of a weight are lost in bfloat16, the type that most models are stored and kept in on a GPU."""
    model, processor = made(parts, lora=Lora(2, 4), dtype="bfloat16")
    trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert {p.dtype for name, p in trainable.items() if "lora_" in name} == {torch.float32}
    assert {p.dtype for name, p in model.language_model.named_parameters() if "lora_" not in name} == {torch.bfloat16}
    with torch.no_grad():
        for parameter in trainable.values():
            parameter.add_(1e-4 * torch.randn_like(parameter))
    (tmp_path / "run").mkdir()
    save_slam(model, processor, tmp_path / "run")
    loaded = dict(load(tmp_path / "run", dtype="bfloat16")[0].named_parameters())
    assert all(torch.equal(parameter, loaded[name]) for name, parameter in trainable.items())


def test_only_what_is_to_be_trained_gets_gradients(parts: dict[str, Path]) -> None:
    model, processor = made(parts, lora=Lora(2, 4))
    model.train()
    model(**processor(waves(), TEXTS, sampling_rate=16_000)).loss.backward()
    moving = {name for name, p in model.named_parameters() if p.grad is not None}
    assert model.projector.training
    assert not any(module.training for module in model.audio_tower.modules())
    assert moving == {n for n, _ in model.named_parameters() if n.startswith("projector.") or "lora_" in n}


@pytest.mark.parametrize(
    ("size", "count"), [(768, 12.07e6), (1024, 14.69e6), (1280, 17.31e6)], ids=["small", "medium", "large-v2"]
)
def test_the_papers_projector_has_its_size(size: int, count: float) -> None:
    projector = make_projector("concat-linear", size, 2048, {})
    assert sum(p.numel() for p in projector.parameters()) == pytest.approx(count, rel=5e-4)


@pytest.mark.parametrize("seconds", [0.3, 1.0, 1.01, 2.0])
def test_waveforms_are_filled_up_to_whole_seconds(parts: dict[str, Path], seconds: float) -> None:
    _, processor = made(parts)
    found = processor([tiny.tiny_audio(seconds)], sampling_rate=16_000)
    assert found["attention_mask"].sum() == 100 * np.ceil(seconds)
    _, whole = made(parts, pad_to_window=True)
    assert whole([tiny.tiny_audio(seconds)], sampling_rate=16_000)["attention_mask"].sum() == 200


def test_what_does_not_fit_is_refused(parts: dict[str, Path], tmp_path: Path) -> None:
    for given, said in (
        ({"layers": [0, 3]}, "keep 1 to 3 different layers of 0 to 2"),
        ({"layers": []}, "keep 1 to 3"),
        ({"lora": Lora(targets=("q_prj",))}, "did you mean 'q_proj'"),
        ({"lora": Lora(r=0)}, "r 1 or more"),
        ({"prompt": ""}, "give some words"),
    ):
        with pytest.raises(UserError, match=said):
            made(parts, **given)
    with pytest.raises(UserError, match="is no causal language model"):
        new_slam(str(parts["whisper"]), str(parts["hubert"]))
    with pytest.raises(UserError, match="is no speech encoder"):
        new_slam(str(parts["lm"]), str(parts["lm"]))
    with pytest.raises(UserError, match="no setting 'kk'; it has k, hidden, dropout"):
        new_slam(str(parts["whisper"]), str(parts["lm"]), projector_settings={"kk": 2})
    with pytest.raises(UserError, match="none of concat-linear, conv1d, q-former"):
        new_slam(str(parts["whisper"]), str(parts["lm"]), projector="linear")


def test_a_part_that_was_exchanged_is_noticed(parts: dict[str, Path], tmp_path: Path) -> None:
    own = dict(parts) | {"lm": tiny.save_tiny_lm(tmp_path / "lm")}
    model, processor = made(own, lora=Lora(2, 4))
    (tmp_path / "run").mkdir()
    save_slam(model, processor, tmp_path / "run")
    tiny.save_tiny_lm(tmp_path / "lm", seed=1)
    with pytest.raises(UserError, match="is not the one it was trained with"):
        load(tmp_path / "run")
    tiny.save_tiny_lm(tmp_path / "lm")
    load(tmp_path / "run")
    adapter = tmp_path / "run" / "adapter" / "adapter_model.safetensors"
    adapter.write_bytes(adapter.read_bytes()[:-8])
    with pytest.raises(UserError, match="damaged or cut short"):
        load(tmp_path / "run")


def test_it_is_evaluated_as_every_model(parts: dict[str, Path], tmp_path: Path) -> None:
    model, processor = made(parts, lora=Lora(2, 4), max_new_tokens=12)
    (tmp_path / "run").mkdir()
    save_slam(model, processor, tmp_path / "run")
    data = tmp_path / "data.jsonl"
    lines = []
    for number, wave in enumerate(waves()):
        soundfile.write(tmp_path / f"{number}.wav", wave, 16_000)
        lines.append({"audio": f"{number}.wav", "text": TEXTS[number], "language": ["da", "da", "nl"][number]})
    soundfile.write(tmp_path / "silence.wav", np.full(16_000, 1e-4, np.float32), 16_000)
    lines.append({"audio": "silence.wav", "text": "intet"})
    data.write_text("\n".join(map(json.dumps, lines)))
    result = evaluate(tmp_path / "run", data, baseline=parts["whisper"])
    assert result.decoding["guards"]["silence"] == 1
    assert result.decoding["guards"]["unfinished"] >= result.decoding["guards"]["loops"]
    assert result.parameters == sum(result.parts.values()) == sum(p.numel() for p in model.parameters())
    sizes = [p.stat().st_size for part in ("whisper", "lm") for p in parts[part].glob("*.safetensors")]
    assert result.size_bytes == sum(sizes) + sum(p.stat().st_size for p in (tmp_path / "run").rglob("*.safetensors"))
    assert result.macs > result.baseline.macs / 3
    assert evaluate(tmp_path / "run", data, batch_s=1).wer == result.wer


@pytest.mark.parametrize(
    ("tokens", "left"),
    [
        ([1, 2, 3], [1, 2, 3]),
        ([7, 1, 1, 1, 1], [7, 1]),
        ([7, 1, 1, 1], [7, 1, 1, 1]),
        ([9, *[1, 2, 3] * 5], [9, 1, 2, 3]),
        ([*[4, 5] * 4, 6], [*[4, 5] * 4, 6]),
        ([], []),
    ],
)
def test_loops_are_cut(tokens: list[int], left: list[int]) -> None:
    assert without_loop(tokens) == left


@pytest.mark.parametrize("family", FAMILIES)
def test_compressed_encoders_are_encoders(parts: dict[str, Path], tmp_path: Path, family: str) -> None:
    paretone.compress(str(parts[family]), tmp_path / "small", sparsity=0.5, preset="best")
    own = dict(parts) | {family: tmp_path / "small"}
    whole, _ = load(tmp_path / "small")
    model, processor = made(own, family, layers=[0, 2])
    tower = whole.base_model.encoder if family == "whisper" else whole.base_model
    for new, old in ((0, 0), (1, 2)):
        kept, stored = encoders.layers_of(model.audio_tower)[new], encoders.layers_of(tower)[old]
        assert [p.shape for p in kept.parameters()] == [p.shape for p in stored.parameters()]
    (tmp_path / "run").mkdir()
    save_slam(model, processor, tmp_path / "run")
    (tmp_path / "merged").mkdir()
    merge_slam(tmp_path / "run", tmp_path / "merged")
    item = processor([waves()[1]], ["et svar"], sampling_rate=16_000)
    with torch.no_grad():
        expected = model(**item).logits
        for folder in ("run", "merged"):
            again, _ = load(tmp_path / folder)
            assert torch.allclose(again(**item).logits, expected, atol=1e-4), folder


def test_other_commands_say_what_to_do(parts: dict[str, Path], tmp_path: Path) -> None:
    model, processor = made(parts)
    (tmp_path / "run").mkdir()
    save_slam(model, processor, tmp_path / "run")
    soundfile.write(tmp_path / "a.wav", waves()[1], 16_000)
    (tmp_path / "data.jsonl").write_text(json.dumps({"audio": "a.wav", "text": "to"}))
    with pytest.raises(UserError, match="compress its encoder"):
        paretone.compress(str(tmp_path / "run"), tmp_path / "small", sparsity=0.5)
    with pytest.raises(UserError, match="paretone slam train trains those"):
        paretone.finetune(str(tmp_path / "run"), tmp_path / "tuned", tmp_path / "data.jsonl")
    assert paretone.transcribe(tmp_path / "run", [tmp_path / "a.wav"])[0].duration_s == pytest.approx(1.7)


@pytest.mark.parametrize("family", ["whisper", "hubert"])
def test_eager_and_sdpa_agree(parts: dict[str, Path], tmp_path: Path, family: str) -> None:
    model, processor = made(parts, family, lora=Lora(2, 4))
    (tmp_path / "run").mkdir()
    save_slam(model, processor, tmp_path / "run")
    batch = processor(waves(), TEXTS, sampling_rate=16_000)
    found = []
    for attention in ("eager", "sdpa"):
        again, _ = load(tmp_path / "run", attn_implementation=attention)
        assert again.language_model.config._attn_implementation == attention
        assert again.audio_tower.config._attn_implementation == attention
        with torch.no_grad():
            found.append(again(**batch).logits)
    told = batch["labels"] != -100
    assert torch.allclose(found[0][told], found[1][told], atol=1e-4)
