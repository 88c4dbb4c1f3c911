"""Trains the embedded recognisers of spoken digit strings on real speech.

    python training/digits.py CORPUS --model hubert --out RUN
    python training/digits.py CORPUS --model whisper --out RUN [--device cuda --workers 4]

CORPUS is a clone of github.com/Jakobovski/free-spoken-digit-dataset, or a folder that also holds speechocean762,
whose 130 real digit sentences then join the training. A run that was cut continues from RUN/state.pt.
The finished model lies in RUN/model. Equal seeds give equal batches.
"""

import argparse
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ahead import drawn_ahead
from recognisers import CTC, PROMPT, ctc_processor, frames_after, make_whisper, padded, whisper_tokenizer
from strings import (
    HELD_OUT_TAKES,
    RATE_HZ,
    UNHEARD_SPEAKER,
    Recording,
    join,
    level_to,
    read_digit_sentences,
    read_recordings,
    resample,
)

MAX_LENGTH_S = 5.9  # the small Whisper hears 6 s


@dataclass(frozen=True)
class Disturbance:
    """How far the recordings are taken from what they were.

    Attributes:
        speeds: slowest and fastest; pitch goes with it.
        tilt: most that a first-order filter adds or takes of the sample before.
        snr_db: noisiest and cleanest.
    """

    speeds: tuple[float, float]
    tilt: float
    snr_db: tuple[float, float]


STRONG = Disturbance((0.78, 1.28), 0.6, (5, 50))
# CTC needs a frame of 20 ms for every character and one more between two equal ones: sped up by 1.28, the "three" of
# the fastest speaker has too few, and the model that only saw STRONG spells it "thre" and "thro"
MILD = Disturbance((0.82, 1.08), 0.4, (12, 55))


@dataclass(frozen=True)
class Phase:
    """Some steps with one disturbance, one peak of the learning rate and one cosine."""

    steps: int
    peak: float
    disturbance: Disturbance


class StringMaker:
    """Endless augmented digit strings from the training recordings."""

    def __init__(self, recordings: list[Recording], sentences: list[Recording]) -> None:
        heard = [r for r in recordings if r.speaker != UNHEARD_SPEAKER and r.take not in HELD_OUT_TAKES]
        self.by_speaker: dict[str, list[tuple[np.ndarray, str]]] = {}
        for r in heard:
            part = level_to(resample(r.samples, r.rate_hz, RATE_HZ), 0.05)
            self.by_speaker.setdefault(r.speaker, []).append((part, r.text))
        self.sentences = [(level_to(resample(r.samples, r.rate_hz, RATE_HZ), 0.05), r.text) for r in sentences]

    def draw(
        self, rng: np.random.Generator, longest: int, how: Disturbance
    ) -> tuple[np.ndarray, list[tuple[str, int, int]]]:
        """One waveform and its (text, first sample, last sample) parts."""
        while True:
            speed = rng.uniform(*how.speeds)
            if self.sentences and longest > 3 and rng.random() < 0.25:
                part, text = self.sentences[rng.integers(len(self.sentences))]
                wave = _faster(part, speed)
                spans = [(0, len(wave))]
                texts = [text]
            else:
                speaker = list(self.by_speaker)[rng.integers(len(self.by_speaker))]
                pool = self.by_speaker[speaker]
                chosen = [pool[i] for i in rng.integers(len(pool), size=rng.integers(2, longest + 1))]
                parts = [_faster(part, speed * rng.uniform(0.94, 1.06)) * rng.uniform(0.6, 1.5) for part, _ in chosen]
                texts = [text for _, text in chosen]
                wave, spans = join(parts, RATE_HZ, rng)
            if len(wave) <= MAX_LENGTH_S * RATE_HZ:
                return _disturb(wave, rng, how), [(t, a, b) for t, (a, b) in zip(texts, spans, strict=True)]


