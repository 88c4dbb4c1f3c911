"""Ward's tree by the chain of nearest neighbours (Murtagh 1983), on one square matrix of squared distances.

A chain step reads one row; a merger writes one row and one column by the formula of Lance and Williams 1967. In single
precision and vectorised this takes half the time of SciPy's ``linkage``, for the same tree.
"""

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

_COMPACT_BELOW = 0.8  # of the rows: as fewer are alive, dead ones are left out of all that follows
_PADDING = 24  # floats behind each row: columns at a stride of a power of two would fall on the same cache lines


def ward_tree(gram: Tensor) -> np.ndarray:
    """(width - 1, 2) units of which the clusters merge, by rising height; a tree, whichever members stand for them.

    Args:
        gram: (width, width) float32 inner products of the points.
    """
    living, width = _of_gram(gram.numpy()), len(gram)
    merges = np.empty((width - 1, 2), np.int64)
    heights = np.empty(width - 1, np.float32)
    chain: list[int] = []
    for number in range(width - 1):
        if width - number < _COMPACT_BELOW * len(living.ids):
            living, chain = living.compacted(chain)
        x, y = living.nearest_pair(chain)
        merges[number] = living.ids[x], living.ids[y]
        heights[number] = living.merge(x, y)
    return merges[heights.argsort(kind="stable")]


def _of_gram(gram: np.ndarray) -> "_Living":
    norms, width = gram.diagonal(), len(gram)
    distances = np.empty((width, width + _PADDING), np.float32)[:, :width]
    for row, products, norm in zip(distances, gram, norms, strict=True):  # each row stays in the cache
        np.multiply(products, np.float32(-2), out=row)
        row += norms
        row += norm
        np.maximum(row, 0, out=row)
    units, zeros = np.arange(width), np.zeros(width, np.float32)
    distances[units, units] = np.inf
    return _Living(distances, units, np.ones(width, np.float32), zeros, zeros.copy())


@dataclass
class _Living:
    """The clusters that are left, among some that are gone.

    Attributes:
        distances: (rows, rows) Ward's squared distances, infinite on the diagonal.
        ids: (rows,) a unit of each cluster.
        sizes, heights: (rows,) members, and the distance at which the last of them merged.
        gone: (rows,) infinite where a cluster is gone, else zero.
    """

    distances: np.ndarray
    ids: np.ndarray
    sizes: np.ndarray
    heights: np.ndarray
    gone: np.ndarray
    _scratch: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self._scratch = np.empty((2, len(self.ids)), np.float32)

    def nearest_pair(self, chain: list[int]) -> tuple[int, int]:
        """Two clusters that are nearest to each other; ``chain`` keeps the way to them for the next call.

        Distances fall along the chain, and a tie goes back instead of on, so it ends.
        """
        if not chain:
            chain.append(int(self.gone.argmin()))
        row = self._scratch[0]
        while True:
            x = chain[-1]
            np.add(self.distances[x], self.gone, out=row)
            y = int(row.argmin())
            if len(chain) > 1 and row[y] >= row[chain[-2]]:
                y = chain[-2]
                del chain[-2:]
                return x, y
            chain.append(y)

    def merge(self, x: int, y: int) -> float:
        """Puts ``x`` into ``y``; returns the height, which rounding must not bring below that of its parts."""
        distances, sizes = self.distances, self.sizes
        between, both = distances[x, y], sizes[x] + sizes[y]
        new, part = self._scratch
        np.add(sizes, sizes[x], out=new)
        new *= distances[x]
        np.add(sizes, sizes[y], out=part)
        part *= distances[y]
        new += part
        np.multiply(sizes, between, out=part)
        new -= part
        np.add(sizes, both, out=part)
        new /= part
        new[y] = np.inf
        distances[y] = distances[:, y] = new
        self.gone[x] = np.inf
        sizes[y] = both
        self.heights[y] = max(between, self.heights[x], self.heights[y])
        return float(self.heights[y])

    def compacted(self, chain: list[int]) -> "tuple[_Living, list[int]]":
        """Without those that are gone, in the same memory, and ``chain`` in the new places."""
        kept = np.flatnonzero(self.gone == 0)
        distances = self.distances[: len(kept), : len(kept)]
        for row, old in zip(distances, kept, strict=True):  # rows only move up
            row[:] = self.distances[old][kept]
        rest = (part[kept] for part in (self.ids, self.sizes, self.heights, self.gone))
        return _Living(distances, *rest), np.searchsorted(kept, chain).tolist()


def cut(merges: np.ndarray, keep: int) -> np.ndarray:
    """(width,) labels 0 to keep - 1 after the first width - keep of ``merges``."""
    width = len(merges) + 1
    parent = np.arange(width)
    for left, right in merges[: width - keep].tolist():
        parent[_root(parent, left)] = _root(parent, right)
    roots = np.array([_root(parent, unit) for unit in range(width)])
    return np.unique(roots, return_inverse=True)[1]


def _root(parent: np.ndarray, unit: int) -> int:
    while parent[unit] != unit:
        parent[unit] = parent[parent[unit]]
        unit = int(parent[unit])
    return unit
