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
    """What became of the units when they went one after the other.

    Attributes:
        order: (units,) from the first to go to the last; those that are left come last.
        costs: for each unit that went, what that cost.
        rest: (units left, model) outgoing weights of those that are left, as they make up for the others.
    """

    order: Tensor
    costs: Tensor
    rest: Tensor


def regularised(covariance: Tensor) -> Tensor:
    """``covariance`` with ``RIDGE`` times its mean variance on the diagonal; all zeros become the identity."""
    raised = covariance.clone()
    raised.diagonal().add_(_ridge(covariance))
    return raised


def _ridge(covariance: Tensor) -> float:
    return RIDGE * float(covariance.diagonal().mean()) or 1.0


def eliminate(covariance: Tensor, outgoing: Tensor, *, leave: int) -> Elimination:
    """Removes units until ``leave`` are left.

    Args:
        covariance: (units, units) of the activations.
        outgoing: (model, units) weights behind them, in the metric in which errors count.
    """
    left = _Left(_inverse(regularised(covariance)), outgoing.T.float().contiguous(), torch.arange(len(covariance)))
    order, costs = [], []
    while len(left.units) > leave:
        count = min(len(left.units) - leave, max(1, len(left.units) // _ROUND_SHARE))
        gone, paid = _round(left, count)
        order.append(left.units[gone])
        costs.append(paid)
        left = _without(left, gone)
    paid = torch.cat(costs) if costs else torch.zeros(0, dtype=torch.float64)
    return Elimination(torch.cat([*order, left.units]), paid, left.weights)


@dataclass(frozen=True)
class _Left:
    """The units that are left: inverse of their covariance, outgoing weights (units, model), and which they are."""

    inverse: Tensor
    weights: Tensor
    units: Tensor


def output_variance(found: Elimination, covariance: Tensor, outgoing: Tensor) -> float:
    """Variance of what all units together add to the stream, from their elimination; arguments as for that.

    What the units that went cost, and what those left give in their place: the whole product is never formed.
    """
    left, ridge = found.order[-len(found.rest) :], _ridge(covariance)
    given = found.rest.double()
    raised = float(found.costs.sum() + ((covariance[left][:, left].double() @ given) * given).sum())
    return raised + ridge * float(given.square().sum() - outgoing.square().sum())


def _inverse(matrix: Tensor) -> Tensor:
    """The inverse in float32; where float32 finds ``matrix`` no longer positive, by way of float64."""
    root, failed = torch.linalg.cholesky_ex(matrix.float())
    if failed:
        root = torch.linalg.cholesky(matrix.double()).float()
    return torch.cholesky_inverse(root)


def _round(left: _Left, count: int) -> tuple[Tensor, Tensor]:
    """The next ``count`` units (places among those left) and their costs, exact among the cheapest candidates.

    Taking out a unit downdates the inverse by one outer product and the inner products of outgoing weights by two;
    these are kept as factors, and only the rows that are asked for are worked out.
    """
    energies = left.weights.square().sum(dim=1)
    scores = energies / left.inverse.diagonal().clamp(min=1e-30)
    candidates = torch.topk(scores, min(len(scores), max(_CANDIDATES * count, 8)), largest=False).indices.sort().values
    inverse = left.inverse[candidates][:, candidates].double().numpy()
    chosen = left.weights[candidates].double()
    products = (chosen @ chosen.T).numpy()
    pivots, energy = inverse.diagonal().copy(), products.diagonal().copy()
    rows, shares, halves = np.zeros((3, count, len(candidates)))
    gone: list[int] = []
    paid: list[float] = []
    for t in range(count):
        score = energy / np.maximum(pivots, 1e-30)
        score[gone] = np.inf
        i = int(score.argmin())
        gone.append(i)
        paid.append(max(float(score[i]), 0.0))
        rows[t] = inverse[i] - shares[:t, i] @ rows[:t]
        shares[t] = rows[t] / max(rows[t, i], 1e-30)
        column = products[i] - shares[:t, i] @ halves[:t] - halves[:t, i] @ shares[:t]
        halves[t] = column - column[i] / 2 * shares[t]
        pivots -= rows[t] * shares[t]
        energy -= 2 * shares[t] * halves[t]
    return candidates[gone], torch.tensor(paid, dtype=torch.float64)


def _without(left: _Left, gone: Tensor) -> _Left:
    """What is left once ``gone`` are taken out and made up for; in place, the last units move to where those were."""
    towards, weights = left.inverse[gone], left.weights[gone]
    corner = towards[:, gone].double()
    keep = len(left.units) - len(gone)
    stays = torch.ones(len(left.units), dtype=torch.bool)
    stays[gone] = False
    holes, movers = (~stays[:keep]).nonzero().flatten(), keep + stays[keep:].nonzero().flatten()
    for part in (left.inverse, left.inverse.T, left.weights, left.units, towards.T):
        part[holes] = part[movers]
    towards = towards[:, :keep]
    shares = torch.linalg.solve(corner, towards.double()).float()
    left.inverse[:keep, :keep].addmm_(towards.T, shares, alpha=-1)
    left.weights[:keep].addmm_(shares.T, weights, alpha=-1)
    return _Left(left.inverse[:keep, :keep], left.weights[:keep], left.units[:keep])


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
    weights = torch.cholesky_solve((cross.T @ outgoing.T.to(cross.dtype)).double(), root).T
    return weights, bias + outgoing @ means - weights @ new_means
