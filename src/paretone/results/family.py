"""Statistics of many comparisons at once: Holm's correction, and a linear model of a grid with its interactions."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from paretone.errors import UserError
from paretone.results.significance import Interval

MOST_FACTORS = 3  # of one interaction
_TINY = 1e-300
_ROUNDS = 10_000  # of the continued fraction, which needs about the root of its larger parameter


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusted p-values that keep the chance of any false find among all of them at the level they are held against.

    The k-th smallest of m is multiplied by m - k + 1, at least the one before it, and at most 1. What is None is no
    member of the family and stays None.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979).
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    least = 0.0
    for rank, (p, place) in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p))
        adjusted[place] = least
    return adjusted


def t_tail(t: float, freedom: float) -> float:
    """The two-sided p-value of Student's t: the chance of a value at least as far from zero.

    Source: Abramowitz and Stegun, 26.7.1: the incomplete beta function at n / (n + t^2) with n/2 and 1/2.
    """
    return 1.0 if t == 0 else _incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def t_quantile(freedom: float, level: float = 0.95) -> float:
    """The t beyond which, on both sides, a share of ``1 - level`` lies; by bisection of `t_tail`."""
    low, high = 0.0, 1.0
    while t_tail(high, freedom) > 1 - level:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if t_tail(middle, freedom) > 1 - level else (low, middle)
    return (low + high) / 2


def mean_interval(values: Sequence[float]) -> Interval | None:
    """The 95 % t interval of the mean of ``values``; None for fewer than two."""
    if len(values) < 2:
        return None
    half = t_quantile(len(values) - 1) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    middle = float(np.mean(values))
    return middle - half, middle + half


@dataclass(frozen=True)
class Coefficient:
    """One term of a linear model.

    Attributes:
        terms: the axes that it is about, each with its level, or the step of a numeric axis; empty for the intercept.
        estimate: in the unit of the values, beside the reference.
        ci95: t interval; both ends are the estimate where the model leaves no residue.
        p_value: of the two-sided t test against zero.
        p_holm: the same by Holm over all coefficients but the intercept, which has none.
    """

    terms: Mapping[str, str]
    estimate: float
    ci95: Interval
    p_value: float
    p_holm: float | None


@dataclass(frozen=True)
class Fit:
    """An ordinary least squares fit.

    Attributes:
        coefficients: intercept first, then main effects, pairs, triples.
        dropped: terms that these cells cannot tell apart from others, or have too few cells for.
        freedom: residual degrees of freedom.
        spread: residual standard deviation, in the unit of the values.
        explained: share of the values' variance, R^2; 1 where they have none.
    """

    coefficients: Sequence[Coefficient]
    dropped: Sequence[tuple[str, ...]]
    freedom: int
    spread: float
    explained: float


@dataclass(frozen=True)
class _Column:
    terms: Mapping[str, str]
    values: np.ndarray  # (rows,)


def fit_interaction(
    rows: Sequence[Mapping[str, str]],
    values: Sequence[float],
    *,
    levels: Mapping[str, Sequence[str]],
    reference: Mapping[str, str],
    steps: Mapping[str, float] | None = None,
) -> Fit:
    """Fit a linear model of ``values`` by ordinary least squares: main effects and all interactions up to three axes.

    A factor is coded by treatment: one column of zeros and ones for each level but the reference's. A numeric axis is
    one column, its distance from the reference in steps. An interaction is the products of columns, without those of
    levels that no cell combines. Terms enter in the order intercept, main effects, pairs, triples. One is dropped whole
    where the design would lose its full rank or leave no residual degree of freedom, and a triple also where fewer
    degrees would stay than there are columns.

    Args:
        rows: the label of every axis in ``levels``, one mapping for each of ``values``.
        levels: labels of each axis, in order.
        reference: label of an axis that others are set beside; the first where none is named.
        steps: numeric axes, and what one step of each is, in its own unit; the labels are numbers there.

    Raises:
        UserError: if there are fewer than two values, or not as many as rows.

    Source: Wilkinson and Rogers, "Symbolic description of factorial models", Applied Statistics 22 (1973), for the
    terms; Seber and Lee, "Linear Regression Analysis" (2003), sections 3.2 and 4.3, for estimates and t intervals.
    """
    if len(rows) != len(values) or len(rows) < 2:
        raise UserError(f"{len(values)} values of {len(rows)} cells make no model; give two or more, one for each cell")
    bases = {}
    for axis, names in levels.items():
        start = reference.get(axis, names[0])
        bases[axis] = _coded(rows, axis, names, start, (steps or {}).get(axis))
    kept, dropped = _design(bases, len(rows))
    return _fitted(kept, dropped, np.asarray(values, dtype=np.float64))


def _coded(
    rows: Sequence[Mapping[str, str]], axis: str, names: Sequence[str], start: str, step: float | None
) -> list[_Column]:
    """The columns of a main effect."""
    if step is not None:
        far = np.array([(float(row[axis]) - float(start)) / step for row in rows])
        return [_Column({axis: f"per {step:+g}".replace("-", "\N{MINUS SIGN}")}, far)] if far.any() else []
    used = {row[axis] for row in rows}
    others = [name for name in names if name != start and name in used]
    return [_Column({axis: name}, np.array([float(row[axis] == name) for row in rows])) for name in others]


def _design(bases: Mapping[str, list[_Column]], rows: int) -> tuple[list[_Column], list[tuple[str, ...]]]:
    """The columns of all terms that stay, and the names of those that don't."""
    kept = [_Column({}, np.ones(rows))]
    dropped = []
    varying = [axis for axis, columns in bases.items() if columns]
    for size in range(1, MOST_FACTORS + 1):
        for axes in combinations(varying, size):
            columns = [*kept, *(each for each in _products([bases[axis] for axis in axes]) if each.values.any())]
            free = rows - len(columns)
            enough = free >= len(columns) if size == MOST_FACTORS else free >= 1
            whole = enough and np.linalg.matrix_rank(_scaled(columns)) == len(columns)
            if whole:
                kept = columns
            else:
                dropped.append(axes)
    return kept, dropped


