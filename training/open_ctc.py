"""The open-vocabulary ``HubertForCTC``: 8 layers on a cheap front end that begins as a bank of band-pass filters."""

import math
from pathlib import Path

import numpy as np
import torch

from open_drawing import Example
from recognisers import CTC, ctc_processor, frames_after, padded
from strings import RATE_HZ

KERNELS, STRIDES, CHANNELS = (320, 8, 3), (80, 4, 2), (160, 256, 256)
FRAME = math.prod(STRIDES)  # 640 samples: 25 frames/s; read speech has 10 to 16 characters a second
CHARACTERS = "'ABCDEFGHIJKLMNOPQRSTUVWXYZ"
FLAT_START_STEPS = 800


def make(folder: Path, texts: list[str]) -> tuple[torch.nn.Module, object]:
    """The model with random weights, and its processor. ``texts`` must spell with CHARACTERS."""
    from transformers import HubertConfig, HubertForCTC

    if missing := set("".join(texts)) - set(CHARACTERS + " "):
        raise ValueError(f"no token for {missing}")
    processor = ctc_processor(folder, CHARACTERS)
    config = HubertConfig(
        vocab_size=len(processor.tokenizer),
        hidden_size=256,
        num_hidden_layers=8,
        num_attention_heads=8,
        intermediate_size=1024,
        conv_dim=CHANNELS,
        conv_kernel=KERNELS,
        conv_stride=STRIDES,
        num_feat_extract_layers=len(KERNELS),
        num_conv_pos_embeddings=15,
        num_conv_pos_embedding_groups=16,
        feat_proj_dropout=0.0,
        mask_time_prob=0.05,
        mask_time_length=4,
        mask_feature_prob=0.04,
        mask_feature_length=12,
        **CTC,
    )
    model = HubertForCTC(config)
    start_as_filters(model.hubert.feature_extractor.conv_layers)
    return model, processor


def band_filters(bands: int, length: int) -> np.ndarray:
    """Band-pass filters (bands * 4, length) with centres even in mel: cosine, sine and the negatives of both.

    After GELU the four phases of a band add up to nearly its envelope, so the network starts from a filter bank.
    Each is scaled to give about unit output for speech, whose spectrum falls with frequency.
    """
    mel = np.linspace(2595 * np.log10(1 + 90 / 700), 2595 * np.log10(1 + 7600 / 700), bands + 2)
    hz = 700 * (10 ** (mel / 2595) - 1)
    seconds = (np.arange(length) - (length - 1) / 2) / RATE_HZ
    filters = []
    for low, centre, high in zip(hz[:-2], hz[1:-1], hz[2:], strict=True):
        spread_s = np.clip(1 / (2 * np.pi * 0.3 * (high - low)), 0.0012, 0.0042)
        envelope = np.exp(-0.5 * (seconds / spread_s) ** 2)
        for phase in (0, 0.25, 0.5, 0.75):
            wave = envelope * np.cos(2 * np.pi * (centre * seconds - phase))
            wave -= envelope * wave.sum() / envelope.sum()  # no response to a constant
            filters.append(wave / np.sqrt((wave**2).sum()) * (centre / 500) ** 0.6)
    return np.stack(filters).astype(np.float32)


def start_as_filters(layers: torch.nn.ModuleList) -> None:
    """Puts the filters into the first convolution; the second begins with equal weights for a band's four phases."""
    first, second = layers[0].conv, layers[1].conv
    with torch.no_grad():
        bands = first.weight.shape[0] // 4
        first.weight.copy_(torch.from_numpy(band_filters(bands, first.weight.shape[2]))[:, None])
        first.bias.normal_(0, 0.1)  # a pattern for silence, which the layer norm would otherwise blow up
        second.weight.copy_(second.weight[:, ::4].repeat_interleave(4, dim=1) / 2)


def batch_of(processor, examples: list[Example]) -> dict[str, torch.Tensor]:
    """What ``loss`` needs of the examples, made without the model."""
    waves = [e.wave for e in examples]
    inputs = processor.feature_extractor(waves, sampling_rate=RATE_HZ, padding=True, return_tensors="pt")
    frames = frames_after(inputs.input_values.shape[1], KERNELS, STRIDES)
    return {
        "input_values": inputs.input_values,
        "attention_mask": inputs.attention_mask.bool(),
        "labels": padded([processor.tokenizer(e.text).input_ids for e in examples]),
        "flat_targets": flat_targets((len(waves), frames), examples, processor.tokenizer),
    }


def loss(model, batch: dict[str, torch.Tensor], step: int) -> torch.Tensor:
    """CTC; in the first steps also a flat start on the synthetic examples."""
    output = model(batch["input_values"], attention_mask=batch["attention_mask"], labels=batch["labels"])
    weight = max(0.0, 1 - step / FLAT_START_STEPS)
    return output.loss + weight * flat_start(output.logits, batch["flat_targets"]) if weight else output.loss


def flat_targets(shape: tuple[int, int], examples: list[Example], tokenizer) -> torch.Tensor:
    """(batch, frames) ids: where a word's time is known, its characters spread evenly over it; else -100."""
    targets = torch.full(shape, -100)
    for row, example in zip(targets, examples, strict=True):
        for part in example.parts:
            if part.exact:
                spelled = torch.tensor(tokenizer(part.text).input_ids)
                first, last = max(0, int(part.samples[0] // FRAME)), min(int(part.samples[-1] // FRAME), len(row))
                middles = (np.arange(first, last) + 0.5) * FRAME
                at = np.interp(middles, part.samples, part.characters).astype(int)
                row[first:last] = spelled[np.minimum(at, len(spelled) - 1)]
    return targets


def flat_start(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross entropy of frames (batch, frame, character) with ``flat_targets``.

    Without it CTC stays for some thousand steps where every frame is blank.
    """
    if (targets == -100).all():
        return logits.new_zeros(())
    return torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), targets)


@torch.no_grad()
def transcribe(model, processor, waves: list[np.ndarray]) -> list[str]:
    """Greedy decoding."""
    inputs = processor.feature_extractor(waves, sampling_rate=RATE_HZ, padding=True, return_tensors="pt")
    inputs = inputs.to(model.device)
    best = model(inputs.input_values, attention_mask=inputs.attention_mask.bool()).logits.argmax(-1)
    return processor.tokenizer.batch_decode(best)


def stock(model: torch.nn.Module) -> torch.nn.Module:
    """What is saved."""
    return model
