"""Presets: whole ways of compressing under one name."""

from collections.abc import Mapping
from typing import Any

DEFAULT_PRESET = "best"
PRESETS: Mapping[str, Mapping[str, Any]] = {
    # arXiv 2606.11836: k-means over raw weights, mixed sparsity by variance
    "paper": {"method": "cluster", "allocation": "variance-tiers"},
    # what measured best without data, see docs/ablation.md
    "best": {"method": "closed_form", "allocation": "error"},
    # loads with stock transformers, and runs wherever FFN widths are read from the weights
    "portable": {
        "method": "closed_form",
        "allocation": "error",
        "units": "ffn",
        "profile": "stock",
        "multiple": 8,
    },
}
