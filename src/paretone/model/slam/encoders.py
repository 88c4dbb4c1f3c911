"""Speech encoders as a front end: any number of their layers, masks that hold, all depths from one pass."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel
from transformers.masking_utils import create_bidirectional_mask

FAMILIES = ("whisper", "hubert", "wav2vec2", "wavlm")


def layers_of(tower: Any) -> nn.ModuleList:
    """The Transformer layers of an encoder."""
    layers: nn.ModuleList = tower.layers if tower.config.model_type == "whisper" else tower.encoder.layers
    return layers


def make_tower(config: Any) -> Any:
    """The encoder that a configuration describes, with random weights, or none on the meta device."""
    from paretone.model.registration import register

    register()  # narrowed layers
    model = AutoModel.from_config(config)
    return model.encoder if config.model_type == "whisper" else model


def cut_tower(base_model: Any, kept: Sequence[int]) -> Any:
    """The encoder of a Whisper, or a waveform model itself, with the layers ``kept`` only and its final norm.

    The others are gone from memory once ``base_model`` is; its configuration tells of what is left alone.
    """
    config = base_model.config
    tower = base_model.encoder if config.model_type == "whisper" else base_model
    layers = layers_of(tower)
    chosen = nn.ModuleList([layers[i] for i in kept])
    if config.model_type == "whisper":
        tower.layers = chosen
        config.encoder_layers = config.num_hidden_layers = len(kept)
        config.decoder_layers = 0
    else:
        tower.encoder.layers = chosen
        config.num_hidden_layers = len(kept)
    _renumber(config, kept)
    return tower


def _renumber(config: Any, kept: Sequence[int]) -> None:
    """Widths of mixed layers go along with the layers that they belong to; a decoder's are dropped."""
    numbers = {old: new for new, old in enumerate(kept)}
    for field in ("layer_widths", "layer_head_dims", "position_bias_heads"):
        given = getattr(config, field, None)
        if given is None:
            continue
        moved = {}
        for name, value in given.items():
            stem, number, rest = _parts(name)
            if stem == "encoder.layers" and number in numbers:
                moved[f"{stem}.{numbers[number]}.{rest}"] = value
        setattr(config, field, moved)


def _parts(name: str) -> tuple[str, int, str]:
    words = name.split(".")
    at = next(i for i, word in enumerate(words) if word.isdigit())
    return ".".join(words[:at]), int(words[at]), ".".join(words[at + 1 :])


def encode(
    tower: Any, inputs: Tensor, mask: Tensor | None = None, depths: Sequence[int] | None = None
) -> tuple[dict[int, Tensor], Tensor | None]:
    """Hidden states behind the final norm, of the whole encoder or of its first layers.

    An item's result does not depend on what else is in its batch: everything behind its end is masked, also between
    the convolutions.

    Args:
        inputs: Whisper: log-mel features (batch, bands, frames); else waveforms (batch, samples).
        mask: (batch, frames or samples), true where an item is; None where all are of full length.
        depths: numbers of layers; all of them where not given.

    Returns:
        by depth (batch, positions, width), and the mask of the positions.
    """
    wanted = list(depths or [len(layers_of(tower))])
    if tower.config.model_type == "whisper":
        return _whisper(tower, inputs, mask, wanted)
    if mask is not None and tower.config.feat_extract_norm == "group" and not bool(mask.all()):
        return _one_by_one(tower, inputs, mask, wanted)  # group norm runs over padding
    return _waveform(tower, inputs, mask, wanted)


def _whisper(
    tower: Any, features: Tensor, mask: Tensor | None, wanted: Sequence[int]
) -> tuple[dict[int, Tensor], Tensor | None]:
    inside = 1 if mask is None else mask[:, None].to(features.dtype)
    hidden = nn.functional.gelu(tower.conv1(features * inside)) * inside
    hidden = nn.functional.gelu(tower.conv2(hidden)).transpose(1, 2)
    frames = None if mask is None else mask[:, ::2]
    hidden = hidden + tower.embed_positions.weight[: hidden.shape[1]]
    attention = None
    if frames is not None:
        attention = create_bidirectional_mask(
            config=tower.config, inputs_embeds=hidden, attention_mask=frames.to(torch.long)
        )
    found = {}
    for number, layer in enumerate(tower.layers[: max(wanted)], start=1):
        hidden = layer(hidden, attention)
        if number in wanted:
            found[number] = tower.layer_norm(hidden)
    return found, frames


def _waveform(
    tower: Any, values: Tensor, mask: Tensor | None, wanted: Sequence[int]
) -> tuple[dict[int, Tensor], Tensor | None]:
    bools = None if mask is None else mask.bool()  # an integer mask would index
    output = tower(values, attention_mask=bools, output_hidden_states=True)
    total = len(tower.encoder.layers)
    found = {}
    for depth in wanted:
        hidden = output.last_hidden_state if depth == total else output.hidden_states[depth]
        if depth < total and getattr(tower.config, "do_stable_layer_norm", False):
            hidden = tower.encoder.layer_norm(hidden)
        found[depth] = hidden
    length = output.last_hidden_state.shape[1]
    return found, None if bools is None else tower._get_feature_vector_attention_mask(length, bools.long()).bool()


def _one_by_one(
    tower: Any, values: Tensor, mask: Tensor, wanted: Sequence[int]
) -> tuple[dict[int, Tensor], Tensor | None]:
    rows = [
        _waveform(tower, row[None, : int(own.sum())], None, wanted)[0] for row, own in zip(values, mask, strict=True)
    ]
    lengths = torch.tensor([row[wanted[0]].shape[1] for row in rows], device=values.device)
    pad = nn.utils.rnn.pad_sequence
    found = {depth: pad([row[depth][0] for row in rows], batch_first=True) for depth in wanted}
    return found, torch.arange(int(lengths.max()), device=values.device) < lengths[:, None]
