"""Optimal brain surgeon for hidden units: which can go at the least error, when those left may make up for them.

Removing unit i and refitting the rest costs ‖w_i‖² / (C⁻¹)_ii, with w_i its column of the outgoing weights and C the
covariance of the activations (Hassibi & Stork 1993, for whole columns). Exact elimination downdates all of C⁻¹ for each
unit and waits for memory; here a round finds the next units among the cheapest candidates exactly, then downdates the
rest with one matrix product.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paretone.methods._symmetric import subtract_product

RIDGE = 1e-3  # of the mean variance; section 2 of our notes takes the same for the refit
_ROUND_SHARE = 32  # a round removes one of so many units that are left
_CANDIDATES = 2  # for each unit that a round removes
_LEAF = 512  # rows below which a matrix is inverted in one piece


@dataclass(frozen=True)
class Elimination:
    """What became of the units when they went one after the other.

    Attributes:
        order: (units,) from the first to go to the last; those that are left come last.
        costs: for each unit that went, what that cost.
        variance: of what all units together added to the stream.
    """

    order: Tensor
    costs: Tensor
    variance: float


def regularised(covariance: Tensor) -> Tensor:
    """``covariance`` with ``RIDGE`` times its mean variance on the diagonal; all zeros become the identity."""
    raised = covariance.clone()
    raised.diagonal().add_(_ridge(covariance))
    return raised


def _ridge(covariance: Tensor) -> float:
    return RIDGE * float(covariance.diagonal().mean()) or 1.0


def others(units: Tensor, width: int) -> Tensor:
    """(width,) whether each unit is none of ``units``."""
    rest = torch.ones(width, dtype=torch.bool)
    rest[units] = False
    return rest


def eliminate(covariance: Tensor, outgoing: Tensor, *, leave: int) -> Elimination:
    """Removes units until ``leave`` are left.

    Args:
        covariance: (units, units) of the activations; used up, so that nothing of its size is needed beside it.
        outgoing: (model, units) weights behind them, in the metric in which errors count.

    Raises:
        torch.linalg.LinAlgError: if ``covariance`` is so near to singular that its precision does not do.
    """
    ridge, weights = _ridge(covariance), outgoing.T.float().contiguous()
    left = _Left(_inverse(covariance, ridge), weights, torch.arange(len(covariance)))
    penalty = ridge * float(outgoing.square().sum())  # the ridge's part of the variance
    order, costs = [], []
    while len(left.units) > leave:
        count = min(len(left.units) - leave, max(1, len(left.units) // _ROUND_SHARE))
        gone, paid = _round(left, count)
        order.append(left.units[gone])
        costs.append(paid)
        left = _without(left, gone)
    paid = torch.cat(costs) if costs else torch.zeros(0, dtype=torch.float64)
    given = left.weights.double()
    rest = float((torch.linalg.solve(left.inverse.double(), given) * given).sum())
    return Elimination(torch.cat([*order, left.units]), paid, float(paid.sum()) + rest - penalty)


@dataclass(frozen=True)
class _Left:
    """The units that are left: inverse of their covariance, outgoing weights (units, model), and which they are."""

    inverse: Tensor
    weights: Tensor
    units: Tensor


def _inverse(covariance: Tensor, ridge: float) -> Tensor:
    """The inverse of ``covariance`` with ``ridge`` on its diagonal, in float32: in place, unless it is in float64."""
    covariance.diagonal().add_(ridge)
    if covariance.dtype == torch.float64:
        return torch.cholesky_inverse(torch.linalg.cholesky(covariance)).float()
    if not _inverted(covariance):
        raise torch.linalg.LinAlgError("not positive in single precision")
    return covariance


def _inverted(matrix: Tensor) -> bool:
    """Puts the inverse in the place of a positive ``matrix``; False if a block is no longer positive.

    By quarters, so that nearly all of it is matrix products: 1.4 times as fast as LAPACK's potrf and potri.
    """
    size = len(matrix)
    if size <= _LEAF:
        root, failed = torch.linalg.cholesky_ex(matrix)
        matrix.copy_(torch.cholesky_inverse(root))
        return not failed
    half = size // 2
    first, across, last = matrix[:half, :half], matrix[:half, half:], matrix[half:, half:]
    if not _inverted(first):
        return False
    towards = first @ across
    subtract_product(last, across.T, towards)
    if not _inverted(last):
        return False
    torch.mm(towards, last, out=across)
    subtract_product(first, across, towards.T, times=-1)
    matrix[half:, :half] = across.neg_().T
    return True


def _round(left: _Left, count: int) -> tuple[Tensor, Tensor]:
    """The next ``count`` units (places among those left) and their costs, exact among the cheapest candidates.

    Taking out a unit downdates the inverse by one outer product and the inner products of outgoing weights by two;
    these are kept as factors, and only the rows that are asked for are worked out.
    """
    scores = torch.linalg.vector_norm(left.weights, dim=1).square_() / left.inverse.diagonal().clamp(min=1e-30)
    candidates = torch.topk(scores, min(len(scores), max(_CANDIDATES * count, 8)), largest=False).indices.sort().values
    inverse = left.inverse[candidates[:, None], candidates].double().numpy()
    chosen = left.weights[candidates]
    products = (chosen @ chosen.T).double().numpy()
    pivots, energy = inverse.diagonal().copy(), products.diagonal().copy()
    roots, halves = np.empty((2, count, len(candidates)))
    gone, paid = np.empty(count, np.int64), np.empty(count)
    for t in range(count):
        score = energy / np.maximum(pivots, 1e-30)
        i = gone[t] = score.argmin()
        paid[t] = max(score[i], 0.0)
        root, half = roots[:t, i], halves[:t, i]
        row = inverse[i] - root @ roots[:t]
        row /= math.sqrt(max(row[i], 1e-30))
        column = products[i] - root @ halves[:t] - half @ roots[:t]
        column /= row[i]
        column -= (column[i] / (2 * row[i])) * row
        roots[t], halves[t] = row, column
        pivots -= row * row
        column *= row
        energy -= 2 * column
        energy[i] = np.inf
    return candidates[torch.from_numpy(gone)], torch.from_numpy(paid)


def _without(left: _Left, gone: Tensor) -> _Left:
    """What is left once ``gone`` are taken out and made up for; in place, the last units move to where those were."""
    towards, weights = left.inverse[gone], left.weights[gone]
    corner = torch.linalg.cholesky(towards[:, gone].double())
    inverse_root = torch.linalg.solve_triangular(corner, torch.eye(len(gone), dtype=torch.float64), upper=False)
    keep, stays = len(left.units) - len(gone), others(gone, len(left.units))
    holes, movers = (~stays[:keep]).nonzero().flatten(), keep + stays[keep:].nonzero().flatten()
    for part in (left.inverse, left.inverse.T, left.weights, left.units, towards.T):
        part[holes] = part[movers]
    roots = inverse_root.float() @ towards[:, :keep]
    left.inverse[:keep, :keep].addmm_(roots.T, roots, alpha=-1)
    left.weights[:keep].addmm_(roots.T, inverse_root.float() @ weights, alpha=-1)
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


def refit_selected(
    outgoing: Tensor, bias: Tensor, means: Tensor, kept: Tensor, covariance: Tensor, cross: Tensor
) -> tuple[Tensor, Tensor]:
    """What ``refit`` gives where the new units are the old units ``kept``, ascending; half of the product falls away.

    Args:
        outgoing, bias, means: as for ``refit``.
        covariance: (kept units, kept units) of their activations.
        cross: (kept units, other units) covariance with those that go.
    """
    stay = outgoing[:, kept]
    missing = (cross @ outgoing[:, others(kept, len(means))].T.to(cross.dtype)).double() - _ridge(covariance) * stay.T
    weights = stay + torch.cholesky_solve(missing, torch.linalg.cholesky(regularised(covariance.double()))).T
    return weights, bias + outgoing @ means - weights @ means[kept]
