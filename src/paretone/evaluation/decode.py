"""Greedy decoding of CTC and Whisper models; no result depends on what else is in its batch."""

import copy
import logging
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from paretone.data import RATE_HZ, Utterance, read_audio, segment
from paretone.errors import UserError
from paretone.evaluation.guards import GUARDS, is_silent, without_loop
from paretone.model.hearing import Recogniser
from paretone.progress import track

BATCH_S = 60.0


@dataclass(frozen=True)
class Decoded:
    """Texts in the order of the utterances, and the seconds that decoding took (reading audio not counted).

    ``guards`` counts the pieces that a speech LLM was kept from answering at length: silence, loops that were cut, and
    answers that came to no end.
    """

    texts: list[str]
    seconds: float
    guards: Mapping[str, int]


def decode(recogniser: Recogniser, utterances: Sequence[Utterance], *, batch_s: float = BATCH_S) -> Decoded:
    """Recognise utterances in batches of like length.

    Audio longer than the window is cut at quiet points (`paretone.data.segment`) and its texts joined.

    Args:
        batch_s: most seconds of audio in a batch, padding included; one piece is always allowed.
    """
    if batch_s <= 0:
        raise UserError(f"batch_s is {batch_s}; it must be more than 0 seconds")
    texts = [""] * len(utterances)
    seconds = 0.0
    guards = Counter(dict.fromkeys(GUARDS, 0)) if recogniser.is_slam else Counter[str]()
    _warm_up(recogniser, utterances, batch_s)
    batches = _batches(recogniser, utterances, batch_s)
    for batch in track(batches, f"decoding with {recogniser.name}", total=len(batches)):
        waves = [read_audio(utterances[i].audio, name=utterances[i].name) for i in batch]
        started = time.perf_counter()
        found = _decode_waves(recogniser, waves, utterances[batch[0]].language, batch_s, guards)
        seconds += time.perf_counter() - started
        for i, text in zip(batch, found, strict=True):
            texts[i] = text
    return Decoded(texts, seconds, dict(guards))


def _warm_up(recogniser: Recogniser, utterances: Sequence[Utterance], batch_s: float) -> None:
    """The first run allocates and chooses kernels; it is not the model's speed."""
    shortest = min(utterances, key=lambda u: u.duration_s)
    wave = read_audio(shortest.audio, name=shortest.name)[: int(recogniser.window_s * RATE_HZ)]
    _decode_waves(recogniser, [wave], shortest.language, batch_s, Counter())


def _batches(recogniser: Recogniser, utterances: Sequence[Utterance], batch_s: float) -> list[list[int]]:
    """Indices of utterances of one language and like length, longest first; what is longer than a window is alone."""
    order = sorted(range(len(utterances)), key=lambda i: (utterances[i].language or "", -utterances[i].duration_s, i))
    batches: list[list[int]] = []
    for i in order:
        longest = utterances[batches[-1][0]] if batches else utterances[i]
        piece_s = recogniser.window_s if recogniser.is_whisper else longest.duration_s
        fits = batches and (len(batches[-1]) + 1) * piece_s <= batch_s and longest.duration_s <= recogniser.window_s
        if fits and longest.language == utterances[i].language:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


@torch.inference_mode()
def _decode_waves(
    recogniser: Recogniser, waves: Sequence[np.ndarray], language: str | None, batch_s: float, guards: Counter[str]
) -> list[str]:
    pieces = [segment(wave, RATE_HZ, recogniser.window_s) for wave in waves]
    flat = [piece for group in pieces for piece in group]
    piece_s = recogniser.window_s if recogniser.is_whisper else max(map(len, flat)) / RATE_HZ
    size = max(1, int(batch_s / piece_s))
    heard: list[str] = []
    for first in range(0, len(flat), size):
        part = flat[first : first + size]
        if recogniser.is_slam:
            heard += _answer(recogniser, part, guards)
        else:
            heard += _generate(recogniser, part, language) if recogniser.is_whisper else _ctc(recogniser, part)
    texts = iter(heard)
    return [" ".join(filter(None, (next(texts) for _ in group))) for group in pieces]


