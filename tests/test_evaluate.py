"""Decoding, measuring and the way from a model and data to a result, with tiny random models."""

import hashlib
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny
import torch

from paretone.data import (
    AUDIO_KEY,
    RATE_HZ,
    Utterance,
    audio_digests,
    open_data,
    prepare,
    read_audio,
    read_making,
    seen_utterances,
    segment,
    write_making,
)
from paretone.errors import UserError
from paretone.evaluation import count_macs, count_parameters, decode, evaluate, recogniser, transcribe
from paretone.evaluation import evaluate as evaluate_function
from paretone.evaluation.measure import machine
from paretone.memory import peak_rss_bytes, reset_peak_rss
from paretone.model import load
from paretone.model.loading import chosen_device
from paretone.results import read_result, read_transcripts, score

LENGTHS_S = (1.0, 1.7, 0.6, 1.7, 0.6, 1.33)

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "hubert-layer": ("hubert", {}),
    "hubert-group": ("hubert", {"layer_norm": False, "pre_norm": False}),
    "wav2vec2-layer": ("wav2vec2", {}),
    "wavlm-layer": ("wavlm", {}),
    "wavlm-group": ("wavlm", {"layer_norm": False, "pre_norm": False}),
    "whisper": ("whisper", {}),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def recording(folder: Path, name: str, seconds: float, seed: int) -> Path:
    """Noise whose pitch and level change, so that random models hear more than one letter."""
    rng = np.random.default_rng(seed)
    count = int(seconds * RATE_HZ)
    steps = np.repeat(rng.uniform(100, 3000, count // 1600 + 1), 1600)[:count]
    wave = (
        0.2
        * np.sin(2 * np.pi * np.cumsum(steps) / RATE_HZ)
        * np.repeat(rng.uniform(0.1, 1, count // 800 + 1), 800)[:count]
    )
    path = folder / name
    soundfile.write(path, wave + 0.02 * rng.standard_normal(count), RATE_HZ, subtype="PCM_16")
    return path


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """A manifest of six recordings, two pairs of equal length."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for number, seconds in enumerate(LENGTHS_S):
        recording(folder, f"{number}.flac", seconds, number)
        rows.append({"audio": f"{number}.flac", "text": "en to tre", "language": "da", "speaker": "ab"[number % 2]})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "manifest.jsonl"


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """A checkpoint of every kind."""
    folder = tmp_path_factory.mktemp("models")
    made = {name: tiny.save_tiny(folder / name, family, **options) for name, (family, options) in KINDS.items()}
    return {**made, "other": tiny.save_tiny(folder / "other", "hubert", seed=3)}


def listen(kind: str, **fields):
    """A recogniser in memory. ``fields`` go to the model."""
    family, options = KINDS[kind]
    model = tiny.TINY[family](**options, **fields)
    if family == "whisper":
        return recogniser(kind, model, tiny.whisper_processor())
    return recogniser(kind, model, _waveform_processor())


def _waveform_processor(**changes):
    class Processor:
        feature_extractor = tiny.waveform_extractor()
        tokenizer = _Letters()

    for name, value in changes.items():
        setattr(Processor.feature_extractor, name, value)
    return Processor()


class _Letters:
    """Shows every frame, so that a difference in one of them is seen."""

    pad_token_id = 0
    word_delimiter_token_id = 4
    all_special_ids = (0, 1, 2, 3)

    def decode(self, labels):
        return "".join("." if label == 0 else tiny.CHARACTERS[label] for label in labels)


def utterances(corpus: Path) -> list[Utterance]:
    return [
        Utterance(str(n), corpus.parent / f"{n}.flac", f"{n}.flac", "", None, None, seconds)
        for n, seconds in enumerate(LENGTHS_S)
    ]


# --- batches ---


@pytest.mark.parametrize("kind", KINDS)
def test_results_do_not_depend_on_what_shares_a_batch(corpus, kind):
    ready, listed = listen(kind), utterances(corpus)
    alone = [decode(ready, [each]).texts[0] for each in listed]
    assert len(set(alone)) > 1  # the model tells the recordings apart
    for batch_s in (0.1, 3.5, 1000.0):
        assert decode(ready, listed, batch_s=batch_s).texts == alone
        assert decode(ready, listed[::-1], batch_s=batch_s).texts == alone[::-1]


@pytest.mark.parametrize(
    ("kind", "changes", "sizes"),
    [
        ("hubert-layer", {}, [6]),
        ("hubert-group", {}, [2, 1, 1, 2]),
        ("hubert-layer", {"return_attention_mask": False}, [2, 1, 1, 2]),
    ],
)
def test_models_that_hear_padding_share_a_batch_with_equal_lengths_only(corpus, kind, changes, sizes, monkeypatch):
    family, options = KINDS[kind]
    ready = recogniser(kind, tiny.TINY[family](**options), _waveform_processor(**changes))
    seen = []
    inner = ready.model.forward
    monkeypatch.setattr(
        ready.model, "forward", lambda values, **masks: seen.append((len(values), masks)) or inner(values, **masks)
    )
    decode(ready, utterances(corpus))
    assert [count for count, _ in seen[1:]] == sizes  # the first is the warm-up
    if len(sizes) == 1:
        assert seen[1][1]["attention_mask"].dtype == torch.bool
    else:
        assert all(not masks for _, masks in seen)


@pytest.mark.parametrize("kind", ["hubert-layer", "hubert-group"])
def test_ctc_hears_what_plain_transformers_hears(models, corpus, kind):
    from transformers import AutoModelForCTC, AutoProcessor

    model, processor = AutoModelForCTC.from_pretrained(models[kind]).eval(), AutoProcessor.from_pretrained(models[kind])
    heard = transcribe(models[kind], sorted(corpus.parent.glob("*.flac")))
    for each in heard:
        inputs = processor(soundfile.read(each.audio)[0], sampling_rate=RATE_HZ, return_tensors="pt")
        with torch.no_grad():
            labels = model(inputs.input_values).logits.argmax(-1)
        assert each.text == re.sub(r"<\w+>|</s>", "", processor.batch_decode(labels)[0]).strip()
    assert [each.duration_s for each in heard] == list(LENGTHS_S)


def test_whisper_hears_what_plain_transformers_hears(models, corpus):
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    model = WhisperForConditionalGeneration.from_pretrained(models["whisper"]).eval()
    processor = WhisperProcessor.from_pretrained(models["whisper"])
    for each in transcribe(models["whisper"], sorted(corpus.parent.glob("*.flac"))):
        inputs = processor(soundfile.read(each.audio)[0], sampling_rate=RATE_HZ, return_tensors="pt")
        tokens = model.generate(inputs.input_features, do_sample=False, max_length=24)
        assert each.text == processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()


def test_greedy_ctc_keeps_letters_that_a_blank_parts(models, tmp_path, monkeypatch):
    model, processor = load(models["hubert-layer"])
    label = {letter: number for number, letter in enumerate(tiny.CHARACTERS)}
    frames = ["<s>", "h", "h", "e", "l", "<pad>", "l", "l", "o", "<unk>", "|", "|", "o", "<pad>", "</s>"]
    logits = torch.nn.functional.one_hot(torch.tensor([[label[letter] for letter in frames]]), 32)
    monkeypatch.setattr(model, "forward", lambda *_, **__: SimpleNamespace(logits=logits))
    path = recording(tmp_path, "a.wav", 0.32, 0)  # 15 frames
    heard = decode(recogniser("", model, processor), [Utterance("", path, "", "", None, None, 0.32)])
    assert heard.texts == ["hello o"]


def test_a_runaway_generation_ends_at_the_last_position(corpus):
    ready = listen("whisper")
    ready.model.generation_config.eos_token_id = None  # never ends
    ready.model.generation_config.max_length = 5000
    seen = []
    inner = ready.model.generate
    ready.model.generate = lambda *a, **k: seen.append(inner(*a, **k)) or seen[-1]
    decode(ready, utterances(corpus)[:2])
    assert {tokens.shape[-1] for tokens in seen} <= {22, 24}  # 24 positions, with or without the prompt of two


@pytest.mark.parametrize("kind", ["hubert-layer", "whisper"])
def test_nothing_of_a_long_recording_is_lost(models, tmp_path, kind):
    seconds, window_s = (65.0, 30.0) if kind == "hubert-layer" else (9.0, 2.0)
    path = recording(tmp_path, "long.flac", seconds, 7)
    pieces = segment(read_audio(path), RATE_HZ, window_s)
    assert len(pieces) > 2
    for number, piece in enumerate(pieces):
        soundfile.write(tmp_path / f"{number}.wav", piece, RATE_HZ, subtype="FLOAT")
    parts = transcribe(models[kind], [tmp_path / f"{n}.wav" for n in range(len(pieces))])
    (whole,) = transcribe(models[kind], [path])
    assert whole.text == " ".join(part.text for part in parts if part.text)
    assert whole.duration_s == seconds


# --- Whisper's languages ---


def multilingual():
    ready = listen("whisper")
    settings = ready.model.generation_config
    settings.is_multilingual = True
    settings.lang_to_id = {"<|en|>": 258, "<|da|>": 259}
    settings.task_to_id = {"transcribe": 260}
    return ready


def test_a_multilingual_whisper_is_told_the_language(corpus):
    ready, listed = multilingual(), utterances(corpus)[:3]
    prompts = []
    ready.model.model.decoder.register_forward_hook(
        lambda _, args, kwargs, out: prompts.append(kwargs["input_ids"]), with_kwargs=True
    )
    languages = ["da-DK", "en", "da-DK"]
    decode(
        ready,
        [
            Utterance(u.id, u.audio, u.name, "", tag, None, u.duration_s)
            for u, tag in zip(listed, languages, strict=True)
        ],
    )
    first_tokens = [ids[0, 1].item() for ids in prompts if ids.shape[1] > 1]
    assert first_tokens[1:] == [259, 258]  # after the warm-up: one batch a language


def test_a_language_that_whisper_does_not_know_is_refused(corpus):
    first = utterances(corpus)[0]
    with pytest.raises(UserError, match="does not know the language 'xx'; it knows da en"):
        decode(multilingual(), [Utterance(first.id, first.audio, first.name, "", "xx", None, 1.0)])


# --- measures ---


def test_macs_of_a_hubert_by_hand():
    frames = 499  # of 160 000 samples, after convolutions 10/5, 8/4, 4/4, 4/4 without padding
    front = 31_999 * 16 * 10 + 7_998 * 16 * 16 * 8 + 1_999 * 16 * 16 * 4 + frames * 16 * 16 * 4
    positions = (frames + 1) * 32 * (32 // 4) * 16  # an even kernel gives one frame more, which is dropped
    layer = 4 * frames * 32 * 32 + 2 * frames * frames * 32 + 2 * frames * 32 * 64
    assert count_macs(tiny.tiny_hubert()) == front + frames * 16 * 32 + positions + 3 * layer + frames * 32 * 32


def test_macs_of_a_whisper_by_hand():
    heard, tokens, width, ffn = 100, 24, 32, 64
    front = 200 * 32 * 16 * 3 + heard * 32 * 32 * 3
    encoder = 4 * heard * width**2 + 2 * heard * heard * width + 2 * heard * width * ffn
    own = 4 * tokens * width**2 + 2 * tokens * tokens * width + 2 * tokens * width * ffn
    cross = 2 * tokens * width**2 + 2 * heard * width**2 + 2 * tokens * heard * width
    assert count_macs(tiny.tiny_whisper()) == front + 3 * (encoder + own + cross) + tokens * width * 264


@pytest.mark.parametrize("family", ["wav2vec2", "wavlm"])
def test_counting_macs_leaves_the_model_as_it_was(family):
    model = tiny.TINY[family]()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert count_macs(model) >= 86_943_776  # HuBERT's of the same size; WavLM has gates as well
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_half_the_ffn_saves_its_multiplications():
    saved = count_macs(tiny.tiny_hubert()) - count_macs(tiny.tiny_hubert(intermediate_size=32))
    assert saved == 3 * 2 * 499 * 32 * 32


def test_models_of_one_shape_are_counted_once(tmp_path, monkeypatch):
    models = [load(tiny.save_tiny(tmp_path / name, "hubert"))[0] for name in ("one", "other")]
    first = count_macs(models[0])
    monkeypatch.setattr("paretone.evaluation.measure.FlopCounterMode", None)  # another count would fail
    assert count_macs(models[1]) == first
    with pytest.raises(TypeError):
        count_macs(tiny.tiny_hubert(intermediate_size=40))


def test_tied_parameters_count_once():
    model = tiny.tiny_whisper()
    assert model.proj_out.weight is model.model.decoder.embed_tokens.weight
    assert count_parameters(model) == sum(
        p.numel() for name, p in model.state_dict().items() if name != "proj_out.weight"
    )


def test_peak_memory_holds_what_was_used_and_let_go():
    reset_peak_rss()
    before = peak_rss_bytes()
    block = np.ones(16_000_000)
    del block
    assert peak_rss_bytes() - before > 100_000_000


def test_the_machine_is_described():
    found = machine()
    assert found.threads == 1
    assert found.memory_bytes > 2**28
    assert found.torch == torch.__version__


# --- the whole way ---


@pytest.mark.parametrize("kind", ["hubert-layer", "whisper"])
def test_a_result_and_its_transcripts_tell_the_same(models, corpus, tmp_path, kind):
    out = tmp_path / "out"
    found = evaluate(models[kind], corpus, baseline=models["other"], out=out, seed=4, command=["paretone", "evaluate"])
    assert sorted(path.name for path in out.iterdir()) == [
        "baseline-transcripts.jsonl",
        "result.json",
        "transcripts.jsonl",
    ]
    assert read_result(out) == found
    again = score(out, out / "baseline-transcripts.jsonl", seed=4)
    for name in type(again).model_fields.keys() - {"baseline"}:
        assert getattr(found, name) == getattr(again, name), name
    assert found.baseline is not None
    assert again.baseline is not None
    for name in type(again.baseline).model_fields:
        assert getattr(found.baseline, name) == getattr(again.baseline, name), name
    assert found.delta_wer == pytest.approx(found.wer - found.baseline.wer)
    assert found.delta_wer_ci95[0] <= found.delta_wer <= found.delta_wer_ci95[1]
    assert [line.audio for line in read_transcripts(out)] == [f"{n}.flac" for n in range(6)]
    assert (found.words, found.utterances, found.normaliser) == (18, 6, "basic/1")
    assert found.data.audio_s == pytest.approx(sum(LENGTHS_S))
    assert found.size_bytes == (models[kind] / "model.safetensors").stat().st_size
    assert found.rtfx == pytest.approx(found.audio_s / found.seconds)
    assert found.model.digest != found.baseline.model.digest
    assert (found.baseline.model.name, found.baseline.model.family) == ("other", "hubert")
    assert found.command == ["paretone", "evaluate"]
    shown = json.loads(found.model_dump_json())
    assert {"wer", "cer", "parameters", "macs", "peak_rss_bytes"} <= shown["baseline"].keys()


def test_a_model_does_not_differ_from_itself(models, corpus):
    found = evaluate(models["other"], corpus, baseline=models["other"])
    assert (found.delta_wer, found.delta_wer_ci95, found.p_value) == (0.0, (0.0, 0.0), 1.0)
    assert (found.mapsswe_z, found.p_mapsswe) == (0.0, 1.0)
    assert [change.errors for change in found.word_changes] == [change.baseline_errors for change in found.word_changes]


def test_bad_recordings_are_counted_in_the_result(models, corpus, tmp_path):
    recording(tmp_path, "good.flac", 1.0, 0)
    soundfile.write(tmp_path / "mute.wav", np.zeros(RATE_HZ), RATE_HZ)
    rows = [{"audio": name, "text": "hej"} for name in ("good.flac", "mute.wav")]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"mute\.wav: silent"):
        evaluate(models["other"], tmp_path)
    found = evaluate(models["other"], tmp_path, skip_bad=True)
    assert found.utterances == found.data.utterances == 1
    assert [(each.audio, each.reason) for each in found.data.skipped] == [("mute.wav", "silent, every sample is zero")]


def test_a_model_is_not_measured_unawares_on_recordings_that_it_was_calibrated_on(models, corpus, tmp_path):
    model = tiny.save_tiny(tmp_path / "model", "hubert")
    digests = audio_digests(open_data(corpus).utterances)
    (model / "calibration.json").write_text(json.dumps({AUDIO_KEY: digests[:2]}))
    for given, baseline in ((model, None), (models["other"], model)):
        with pytest.raises(UserError, match=r"model was calibrated on 2 of the 6 recordings .*--allow-seen"):
            evaluate(given, corpus, baseline=baseline)
    found = evaluate(model, corpus, baseline=models["other"], allow_seen=True)
    assert found.baseline is not None
    assert (found.model.seen, found.baseline.model.seen) == (2, 0)
    (model / "calibration.json").write_text('{"somebody": "else"}')
    assert evaluate(model, corpus, limit=1).model.seen == 0
    (model / "calibration.json").write_text("{")
    with pytest.raises(UserError, match=r"calibration\.json can't be read"):
        evaluate(model, corpus)


def test_a_list_of_recordings_is_read_as_it_was_written(corpus, tmp_path):
    data = open_data(corpus)
    write_making(tmp_path / "calibration.json", {"clips": 6}, audio_digests(data.utterances))
    found = read_making(tmp_path, "calibration.json")
    assert found["clips"] == 6
    first = hashlib.sha256((corpus.parent / "0.flac").read_bytes()).hexdigest()[:16]
    assert first in found[AUDIO_KEY]
    assert seen_utterances(tmp_path, data) == {"calibration.json": [u.id for u in data.utterances]}


def test_prepared_data_is_evaluated_as_what_it_was_made_of(models, corpus, tmp_path):
    """Recordings are sorted by id, and these are in that order already."""
    prepare(corpus, tmp_path / "out", split="test")
    ours = evaluate(models["hubert-layer"], tmp_path / "out" / "test.jsonl", normaliser="slam")
    theirs = evaluate(models["hubert-layer"], corpus, normaliser="slam")
    assert (ours.utterances, ours.words, ours.wer, ours.normaliser) == (6, 18, theirs.wer, "slam/1")
    assert ours.data.digest == theirs.data.digest


def test_a_full_folder_is_refused_before_any_work(models, corpus, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(UserError, match="is not empty"):
        evaluate("no-such-model", corpus, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_interrupt_leaves_no_half_folder(models, corpus, tmp_path, monkeypatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(evaluate_function.__globals__, "score", interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate(models["other"], corpus, out=tmp_path / "out", limit=1)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_a_head_is_refused(tmp_path, corpus):
    folder = tiny.save_tiny(tmp_path / "base", "hubert", ctc=False)
    with pytest.raises(UserError, match="HubertModel writes no text"):
        evaluate(folder, corpus)
    with pytest.raises(UserError, match="no audio to transcribe"):
        transcribe(folder, [])


@pytest.mark.parametrize("has_gpu", [True, False])
def test_auto_is_a_gpu_where_there_is_one(has_gpu, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert chosen_device("auto") == ("cuda" if has_gpu else "cpu")
    assert chosen_device("cuda:1") == "cuda:1"


def test_a_bf16_checkpoint_is_evaluated_in_float32(tmp_path, corpus):
    folder = tiny.save_tiny(tmp_path / "half", "hubert", dtype=torch.bfloat16)
    found = evaluate(folder, corpus, limit=2, device="cpu")
    assert found.decoding["dtype"] == "float32"
    assert found.decoding["device"] == "cpu"
    assert "accelerator" not in found.decoding
    assert found.size_bytes < 2.5 * found.parameters + 20_000
