"""Fine-tuning of tiny models: that they learn, that a run can be gone on with, and what is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import tiny
import torch
from safetensors.torch import load_file, save_file
from tiny import TINY, save_tiny

import paretone
from paretone.data import AUDIO_KEY, RATE_HZ, TRAINING_FILE, Data, Utterance, audio_digests, open_data, read_making
from paretone.errors import UserError
from paretone.evaluation import decode
from paretone.model.hearing import Recogniser, recogniser
from paretone.report.study import studies
from paretone.train import Dev, Settings
from paretone.train import finetune as train
from paretone.train.batches import IGNORED, BatchOrder, Collator, loss_of
from paretone.train.samples import needed_frames, samples_of
from paretone.train.watch import Watch

PARETONE = str(Path(sys.executable).with_name("paretone"))
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
FAMILIES = ("hubert", "wav2vec2", "wavlm", "whisper")
TEXTS = ("ab", "ba cab", "a cab", "bab", "abba", "cc")
QUICK: dict[str, Any] = {"epochs": 3, "batch": 2, "learning_rate": 3e-3}
QUIET_FIELDS = {  # nothing left to chance
    "hidden_dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "final_dropout": 0.0,
    "mask_time_prob": 0.0,
}


pytestmark = pytest.mark.usefixtures("one_thread")


def sing(text: str, seed: int) -> np.ndarray:
    """A tone of 0.15 s for each letter, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    pitch_hz = {" ": 0, "a": 300, "b": 700, "c": 1500}
    at = np.arange(int(0.15 * RATE_HZ)) / RATE_HZ
    wave = np.concatenate([np.sin(2 * np.pi * pitch_hz.get(letter, 2500) * at) for letter in text])
    return (0.2 * wave + 0.01 * rng.standard_normal(len(wave))).astype(np.float32)


def write_corpus(folder: Path, texts: tuple[str, ...] = TEXTS, *, seed: int = 0, **fields: str) -> Path:
    """A manifest of sung texts."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, text in enumerate(texts):
        soundfile.write(folder / f"{number}.wav", sing(text.lower(), seed + number), RATE_HZ)
        rows.append({"audio": f"{number}.wav", "text": text, **fields})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("held-out"), ("ab ba", "cab", "b"), seed=100)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each family as it is in stock, and with half of its heads and units."""
    root = tmp_path_factory.mktemp("models")
    made = {}
    for family in FAMILIES:
        made[family] = save_tiny(root / family, family)
        made[f"{family}-mixed"] = root / f"{family}-mixed"
        paretone.compress(made[family], made[f"{family}-mixed"], sparsity=0.5, method="cluster")
    made["hubert-group"] = save_tiny(root / "group", "hubert", pre_norm=False, layer_norm=False)
    return made


def loaded(folder: Path) -> Recogniser:
    return recogniser(folder.name, *paretone.load(folder))


def data_of(*texts: str, seconds: float = 1.0, language: str | None = None) -> Data:
    """Utterances that nobody opens."""
    listed = tuple(Utterance(str(n), b"", f"{n}.wav", text, language, None, seconds) for n, text in enumerate(texts))
    return Data("made", "made", "", listed, ())


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


# --- what comes out ---


@pytest.mark.parametrize("kind", [*FAMILIES, *(f"{family}-mixed" for family in FAMILIES), "hubert-group"])
def test_the_loss_falls_and_the_result_loads_as_its_source(kind, models, corpus, tmp_path):
    done = paretone.finetune(models[kind], tmp_path / "out", corpus, **QUICK | {"epochs": 5})
    losses = [entry["loss"] for entry in done.record["curve"]]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    source, out = models[kind], tmp_path / "out"
    added = {TRAINING_FILE, "README.md"}
    assert {p.name for p in out.iterdir()} | added == {p.name for p in source.iterdir()} | added
    for path in source.iterdir():
        if path.name not in {"README.md", "model.safetensors"}:
            assert (out / path.name).read_bytes() == path.read_bytes(), path.name
    before, after = load_file(source / "model.safetensors"), load_file(out / "model.safetensors")
    assert [(n, t.shape, t.dtype) for n, t in before.items()] == [(n, t.shape, t.dtype) for n, t in after.items()]
    model, _ = paretone.load(out)
    assert type(model) is type(paretone.load(source)[0])
    frozen = {name for name in before if torch.equal(before[name], after[name])}
    fronts = {name for name in before if "feature_extractor" in name} | {"model.encoder.embed_positions.weight"}
    assert frozen - {n for n in before if "masked_spec_embed" in n} == fronts & before.keys()
    assert [p.name for p in tmp_path.iterdir()] == ["out"]  # the unfinished run is gone


