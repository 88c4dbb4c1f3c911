"""Sizes of modules: what becomes of a number of units once heads can be cut and widths must be multiples."""

from collections.abc import Mapping, Sequence

from paretone.errors import UserError
from paretone.groups import Group
from paretone.methods import companion
from paretone.plan.blueprint import Blueprint, narrowed
from paretone.plan.choices import tie
from paretone.plan.recipe import Step

Sizes = dict[str, tuple[int, int]]  # module -> (units, rows of a head; 0 for an FFN)


def sizes_of(groups: Sequence[Group], widths: Mapping[str, int], step: Step) -> Sizes:
    """The size of each of ``groups`` that may keep as much as so many whole units, in multiples as asked."""
    return {group.name: _size(group, widths[group.name], step) for group in groups}


def _size(group: Group, units: int, step: Step) -> tuple[int, int]:
    if units == group.width:
        return units, group.head_dim
    if group.kind == "ffn":
        return _down(units, step.multiple, group.width), 0
    uniform_shape = companion(step.method, "uniform_shape")
    if uniform_shape is None:
        return units, group.head_dim
    heads, head_dim = uniform_shape(group.width, group.head_dim, units * group.head_dim, **step.settings)
    return heads, _down(head_dim, min(8, step.multiple), group.head_dim)


def _down(size: int, multiple: int, whole: int) -> int:
    """The multiple at or below ``size``, once at least; ``size`` where even one is more than ``whole``."""
    return max(1, size // multiple) * multiple if multiple <= whole else size


def resized(model: Blueprint, sizes: Sizes) -> Blueprint:
    """``model`` with the modules in ``sizes`` at those sizes."""
    head_dims = {name: head_dim for name, (_, head_dim) in sizes.items() if head_dim}
    return narrowed(model, {name: keep for name, (keep, _) in sizes.items()}, head_dims)


def check_profile(groups: Sequence[Group], sizes: Sizes, step: Step, where: str) -> None:
    """Refuses what rules make of modules that the profile wants whole or of one size.

    Raises:
        UserError: naming the first of them.
    """
    agreed: Sizes = {}
    for group in groups:
        size = sizes[group.name]
        stays_whole = step.profile == "stock" and group.kind == "heads"
        wanted = (group.width, group.head_dim) if stays_whole else agreed.setdefault(tie(group, step), size)
        if size != wanted:
            raise UserError(
                f"{where}: its rules give {group.name} a size that profile {step.profile} does not allow; "
                "leave such modules to the allocation"
            )
