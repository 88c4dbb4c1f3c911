"""Audio and text to what the model takes, and back."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin, WhisperFeatureExtractor


class SlamAsrFeatureExtractor(WhisperFeatureExtractor):
    """Whisper's log-mel features of recordings as long as they are: each filled up with silence to the next second.

    The features of a recording are computed alone, so that they do not depend on the others of a batch. With
    ``pad_to_window`` everything is filled up to Whisper's whole window, as Whisper itself does.
    """

    model_input_names = ["input_features", "attention_mask"]  # noqa: RUF012  transformers' own way

    def __init__(self, pad_to_window: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.pad_to_window = pad_to_window

    def __call__(  # type: ignore[override]
        self,
        raw_speech: np.ndarray | Sequence[np.ndarray],
        sampling_rate: int | None = None,
        return_tensors: str | None = "pt",
        **_: Any,
    ) -> BatchFeature:
        """``input_features`` (batch, bands, frames) and ``attention_mask`` (batch, frames).

        Raises:
            ValueError: if a recording is longer than the window or has another rate.
        """
        waves = [raw_speech] if np.ndim(raw_speech[0]) == 0 else raw_speech
        items = [self._features(np.asarray(wave, dtype=np.float32), sampling_rate) for wave in waves]
        longest = max(item.shape[1] for item in items)
        features = np.zeros((len(items), self.feature_size, longest), np.float32)
        mask = np.zeros((len(items), longest), np.int64)
        for row, item in enumerate(items):
            features[row, :, : item.shape[1]] = item
            mask[row, : item.shape[1]] = 1
        return BatchFeature({"input_features": features, "attention_mask": mask}, tensor_type=return_tensors)

    def _features(self, wave: np.ndarray, sampling_rate: int | None) -> np.ndarray:
        if len(wave) > self.n_samples:
            raise ValueError(
                f"{len(wave) / self.sampling_rate:.1f} s of audio; the encoder hears {self.chunk_length} s"
            )
        seconds = self.chunk_length if self.pad_to_window else max(1, math.ceil(len(wave) / self.sampling_rate))
        filled = np.zeros(min(seconds * self.sampling_rate, self.n_samples), np.float32)
        filled[: len(wave)] = wave
        made = super().__call__(
            filled, sampling_rate=sampling_rate or self.sampling_rate, padding="do_not_pad", return_tensors="np"
        )
        features: np.ndarray = made["input_features"][0]
        return features


class SlamAsrProcessor(ProcessorMixin):
    """A feature extractor and the language model's tokenizer."""

    attributes = ["feature_extractor", "tokenizer"]  # noqa: RUF012  transformers' own way
    feature_extractor_class = "AutoFeatureExtractor"
    tokenizer_class = "AutoTokenizer"

    def __init__(self, feature_extractor: Any = None, tokenizer: Any = None, **_: Any) -> None:
        super().__init__(feature_extractor, tokenizer)

    def __call__(
        self,
        audio: np.ndarray | Sequence[np.ndarray],
        text: Sequence[str] | None = None,
        sampling_rate: int | None = None,
        **_: Any,
    ) -> BatchFeature:
        """What `SlamAsrForConditionalGeneration` takes.

        Args:
            audio: waveforms at the encoder's rate.
            text: answers, which become ``labels``.
        """
        waves: Any = [audio] if np.ndim(audio[0]) == 0 else audio
        made = self.inputs(waves, sampling_rate)
        if text is not None:
            made["labels"] = padded([self.answer(each) for each in text])
        return made

    def inputs(self, waves: Sequence[np.ndarray], sampling_rate: int | None = None) -> BatchFeature:
        """See `audio_inputs`."""
        return audio_inputs(self.feature_extractor, waves, sampling_rate)

    def answer(self, text: str) -> list[int]:
        """Tokens of a text and the end token."""
        tokenizer: Any = self.tokenizer
        return [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]


def audio_inputs(extractor: Any, waves: Sequence[np.ndarray], sampling_rate: int | None = None) -> BatchFeature:
    """Features or normalised waveforms, each computed alone, and their mask."""
    if isinstance(extractor, SlamAsrFeatureExtractor):
        return extractor(waves, sampling_rate=sampling_rate)
    rate = sampling_rate or extractor.sampling_rate
    rows = [torch.as_tensor(extractor(wave, sampling_rate=rate).input_values[0]) for wave in waves]
    lengths = torch.tensor([[len(row)] for row in rows])
    values = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return BatchFeature({"input_values": values, "attention_mask": torch.arange(values.shape[1]) < lengths})


def padded(rows: Sequence[Sequence[int]], value: int = -100) -> torch.Tensor:
    """(rows, longest), ``value`` behind the end."""
    tensors = [torch.tensor(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)