def _answer(recogniser: Recogniser, waves: Sequence[np.ndarray], guards: Counter[str]) -> list[str]:
    """What a speech LLM writes, decoded as its generation configuration says."""
    model, tokenizer = recogniser.model, recogniser.processor.tokenizer
    texts = [""] * len(waves)
    said = [i for i, wave in enumerate(waves) if not is_silent(wave)]
    guards["silence"] += len(waves) - len(said)
    if not said:
        return texts
    inputs = recogniser.processor.inputs([waves[i] for i in said], RATE_HZ).to(model.device)
    with _quiet():
        answers = model.generate(**inputs).tolist()
    end = tokenizer.eos_token_id
    for i, tokens in zip(said, answers, strict=True):
        text = tokens[: tokens.index(end)] if end in tokens else tokens
        if end not in tokens:
            guards["unfinished"] += 1
            text = without_loop(tokens)
            guards["loops"] += len(text) < len(tokens)
        texts[i] = tokenizer.decode(text, skip_special_tokens=True).strip()
    return texts


def _ctc(recogniser: Recogniser, waves: Sequence[np.ndarray]) -> list[str]:
    """Best label of every frame, repeats and blanks removed."""
    extractor = recogniser.processor.feature_extractor
    values = [extractor(wave, sampling_rate=RATE_HZ).input_values[0] for wave in waves]  # alone: no padding in its mean
    texts = [""] * len(values)
    for batch in _ctc_batches(recogniser, [len(value) for value in values]):
        for i, labels in zip(batch, _labels(recogniser, [values[i] for i in batch]), strict=True):
            texts[i] = _spell(recogniser.processor.tokenizer, labels)
    return texts


def _spell(tokenizer: Any, labels: Sequence[int]) -> str:
    """The text of frame labels; <s>, </s> and <unk> are blanks.

    The tokenizer's own ``skip_special_tokens`` drops the blank before it merges repeats: "hello" becomes "helo".
    """
    blank = tokenizer.pad_token_id
    mute = set(tokenizer.all_special_ids) - {tokenizer.word_delimiter_token_id}
    return str(tokenizer.decode([blank if label in mute else label for label in labels])).strip()


def _ctc_batches(recogniser: Recogniser, lengths: Sequence[int]) -> list[list[int]]:
    """What may share a batch; audio too short for a single frame is left out."""
    audible = [i for i, length in enumerate(lengths) if recogniser.frames(length) > 0]
    if not recogniser.needs_equal_lengths:
        return [audible] if audible else []
    return [[i for i in audible if lengths[i] == length] for length in dict.fromkeys(lengths[i] for i in audible)]


def _labels(recogniser: Recogniser, values: Sequence[np.ndarray]) -> list[list[int]]:
    model = recogniser.model
    padded = torch.zeros(len(values), max(map(len, values)))
    mask = torch.zeros(padded.shape, dtype=torch.bool)  # an integer mask indexes instead of masking
    for row, value in enumerate(values):
        padded[row, : len(value)] = torch.as_tensor(value)
        mask[row, : len(value)] = True
    masks = {} if recogniser.needs_equal_lengths else {"attention_mask": mask.to(model.device)}
    with _quiet():
        labels = model(padded.to(model.device, model.dtype), **masks).logits.argmax(dim=-1).tolist()
    return [row[: recogniser.frames(len(value))] for row, value in zip(labels, values, strict=True)]


def _generate(recogniser: Recogniser, waves: Sequence[np.ndarray], language: str | None) -> list[str]:
    """Greedy tokens of every window, at most as many as the decoder has positions."""
    model, extractor = recogniser.model, recogniser.processor.feature_extractor
    features = [extractor(wave, sampling_rate=RATE_HZ, return_tensors="pt").input_features for wave in waves]
    spoken: dict[str, Any] = {}
    if recogniser.is_multilingual:
        spoken = {"task": "transcribe", "language": recogniser.language_code(language)}
    windows = torch.cat(features).to(model.device, model.dtype)
    mask = torch.ones(len(windows), windows.shape[-1], dtype=torch.long, device=model.device)
    with _quiet():
        tokens = model.generate(windows, attention_mask=mask, generation_config=_greedy(recogniser), **spoken)
    return [text.strip() for text in recogniser.processor.batch_decode(tokens, skip_special_tokens=True)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Holds back warnings about calls that transformers makes to itself: Whisper's token lists, WavLM's mask types."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")
            yield
    finally:
        logger.setLevel(level)


def _greedy(recogniser: Recogniser) -> Any:
    settings = copy.deepcopy(recogniser.model.generation_config)
    settings.num_beams, settings.do_sample, settings.return_timestamps = 1, False, False
    settings.max_new_tokens, settings.max_length = None, recogniser.model.config.max_target_positions
    return settings
