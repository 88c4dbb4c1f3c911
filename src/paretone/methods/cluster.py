"""Clustering of units: each cluster becomes one unit (arXiv 2606.11836).

All distances come from one Gram matrix, so no step touches the features again. The start is Ward's tree cut at
``keep`` clusters or greedy k-means++; Lloyd's rounds then lower the within-cluster sum of squares.
"""

from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge

from paretone.groups import Fold, Units
from paretone.methods._symmetric import self_product
from paretone.methods._ward import cut, ward_tree

TREE_WHERE = {"start": "ward"}


def fold(
    units: Units,
    keep: int,
    rng: torch.Generator,
    tree: np.ndarray | None = None,
    *,
    outgoing: Literal["sum", "mean"] = "sum",
    start: Literal["ward", "kmeans++"] = "ward",
    rounds: Annotated[int, Ge(0)] = 25,
) -> Fold:
    """Clusters units by k-means; producers take the mean of a cluster, consumers the sum or the mean.

    Units that are equal in their incoming weights fold with no change to the output when ``outgoing`` is ``sum``.

    Args:
        units: unit vectors [q|k|v|oᵀ] or [fc1|fc2ᵀ]; biases are not compared (section 3 of the paper).
        keep: number of clusters, 1 <= keep <= width.
        rng: decides k-means++; Ward needs no chance.
        tree: of these units, as ``tree_of`` grows it, where it is at hand; it saves time and changes nothing.
        outgoing: ``mean`` is the literal centroid; ``sum`` keeps each unit's share (Model Folding, arXiv 2502.10216).
        start: where Lloyd begins.
        rounds: most Lloyd rounds; it stops earlier once nothing moves. 0 keeps the start.
    """
    if keep == units.width:
        return Fold.select(torch.arange(keep), keep)
    gram = self_product(units.incoming, units.outgoing)
    if start == "ward":
        labels = torch.from_numpy(cut(ward_tree(gram) if tree is None else tree, keep))
    else:
        labels = nearest(gram, greedy_centres(gram, keep, rng))
    labels, distances = lloyd(gram, labels, keep, rounds=rounds)
    return fold_of(labels, distances, outgoing=outgoing)


def tree_of(units: Units) -> np.ndarray:
    """(width - 1, 2) mergers by rising height, for ``fold`` to cut at any size."""
    return ward_tree(self_product(units.incoming, units.outgoing))


def greedy_centres(gram: torch.Tensor, keep: int, rng: torch.Generator) -> torch.Tensor:
    """(keep,) units chosen by greedy k-means++: of 2 + ln(keep) candidates the one that lowers the inertia most.

    Source: Arthur & Vassilvitskii 2007, with the trials of scikit-learn.
    """
    norms = gram.diagonal()
    trials = 2 + int(np.log(keep))
    centres = [int(torch.randint(len(gram), (1,), generator=rng))]
    closest = (norms + norms[centres[0]] - 2 * gram[centres[0]]).clamp_(min=0)
    while len(centres) < keep:
        chances = closest if float(closest.sum()) > 0 else torch.ones_like(closest)
        candidates = torch.multinomial(chances, trials, replacement=True, generator=rng)
        distances = (norms + norms[candidates, None] - 2 * gram[candidates]).clamp_(min=0)
        distances = torch.minimum(distances, closest)
        best = int(distances.sum(dim=1).argmin())
        centres.append(int(candidates[best]))
        closest = distances[best]
    return torch.tensor(centres)


def nearest(gram: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """(width,) the nearest of the units ``centres`` for every unit."""
    norms = gram.diagonal()
    return (norms[centres, None] - 2 * gram[centres]).argmin(dim=0)


def lloyd(gram: torch.Tensor, labels: torch.Tensor, keep: int, *, rounds: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Lloyd's rounds on the Gram matrix until no unit moves; no cluster is ever left empty.

    Returns:
        (width,) labels and (keep, width) squared distances of all units to the centroids of these.
    """
    distances = _distances(gram, labels, keep)
    filled = _without_empty(labels, distances, keep)
    if filled is not labels:
        labels, distances = filled, _distances(gram, filled, keep)
    for _ in range(rounds):
        moved = _without_empty(distances.argmin(dim=0), distances, keep)
        if torch.equal(moved, labels):
            break
        labels, distances = moved, _distances(gram, moved, keep)
    return labels, distances


def _distances(gram: torch.Tensor, labels: torch.Tensor, keep: int) -> torch.Tensor:
    """(keep, width) squared distance of every unit to every centroid."""
    sizes = torch.bincount(labels, minlength=keep).clamp(min=1).to(gram.dtype)
    sums = torch.zeros(keep, len(gram)).index_add_(0, labels, gram)
    centre_norms = torch.zeros(keep).index_add_(0, labels, sums[labels, torch.arange(len(gram))]) / sizes**2
    return sums.mul_(-2 / sizes[:, None]).add_(centre_norms[:, None]).add_(gram.diagonal())


def _without_empty(labels: torch.Tensor, distances: torch.Tensor, keep: int) -> torch.Tensor:
    """Gives each empty cluster the unit that lies farthest from its centroid and does not stand alone."""
    sizes = torch.bincount(labels, minlength=keep)
    empty = (sizes == 0).nonzero().flatten().tolist()
    if not empty:
        return labels
    labels = labels.clone()
    fit = distances[labels, torch.arange(len(labels))]
    for cluster in empty:
        movable = sizes[labels] > 1
        unit = int(torch.where(movable, fit, -torch.inf).argmax())
        sizes[labels[unit]] -= 1
        labels[unit] = cluster
        sizes[cluster] = 1
    return labels


def fold_of(labels: torch.Tensor, distances: torch.Tensor, *, outgoing: Literal["sum", "mean"] = "sum") -> Fold:
    """The fold that merges equal ``labels``; new units stand in the order of their first member."""
    keep, width = distances.shape
    first = torch.full((keep,), width).scatter_reduce_(0, labels, torch.arange(width), "amin")
    fit = distances[labels, torch.arange(width)]
    best = torch.full((keep,), torch.inf).scatter_reduce_(0, labels, fit, "amin")
    at_best = torch.where(fit == best[labels], torch.arange(width), width)
    representative = torch.full((keep,), width).scatter_reduce_(0, labels, at_best, "amin")
    order = first.argsort()
    rank = torch.empty(keep, dtype=torch.int64)
    rank[order] = torch.arange(keep)
    labels = rank[labels]
    mean = (1 / torch.bincount(labels, minlength=keep).float())[labels]
    up = torch.ones(width) if outgoing == "sum" else mean
    return Fold(labels, mean, up, representative[order])