def test_a_group_norm_model_gets_no_mask_and_the_others_a_boolean_one(models, corpus):
    for kind, has_mask in (("hubert", True), ("wavlm", True), ("hubert-group", False)):
        ready = loaded(models[kind])
        batch = Collator(ready)(samples_of(ready, open_data(corpus))[0])
        assert ("attention_mask" in batch) == has_mask
        if has_mask:
            assert batch["attention_mask"].dtype == torch.bool
            assert batch["attention_mask"].sum(dim=1).tolist() == [int(0.15 * RATE_HZ) * len(text) for text in TEXTS]


@pytest.mark.parametrize("kind", ["hubert", "wavlm-mixed"])
def test_the_ctc_loss_is_that_of_transformers(kind, models, corpus):
    ready = loaded(models[kind])
    batch = Collator(ready)(samples_of(ready, open_data(corpus))[0])
    ready.model.config.ctc_loss_reduction, ready.model.config.ctc_zero_infinity = "sum", True
    theirs = ready.model(batch["input_values"], attention_mask=batch["attention_mask"], labels=batch["labels"]).loss
    assert loss_of(ready.model, batch).item() == pytest.approx(theirs.item(), rel=1e-6)


def test_the_whisper_loss_is_that_of_transformers(models, corpus):
    ready = loaded(models["whisper"])
    batch = Collator(ready)(samples_of(ready, open_data(corpus))[0])
    theirs = ready.model(**batch).loss * (batch["labels"] != IGNORED).sum()
    assert loss_of(ready.model, batch).item() == pytest.approx(theirs.item(), rel=1e-6)


def test_a_checkpoint_in_half_precision_stays_so_and_dev_is_decoded_as_it_is_stored(corpus, held_out, tmp_path):
    source = save_tiny(tmp_path / "source", "hubert", dtype=torch.bfloat16)
    done = paretone.finetune(source, tmp_path / "out", corpus, dev=held_out, **QUICK)
    assert {t.dtype for t in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    assert done.dev_wer == paretone.evaluate(tmp_path / "out", held_out).wer


def test_older_names_of_normalised_weights_are_kept(models, corpus, tmp_path):
    source = save_tiny(tmp_path / "source", "hubert")
    tensors = load_file(source / "model.safetensors")
    older = {
        n.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): t
        for n, t in tensors.items()
    }
    save_file(older, source / "model.safetensors", {"format": "pt"})
    paretone.finetune(source, tmp_path / "out", corpus, **QUICK | {"epochs": 1})
    after = load_file(tmp_path / "out" / "model.safetensors")
    assert after.keys() == older.keys()
    name = "hubert.encoder.pos_conv_embed.conv.weight_v"
    assert not torch.equal(after[name], older[name])
    same = tmp_path / "same"
    paretone.finetune(models["hubert"], same, corpus, **QUICK | {"epochs": 1})
    assert torch.equal(
        after[name],
        load_file(same / "model.safetensors")[name.replace("weight_v", "parametrizations.weight.original1")],
    )


def test_accumulated_batches_are_one_update(corpus, tmp_path):
    source = save_tiny(tmp_path / "source", "hubert", **QUIET_FIELDS)
    for batch, accumulate in ((4, 1), (2, 2), (1, 4)):
        settings = {"epochs": 2, "limit": 4, "batch": batch, "accumulate": accumulate, "warm_up": 0.0}
        done = paretone.finetune(source, tmp_path / f"{batch}", corpus, **settings)
        assert done.record["updates"] == 2
    whole, *parts = (load_file(tmp_path / name / "model.safetensors") for name in ("4", "2", "1"))
    for part in parts:
        for name in whole.keys() - {name for name in whole if name.endswith("k_proj.bias")}:  # have no gradient
            assert torch.allclose(whole[name], part[name], atol=2e-5), name


def test_gradient_checkpointing_changes_nothing(models, corpus, tmp_path):
    for name, extra in (("plain", {}), ("checkpointed", {"gradient_checkpointing": True})):
        paretone.finetune(models["hubert-mixed"], tmp_path / name, corpus, **QUICK | extra)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "checkpointed"))
    assert all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)


