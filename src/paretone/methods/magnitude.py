"""Structured magnitude pruning: the units with the smallest L2 norm go."""

from typing import Literal

import torch

from paretone.groups import Fold, Units


def fold(units: Units, keep: int, rng: torch.Generator, *, norm: Literal["unit", "incoming"] = "unit") -> Fold:
    """Keeps the ``keep`` units with the largest L2 norm; of equal norms the first stay.

    Args:
        units: one row per head or FFN unit.
        keep: 1 <= keep <= width.
        rng: not used; magnitudes leave nothing to chance.
        norm: of the whole unit, [q|k|v|oᵀ] or [fc1|fc2ᵀ], the baseline of arXiv 2606.11836; or of its incoming
            weights alone, as in filter pruning (Li et al. 2017, arXiv 1608.08710).
    """
    energy = units.incoming.square().sum(dim=1, dtype=torch.float64)
    if norm == "unit":
        energy += units.outgoing.square().sum(dim=1, dtype=torch.float64)
    order = torch.argsort(energy, descending=True, stable=True)
    return Fold.select(order[:keep].sort().values, units.width)
