"""The activations of a hidden layer whose input is Gaussian: their means and covariances in closed form.

Behind a layer norm the input is ``scale * z + shift`` with z of zero mean and unit variance. Taking z as standard
normal on the mean-free space makes each pre-activation a normal variable, m + s t, and any two of them jointly normal.
Mehler's formula turns the correlation of pre-activations into the covariance of activations, exactly for every
activation function; only the order of the series is cut. That the input is isotropic is our assumption, not a fact.

Sources: Cho & Saul 2009 and Daniely et al. 2016 for dual activations.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from numpy.polynomial.hermite_e import hermegauss
from torch import Tensor
from torch.nn import functional

from paretone.errors import UserError
from paretone.methods._symmetric import mirrored, strips
from paretone.modules import Norm

ORDER = 16
NODES = 96
_SERIES_ROWS = 32  # so many rows of the largest models stay in the processor's cache

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": lambda x: functional.gelu(x, approximate="tanh"),
    "gelu_fast": lambda x: functional.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": functional.relu,
    "silu": functional.silu,
    "swish": functional.silu,
}


def activation_function(name: str) -> Callable[[Tensor], Tensor]:
    """The function behind transformers' name of an activation.

    Raises:
        UserError: if it is none of those known here.
    """
    if name not in _ACTIVATIONS:
        raise UserError(f"closed_form knows no activation {name!r}; known are {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


@dataclass(frozen=True)
class Bank:
    """Hidden units seen through the norm in front of them, float64.

    Attributes:
        rows: (units, model), what multiplies z; mean-free along each row.
        shift: (units,), the mean of each pre-activation.
        spread: (units,), its standard deviation.
        series: (units, ORDER + 1), Hermite coefficients of the activation; column 0 is its mean.
    """

    rows: Tensor
    shift: Tensor
    spread: Tensor
    series: Tensor

    @property
    def means(self) -> Tensor:
        """(units,) expected activations."""
        return self.series[:, 0]

    def of(self, units: Tensor) -> "Bank":
        """The bank of some of the units."""
        return Bank(self.rows[units], self.shift[units], self.spread[units], self.series[units])


def through_norm(weight: Tensor, norm: Norm) -> Tensor:
    """``weight`` (..., model) as it acts on z: scaled by the norm, and without the mean that z does not have."""
    scaled = weight * norm.scale
    return scaled - scaled.mean(dim=-1, keepdim=True)


def bank_of(weight: Tensor, bias: Tensor, norm: Norm, activation: str) -> Bank:
    """The units ``activation(weight x + bias)`` behind ``norm``; weight (units, model), bias (units,)."""
    rows = through_norm(weight, norm)
    shift = bias + weight @ norm.shift
    spread = rows.norm(dim=1).clamp(min=1e-12)
    return Bank(rows, shift, spread, _series(shift, spread, activation_function(activation)))


def _series(shift: Tensor, spread: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """(units, ORDER + 1) coefficients; the last one also holds what the higher orders would, so variances are exact."""
    nodes, weights = _quadrature()
    values = function(shift[:, None] + spread[:, None] * nodes)
    series = (values * weights) @ _hermite(nodes).T
    rest = (values.square() * weights).sum(dim=1) - series.square().sum(dim=1)
    last = series[:, -1]
    series[:, -1] = torch.where(last < 0, -1.0, 1.0) * (last.square() + rest.clamp(min=0)).sqrt()
    return series


def _quadrature() -> tuple[Tensor, Tensor]:
    nodes, weights = hermegauss(NODES)
    return torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())


def _hermite(nodes: Tensor) -> Tensor:
    """(ORDER + 1, nodes) normalised probabilists' polynomials He_k / sqrt(k!)."""
    rows = [torch.ones_like(nodes), nodes]
    for k in range(1, ORDER):
        rows.append(nodes * rows[k] - k * rows[k - 1])
    return torch.stack([row / math.sqrt(math.factorial(k)) for k, row in enumerate(rows)])


def slope_energy(bank: Bank, activation: str) -> Tensor:
    """(units,) expected squared slope of the activation, E[φ′(m + s t)²]."""
    nodes, weights = _quadrature()
    with torch.enable_grad():
        points = (bank.shift[:, None] + bank.spread[:, None] * nodes).requires_grad_()
        (slopes,) = torch.autograd.grad(activation_function(activation)(points).sum(), points)
    return (slopes.square() * weights).sum(dim=1)


def covariance(bank: Bank, dtype: torch.dtype = torch.float64) -> Tensor:
    """(units, units) covariance of the activations of one bank, computed in ``dtype``; half of it, then mirrored."""
    units = len(bank.rows)
    directions, series = (bank.rows / bank.spread[:, None]).to(dtype), bank.series.to(dtype)
    moments = torch.empty(units, units, dtype=dtype)
    for rows, columns in strips(units):
        moments[rows, columns] = _summed(directions[rows] @ directions[columns].T, series[rows], series[columns])
    return mirrored(moments)


def cross_covariance(bank: Bank, other: Bank, dtype: torch.dtype = torch.float64) -> Tensor:
    """(units, other units) covariance of the activations of two banks, computed in ``dtype``."""
    one, two = ((each.rows / each.spread[:, None]).to(dtype) for each in (bank, other))
    return _summed(one @ two.T, bank.series.to(dtype), other.series.to(dtype))


def _summed(correlation: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Mehler's series Σ_k a_ik a_jk ρ_ij^k from k = 1, in place of the correlations ρ.

    Args:
        correlation: (units, other units); overwritten.
        left, right: coefficients (units, ORDER + 1), (other units, ORDER + 1).
    """
    columns = right.T.contiguous()
    for first in range(0, len(correlation), _SERIES_ROWS):
        block, a = correlation[first : first + _SERIES_ROWS], left[first : first + _SERIES_ROWS]
        total = torch.outer(a[:, ORDER], columns[ORDER])
        for k in range(ORDER - 1, 0, -1):  # Horner
            total.mul_(block).addr_(a[:, k], columns[k])
        block.mul_(total)
    return correlation
