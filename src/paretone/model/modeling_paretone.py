"""HuBERT, wav2vec 2.0, WavLM and Whisper whose layers differ in width.

Paretone imports this file and copies it, as it is, into every checkpoint that needs it; so it may import nothing but
torch and transformers. It adds three fields to the stock configuration, with module names relative to the base model:

``layer_widths``: ``{"encoder.layers.0.attention": 6, "encoder.layers.0.feed_forward": 400}``, heads of an attention
    module, hidden units of a feed-forward (Whisper: of the layer's ``fc1``). Modules not named keep the width of the
    configuration.
``layer_head_dims``: ``{"encoder.layers.0.attention": 32}``, rows of a head of a module that ``layer_widths`` names too;
    where not named ``hidden size // heads`` of the configuration. The scale of the scores stays that of the
    configuration whatever the size of a head.
``position_bias_heads``: WavLM only; ``{"encoder.layers.3.attention": [0, 2, 5]}``, for each head of a narrowed module
    the original head whose slice of the hidden states gates it and whose position bias it uses.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    HubertForCTC,
    HubertModel,
    PreTrainedConfig,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMForCTC,
    WavLMModel,
    WhisperForConditionalGeneration,
    WhisperModel,
)
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

HUB_OPTIONS = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder", "trust_remote_code")


class WidthError(ValueError):
    """``layer_widths`` or ``position_bias_heads`` of a configuration does not fit the model it describes."""


class MixedWidths:
    """Mixed in before a stock model class: rebuilds the modules that ``config.layer_widths`` names.

    Where the configuration has no ``layer_widths``, ``from_pretrained`` and ``from_config`` make the stock class:
    registering a mixed class for a configuration changes nothing for any other checkpoint.
    """

    stock_class: ClassVar[Any]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        model: Any = self
        if not getattr(model.config, "layer_widths", None):
            return
        narrow(model.base_model, model.config)
        # The stock constructor has started every module but the new ones; started ones carry a flag and are left.
        if not any(parameter.is_meta for parameter in model.parameters()):
            model.initialize_weights()

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
        config = kwargs.get("config")
        if not isinstance(config, PreTrainedConfig):
            source = pretrained_model_name_or_path if config is None else config
            hub_options = {name: kwargs[name] for name in HUB_OPTIONS if name in kwargs}
            config = cls.stock_class.config_class.from_pretrained(source, **hub_options)
        if not getattr(config, "layer_widths", None):
            return cls.stock_class.from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        return super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)  # type: ignore[misc]

    @classmethod
    def _from_config(cls, config: PreTrainedConfig, **kwargs: Any) -> Any:
        if not getattr(config, "layer_widths", None):
            return cls.stock_class._from_config(config, **kwargs)
        return super()._from_config(config, **kwargs)  # type: ignore[misc]


def narrow(base_model: nn.Module, config: Any) -> None:
    """Replaces the Linears of every module in ``config.layer_widths`` by newly started ones of that width.

    Raises:
        WidthError: if a name or a width does not fit the model.
    """
    sources = dict(getattr(config, "position_bias_heads", None) or {})
    head_dims = dict(getattr(config, "layer_head_dims", None) or {})
    for name, width in config.layer_widths.items():
        module, parent = _module(base_model, name), _module(base_model, name.rpartition(".")[0])
        if isinstance(module, WavLMAttention):
            _check_heads(name, width, module.num_heads)
            heads = _check_sources(name, width, module.num_heads, sources.pop(name, None))
            head_dim = _checked_head_dim(name, head_dims.pop(name, module.head_dim), module.head_dim)
            parent.attention = NarrowWavLMAttention(config, heads, head_dim, hasattr(module, "rel_attn_embed"))
        elif hasattr(module, "q_proj"):
            _check_heads(name, width, module.num_heads)
            _narrow_attention(
                module, width, _checked_head_dim(name, head_dims.pop(name, module.head_dim), module.head_dim)
            )
        elif hasattr(module, "intermediate_dense"):
            _narrow_pair(name, module, "intermediate_dense", "output_dense", width)
        elif name.endswith(".fc1"):
            _narrow_pair(name, parent, "fc1", "fc2", width)
        else:
            raise WidthError(f"layer_widths: {name!r} is neither an attention nor a feed-forward module")
    if sources:
        raise WidthError(f"position_bias_heads: no narrowed WavLM attention for {', '.join(map(repr, sources))}")
    if head_dims:
        raise WidthError(f"layer_head_dims: no narrowed attention for {', '.join(map(repr, head_dims))}")


def _module(base_model: nn.Module, name: str) -> Any:
    try:
        return base_model.get_submodule(name)
    except AttributeError as error:
        raise WidthError(f"layer_widths: {name!r} is no module of {type(base_model).__name__}") from error


def _check_heads(name: str, heads: int, most: int) -> None:
    if not _is_count(heads) or not 1 <= heads <= most:
        raise WidthError(f"layer_widths: {name!r} has 1 to {most} heads, not {heads!r}")


def _checked_head_dim(name: str, head_dim: int, most: int) -> int:
    if not _is_count(head_dim) or not 1 <= head_dim <= most:
        raise WidthError(f"layer_head_dims: heads of {name!r} have 1 to {most} rows, not {head_dim!r}")
    return head_dim


def _check_sources(name: str, heads: int, most: int, sources: list[int] | None) -> list[int]:
    if sources is None:
        raise WidthError(f"position_bias_heads: {name!r} is missing; which of {most} heads did its {heads} come from?")
    if len(sources) != heads or not all(_is_count(head) and head < most for head in sources):
        raise WidthError(f"position_bias_heads: {name!r} needs {heads} heads below {most}, not {sources!r}")
    return list(sources)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _narrow_attention(attention: Any, heads: int, head_dim: int) -> None:
    """``embed_dim`` and ``scaling`` stay those of the original heads."""
    width = heads * head_dim
    for part in ("q_proj", "k_proj", "v_proj"):
        setattr(attention, part, _resized(getattr(attention, part), out_features=width))
    attention.out_proj = _resized(attention.out_proj, in_features=width)
    attention.num_heads = heads  # Whisper views its keys with it
    attention.head_dim = head_dim


def _narrow_pair(name: str, parent: nn.Module, producer: str, consumer: str, width: int) -> None:
    if not _is_count(width):
        raise WidthError(f"layer_widths: {name!r} has 0 or more hidden units, not {width!r}")
    setattr(parent, producer, _resized(getattr(parent, producer), out_features=width))
    setattr(parent, consumer, _resized(getattr(parent, consumer), in_features=width))


def _resized(linear: Any, *, in_features: int | None = None, out_features: int | None = None) -> nn.Linear:
    return nn.Linear(
        linear.in_features if in_features is None else in_features,
        linear.out_features if out_features is None else out_features,
        bias=linear.bias is not None,
    )


class NarrowWavLMAttention(WavLMAttention):
    """WavLM's gated relative attention with a part of its heads.

    Takes and hands on the position bias of all original heads, (batch * original heads, time, time), so that stock and
    narrow layers stand in one model. Attention weights, where asked for, are those of each head (batch, heads, time,
    time); the stock module repeats their mean.
    """

    def __init__(
        self, config: WavLMConfig, source_heads: list[int], head_dim: int, has_relative_position_bias: bool
    ) -> None:
        super().__init__(
            embed_dim=config.hidden_size,
            num_heads=config.num_attention_heads,
            dropout=config.attention_dropout,
            num_buckets=config.num_buckets,
            max_distance=config.max_bucket_distance,
            has_relative_position_bias=has_relative_position_bias,
        )
        self.config = config
        self.original_heads = config.num_attention_heads
        # A list and no buffer: buffers that are not saved stay empty after a start on the meta device.
        self.source_heads = source_heads
        self.gru_rel_pos_const = nn.Parameter(torch.ones(1, len(source_heads), 1, 1))
        _narrow_attention(self, len(source_heads), head_dim)

    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        index: int = 0,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        batch, length, _ = hidden_states.shape
        if position_bias is None:
            position_bias = self.compute_bias(length, length).repeat(batch, 1, 1)
        bias = self._gate(hidden_states) * position_bias.view(batch, -1, length, length)[:, self.source_heads]
        if attention_mask is not None:
            bias = bias.masked_fill(attention_mask.ne(1)[:, None, None, :], float("-inf"))
        output, weights = self._attend(hidden_states, bias, kwargs.get("output_attentions"))
        return output, weights, position_bias

    def _gate(self, hidden_states: Tensor) -> Tensor:
        """(batch, heads, time, 1), each head gated by the slice of the hidden states of its original head."""
        slices = hidden_states.unflatten(-1, (self.original_heads, -1))[:, :, self.source_heads].transpose(1, 2)
        projected = self.gru_rel_pos_linear(slices).unflatten(-1, (2, 4)).sum(-1)
        gate_a, gate_b = torch.sigmoid(projected).chunk(2, dim=-1)
        return gate_a * (gate_b * self.gru_rel_pos_const - 1.0) + 2.0

    def _attend(self, hidden_states: Tensor, bias: Tensor, wants_weights: bool | None) -> tuple[Tensor, Tensor | None]:
        projections = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (
            projection(hidden_states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for projection in projections
        )
        bias = bias.to(query.dtype)
        dropout = self.dropout if self.training else 0.0
        weights = None
        if self.config.output_attentions if wants_weights is None else wants_weights:
            weights = torch.softmax(query @ key.transpose(2, 3) * self.scaling + bias, dim=-1)
            weights = nn.functional.dropout(weights, dropout)
            output = weights @ value
        else:
            output = nn.functional.scaled_dot_product_attention(
                query, key, value, attn_mask=bias, dropout_p=dropout, scale=self.scaling
            )
        return self.out_proj(output.transpose(1, 2).flatten(2)), weights


class MixedHubertModel(MixedWidths, HubertModel):
    """``HubertModel`` with mixed widths."""

    stock_class = HubertModel
    _auto_class: Any = "AutoModel"


class MixedHubertForCTC(MixedWidths, HubertForCTC):
    """``HubertForCTC`` with mixed widths."""

    stock_class = HubertForCTC
    _auto_class: Any = "AutoModelForCTC"


class MixedWav2Vec2Model(MixedWidths, Wav2Vec2Model):
    """``Wav2Vec2Model`` with mixed widths."""

    stock_class = Wav2Vec2Model
    _auto_class: Any = "AutoModel"


class MixedWav2Vec2ForCTC(MixedWidths, Wav2Vec2ForCTC):
    """``Wav2Vec2ForCTC`` with mixed widths."""

    stock_class = Wav2Vec2ForCTC
    _auto_class: Any = "AutoModelForCTC"


class MixedWavLMModel(MixedWidths, WavLMModel):
    """``WavLMModel`` with mixed widths."""

    stock_class = WavLMModel
    _auto_class: Any = "AutoModel"


class MixedWavLMForCTC(MixedWidths, WavLMForCTC):
    """``WavLMForCTC`` with mixed widths."""

    stock_class = WavLMForCTC
    _auto_class: Any = "AutoModelForCTC"


class MixedWhisperModel(MixedWidths, WhisperModel):
    """``WhisperModel`` with mixed widths."""

    stock_class = WhisperModel
    _auto_class: Any = "AutoModel"


class MixedWhisperForConditionalGeneration(MixedWidths, WhisperForConditionalGeneration):
    """``WhisperForConditionalGeneration`` with mixed widths."""

    stock_class = WhisperForConditionalGeneration
    _auto_class: Any = "AutoModelForSpeechSeq2Seq"