def _products(bases: Sequence[list[_Column]]) -> Iterator[_Column]:
    first, *rest = bases
    for column in first:
        if not rest:
            yield column
            continue
        for other in _products(rest):
            yield _Column({**column.terms, **other.terms}, column.values * other.values)


def _scaled(columns: Sequence[_Column]) -> np.ndarray:
    """(rows, columns) with columns of length one, so that the rank does not hang on units."""
    matrix = np.stack([column.values for column in columns], axis=1)
    return matrix / np.maximum(np.linalg.norm(matrix, axis=0), _TINY)


def _fitted(columns: list[_Column], dropped: list[tuple[str, ...]], values: np.ndarray) -> Fit:
    matrix = np.stack([column.values for column in columns], axis=1)
    orthogonal, triangle = np.linalg.qr(matrix)
    estimates = np.linalg.solve(triangle, orthogonal.T @ values)
    residue = values - matrix @ estimates
    freedom = len(values) - len(columns)
    spread = math.sqrt(float(residue @ residue) / freedom)
    inverse = np.linalg.inv(triangle)
    errors = spread * np.sqrt(np.sum(inverse**2, axis=1))
    beyond = t_quantile(freedom)
    p_values = [_p_value(float(b), float(e), freedom) for b, e in zip(estimates, errors, strict=True)]
    adjusted = holm([None, *p_values[1:]])
    coefficients = [
        Coefficient(column.terms, float(b), (float(b - beyond * e), float(b + beyond * e)), p, q)
        for column, b, e, p, q in zip(columns, estimates, errors, p_values, adjusted, strict=True)
    ]
    about = values - values.mean()
    explained = 1 - float(residue @ residue) / float(about @ about) if about.any() else 1.0
    return Fit(coefficients, dropped, freedom, spread, explained)


def _p_value(estimate: float, error: float, freedom: int) -> float:
    if error <= _TINY:
        return 1.0 if estimate == 0 else 0.0
    return t_tail(estimate / error, freedom)


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b).

    Source: Press et al., "Numerical Recipes" (1992), section 6.4: a continued fraction by Lentz's method.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    logs = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    if x > (a + 1) / (a + b + 2):
        return 1 - math.exp(logs) * _fraction(1 - x, b, a) / b
    return math.exp(logs) * _fraction(x, a, b) / a


def _fraction(x: float, a: float, b: float) -> float:
    c, d = 1.0, 1 / _nonzero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _ROUNDS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for factor in (even, odd):
            d = 1 / _nonzero(1 + factor * d)
            c = _nonzero(1 + factor / c)
            value *= d * c
        if abs(d * c - 1) < 1e-15:
            break
    return value


def _nonzero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
