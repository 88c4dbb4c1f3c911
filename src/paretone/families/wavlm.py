"""WavLM (arXiv 2110.13900), base and CTC classes, pre- and post-norm.

Its position bias is one table in layer 0 with a column per head, shared by all layers; each layer gates it per head,
from that head's slice of the hidden states. The table stays whole; a compressed attention keeps for each of its heads
the number of the head whose column and slice it uses (``position_bias_heads`` in the config).
"""

from collections.abc import Mapping
from typing import Any

from paretone.families._wav2vec2_like import encoder_table
from paretone.groups import Shapes, Slot, Table

MODEL_TYPE = "wavlm"
ARCHITECTURES = {"WavLMModel": "", "WavLMForCTC": "wavlm."}


def table(config: Mapping[str, Any], shapes: Shapes) -> Table:
    """Attention heads with their gates, FFN units, and the layers; layer 0's position table is pinned."""
    prefix = "wavlm." if any(name.startswith("wavlm.encoder.") for name in shapes) else ""
    return encoder_table(config, shapes, prefix, per_head=_gate_constant, pinned=("attention.rel_attn_embed.weight",))


def _gate_constant(attention: str) -> tuple[Slot, ...]:
    return (Slot(f"{attention}.gru_rel_pos_const", 1, 1, "producer", measured=False),)
