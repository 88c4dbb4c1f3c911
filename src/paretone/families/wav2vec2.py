"""wav2vec 2.0 (arXiv 2006.11477), base and CTC classes, pre- and post-norm."""

from collections.abc import Mapping
from typing import Any

from paretone.families._wav2vec2_like import encoder_table
from paretone.groups import Shapes, Table

MODEL_TYPE = "wav2vec2"
ARCHITECTURES = {"Wav2Vec2Model": "", "Wav2Vec2ForCTC": "wav2vec2."}


def table(config: Mapping[str, Any], shapes: Shapes) -> Table:
    """Attention heads and FFN units of every encoder layer, and the layers themselves."""
    prefix = "wav2vec2." if any(name.startswith("wav2vec2.encoder.") for name in shapes) else ""
    return encoder_table(config, shapes, prefix)
