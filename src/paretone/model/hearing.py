"""A loaded model as what it is for: what decoding and training must know of how it hears."""

import re
from dataclasses import dataclass
from typing import Any

from paretone.data import RATE_HZ
from paretone.errors import UserError
from paretone.families import SLAM

CTC_WINDOW_S = 30.0


@dataclass(frozen=True)
class Recogniser:
    """A loaded model with what its decoding needs; ``window_s`` is the longest audio that it hears in one piece."""

    name: str
    model: Any
    processor: Any
    window_s: float

    @property
    def is_whisper(self) -> bool:
        """Whether it is an encoder and decoder that hear one window."""
        return bool(self.model.config.model_type == "whisper")

    @property
    def is_slam(self) -> bool:
        """Whether it is a language model that reads audio; what is neither this nor Whisper is CTC."""
        return bool(self.model.config.model_type == SLAM)

    @property
    def is_multilingual(self) -> bool:
        """Whether it is told, or finds out, which language is spoken."""
        settings = getattr(self.model, "generation_config", None)
        given = getattr(settings, "is_multilingual", None)
        return bool(getattr(settings, "lang_to_id", None)) if given is None else bool(given)

    @property
    def needs_equal_lengths(self) -> bool:
        """Whether padding would change what it hears: group norm runs over it, or no mask was known in training."""
        masks = getattr(self.processor.feature_extractor, "return_attention_mask", True)
        return self.model.config.feat_extract_norm == "group" or not masks

    def frames(self, samples: int) -> int:
        """CTC: how many frames, and so labels at most, a recording of so many samples gives."""
        import torch

        return int(self.model._get_feat_extract_output_lengths(torch.tensor(samples)))

    def language_code(self, language: str | None) -> str | None:
        """Whisper's code for a language tag such as "sv-SE"; None leaves it to the model to find out.

        Raises:
            UserError: if the model does not know the language.
        """
        if language is None:
            return None
        code = re.split(r"[-_]", language.lower())[0]
        known = self.model.generation_config.lang_to_id
        if f"<|{code}|>" not in known:
            codes = " ".join(sorted(token.strip("<|>") for token in known))
            raise UserError(f"{self.name}: does not know the language {language!r}; it knows {codes}")
        return code


def recogniser(name: str, model: Any, processor: Any) -> Recogniser:
    """Make a loaded model ready to decode or to train.

    Raises:
        UserError: if it has no recognition head or no tokenizer.
    """
    whisper, slam = model.config.model_type == "whisper", model.config.model_type == SLAM
    if not slam and not (hasattr(model, "proj_out") if whisper else hasattr(model, "lm_head")):
        needed = "WhisperForConditionalGeneration" if whisper else "a …ForCTC class"
        raise UserError(f"{name}: {type(model).__name__} writes no text; give {needed}")
    if getattr(processor, "tokenizer", None) is None:
        raise UserError(f"{name}: no tokenizer files, so its output can't be read; copy them from the source model")
    rate_hz = processor.feature_extractor.sampling_rate
    if rate_hz != RATE_HZ:
        raise UserError(f"{name}: hears audio at {rate_hz} Hz; only {RATE_HZ} Hz is supported")
    return Recogniser(name, model.eval(), processor, window_of(processor.feature_extractor))


def window_of(extractor: Any) -> float:
    """The longest audio, in seconds, that a model behind this feature extractor hears in one piece."""
    return float(getattr(extractor, "chunk_length", CTC_WINDOW_S))