def _faster(samples: np.ndarray, speed: float) -> np.ndarray:
    """Speed and pitch changed together: what a shorter or longer vocal tract does, near enough."""
    at = np.arange(0, len(samples) - 1, speed, dtype=np.float32)
    return np.interp(at, np.arange(len(samples)), samples).astype(np.float32)


def _disturb(samples: np.ndarray, rng: np.random.Generator, how: Disturbance) -> np.ndarray:
    """Another microphone, room noise and gain."""
    tilt = rng.uniform(-how.tilt, how.tilt)
    tilted = samples.copy()
    tilted[1:] += np.float32(tilt) * samples[:-1]
    noise = rng.standard_normal(len(samples)).astype(np.float32)
    if rng.random() < 0.5:  # coloured: most energy at low frequencies, as in rooms
        noise = np.convolve(noise, np.exp(-np.arange(16) / rng.uniform(0.5, 6)).astype(np.float32), mode="same")
    snr_db = rng.uniform(*how.snr_db)
    tilted = level_to(tilted, 0.05) + level_to(noise, 0.05 * 10 ** (-snr_db / 20))
    return (tilted * np.float32(10 ** (rng.uniform(-20, 6) / 20))).astype(np.float32)


# --- HuBERT with CTC -------------------------------------------------------------------------------------------------

CHARACTERS = "efghinorstuvwxz"


def make_hubert(folder: Path) -> tuple[torch.nn.Module, object]:
    """A ``HubertForCTC`` of 1.7 M parameters with a narrow front end, and its processor."""
    from transformers import HubertConfig, HubertForCTC

    processor = ctc_processor(folder, CHARACTERS)
    config = HubertConfig(
        vocab_size=len(processor.tokenizer),
        hidden_size=144,
        num_hidden_layers=6,
        num_attention_heads=8,
        intermediate_size=576,
        conv_dim=(32, 32, 48, 48, 64, 64, 96),
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=8,
        mask_time_prob=0.06,
        mask_time_length=6,
        mask_feature_prob=0.05,
        mask_feature_length=8,
        **CTC,
    )
    model = HubertForCTC(config)
    model.set_attn_implementation("eager")  # twice as fast as sdpa on a CPU at this width
    return model, processor


def hubert_batch(processor, waves, parts) -> dict[str, torch.Tensor]:
    """What ``hubert_loss`` needs, made without the model."""
    inputs = processor.feature_extractor(waves, sampling_rate=RATE_HZ, padding=True, return_tensors="pt")
    texts = [" ".join(text for text, _, _ in line) for line in parts]
    return {
        "input_values": inputs.input_values,
        "attention_mask": inputs.attention_mask.bool(),
        "labels": padded([processor.tokenizer(text).input_ids for text in texts]),
        "flat_targets": _flat_targets(inputs.input_values.shape, parts, processor.tokenizer),
    }


def hubert_loss(model, batch: dict[str, torch.Tensor], step: int) -> torch.Tensor:
    """CTC; in the first steps also a flat start: each recording's frames spell its characters evenly.

    Without the flat start the model stays for some 500 steps where every frame is blank.
    """
    output = model(batch["input_values"], attention_mask=batch["attention_mask"], labels=batch["labels"])
    weight = max(0.0, 1 - step / 600)
    if not weight:
        return output.loss
    targets = batch["flat_targets"]
    return output.loss + weight * torch.nn.functional.cross_entropy(output.logits.float().transpose(1, 2), targets)


