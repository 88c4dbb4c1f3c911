"""Symmetric matrices by halves: strips of the upper triangle, mirrored at the end.

Torch has no ``syrk``. NumPy's would bring a second BLAS with threads of its own into workers that share the cores.
"""

from collections.abc import Iterator

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
