"""Moments of what modules read and hand on, from rows that were seen, steadied by what the norms let expect.

Rows are few beside the units of a large model. As many rows as there are dimensions are added in thought, which behave
as the Gaussian model says; with many rows they lose their weight.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from paretone.modules import Attention, Norm

_BLOCK_ROWS = 1024
_JITTER = 1e-10  # of the mean eigenvalue


def trust(rows: int, dimensions: int) -> float:
    """The weight of what was seen beside what is expected."""
    return rows / (rows + dimensions)


def moments_of(rows: Tensor, *functions: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """(features,) means and (features, features) covariance of what ``functions`` make of ``rows``, side by side."""
    total, squares = torch.zeros(0), torch.zeros(0)
    for block in rows.split(_BLOCK_ROWS):
        made = torch.cat([function(block.double()) for function in functions], dim=1)
        total = made.sum(dim=0) if not len(total) else total + made.sum(dim=0)
        squares = made.T @ made if not len(squares) else squares.addmm_(made.T, made)
    means = total / len(rows)
    return means, squares / len(rows) - torch.outer(means, means)


def input_moments(norm: Norm, rows: Tensor) -> tuple[Tensor, Tensor]:
    """(model,) means and (model, model) covariance behind ``norm``."""
    means, covariance = moments_of(rows, lambda block: block)
    scale, count = norm.scale, len(norm.scale)
    expected = torch.diag(scale.square()) - torch.outer(scale, scale) / count
    return blended((means, covariance), (norm.shift, expected), trust(len(rows), count))


def blended(seen: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor], share: float) -> tuple[Tensor, Tensor]:
    """Means and covariance of a mixture of which ``share`` is ``seen``."""
    means = share * seen[0] + (1 - share) * expected[0]
    apart = seen[0] - expected[0]
    covariance = share * seen[1] + (1 - share) * expected[1] + share * (1 - share) * torch.outer(apart, apart)
    return means, covariance


def value_moments(module: Attention, mean: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
    """(heads, head_dim) means and (rows, rows) covariance of what heads hand to the output projection.

    Args:
        mean, spread: of what keys and values read. Where what is handed on was not seen, or an earlier step has changed
            its basis, each query is taken to look at one place.
    """
    assert module.seen is not None
    weight = module.value.flatten(0, 1)
    means, covariance = weight @ mean + module.value_bias.flatten(), weight @ spread @ weight.T
    context = module.seen.context
    if context is not None and context.shape[1] == len(weight):
        seen_means, seen = moments_of(context, lambda block: block)
        expected = covariance * (seen.trace() / covariance.trace().clamp(min=1e-300))
        means, covariance = blended((seen_means, seen), (seen_means, expected), trust(len(context), len(weight)))
    return means.view(module.value_bias.shape), covariance


def root_of(moments: Tensor) -> Tensor:
    """R with R Rᵀ = ``moments``."""
    jitter = _JITTER * float(moments.diagonal().mean())
    return torch.linalg.cholesky(moments + (jitter or 1.0) * torch.eye(len(moments), dtype=moments.dtype))
