"""A control: units kept by chance. A method that does not beat this has learned nothing from the weights."""

import torch

from paretone.groups import Fold, Units


def fold(units: Units, keep: int, rng: torch.Generator) -> Fold:
    """Keeps ``keep`` units drawn without replacement by ``rng``."""
    return Fold.select(torch.randperm(units.width, generator=rng)[:keep].sort().values, units.width)
