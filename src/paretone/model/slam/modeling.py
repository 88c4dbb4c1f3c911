"""SLAM-ASR in the form of transformers' own audio models.

Source: arXiv 2402.08846 (SLAM-ASR) and arXiv 2603.27981 (pruned encoder, LoRA).
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from paretone.model.slam.configuration import SlamAsrConfig
from paretone.model.slam.encoders import encode, make_tower
from paretone.model.slam.projectors import make_projector

IGNORED = -100  # what transformers takes for "no label here"


class SlamAsrForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Reads ``[audio][prompt]`` and writes ``[answer][end]``.

    The model puts the sequence together itself: audio and prompt against the left of the answer, the answer padded on
    the right. So no token stands for audio, and nothing can be put together otherwise in use than in training.
    """

    config_class = SlamAsrConfig
    base_model_prefix = ""
    main_input_name = "input_features"
    input_modalities: Any = ("audio",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: SlamAsrConfig, *, audio_tower: Any = None, language_model: Any = None) -> None:
        """Parts that are not given are made with random weights."""
        super().__init__(config)
        self.audio_tower = make_tower(config.audio_config) if audio_tower is None else audio_tower
        self.projector = make_projector(
            config.projector, config.encoder_size, config.text_size, config.projector_settings or {}
        )
        self.language_model = (
            AutoModelForCausalLM.from_config(config.text_config) if language_model is None else language_model
        )
        self.post_init()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        """As of every transformers model; parts that a run refers to are fetched from where they lie."""
        config = kwargs.get("config") or SlamAsrConfig.from_pretrained(pretrained_model_name_or_path)
        if config.audio_source is None and config.text_source is None:
            return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        from paretone.checkpoint import locate
        from paretone.model.slam.assembly import load_slam

        model, _ = load_slam(locate(pretrained_model_name_or_path, kwargs.get("revision")), dtype=kwargs.get("dtype"))
        return (model, {}) if kwargs.get("output_loading_info") else model

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """As of every transformers model; parts that are referred to are not written."""
        if self.config.audio_source is None and self.config.text_source is None:
            super().save_pretrained(save_directory, *args, **kwargs)
            return
        from pathlib import Path

        from paretone.model.slam.assembly import save_parts

        Path(save_directory).mkdir(parents=True, exist_ok=True)
        save_parts(self, Path(save_directory))

    def _init_weights(self, module: nn.Module) -> None:
        """The parts start as they do by themselves; the projector as torch starts its layers."""

    def get_input_embeddings(self) -> nn.Module:
        """The language model's."""
        embeddings: nn.Module = self.language_model.get_input_embeddings()
        return embeddings

    def get_output_embeddings(self) -> nn.Module:
        """The language model's."""
        head: nn.Module = self.language_model.get_output_embeddings()
        return head

    def audio_embeddings(
        self,
        inputs: Tensor | None,
        mask: Tensor | None,
        encoder_hidden_states: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Embeddings of recordings (batch, tokens, text size) and their mask.

        Args:
            inputs: features (batch, bands, frames) or waveforms (batch, samples), as the encoder takes them.
            mask: of ``inputs``, or of the positions of ``encoder_hidden_states``.
            encoder_hidden_states: what `encode` gave before (batch, positions, encoder size), in place of ``inputs``.
        """
        if encoder_hidden_states is None:
            learns = torch.is_grad_enabled() and not self._has_frozen_tower()
            with torch.set_grad_enabled(learns):
                depths, mask = encode(self.audio_tower, inputs.to(self._tower_dtype()), mask)  # type: ignore[union-attr]
            encoder_hidden_states = next(iter(depths.values()))
        weight = next(self.projector.parameters())
        embeddings, tokens = self.projector(encoder_hidden_states.to(weight.dtype), mask)
        return embeddings, tokens

    def forward(
        self,
        input_features: Tensor | None = None,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Any = None,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Next-token scores of answers, and their loss.

        Args:
            input_features: Whisper's log-mel features (batch, bands, frames).
            input_values: waveforms (batch, samples), for the other encoders.
            attention_mask: (batch, frames or samples) of the input; of positions, with ``encoder_hidden_states``.
            encoder_hidden_states: see `audio_embeddings`.
            labels: answers and end tokens (batch, tokens), -100 behind the end.
            num_items_in_batch: labels that the loss is the mean of; those in the batch, by default.

        Returns:
            ``logits``: (batch, tokens, vocabulary), those that the labels are compared with; without labels the one
            behind the prompt. None in training.
        """
        inputs = input_values if input_features is None else input_features
        prefix, mask = self._prefix(*self.audio_embeddings(inputs, attention_mask, encoder_hidden_states))
        if labels is None:
            return CausalLMOutputWithPast(logits=self._logits(prefix, mask, 1))
        is_label = labels != IGNORED
        told = labels[:, :-1]  # nothing is told from the last one
        answer = self.get_input_embeddings()(told.clamp(min=0)).to(prefix.dtype)
        whole = None if mask is None else torch.cat([mask, is_label[:, :-1]], dim=1)
        with self._head_reads(is_label) if self.training else nullcontext():
            logits = self._logits(torch.cat([prefix, answer], dim=1), whole, labels.shape[1])
        wanted = labels[is_label] if self.training else labels.flatten()
        total = nn.functional.cross_entropy(logits.float().flatten(0, 1), wanted, ignore_index=IGNORED, reduction="sum")
        count = is_label.sum() if num_items_in_batch is None else num_items_in_batch
        return CausalLMOutputWithPast(loss=total / count, logits=None if self.training else logits)

    @contextmanager
    def _head_reads(self, is_label: Tensor) -> Iterator[None]:
        """The head sees the states of labels alone, as one row: with large vocabularies it is much of the work.

        What a model does to its scores behind the head, capping them for example, is then done to these.
        """

        def select(_: nn.Module, states: tuple[Tensor]) -> tuple[Tensor]:
            return (states[0][:, -is_label.shape[1] :][is_label][None],)

        hook = self.get_output_embeddings().register_forward_pre_hook(select)
        try:
            yield
        finally:
            hook.remove()

    def _prefix(self, audio: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Audio pushed to the right, then the prompt."""
        embed = self.get_input_embeddings()
        prompt = embed(torch.tensor([self.config.prompt_ids], device=audio.device))
        audio = audio.to(prompt.dtype)
        prompts = prompt.expand(len(audio), -1, -1)
        if mask is None:
            return torch.cat([audio, prompts], dim=1), None
        length = audio.shape[1]
        missing = length - mask.sum(dim=1, keepdim=True)
        source = torch.arange(length, device=audio.device) - missing
        pushed = audio.gather(1, source.clamp(min=0)[..., None].expand_as(audio))
        ones = mask.new_ones(len(audio), prompt.shape[1]).bool()
        return torch.cat([pushed, prompts], dim=1), torch.cat([source >= 0, ones], dim=1)

    def _logits(self, embeddings: Tensor, mask: Tensor | None, last: int) -> Tensor:
        """Scores behind so many last positions."""
        masks: dict[str, Any] = {}
        if mask is not None:
            places = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
            masks = {"attention_mask": mask.long(), "position_ids": places}
        output = self.language_model(inputs_embeds=embeddings, use_cache=False, logits_to_keep=last, **masks)
        logits: Tensor = output.logits
        return logits

    @torch.no_grad()
    def generate(
        self,
        input_features: Tensor | None = None,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        generation_config: Any = None,
        **settings: Any,
    ) -> Any:
        """Answers (batch, tokens) without the prompt; arguments as for `forward` and for transformers' ``generate``."""
        inputs = input_values if input_features is None else input_features
        prefix, mask = self._prefix(*self.audio_embeddings(inputs, attention_mask, encoder_hidden_states))
        if mask is None:
            mask = torch.ones(prefix.shape[:2], dtype=torch.bool, device=prefix.device)
        how = copy.deepcopy(generation_config or self.generation_config)
        others = how.update(**settings)
        return self.language_model.generate(
            inputs_embeds=prefix, attention_mask=mask.long(), generation_config=how, **others
        )

    def train(self, mode: bool = True) -> "SlamAsrForConditionalGeneration":
        """A frozen encoder stays as it is in use: no dropout, no masked spans."""
        super().train(mode)
        if self._has_frozen_tower():
            self.audio_tower.eval()
        return self

    def _has_frozen_tower(self) -> bool:
        return not any(parameter.requires_grad for parameter in self.audio_tower.parameters())

    def _tower_dtype(self) -> torch.dtype:
        dtype: torch.dtype = next(self.audio_tower.parameters()).dtype
        return dtype

    def part_sizes(self) -> Mapping[str, int]:
        """Parameters of each part."""
        parts = {"encoder": self.audio_tower, "projector": self.projector, "language_model": self.language_model}
        return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
