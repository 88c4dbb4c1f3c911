"""Optimal brain surgeon for hidden units: which can go at the least error, when those left may make up for them.

Removing unit i and refitting the rest costs ‖w_i‖² / (C⁻¹)_ii, with w_i its column of the outgoing weights and C the
covariance of the activations (Hassibi & Stork 1993, for whole columns). Exact elimination downdates all of C⁻¹ for each
unit and waits for memory; here a round finds the next units among the cheapest candidates exactly, then downdates the
rest with one matrix product.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

RIDGE = 1e-3  # of the mean variance; section 2 of our notes takes the same for the refit
_ROUND_SHARE = 32  # a round removes one of so many units that are left
_CANDIDATES = 2  # for each unit that a round removes


@dataclass(frozen=True)
class Elimination:
    """The units in the order in which they go, and what each costs when its turn comes; both of equal length."""

    order: Tensor
    costs: Tensor


def regularised(covariance: Tensor) -> Tensor:
    """``covariance`` with ``RIDGE`` times its mean variance on the diagonal; all zeros become the identity."""
    ridge = RIDGE * float(covariance.diagonal().mean())
    return covariance + (ridge or 1.0) * torch.eye(len(covariance), dtype=covariance.dtype)


def eliminate(covariance: Tensor, outgoing: Tensor, *, leave: int) -> Elimination:
    """Removes units until ``leave`` are left.

    Args:
        covariance: (units, units) of the activations, float64.
        outgoing: (model, units) weights behind them, in the metric in which errors count.
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(regularised(covariance))).float()
    weights = outgoing.float()
    alive = torch.arange(len(covariance))
    order, costs = [], []
    while len(alive) > leave:
        count = min(len(alive) - leave, max(1, len(alive) // _ROUND_SHARE))
        gone, paid = _round(inverse, weights, count)
        order.append(alive[gone])
        costs.append(paid)
        left = torch.ones(len(alive), dtype=torch.bool)
        left[gone] = False
        inverse, weights = _without(inverse, weights, gone, left)
        alive = alive[left]
    return Elimination(torch.cat([*order, alive]), torch.cat(costs) if costs else torch.zeros(0, dtype=torch.float64))


def _round(inverse: Tensor, weights: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The next ``count`` units and their costs, exact among the cheapest candidates."""
    energy = weights.square().sum(dim=0)
    scores = energy / inverse.diagonal().clamp(min=1e-30)
    candidates = torch.topk(scores, min(len(scores), max(_CANDIDATES * count, 8)), largest=False).indices.sort().values
    block = inverse[candidates][:, candidates].double().numpy()
    chosen = weights[:, candidates].double()
    products = (chosen.T @ chosen).numpy()
    gone, paid = [], []
    open_ = np.ones(len(candidates), bool)
    for _ in range(count):
        score = np.where(open_, products.diagonal() / np.maximum(block.diagonal(), 1e-30), np.inf)
        i = int(score.argmin())
        gone.append(i)
        paid.append(max(float(score[i]), 0.0))
        open_[i] = False
        _remove(block, products, i)
    return candidates[gone], torch.tensor(paid, dtype=torch.float64)


def _remove(block: np.ndarray, products: np.ndarray, i: int) -> None:
    """Downdates the inverse and the inner products of the outgoing weights for the removal of ``i``, in place."""
    share = block[i] / max(block[i, i], 1e-30)
    block -= np.outer(block[:, i], share)
    column = products[:, i].copy()
    products -= np.outer(share, column) + np.outer(column, share) - column[i] * np.outer(share, share)


def _without(inverse: Tensor, weights: Tensor, gone: Tensor, left: Tensor) -> tuple[Tensor, Tensor]:
    """Inverse and weights of the units that are left once ``gone`` are taken out and made up for."""
    towards = inverse[gone]
    shares = torch.linalg.solve(towards[:, gone].double(), towards[:, left].double()).float()
    weights = weights[:, left] - weights[:, gone] @ shares
    inverse = inverse[left][:, left].addmm_(towards[:, left].T, shares, alpha=-1)
    return inverse, weights


def refit(
    outgoing: Tensor, bias: Tensor, means: Tensor, cross: Tensor, covariance: Tensor, new_means: Tensor
) -> tuple[Tensor, Tensor]:
    """Outgoing weights (model, new units) and bias (model,) that make the new units' output nearest to the old one's.

    Args:
        outgoing, bias: (model, units), (model,) before.
        means, new_means: (units,), (new units,) expected activations.
        cross: (units, new units) covariance between old and new activations.
        covariance: (new units, new units) of the new ones.

    Ridge regression in closed form: W₂ C_x (C′ + λI)⁻¹, and the bias that keeps the mean output.
    """
    root = torch.linalg.cholesky(regularised(covariance))
    weights = torch.cholesky_solve(cross.T @ outgoing.T, root).T
    return weights, bias + outgoing @ means - weights @ new_means
