"""Families: which tensors of which architecture shrink together. One file each, found by its name.

A family file holds

    MODEL_TYPE      the ``model_type`` of its config.json
    ARCHITECTURES   class name -> what precedes the base model's tensor names
    table(config, shapes) -> Table
"""

import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from paretone.errors import UserError
from paretone.groups import Shapes, Table

__all__ = ["SLAM", "family_of", "known_families", "table_of"]

SLAM = "slam_asr"  # the model type of speech LLMs, which are no family: their parts shrink each by itself


def known_families() -> list[str]:
    """Names of all families: the files of this folder."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def family_of(config: Mapping[str, Any], where: str) -> ModuleType:
    """The family file for a model's config.

    Raises:
        UserError: if no family knows this ``model_type`` or architecture; names those that are known.
    """
    model_type = str(config.get("model_type"))
    if model_type not in known_families():
        slam = "; compress its encoder, and train a projector for that" if model_type == SLAM else ""
        raise UserError(
            f"{where}: model_type {model_type!r} is not supported; supported are {', '.join(known_families())}{slam}"
        )
    family = importlib.import_module(f"{__name__}.{model_type}")
    architecture = architecture_of(config)
    if architecture not in family.ARCHITECTURES:
        raise UserError(
            f"{where}: architecture {architecture!r} is not supported; of {model_type} the classes "
            f"{', '.join(family.ARCHITECTURES)} are"
        )
    return family


def architecture_of(config: Mapping[str, Any]) -> str:
    """The stock class name of a model, also where it was saved by one of our mixed-width classes."""
    names = config.get("architectures") or ["(none named)"]
    return str(names[0]).removeprefix("Mixed")


def table_of(config: Mapping[str, Any], shapes: Shapes, where: str) -> Table:
    """What can shrink in the model with this config and these tensor shapes.

    Raises:
        UserError: if the family is unknown or a tensor that the config promises is absent.
    """
    family = family_of(config, where)
    try:
        table: Table = family.table(config, shapes)
    except KeyError as error:
        raise UserError(f"{where}: {error.args[0]!r} is missing: the config and the weights do not fit") from error
    return table
