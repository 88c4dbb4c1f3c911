"""Whisper (arXiv 2212.04356): encoder self-attention and FFN; decoder self-attention, cross-attention and FFN."""

from collections.abc import Mapping
from typing import Any

from paretone.groups import Group, Shapes, Stack, Table, ffn_group, heads_group

MODEL_TYPE = "whisper"
ARCHITECTURES = {"WhisperModel": "", "WhisperForConditionalGeneration": "model."}
REFERENCE_TOKENS = 50


def table(config: Mapping[str, Any], shapes: Shapes) -> Table:
    """All heads and FFN units of both stacks, and the layers themselves."""
    prefix = "model." if any(name.startswith("model.encoder.") for name in shapes) else ""
    frames = config["max_source_positions"]
    tokens = min(REFERENCE_TOKENS, config["max_target_positions"])
    groups = _stack_groups(config, shapes, prefix, "encoder", {"self_attn": (frames, frames)})
    groups += _stack_groups(
        config, shapes, prefix, "decoder", {"self_attn": (tokens, tokens), "encoder_attn": (tokens, frames)}
    )
    stacks = (
        Stack(
            f"{prefix}encoder.layers",
            config["encoder_layers"],
            "encoder_layers",
            projections=(f"{prefix}encoder.conv2.weight",),
            tables=(f"{prefix}encoder.embed_positions.weight",),
        ),
        Stack(
            f"{prefix}decoder.layers",
            config["decoder_layers"],
            "decoder_layers",
            tables=(f"{prefix}decoder.embed_tokens.weight", f"{prefix}decoder.embed_positions.weight"),
        ),
    )
    reference = f"one window of {2 * frames} mel frames and {tokens} tokens"
    return Table(prefix, tuple(groups), stacks, reference, _applied(config, shapes, prefix, frames, tokens))


def _stack_groups(
    config: Mapping[str, Any], shapes: Shapes, prefix: str, side: str, attentions: Mapping[str, tuple[int, int]]
) -> list[Group]:
    head_dim = config["d_model"] // config[f"{side}_attention_heads"]
    head_dims: Mapping[str, int] = config.get("layer_head_dims") or {}
    groups = []
    for layer in range(config[f"{side}_layers"]):
        here = f"{prefix}{side}.layers.{layer}"
        for attention, attends in attentions.items():
            name = f"{here}.{attention}"
            groups.append(
                heads_group(
                    name,
                    shapes,
                    head_dim=head_dims.get(name.removeprefix(prefix), head_dim),
                    trained_head_dim=head_dim,
                    attends=attends,
                    norm=f"{name}_layer_norm",
                    memory_norm=f"{prefix}encoder.layer_norm" if attention == "encoder_attn" else None,
                )
            )
        groups.append(
            ffn_group(
                f"{here}.fc1",
                f"{here}.fc1",
                f"{here}.fc2",
                shapes,
                config_key=f"{side}_ffn_dim",
                norm=f"{here}.final_layer_norm",
                activation=config.get("activation_function", "gelu"),
            )
        )
    return groups


def _applied(config: Mapping[str, Any], shapes: Shapes, prefix: str, frames: int, tokens: int) -> dict[str, int]:
    applied: dict[str, int] = {}
    for name, shape in shapes.items():
        local = name.removeprefix(prefix)
        if len(shape) < 2 or "embed_positions" in local:
            continue
        if local.startswith("encoder."):
            applied[name] = 2 * frames if local == "encoder.conv1.weight" else frames
        elif ".encoder_attn.k_proj" in local or ".encoder_attn.v_proj" in local:
            applied[name] = frames
        elif local == "proj_out.weight":
            continue
        else:  # the decoder's embedding is counted once, as the output projection that it is tied to
            applied[name] = tokens
    if prefix == "":
        applied.pop("decoder.embed_tokens.weight", None)
    return applied
