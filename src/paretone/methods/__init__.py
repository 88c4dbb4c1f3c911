"""Methods: pure functions that make a group's units, or a stack's layers, fewer. One file each, found by its name.

A method that works on units holds

    fold(units: Units, keep: int, rng: torch.Generator, *, <settings>) -> Fold

which also takes a tree behind ``rng``, or None, if there is a function that grows one for all sizes, of use where the
settings are those in ``TREE_WHERE``

    tree_of(units: Units) -> np.ndarray

one that writes new weights, from a module with the norm in front of it,

    rewrite(module: Module, keep: int, head_dim: int, rng: torch.Generator, analysis: Analysis | None, *, <settings>)
        -> Rewrite
    analyse(module: Module, *, <settings>) -> Analysis          what every size would cost, for allocation by error
    uniform_shape(width, head_dim, rows, *, <settings>) -> tuple[int, int]    heads and their size within ``rows`` rows

and one that works on whole layers

    keep_layers(depth: int, keep: int, *, <settings>) -> tuple[int, ...]

A method that rewrites modules and sets ``READS_SEEN`` fits to the rows in ``module.seen``, where there are any.

The keyword-only arguments with their types and defaults are the method's settings: nothing else lists them.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any

from paretone.errors import UserError, did_you_mean

KINDS = ("fold", "rewrite", "keep_layers")

__all__ = [
    "companion",
    "known_methods",
    "method_function",
    "reads_seen",
    "rewrites_modules",
    "settings_of",
    "takes_tree",
    "works_on_layers",
]


def known_methods() -> list[str]:
    """Names of all methods: the files of this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def method_function(name: str) -> Callable[..., Any]:
    """The function of method ``name``.

    Raises:
        UserError: if there is no such method; names those that exist.
    """
    known = known_methods()
    if name not in known:
        raise UserError(f"unknown method {name!r}{did_you_mean(name, known) or ';'} methods are {', '.join(known)}")
    module = importlib.import_module(f"{__name__}.{name}")
    function: Callable[..., Any] = next(getattr(module, kind) for kind in KINDS if hasattr(module, kind))
    return function


def companion(name: str, function: str) -> Callable[..., Any] | None:
    """``tree_of``, ``analyse`` or ``uniform_shape`` of method ``name``; None where it has none."""
    found: Callable[..., Any] | None = getattr(importlib.import_module(f"{__name__}.{name}"), function, None)
    return found


def works_on_layers(name: str) -> bool:
    """Whether method ``name`` drops layers rather than units."""
    return method_function(name).__name__ == "keep_layers"


def rewrites_modules(name: str) -> bool:
    """Whether method ``name`` writes new weights, and may change the size of heads."""
    return method_function(name).__name__ == "rewrite"


def reads_seen(name: str) -> bool:
    """Whether method ``name`` makes use of rows that were seen while the model ran."""
    return bool(getattr(importlib.import_module(f"{__name__}.{name}"), "READS_SEEN", False))


def takes_tree(name: str, settings: Mapping[str, Any]) -> bool:
    """Whether method ``name`` cuts a tree under these settings."""
    where = getattr(importlib.import_module(f"{__name__}.{name}"), "TREE_WHERE", None)
    return where is not None and all(settings[key] == value for key, value in where.items())


def settings_of(name: str) -> dict[str, tuple[Any, Any]]:
    """Setting -> (type, default) of method ``name``, read from its function's keyword-only arguments."""
    parameters = inspect.signature(method_function(name)).parameters.values()
    return {p.name: (p.annotation, p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}
