"""What a method's error model says of each module, kept in a file for whoever makes the same model smaller again."""

import json
from collections.abc import Mapping
from pathlib import Path

from paretone.modules import Analysis

_KEPT = ("keep", "head_dim", "error")  # arrays; the rest is the header's


def save_analyses(analyses: Mapping[str, Analysis], file: Path) -> None:
    """Writes analyses by name of their module; read back, they are equal to the last bit."""
    from safetensors.numpy import save_file

    arrays = {f"{name}.{part}": getattr(each, part) for name, each in analyses.items() for part in _KEPT}
    arrays |= {f"{name}.order": each.order.numpy() for name, each in analyses.items() if each.order is not None}
    rest = {name: json.dumps([each.variance, each.clusters]) for name, each in analyses.items()}
    save_file(arrays, file, metadata=rest)


def read_analyses(file: Path) -> dict[str, Analysis]:
    """What ``save_analyses`` wrote."""
    import torch
    from safetensors import safe_open

    found = {}
    with safe_open(file, framework="numpy") as opened:
        names = set(opened.keys())
        for name, rest in opened.metadata().items():
            variance, clusters = json.loads(rest)
            keep, head_dim, error = (opened.get_tensor(f"{name}.{part}") for part in _KEPT)
            order = torch.from_numpy(opened.get_tensor(f"{name}.order")) if f"{name}.order" in names else None
            members = tuple(tuple(tuple(cluster) for cluster in each) for each in clusters)
            found[name] = Analysis(keep, head_dim, error, variance, order, members)
    return found
