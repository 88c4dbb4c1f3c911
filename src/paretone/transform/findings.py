"""What is found out of a model once and serves every size of it, kept in a file for whoever makes it smaller again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paretone.checkpoint import locate, open_checkpoint
from paretone.methods import companion
from paretone.modules import Analysis
from paretone.plan.resolve import blueprint_of
from paretone.plan.weighing import analyses_of, trees_of

_KEPT, _REST, _TREE = ("keep", "head_dim", "error"), "rest", ".tree"


@dataclass(frozen=True)
class Findings:
    """Of modules, by their names in the model.

    Attributes:
        analyses: what each size would cost, by the error model of a method that rewrites modules.
        trees: (width - 1, 2) mergers that a method that merges units cuts at each size.
    """

    analyses: Mapping[str, Analysis]
    trees: Mapping[str, np.ndarray]


def find_out(
    model: str, method: str, *, settings: Mapping[str, Any], units: str = "all", revision: str | None = None
) -> Findings:
    """Whatever serves every size that ``method`` can give modules of ``model``, from weights alone."""
    checkpoint = open_checkpoint(locate(model, revision))
    source = blueprint_of(checkpoint, model)
    groups = [group for group in source.table().groups if units in ("all", group.kind)]
    if companion(method, "analyse") is not None:
        return Findings(analyses_of(checkpoint, source, groups, method, settings), {})
    return Findings({}, trees_of(checkpoint, source, groups, method))


def save_findings(findings: Findings, file: Path) -> None:
    """Writes findings; read back, they are equal to the last bit."""
    analyses = findings.analyses
    arrays: dict[str, Any] = {
        f"{name}.{part}": getattr(each, part) for name, each in analyses.items() for part in _KEPT
    }
    arrays |= {f"{name}.order": each.order.numpy() for name, each in analyses.items() if each.order is not None}
    arrays |= {f"{name}{_TREE}": tree for name, tree in findings.trees.items()}
    rest = {name: [each.variance, each.clusters] for name, each in analyses.items()}
    arrays[_REST] = np.array(json.dumps(rest))
    np.savez(file, **arrays)


def read_findings(file: Path) -> Findings:
    """What ``save_findings`` wrote."""
    analyses = {}
    with np.load(file) as kept:
        for name, (variance, clusters) in json.loads(str(kept[_REST])).items():
            keep, head_dim, error = (kept[f"{name}.{part}"] for part in _KEPT)
            order = torch.from_numpy(kept[f"{name}.order"]) if f"{name}.order" in kept else None
            members = tuple(tuple(tuple(cluster) for cluster in each) for each in clusters)
            analyses[name] = Analysis(keep, head_dim, error, variance, order, members)
        trees = {name.removesuffix(_TREE): kept[name] for name in kept.files if name.endswith(_TREE)}
    return Findings(analyses, trees)