def test_bf16_is_computed_where_it_is_asked_for(models, corpus, tmp_path):
    for precision in ("bf16", "fp32"):
        done = paretone.finetune(models["hubert"], tmp_path / precision, corpus, precision=precision, **QUICK)
        assert done.record["settings"]["precision"] == precision
    assert weights(tmp_path / "bf16") != weights(tmp_path / "fp32")
    assert {t.dtype for t in load_file(tmp_path / "bf16" / "model.safetensors").values()} == {torch.float32}


def test_a_front_end_can_be_trained_or_not(models, corpus, tmp_path):
    for kind, name in (("hubert", "feature_extractor.conv_layers.0.conv.weight"), ("whisper", "encoder.conv1.weight")):
        for freeze in (True, False):
            out = tmp_path / f"{kind}-{freeze}"
            paretone.finetune(models[kind], out, corpus, freeze_front_end=freeze, **QUICK | {"epochs": 1})
            before, after = (load_file(folder / "model.safetensors") for folder in (models[kind], out))
            (full,) = (n for n in before if n.endswith(name))
            assert torch.equal(before[full], after[full]) == freeze


def test_the_record_and_the_card_tell_how_it_was_made(models, corpus, tmp_path):
    paretone.finetune(models["hubert-mixed"], tmp_path / "out", corpus, seed=7, **QUICK)
    record = json.loads((tmp_path / "out" / TRAINING_FILE).read_text())
    assert record["settings"]["seed"] == 7
    assert record["data"]["digest"] == open_data(corpus).digest
    assert record[AUDIO_KEY] == audio_digests(open_data(corpus).utterances)
    assert len(record[AUDIO_KEY][0]) == 16
    assert {"loss", "learning_rate", "step"} <= record["curve"][0].keys()
    assert record["versions"]["torch"] == torch.__version__
    assert "--epochs" not in record["command"]  # three is the default
    card = (tmp_path / "out" / "README.md").read_text()
    assert "fine-tuned" in card
    assert "--learning-rate 0.003 --batch 2 --seed 7" in " ".join(card.split()).replace("--batch 2 ", "--batch 2 ")
    assert "## Before fine-tuning" in card
    assert "Made without data" in card.split("## Before fine-tuning")[1]


def test_training_and_compressing_again_forget_no_recording(models, corpus, held_out, tmp_path):
    paretone.finetune(models["hubert"], tmp_path / "once", corpus, **QUICK | {"epochs": 1})
    paretone.compress(tmp_path / "once", tmp_path / "small", sparsity=0.5)
    paretone.finetune(tmp_path / "small", tmp_path / "twice", held_out, **QUICK | {"epochs": 1})
    record = read_making(tmp_path / "twice", TRAINING_FILE)
    both = {*audio_digests(open_data(corpus).utterances), *audio_digests(open_data(held_out).utterances)}
    assert set(record[AUDIO_KEY]) == both
    assert [earlier["data"]["name"] for earlier in record["before"]] == [open_data(corpus).name]


# --- going on with a run ---


class KilledError(Exception):
    """Stands for the end of the process."""


