"""Symmetric matrices by halves: strips of the upper triangle, mirrored at the end.

Torch has no ``syrk``. NumPy's would bring a second BLAS with threads of its own into workers that share the cores.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

_STRIP_ROWS = 512  # enough for the full speed of a product, few enough to leave most of the lower triangle out


def strips(size: int) -> Iterator[tuple[slice, slice]]:
    """Rows, and the columns from the first of them on, that cover the upper triangle of a (size, size) matrix."""
    for first in range(0, size, _STRIP_ROWS):
        yield slice(first, first + _STRIP_ROWS), slice(first, None)


def mirrored(matrix: Tensor) -> Tensor:
    """``matrix`` with its upper triangle in place of the lower one, in place."""
    for rows, _ in strips(len(matrix)):
        corner, below = matrix[rows, rows], slice(rows.stop, None)
        matrix[rows, rows] = corner.triu() + corner.triu(1).T
        matrix[below, rows] = matrix[rows, below].T
    return matrix


def self_product(*sides: Tensor) -> Tensor:
    """(rows, rows) inner products of rows that ``sides`` (rows, any width), put next to each other, make up."""
    size = len(sides[0])
    gram = torch.empty(size, size, dtype=sides[0].dtype)
    for rows, columns in strips(size):
        block = gram[rows, columns]
        for number, side in enumerate(sides):
            torch.addmm(block, side[rows], side[columns].T, beta=min(number, 1), out=block)
    return mirrored(gram)


def subtract_product(matrix: Tensor, left: Tensor, right: Tensor, *, times: float = 1) -> None:
    """Takes ``times`` left @ right, which must be symmetric, off the symmetric ``matrix``, in place."""
    for rows, columns in strips(len(matrix)):
        matrix[rows, columns].addmm_(left[rows], right[:, columns], alpha=-times)
    mirrored(matrix)
