"""What HuBERT, wav2vec2 and WavLM share: names, front end and one encoder of post- or pre-norm layers."""

from collections.abc import Callable, Mapping
from typing import Any

from paretone.groups import Group, Shapes, Slot, Stack, Table, ffn_group, heads_group

REFERENCE_S = 10
RATE_HZ = 16_000


def encoder_table(
    config: Mapping[str, Any],
    shapes: Shapes,
    prefix: str,
    *,
    per_head: Callable[[str], tuple[Slot, ...]] = lambda attention: (),
    pinned: tuple[str, ...] = (),
) -> Table:
    """The groups of all encoder layers.

    Args:
        prefix: precedes the base model's tensor names.
        per_head: attention name -> further tensors with an entry for each head.
        pinned: tensors of layer 0 that serve every layer.
    """
    frames = _lengths(config)[-1]
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    head_dims: Mapping[str, int] = config.get("layer_head_dims") or {}
    groups: list[Group] = []
    for layer in range(config["num_hidden_layers"]):
        here = f"{prefix}encoder.layers.{layer}"
        attention, ffn = f"{here}.attention", f"{here}.feed_forward"
        attention_norm, ffn_norm = _norms(config, prefix, layer)
        groups += [
            heads_group(
                attention,
                shapes,
                head_dim=head_dims.get(attention.removeprefix(prefix), head_dim),
                trained_head_dim=head_dim,
                attends=(frames, frames),
                norm=attention_norm,
                per_head=per_head(attention),
            ),
            ffn_group(
                ffn,
                f"{ffn}.intermediate_dense",
                f"{ffn}.output_dense",
                shapes,
                config_key="intermediate_size",
                norm=ffn_norm,
                activation=config.get("hidden_act", "gelu"),
            ),
        ]
    stack = Stack(
        f"{prefix}encoder.layers",
        config["num_hidden_layers"],
        "num_hidden_layers",
        pinned,
        projections=(f"{prefix}feature_projection.projection.weight",),
        is_post_norm=not config.get("do_stable_layer_norm"),
    )
    reference = f"{REFERENCE_S} s of audio"
    return Table(prefix, tuple(groups), (stack,), reference, _applied(config, shapes, prefix))


def _norms(config: Mapping[str, Any], prefix: str, layer: int) -> tuple[str, str]:
    """The norms whose outputs the attention and the FFN of a layer read, in pre-norm and post-norm encoders."""
    here = f"{prefix}encoder.layers.{layer}"
    if config.get("do_stable_layer_norm"):
        return f"{here}.layer_norm", f"{here}.final_layer_norm"
    before = f"{prefix}encoder.layers.{layer - 1}.final_layer_norm" if layer else f"{prefix}encoder.layer_norm"
    return before, f"{here}.layer_norm"


def _lengths(config: Mapping[str, Any]) -> list[int]:
    """Output length of each front-end convolution for the reference input."""
    lengths, length = [], REFERENCE_S * RATE_HZ
    for kernel, stride in zip(config["conv_kernel"], config["conv_stride"], strict=True):
        length = (length - kernel) // stride + 1
        lengths.append(length)
    return lengths


def _applied(config: Mapping[str, Any], shapes: Shapes, prefix: str) -> dict[str, int]:
    lengths = _lengths(config)
    frames = lengths[-1]
    padded = frames + (1 - config["num_conv_pos_embeddings"] % 2)
    applied: dict[str, int] = {}
    for name, shape in shapes.items():
        local = name.removeprefix(prefix)
        if len(shape) < 2 or "masked_spec_embed" in name or "rel_attn_embed" in name:
            continue
        if local.startswith("feature_extractor.conv_layers."):
            applied[name] = lengths[int(local.split(".")[2])]
        elif "pos_conv_embed" in local:
            # weight norm keeps a direction (3-D, full size) and a magnitude per kernel tap, which costs nothing
            applied[name] = padded if shape[0] > 1 and shape[1] > 1 else 0
        elif "gru_rel_pos_linear" in local:
            applied[name] = frames * config["num_attention_heads"]
        elif "gru_rel_pos_const" not in local:
            applied[name] = frames
    return applied
