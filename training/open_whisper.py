"""The open-vocabulary Whisper: stock weights and processor, trained with two helps that are thrown away.

A model of this kind hears nothing for thousands of steps if it only predicts the next token. So the encoder also spells
the characters through a linear CTC head, and half of the cross-attention heads are pulled to where the next token is
said.
"""

from pathlib import Path

import numpy as np
import torch

from open_ctc import CHARACTERS, flat_start, flat_targets
from open_drawing import Example, Timed
from recognisers import PROMPT, make_whisper, padded, whisper_tokenizer
from strings import RATE_HZ

WINDOW_S = 8.0
HOP = 320  # 20 ms: 25 positions a second after the stock stride of two
FRAME = 2 * HOP
VOCABULARY = 400
LEAST_CTC = 0.3
FLAT_START_STEPS, CTC_ALONE_STEPS, CTC_DECAY_STEPS, GUIDE_STEPS = 600, 250, 2000, 2000
NEAR_EXACT_S, NEAR_S = 0.25, 0.7  # how far from the expected position the guided heads may look


class WithSpelling(torch.nn.Module):
    """A Whisper and the throw-away head that spells from its encoder: a blank, the word gap and ``characters``."""

    def __init__(self, whisper: torch.nn.Module, characters: str = CHARACTERS) -> None:
        super().__init__()
        self.whisper = whisper
        self.spelling = torch.nn.Linear(whisper.config.d_model, 2 + len(characters))


class _Spelling:
    """The tokenizer of the throw-away head."""

    class _Ids(list):
        @property
        def input_ids(self) -> list[int]:
            return list(self)

    def __init__(self, characters: str) -> None:
        self.characters = characters

    def __call__(self, text: str) -> "_Spelling._Ids":
        return self._Ids(1 if c == " " else 2 + self.characters.index(c) for c in text)


def make(folder: Path, texts: list[str]) -> tuple[torch.nn.Module, object]:
    """The model with random weights and its head, and its processor."""
    from transformers import WhisperFeatureExtractor, WhisperProcessor

    tokenizer = whisper_tokenizer([" " + text for text in texts], VOCABULARY)
    extractor = WhisperFeatureExtractor(
        feature_size=80, chunk_length=int(WINDOW_S), sampling_rate=RATE_HZ, hop_length=HOP, n_fft=512
    )
    whisper = make_whisper(
        tokenizer,
        longest=96,
        d_model=256,
        encoder_layers=6,
        decoder_layers=4,
        encoder_attention_heads=8,
        decoder_attention_heads=8,
        encoder_ffn_dim=1024,
        decoder_ffn_dim=1024,
        max_source_positions=int(WINDOW_S * RATE_HZ) // FRAME,
        mask_time_prob=0.05,
        mask_time_length=8,
        mask_feature_prob=0.06,
        mask_feature_length=8,
    )
    return WithSpelling(whisper), WhisperProcessor(extractor, tokenizer)


def stock(model: WithSpelling) -> torch.nn.Module:
    """What is saved: the Whisper without the head."""
    return model.whisper


