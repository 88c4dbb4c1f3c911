"""What a speech LLM is made of."""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from paretone.families import SLAM

PROMPT = "Transcribe speech to text.\n"  # of the paper's official code


class SlamAsrConfig(PreTrainedConfig):
    """Encoder, projector and causal language model.

    Attributes:
        audio_config: of the encoder as it is, layers already removed.
        text_config: of the language model.
        audio_source: where the frozen encoder lies that these weights don't hold: ``model``, ``revision``, ``digest``,
            and ``layers``, the numbers of the layers kept. None where the encoder is part of the weights.
        text_source: likewise for the language model.
        projector: name of a file in `paretone.model.slam.projectors`.
        projector_settings: its keyword arguments.
        prompt: what the model was trained to read between audio and answer.
        prompt_ids: the same in tokens.
        encoder_size: width of the encoder.
        text_size: width of the language model.
    """

    model_type = SLAM
    sub_configs = {"audio_config": AutoConfig, "text_config": AutoConfig}  # noqa: RUF012  transformers' own way

    audio_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    audio_source: dict | None = None
    text_source: dict | None = None
    projector: str = "concat-linear"
    projector_settings: dict | None = None
    prompt: str = PROMPT
    prompt_ids: list | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Makes configurations of the dictionaries that config.json holds."""
        for name in ("audio_config", "text_config"):
            given = getattr(self, name)
            if isinstance(given, dict):
                given = dict(given)
                setattr(self, name, AutoConfig.for_model(given.pop("model_type"), **given))
        parts = [part for part in (self.audio_config, self.text_config) if part is not None]
        chosen = [part._attn_implementation for part in parts]  # type: ignore[union-attr]
        super().__post_init__(**kwargs)  # gives its own choice of attention to the parts, which have made theirs
        if self._attn_implementation is None:
            for part, implementation in zip(parts, chosen, strict=True):
                part._attn_implementation = implementation  # type: ignore[union-attr]

    @property
    def encoder_size(self) -> int:
        """Width of the encoder's hidden states."""
        return int(self.audio_config.hidden_size)  # type: ignore[union-attr]

    @property
    def text_size(self) -> int:
        """Width of the language model's embeddings."""
        return int(self.text_config.get_text_config().hidden_size)  # type: ignore[union-attr]
