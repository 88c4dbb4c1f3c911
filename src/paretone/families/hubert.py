"""HuBERT (arXiv 2106.07447), base and CTC classes, pre- and post-norm."""

from collections.abc import Mapping
from typing import Any

from paretone.families._wav2vec2_like import encoder_table
from paretone.groups import Shapes, Table

MODEL_TYPE = "hubert"
ARCHITECTURES = {"HubertModel": "", "HubertForCTC": "hubert."}


def table(config: Mapping[str, Any], shapes: Shapes) -> Table:
    """Attention heads and FFN units of every encoder layer, and the layers themselves."""
    prefix = "hubert." if any(name.startswith("hubert.encoder.") for name in shapes) else ""
    return encoder_table(config, shapes, prefix)