def die_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends in the middle of an update, after the checkpoint of the one before is whole."""
    inner = Watch.on_step_end

    def on_step_end(self: Watch, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if state.global_step == step + 1:
            raise KilledError
        inner(self, args, state, control, **rest)

    monkeypatch.setattr(Watch, "on_step_end", on_step_end)


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        ("hubert", (1, 3)),
        ("wav2vec2-mixed", (4,)),
        ("wavlm-mixed", (2,)),
        ("whisper", (2,)),
        ("whisper-mixed", (6,)),
    ],
)
def test_a_run_that_was_cut_ends_as_if_it_had_not_been(kind, steps, models, corpus, tmp_path, monkeypatch):
    settings: dict[str, Any] = QUICK | {"checkpoint_every_s": 0.0}
    paretone.finetune(models[kind], tmp_path / "whole", corpus, **settings)
    for step in steps:
        with monkeypatch.context() as patched:
            die_at(step, patched)
            with pytest.raises(KilledError):
                paretone.finetune(models[kind], tmp_path / "cut", corpus, **settings)
        assert (tmp_path / "cut.unfinished" / f"checkpoint-{step}").exists()
        assert not (tmp_path / "cut").exists()
    done = paretone.finetune(models[kind], tmp_path / "cut", corpus, **settings)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert done.record["updates"] == 9
    assert not (tmp_path / "cut.unfinished").exists()


def test_a_checkpoint_that_was_cut_short_is_passed_over(models, corpus, tmp_path, monkeypatch):
    settings: dict[str, Any] = QUICK | {"checkpoint_every_s": 0.0}
    paretone.finetune(models["hubert"], tmp_path / "whole", corpus, **settings)
    with monkeypatch.context() as patched:
        die_at(4, patched)
        with pytest.raises(KilledError):
            paretone.finetune(models["hubert"], tmp_path / "cut", corpus, **settings)
    broken = tmp_path / "cut.unfinished" / "checkpoint-5"
    broken.mkdir()
    (broken / "weights.pt").write_bytes(b"half")
    paretone.finetune(models["hubert"], tmp_path / "cut", corpus, **settings)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


def test_a_cut_between_training_and_writing_trains_no_more(models, corpus, tmp_path, monkeypatch):
    from paretone.train import finetune as module

    def die(*_: object, **__: object) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setitem(module.__globals__, "_write_all", die)
        with pytest.raises(KilledError):
            paretone.finetune(models["hubert"], tmp_path / "cut", corpus, **QUICK)
    paretone.finetune(models["hubert"], tmp_path / "whole", corpus, **QUICK)
    monkeypatch.setattr(Watch, "on_step_end", die)
    paretone.finetune(models["hubert"], tmp_path / "cut", corpus, **QUICK)
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_heeded_after_the_update(number, models, corpus, tmp_path, monkeypatch):
    before = signal.getsignal(number)
    inner = Watch.on_step_end

    def on_step_end(self: Watch, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if state.global_step == 4:
            os.kill(os.getpid(), number)
        inner(self, args, state, control, **rest)

    with monkeypatch.context() as patched:
        patched.setattr(Watch, "on_step_end", on_step_end)
        with pytest.raises(KeyboardInterrupt, match="interrupted after update 4 of 9; the same command goes on"):
            paretone.finetune(models["hubert"], tmp_path / "out", corpus, **QUICK)
    assert signal.getsignal(number) == before
    assert (tmp_path / "out.unfinished" / "checkpoint-4" / "complete.json").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epochs": 4}, "--epochs was 3, now 4"),
        ({"learning_rate": 1e-3}, "--learning-rate was 0.003, now 0.001"),
        ({"limit": 5}, "another --data"),
        ({"seed": 1, "accumulate": 2}, "--accumulate was 1, now 2, --seed was 0, now 1"),
    ],
)
def test_an_unfinished_run_is_gone_on_with_as_it_began_or_thrown_away(
    changed, message, models, corpus, tmp_path, monkeypatch
):
    settings: dict[str, Any] = QUICK | {"checkpoint_every_s": 0.0}
    with monkeypatch.context() as patched:
        die_at(2, patched)
        with pytest.raises(KilledError):
            paretone.finetune(models["hubert"], tmp_path / "out", corpus, **settings)
    with pytest.raises(UserError, match=f"{message}; .*--restart"):
        paretone.finetune(models["hubert"], tmp_path / "out", corpus, **settings | changed)
    with pytest.raises(UserError, match="another MODEL"):
        paretone.finetune(models["wavlm"], tmp_path / "out", corpus, **settings)
    paretone.finetune(models["hubert"], tmp_path / "out", corpus, restart=True, **settings | changed)


def test_two_processes_at_one_run_are_refused(models, corpus, tmp_path):
    import fcntl

    (tmp_path / "out.unfinished").mkdir()
    with (tmp_path / "out.unfinished" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process trains there"):
            paretone.finetune(models["hubert"], tmp_path / "out", corpus, **QUICK)


# --- dev set ---


def dev_of(data: Path, rates: list[float], seen: list[dict[str, torch.Tensor]] | None = None) -> Dev:
    """A dev set whose WER after each epoch is known beforehand."""
    left = iter(rates)

    def rate(model: Any, processor: Any) -> float:
        torch.rand(3)  # a decoding that draws
        if seen is not None:
            seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return next(left)

    return Dev(open_data(data), rate)


def test_training_stops_when_dev_gets_no_better_and_keeps_the_best(models, corpus, held_out, tmp_path):
    seen: list[dict[str, torch.Tensor]] = []
    dev = dev_of(held_out, [0.5, 0.3, 0.3, 0.4, 0.1], seen)
    done = train(models["hubert"], tmp_path / "out", corpus, Settings(**QUICK | {"epochs": 9}, patience=2), dev=dev)
    assert (done.record["updates"], done.record["best_update"], done.dev_wer) == (12, 6, 0.3)
    assert [entry["dev_wer"] for entry in done.record["curve"] if "dev_wer" in entry] == [0.5, 0.3, 0.3, 0.4]
    for name, tensor in load_file(tmp_path / "out" / "model.safetensors").items():
        assert torch.equal(tensor, seen[1][name]), name


def test_a_run_that_stopped_early_and_was_cut_does_not_train_on(models, corpus, held_out, tmp_path, monkeypatch):
    from paretone.train import finetune as module

    def die(*_: object, **__: object) -> None:
        raise KilledError

    settings = Settings(**QUICK | {"epochs": 9}, patience=1)
    with monkeypatch.context() as patched:
        patched.setitem(module.__globals__, "_write_all", die)
        with pytest.raises(KilledError):
            train(models["hubert"], tmp_path / "out", corpus, settings, dev=dev_of(held_out, [0.5, 0.6]))
    done = train(models["hubert"], tmp_path / "out", corpus, settings, dev=dev_of(held_out, []))
    assert (done.record["updates"], done.record["best_update"]) == (6, 3)


def test_decoding_a_dev_set_does_not_change_the_training(models, corpus, held_out, tmp_path):
    settings = Settings(**QUICK)
    train(models["hubert"], tmp_path / "with", corpus, settings, dev=dev_of(held_out, [0.3, 0.2, 0.1]))
    train(models["hubert"], tmp_path / "without", corpus, settings)
    assert weights(tmp_path / "with") == weights(tmp_path / "without")


@pytest.mark.parametrize("kind", ["hubert-mixed", "whisper"])
def test_dev_and_test_are_decoded_alike(kind, models, corpus, held_out, tmp_path):
    done = paretone.finetune(models[kind], tmp_path / "out", corpus, dev=held_out, **QUICK)
    assert done.dev_wer == paretone.evaluate(tmp_path / "out", held_out).wer


def test_results_and_the_report_tell_what_was_fine_tuned(models, corpus, held_out, tmp_path):
    small, trained, smaller = models["hubert-mixed"], tmp_path / "trained", tmp_path / "smaller"
    done = paretone.finetune(small, trained, corpus, **QUICK | {"epochs": 1})
    paretone.compress(trained, smaller, sparsity=0.25)
    found = [paretone.evaluate(folder, held_out, baseline=models["hubert"]) for folder in (small, trained, smaller)]
    assert found[0].model.training is None
    assert found[1].model.training is not None
    assert found[1].model.training["settings"] == done.record["settings"]
    (study,) = (study for study in studies(found[:2]) if study)
    assert [entry.label for entry in study.entries] == [
        "original",
        "cluster 50\u00a0%",
        "cluster + fine-tuning 50\u00a0%",
    ]
    assert found[2].model.training is not None
    assert not found[2].model.training["after_plan"]  # compressed after it was trained


def test_a_dev_set_of_training_recordings_is_refused(models, corpus, tmp_path):
    with pytest.raises(UserError, match="share 6 recordings"):
        paretone.finetune(models["hubert"], tmp_path / "out", corpus, dev=corpus, **QUICK)


# --- texts ---


def with_letters(letters: str) -> Recogniser:
    """A tiny HuBERT with another vocabulary."""

    class Tokenizer:
        word_delimiter_token = "|"
        all_special_ids = (0, 1)

        def get_vocab(self) -> dict[str, int]:
            return {token: n for n, token in enumerate(["<pad>", "<unk>", "|", *letters])}

    class Processor:
        tokenizer = Tokenizer()
        feature_extractor = tiny.waveform_extractor()

    return Recogniser("model", TINY["hubert"](), Processor(), 30.0)


def spelled(letters: str, text: str) -> tuple[str, list[str]]:
    samples, notices = samples_of(with_letters(letters), data_of(text))
    return "".join(["", "", " ", *letters][label] for label in samples[0].labels), notices


@pytest.mark.parametrize(
    ("letters", "text", "expected"),
    [
        ("ABC'", "Cab  b'a", "CAB B'A"),
        ("abc", "CAB ba", "cab ba"),
        ("abAB", "aB Ab", "aB Ab"),
        ("åab", "A\u030aB", "åb"),  # A with a ring of its own
        ("SPAß", "Spaß", "SPAß"),
        ("SPA", "Spaß", "SPASS"),
    ],
)
def test_texts_take_the_case_of_the_vocabulary(letters, text, expected):
    assert spelled(letters, text) == (expected, [])


def test_characters_that_the_vocabulary_lacks_are_dropped_and_counted():
    text, notices = spelled("abc", "Cab, 12 abba! - b")
    assert text == "cab abba b"
    assert notices == ["5 characters that the vocabulary lacks were dropped: ',' 1×, '1' 1×, '2' 1×, '!' 1×, '-' 1×"]


def test_a_vocabulary_that_fits_nothing_is_refused():
    with pytest.raises(UserError, match="nothing of its texts fits model; its vocabulary holds я"):
        samples_of(with_letters("я"), data_of("abc", "b"))


def test_capitals_are_lowered_for_whisper_and_mixed_case_is_kept(models):
    ready = loaded(models["whisper"])
    decoder = ready.processor.tokenizer.decode
    samples, notices = samples_of(ready, data_of("ABBA CAB", "CAB"))
    assert notices == ["the texts are all capitals: lowered, as Whisper writes"]
    assert decoder(samples[0].labels) == " abba cab<|endoftext|>"
    samples, notices = samples_of(ready, data_of("Abba CAB", "CAB"))
    assert notices == []
    assert decoder(samples[1].labels) == " CAB<|endoftext|>"


def test_ctc_needs_a_blank_between_equal_letters():
    assert [needed_frames(text) for text in ("abc", "abba", "aaa", "")] == [3, 5, 5, 0]  # type: ignore[arg-type]


def test_recordings_that_teach_nothing_are_left_out_and_counted(models):
    ready = loaded(models["hubert"])  # 50 frames a second
    listed = [("a", 0.5), ("ab" * 12, 0.5), ("aa" * 7, 0.5), ("abc", 31.0), ("123", 0.5), ("ab" * 13, 0.5)]
    data = Data(
        "made", "", "", tuple(Utterance(str(n), b"", "", t, None, None, s) for n, (t, s) in enumerate(listed)), ()
    )
    samples, notices = samples_of(ready, data)
    assert [sample.utterance.id for sample in samples] == ["0", "1"]  # 24 frames for 24 labels
    assert notices == [
        "3 characters that the vocabulary lacks were dropped: '1' 1×, '2' 1×, '3' 1×",
        "2 of 6 utterances are too short for their text and were left out",
        "1 of 6 utterances are longer than 30 s and were left out",
        "1 of 6 utterances have no text left and were left out",
    ]
    whisper = loaded(models["whisper"])
    with pytest.raises(UserError, match="1 are longer than 2 s; 1 have a text of more than 24 tokens"):
        samples_of(
            whisper, Data("d", "", "", (*data_of("a", seconds=2.1).utterances, *data_of("ab" * 20).utterances), ())
        )


def multilingual(models: dict[str, Path]) -> Recogniser:
    ready = loaded(models["whisper"])
    settings = ready.model.generation_config
    settings.is_multilingual = True
    settings.lang_to_id = {"<|en|>": 258}
    settings.task_to_id = {"transcribe": 260}
    return ready


@pytest.mark.parametrize("make", [lambda models: loaded(models["whisper"]), multilingual])
def test_whisper_is_trained_after_the_prompt_that_decoding_begins_with(make, models, corpus):
    ready, listed = make(models), open_data(corpus, language="en", limit=1)
    (sample,), _ = samples_of(ready, listed)
    prompts = []
    ready.model.model.decoder.register_forward_hook(
        lambda _, args, kwargs, out: prompts.append(kwargs["input_ids"][0].tolist()), with_kwargs=True
    )
    decode(ready, listed.utterances)
    assert list(sample.prompt) == prompts[0]
    batch = Collator(ready)([sample])
    given = len(sample.prompt)
    assert batch["decoder_input_ids"][0, :given].tolist() == prompts[0]
    assert batch["labels"][0, : given - 1].tolist() == [IGNORED] * (given - 1)
    assert batch["labels"][0, given - 1 :].tolist() == list(sample.labels)


def test_a_multilingual_whisper_must_be_told_the_language(models):
    with pytest.raises(UserError, match="its language is not told, and whisper hears several; pass --language"):
        samples_of(multilingual(models), data_of("ab"))
    with pytest.raises(UserError, match="does not know the language 'da'"):
        samples_of(multilingual(models), data_of("ab", language="da"))


# --- batches ---


def test_an_epoch_has_every_recording_once_in_batches_of_like_length():
    lengths = np.random.default_rng(0).uniform(1, 20, 403)
    order = BatchOrder(lengths, 8, seed=3)
    epochs = []
    for order.epoch in (0, 1):
        batches = list(order)
        assert len(batches) == len(order) == 51
        assert sorted(i for batch in batches for i in batch) == list(range(403))
        epochs.append(batches)
    assert epochs[0] != epochs[1]
    spread = np.mean([np.ptp(lengths[batch]) for batch in epochs[0]])
    assert spread < 0.2 * np.ptp(lengths)
    again = BatchOrder(lengths, 8, seed=3)
    again.epoch = 1
    assert list(again) == epochs[1]
    assert list(BatchOrder(lengths, 8, seed=4)) != epochs[0]


def test_the_training_split_of_a_corpus_is_trained_on(models, corpus, tmp_path):
    folder = tmp_path / "voice"
    (folder / "clips").mkdir(parents=True)
    for number, split in enumerate(("train", "dev", "test")):
        soundfile.write(folder / "clips" / f"{split}.wav", sing("ab", number), RATE_HZ)
        (folder / f"{split}.tsv").write_text(f"path\tsentence\n{split}.wav\tab\n")
    done = paretone.finetune(models["hubert"], tmp_path / "out", folder, dev=folder, **QUICK | {"epochs": 1})
    assert done.record["data"]["digest"] == open_data(folder / "train.tsv").digest
    assert done.record["dev"]["digest"] == open_data(folder / "dev.tsv").digest
    assert paretone.evaluate(tmp_path / "out", folder).data.digest == open_data(folder / "test.tsv").digest


# --- recordings that a model has seen ---


def test_a_model_is_not_measured_on_its_training_recordings_unawares(models, corpus, held_out, tmp_path):
    paretone.finetune(models["hubert"], tmp_path / "out", corpus, limit=4, **QUICK | {"epochs": 1})
    with pytest.raises(UserError, match=r"out was fine-tuned on 4 of the 6 recordings .*--allow-seen"):
        paretone.evaluate(tmp_path / "out", corpus)
    with pytest.raises(UserError, match="fine-tuned on 4"):
        paretone.evaluate(models["hubert"], corpus, baseline=tmp_path / "out")
    found = paretone.evaluate(models["hubert"], corpus, baseline=tmp_path / "out", allow_seen=True)
    assert found.baseline is not None
    assert (found.model.seen, found.baseline.model.seen) == (0, 4)
    assert paretone.evaluate(tmp_path / "out", held_out).model.seen == 0


# --- what is refused ---


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"epochs": 0}, "--epochs is 0; it must be a whole number, 1 or more"),
        ({"epochs": 1.5}, "--epochs is 1.5"),
        ({"learning_rate": 0.0}, "--learning-rate is 0.0; it must be more than 0"),
        ({"learning_rate": float("nan")}, "--learning-rate is nan"),
        ({"batch": -1}, "--batch is -1"),
        ({"accumulate": 0}, "--accumulate is 0"),
        ({"warm_up": 1.0}, "--warm-up is 1.0"),
        ({"weight_decay": -0.1}, "--weight-decay is -0.1"),
        ({"seed": 2**32}, "--seed is"),
        ({"precision": "bf15"}, "did you mean 'bf16'"),
        ({"patience": 2}, "--patience has no effect without --dev"),
    ],
)
def test_bad_settings_are_one_line(words, message, models, corpus, tmp_path):
    with pytest.raises(UserError, match=message):
        paretone.finetune(models["hubert"], tmp_path / "out", corpus, **words)
    assert list(tmp_path.iterdir()) == []


def test_models_and_places_that_cannot_be_trained_are_refused(models, corpus, tmp_path, monkeypatch):
    base = save_tiny(tmp_path / "base", "hubert", ctc=False)
    with pytest.raises(UserError, match="HubertModel writes no text"):
        paretone.finetune(base, tmp_path / "out", corpus)
    with pytest.raises(UserError, match="lie in one another"):
        paretone.finetune(models["hubert"], models["hubert"] / "in", corpus)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep")
    with pytest.raises(UserError, match="is not empty"):
        paretone.finetune(models["hubert"], tmp_path / "mine", corpus)
    with pytest.raises(UserError, match=r"holds none of training\.json"):
        paretone.finetune(models["hubert"], tmp_path / "mine", corpus, overwrite=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="runs in one process"):
        paretone.finetune(models["hubert"], tmp_path / "out", corpus)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "mine"]


def test_a_missing_accelerate_is_named(models, corpus, tmp_path, monkeypatch):
    from importlib.metadata import PackageNotFoundError

    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setitem(train.__globals__, "version", absent)
    with pytest.raises(UserError, match=r"pip install 'paretone\[train\]'"):
        paretone.finetune(models["hubert"], tmp_path / "out", corpus)


def test_a_loss_that_is_no_number_ends_the_run_in_one_line(models, corpus, tmp_path):
    with pytest.raises(UserError, match="is not a number; start anew with a lower learning rate"):
        paretone.finetune(models["hubert"], tmp_path / "out", corpus, **QUICK | {"learning_rate": 1e30})
    assert list(tmp_path.iterdir()) == []


# --- the real command line ---


def start(place: Path, out: str, *words: Any) -> subprocess.Popen[str]:
    command = [
        PARETONE,
        "finetune",
        "model",
        out,
        "--data",
        "corpus",
        "--epochs",
        "20",
        "--batch",
        "2",
        *map(str, words),
    ]
    return subprocess.Popen(
        command, cwd=place, env=ENVIRONMENT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def when_at(run: subprocess.Popen[str], folder: Path, step: int) -> None:
    """Waits until the run has a whole checkpoint of that update or a later one."""
    deadline = time.monotonic() + 120
    while True:
        steps = [int(p.parent.name.rpartition("-")[2]) for p in folder.glob("checkpoint-*/complete.json")]
        if steps and max(steps) >= step:
            return
        assert run.poll() is None, run.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_killed_and_interrupted_it_ends_with_the_same_bytes(tmp_path):
    write_corpus(tmp_path / "corpus")
    save_tiny(tmp_path / "model", "hubert")
    killed = start(tmp_path, "out", "--checkpoint-every", 0)
    when_at(killed, tmp_path / "out.unfinished", 7)
    killed.kill()
    killed.communicate(timeout=60)
    interrupted = start(tmp_path, "out", "--checkpoint-every", 0)
    when_at(interrupted, tmp_path / "out.unfinished", 12)
    interrupted.send_signal(signal.SIGINT)
    _, said = interrupted.communicate(timeout=60)
    step = max(int(p.name.rpartition("-")[2]) for p in (tmp_path / "out.unfinished").glob("checkpoint-*"))
    assert interrupted.returncode == 130
    last = f"error: interrupted after update {step} of 60; the same command goes on from there"
    assert said.strip().splitlines()[-1] == last
    assert not (tmp_path / "out").exists()
    said, _ = start(tmp_path, "out", "--json").communicate(timeout=200)
    assert json.loads(said)["updates"] == 60
    paretone.finetune(tmp_path / "model", tmp_path / "whole", tmp_path / "corpus", epochs=20, batch=2)
    assert weights(tmp_path / "out") == weights(tmp_path / "whole")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["finetune", "model", "out"], "--data"),
        (["finetune", "model", "out", "--data", "corpus", "--patience", "1"], "without --dev"),
    ],
)
def test_bad_words_are_one_line_and_exit_2(words, message, tmp_path):
    write_corpus(tmp_path / "corpus", ("ab",))
    save_tiny(tmp_path / "model", "hubert")
    done = subprocess.run([PARETONE, *words], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.strip().splitlines()) == 1
    assert message in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus", "model"]


def test_a_full_disk_is_one_line(tmp_path):
    """The largest file that the process may write stands for the disk's end."""
    write_corpus(tmp_path / "corpus")
    save_tiny(tmp_path / "model", "hubert")
    limited = f"ulimit -f 100; trap '' XFSZ; exec {PARETONE} finetune model out --data corpus --epochs 1"
    done = subprocess.run(["bash", "-c", limited], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "can't be written" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["corpus", "model"]
