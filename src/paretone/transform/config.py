"""What the new shapes mean for config.json and generation_config.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paretone.groups import Group, Stack
from paretone.model import auto_map_for
from paretone.plan import Plan, layer_name
from paretone.transform.execute import Outcome


@dataclass(frozen=True)
class NewConfig:
    """The new config and whether it needs our mixed-width classes to load."""

    content: dict[str, Any]
    is_mixed: bool


def new_config(source: Mapping[str, Any], outcome: Outcome) -> NewConfig:
    """The config of the written model.

    One width for a whole stack goes into the stock field, and plain transformers loads it. What no stock field can
    say stands in ``layer_widths``, with ``auto_map`` naming the classes that read it.
    """
    config = dict(outcome.model.config)
    for key in ("layer_widths", "layer_head_dims", "position_bias_heads", "auto_map"):
        config.pop(key, None)
    table = outcome.model.table()
    ffn: dict[str, list[Group]] = {}
    for group in table.groups:
        if group.config_key is not None:
            ffn.setdefault(group.config_key, []).append(group)
    for key, groups in ffn.items():
        widths = {group.width for group in groups}
        if len(widths) == 1:
            config[key] = widths.pop()
    mixed = {
        group.name.removeprefix(table.prefix): group.width
        for group in table.groups
        if group.width != native_width(group, config) or group.head_dim != group.trained_head_dim
    }
    if mixed:
        config["layer_widths"] = mixed
        head_dims = {
            group.name.removeprefix(table.prefix): group.head_dim
            for group in table.groups
            if group.head_dim != group.trained_head_dim
        }
        if head_dims:
            config["layer_head_dims"] = head_dims
        config["auto_map"] = auto_map_for(config["model_type"])
        if config["model_type"] == "wavlm":
            config["position_bias_heads"] = _position_bias_heads(source, outcome, mixed)
    config["architectures"] = [name.removeprefix("Mixed") for name in config.get("architectures") or []]
    return NewConfig(config, bool(mixed))


def native_width(group: Group, config: Mapping[str, Any]) -> int:
    """The width that the stock class would build for ``group``."""
    if group.config_key is not None:
        return int(config[group.config_key])
    if "d_model" in config:
        side = group.name.split(".layers.")[0].rsplit(".", 1)[-1]
        return int(config[f"{side}_attention_heads"])
    return int(config["num_attention_heads"])


def _position_bias_heads(source: Mapping[str, Any], outcome: Outcome, mixed: Mapping[str, int]) -> dict[str, list[int]]:
    """For each head of each mixed attention, the head of the very first model whose position bias it uses."""
    prefix = outcome.model.table().prefix
    before: Mapping[str, list[int]] = source.get("position_bias_heads") or {}
    heads: dict[str, list[int]] = {}
    for name in mixed:
        if not name.endswith(".attention"):
            continue
        origin = outcome.model.origin[f"{prefix}{name}.q_proj.weight"].removesuffix(".q_proj.weight")
        old = before.get(origin.removeprefix(prefix))
        folded = outcome.folded.get(origin)
        units = folded.source_units if folded else range(mixed[name])
        heads[name] = [old[unit] if old else unit for unit in units]
    return heads


def new_generation_config(source: Mapping[str, Any], plan: Plan, outcome: Outcome) -> tuple[dict[str, Any], list[str]]:
    """The generation config with Whisper's ``alignment_heads`` remapped, and notices for the user.

    A pair (decoder layer, cross-attention head) follows its head; it goes with its layer or its head, and the whole
    entry goes, and word timestamps with it, when none is left.
    """
    config = dict(source)
    notices: list[str] = []
    pairs = config.get("alignment_heads")
    if not pairs:
        return config, notices
    prefix = outcome.model.table().prefix
    kept: list[list[int]] = []
    for layer, head in pairs:
        new = _follow_head(f"{prefix}decoder.layers.{layer}.encoder_attn", head, plan, outcome)
        if new is not None and new not in kept:
            kept.append(new)
    if kept:
        config["alignment_heads"] = kept
        if len(kept) < len(pairs):
            notices.append(f"{len(kept)} of {len(pairs)} alignment heads are left: check word timestamps")
    else:
        del config["alignment_heads"]
        notices.append("no alignment head is left: this model gives no word timestamps")
    return config, notices


def _follow_head(attention: str, head: int, plan: Plan, outcome: Outcome) -> list[int] | None:
    folded = outcome.folded.get(attention)
    if folded is not None:
        head = folded.members[head]
    name: str | None = attention
    for step in plan.steps:
        for layers in step.layers:
            name = layer_name(name, Stack(layers.name, layers.depth, ""), layers.keep) if name else None
    if name is None or head < 0:
        return None
    return [int(name.split(".layers.")[1].split(".")[0]), head]