def batch_of(processor, examples: list[Example], characters: str = CHARACTERS) -> dict[str, torch.Tensor]:
    """What ``loss`` needs of the examples, made without the model."""
    waves = [e.wave for e in examples]
    features = processor.feature_extractor(waves, sampling_rate=RATE_HZ, return_tensors="pt").input_features
    spell = _Spelling(characters)
    lines = [spell(e.text) for e in examples]
    positions = features.shape[-1] // 2
    ids, timed = _targets(processor.tokenizer, examples)
    given = len(prompt_of(examples[0]))
    labels = ids[:, 1:].clone()
    labels[:, : given - 1] = -100  # the prompt is given, not learned
    centre, near = _places(timed, ids.shape[1] - 1, given)
    return {
        "features": features,
        "spelled": torch.tensor([i for line in lines for i in line]),
        "spelled_lengths": torch.tensor([len(line) for line in lines]),
        "frames": torch.tensor([min(positions, len(wave) // FRAME + 1) for wave in waves]),
        "flat_targets": flat_targets((len(waves), positions), examples, spell),
        "decoder_input_ids": ids[:, :-1].masked_fill(ids[:, :-1] == -100, processor.tokenizer.pad_token_id),
        "labels": labels,
        "centre": centre,
        "near": near,
    }


def loss(model: WithSpelling, batch: dict[str, torch.Tensor], step: int) -> torch.Tensor:
    """Cross entropy of the answer plus the helps, whose weights fall with ``step``."""
    whisper = model.whisper
    hidden = whisper.model.encoder(whisper.model._mask_input_features(batch["features"])).last_hidden_state
    ctc_weight = max(LEAST_CTC, 1 - step / CTC_DECAY_STEPS)
    total = ctc_weight * _spelling_loss(model.spelling(hidden), batch, step)
    if step < CTC_ALONE_STEPS:
        return total
    guide_weight = max(0.0, 1 - step / GUIDE_STEPS)
    attention = "eager" if guide_weight else "sdpa"
    if whisper.model.decoder.config._attn_implementation != attention:
        whisper.model.decoder.set_attn_implementation(attention)
    output = whisper(
        encoder_outputs=(hidden,),
        decoder_input_ids=batch["decoder_input_ids"],
        output_attentions=guide_weight > 0,
        use_cache=False,
    )
    total = total + torch.nn.functional.cross_entropy(
        output.logits.transpose(1, 2), batch["labels"], label_smoothing=0.05 if model.training else 0.0
    )
    return total + guide_weight * _guide(output.cross_attentions, batch) if guide_weight else total


def prompt_of(example: Example) -> tuple[str, ...]:
    """What the decoder is given before the answer."""
    return PROMPT if example.language is None else (PROMPT[0], f"<|{example.language}|>", "<|transcribe|>", PROMPT[1])


def _spelling_loss(logits: torch.Tensor, batch: dict[str, torch.Tensor], step: int) -> torch.Tensor:
    ctc = torch.nn.functional.ctc_loss(
        logits.log_softmax(-1).transpose(0, 1),
        batch["spelled"],
        batch["frames"],
        batch["spelled_lengths"],
        zero_infinity=True,
    )
    weight = max(0.0, 1 - step / FLAT_START_STEPS)
    return ctc + weight * flat_start(logits, batch["flat_targets"]) if weight else ctc


def _targets(tokenizer, examples: list[Example]) -> tuple[torch.Tensor, list[list[tuple[float, float]]]]:
    """Prompt, answer and end (batch, tokens), and for each token of each answer (where it is said, how near) in s."""
    lines, timed = [], []
    for example in examples:
        prompt = [tokenizer.convert_tokens_to_ids(t) for t in prompt_of(example)]
        line, times = [], []
        for part in example.parts:
            pieces = tokenizer(" " + part.text, add_special_tokens=False).input_ids
            line += pieces
            times += _times(tokenizer, pieces, part)
        lines.append([*prompt, *line, tokenizer.eos_token_id])
        timed.append(times)
    return padded(lines), timed


def _times(tokenizer, pieces: list[int], part: Timed) -> list[tuple[float, float]]:
    ends = np.cumsum([len(piece) for piece in tokenizer.convert_ids_to_tokens(pieces)]) - 1  # minus the space before
    middles = ends - np.diff(ends, prepend=0) / 2
    near = NEAR_EXACT_S if part.exact else NEAR_S
    return [(s / RATE_HZ, near) for s in np.interp(middles, part.characters, part.samples)]


def _places(timed: list[list[tuple[float, float]]], tokens: int, given: int) -> tuple[torch.Tensor, torch.Tensor]:
    """By item and predicted token, where it is said and how near, in seconds; 0 where it is not known."""
    centre = torch.zeros(len(timed), tokens)
    near = torch.zeros_like(centre)
    for item, times in enumerate(timed):
        # the prompt's last token is <|notimestamps|>, from which the first piece is predicted
        place = slice(given - 1, given - 1 + len(times))
        centre[item, place], near[item, place] = torch.tensor(times, dtype=torch.float32).T
    return centre, near


def _guide(cross_attentions, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Minus the log of what half of the heads give to the surroundings of the next token.

    Source: the guided attention of arXiv 1710.08969, with word times in place of a diagonal where they are known.
    """
    attention = torch.stack([a[:, : a.shape[1] // 2] for a in cross_attentions])  # layer, item, head, token, frame
    centre, near = batch["centre"], batch["near"]
    frames = (torch.arange(attention.shape[-1], device=centre.device) + 0.5) * FRAME / RATE_HZ
    inside = (frames - centre[..., None]).abs() <= near[..., None]
    inward = (attention * inside[None, :, None]).sum(-1).clamp(1e-6, 1)
    known = (near > 0)[None, :, None].expand_as(inward)
    return -(inward.log() * known).sum() / known.sum()


@torch.no_grad()
def transcribe(model: WithSpelling, processor, waves: list[np.ndarray]) -> list[str]:
    """Greedy decoding."""
    features = processor.feature_extractor(waves, sampling_rate=RATE_HZ, return_tensors="pt").input_features
    ids = model.whisper.generate(features.to(model.whisper.device))
    return [text.strip() for text in processor.tokenizer.batch_decode(ids, skip_special_tokens=True)]
