"""What a method's error model says of each module, kept in a file for whoever makes the same model smaller again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paretone.checkpoint import locate, open_checkpoint
from paretone.modules import Analysis
from paretone.plan.resolve import blueprint_of
from paretone.plan.weighing import analyses_of

_KEPT, _REST = ("keep", "head_dim", "error"), "rest"


def analyse(
    model: str, method: str, *, settings: Mapping[str, Any], units: str = "all", revision: str | None = None
) -> dict[str, Analysis]:
    """What every size of each module of ``model`` would cost, by the error model of ``method``, from weights alone."""
    checkpoint = open_checkpoint(locate(model, revision))
    source = blueprint_of(checkpoint, model)
    groups = [group for group in source.table().groups if units in ("all", group.kind)]
    return analyses_of(checkpoint, source, groups, method, settings)


def save_analyses(analyses: Mapping[str, Analysis], file: Path) -> None:
    """Writes analyses by name of their module; read back, they are equal to the last bit."""
    arrays: dict[str, Any] = {
        f"{name}.{part}": getattr(each, part) for name, each in analyses.items() for part in _KEPT
    }
    arrays |= {f"{name}.order": each.order.numpy() for name, each in analyses.items() if each.order is not None}
    rest = {name: [each.variance, each.clusters] for name, each in analyses.items()}
    arrays[_REST] = np.array(json.dumps(rest))
    np.savez(file, **arrays)


def read_analyses(file: Path) -> dict[str, Analysis]:
    """What ``save_analyses`` wrote."""
    found = {}
    with np.load(file) as kept:
        for name, (variance, clusters) in json.loads(str(kept[_REST])).items():
            keep, head_dim, error = (kept[f"{name}.{part}"] for part in _KEPT)
            order = torch.from_numpy(kept[f"{name}.order"]) if f"{name}.order" in kept else None
            members = tuple(tuple(tuple(cluster) for cluster in each) for each in clusters)
            found[name] = Analysis(keep, head_dim, error, variance, order, members)
    return found