def _flat_targets(shape: tuple[int, int], parts, tokenizer) -> torch.Tensor:
    """(batch, frames) ids for waveforms of ``shape``; -100 where there are none."""
    frames = frames_after(shape[1], (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))  # HuBERT's own
    targets = torch.full((shape[0], frames), -100)
    for row, line in zip(targets, parts, strict=True):
        if len(line) > 1:
            row[: line[-1][2] // 320] = tokenizer.word_delimiter_token_id
            for text, first, last in line:
                spelled = tokenizer(text).input_ids
                a, b = first // 320, min(last // 320, len(row))
                for frame in range(a, b):
                    row[frame] = spelled[(frame - a) * len(spelled) // (b - a)]
    return targets


# --- Whisper ---------------------------------------------------------------------------------------------------------


def make_digit_whisper(folder: Path) -> tuple[torch.nn.Module, object]:
    """An English-only ``WhisperForConditionalGeneration`` of 1.9 M parameters that hears 6 s, and its processor."""
    from transformers import WhisperFeatureExtractor, WhisperProcessor

    digits = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    tokenizer = whisper_tokenizer([" ".join(p) for p in itertools.permutations(digits, 2)], 96)
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=6, sampling_rate=RATE_HZ)
    model = make_whisper(
        tokenizer,
        longest=32,
        d_model=128,
        encoder_layers=4,
        decoder_layers=4,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
        max_source_positions=300,
        mask_time_prob=0.06,
        mask_time_length=10,
        mask_feature_prob=0.06,
        mask_feature_length=8,
    )
    model.set_attn_implementation("eager")
    return model, WhisperProcessor(extractor, tokenizer)


def whisper_batch(processor, waves, parts) -> dict[str, torch.Tensor]:
    """What ``whisper_loss`` needs, made without the model."""
    features = processor.feature_extractor(waves, sampling_rate=RATE_HZ, return_tensors="pt").input_features
    tokenizer = processor.tokenizer
    prompt = [tokenizer.convert_tokens_to_ids(t) for t in PROMPT]
    lines = []
    for line in parts:
        text = " " + " ".join(text for text, _, _ in line)
        lines.append(prompt + tokenizer(text, add_special_tokens=False).input_ids + [tokenizer.eos_token_id])
    ids = padded(lines)
    labels = ids[:, 1:].clone()
    labels[:, 0] = -100  # the prompt is given, not learned
    inside = torch.zeros(len(waves), labels.shape[1], features.shape[2] // 2, dtype=torch.bool)
    for item, line in enumerate(parts):
        if len(line) > 1:
            for word, (_, first, last) in enumerate(line):
                inside[item, 1 + word, first // 320 : last // 320 + 1] = True
    return {
        "input_features": features,
        "decoder_input_ids": ids[:, :-1].masked_fill(ids[:, :-1] == -100, tokenizer.pad_token_id),
        "labels": labels,
        "inside": inside,
    }


def whisper_loss(model, batch: dict[str, torch.Tensor], step: int) -> torch.Tensor:
    """Cross entropy of the answer behind PROMPT."""
    guide_weight = max(0.0, 1 - step / 2000)
    output = model(
        input_features=batch["input_features"],
        decoder_input_ids=batch["decoder_input_ids"],
        output_attentions=guide_weight > 0,
    )
    loss = torch.nn.functional.cross_entropy(output.logits.float().transpose(1, 2), batch["labels"])
    return loss + guide_weight * _guide(output.cross_attentions, batch["inside"]) if guide_weight else loss


def _guide(cross_attentions, inside: torch.Tensor) -> torch.Tensor:
    """Pulls half of the heads towards the recording that the next word is in; each digit is one token.

    ``inside`` says for (item, token, frame) whether the frame belongs to it. Source: the guided attention of arXiv
    1710.08969, with the true spans in place of a diagonal. Without it this small model stays for thousands of steps
    where it has learned the digits' frequencies and hears nothing.
    """
    attention = torch.stack(cross_attentions)[:, :, :4].float().clamp(min=1e-6)  # layer, item, head, token, frame
    inward = (attention * inside[None, :, None]).sum(dim=-1).clamp(1e-6, 1)
    known = inside.any(dim=-1)[None, :, None].expand_as(inward)
    return -(inward.log() * known).sum() / known.sum().clamp(min=1)


RECIPES = {
    "hubert": (make_hubert, hubert_batch, hubert_loss, (Phase(5000, 1e-3, STRONG), Phase(2500, 5e-4, MILD))),
    "whisper": (make_digit_whisper, whisper_batch, whisper_loss, (Phase(5500, 1e-3, STRONG),)),
}
WARM_UP_STEPS = 300


def learning_rate(step: int, phase: Phase) -> float:
    """Linear warm-up over 300 steps, then a cosine down to a fiftieth of the peak; ``step`` counts from the phase."""
    if step < WARM_UP_STEPS:
        return phase.peak * (step + 1) / WARM_UP_STEPS
    progress = (step - WARM_UP_STEPS) / max(1, phase.steps - WARM_UP_STEPS)
    return phase.peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def phase_at(step: int, phases: tuple[Phase, ...]) -> tuple[Phase, int]:
    """The phase that ``step`` lies in, and its number there."""
    for phase in phases:
        if step < phase.steps:
            return phase, step
        step -= phase.steps
    raise ValueError(f"{step} steps past the last phase")


@dataclass(frozen=True)
class Drawing:
    """The batch of any step.

    Attributes:
        prepare: makes tensors of waveforms and parts.
        strings: how many.
    """

    maker: StringMaker
    prepare: Callable[..., dict[str, torch.Tensor]]
    phases: tuple[Phase, ...]
    strings: int
    seed: int

    def __call__(self, step: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng([self.seed, step])
        longest = 3 if step < 300 else 6
        how = phase_at(step, self.phases)[0].disturbance
        waves, parts = zip(*(self.maker.draw(rng, longest, how) for _ in range(self.strings)), strict=True)
        return self.prepare(list(waves), parts)


def train(corpus: Path, name: str, out: Path, *, batch: int, seed: int, device: str, workers: int) -> None:
    """Trains recipe ``name`` and writes its exponentially averaged weights to ``out/model`` every 250 steps."""
    make, prepare, loss_of, phases = RECIPES[name]
    steps = sum(phase.steps for phase in phases)
    torch.manual_seed(seed)
    out.mkdir(parents=True, exist_ok=True)
    model, processor = make(out)
    model.to(device)
    print(name, sum(p.numel() for p in model.parameters()), "parameters", flush=True)
    maker = StringMaker(read_recordings(corpus), read_digit_sentences(corpus))
    draw = Drawing(maker, partial(prepare, processor), phases, batch, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=phases[0].peak, betas=(0.9, 0.98), weight_decay=0.02)
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995)
    )
    first, state_file, started = 0, out / "state.pt", time.monotonic()
    if state_file.exists():
        state = torch.load(state_file, map_location="cpu")  # AdamW would read step counts on a GPU one by one
        model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        first, started = state["step"], started - state["seconds"]
    model.train()
    for step, drawn in enumerate(drawn_ahead(draw, first, steps, workers), start=first):
        torch.manual_seed(seed * 1_000_003 + step)
        np.random.seed(seed * 1_003 + step)  # transformers draws its SpecAugment masks from NumPy's global state
        phase, number = phase_at(step, phases)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(number, phase)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            loss = loss_of(model, {key: values.to(device) for key, values in drawn.items()}, step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        averaged.update_parameters(model)
        if (step + 1) % 50 == 0:
            print(f"step {step + 1} loss {loss.item():.3f} {time.monotonic() - started:.0f} s", flush=True)
        if (step + 1) % 250 == 0 or step + 1 == steps:
            state = {
                "model": model.state_dict(),
                "averaged": averaged.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
            state |= {"step": step + 1, "seconds": time.monotonic() - started}
            torch.save(state, state_file.with_suffix(".new"))
            state_file.with_suffix(".new").replace(state_file)
            save(averaged.module, processor, out / "model")


def save(model, processor, folder: Path) -> None:
    """Writes weights and processor in the Hugging Face layout."""
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--model", choices=RECIPES, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw batches ahead")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.set_float32_matmul_precision("medium")  # oneDNN: twice MKL here on the same number of cores
    how = {name: getattr(given, name) for name in ("batch", "seed", "device", "workers")}
    train(given.corpus, given.model, given.out, **how)


if __name__ == "__main__":
    main()
