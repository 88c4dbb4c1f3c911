"""From encoder positions to embeddings of a language model, one way a file.

A file of this folder is a projector: ``concat_linear.py`` is called concat-linear. It holds a class ``Projector``, an
``nn.Module`` made with ``(encoder_size, text_size, **settings)`` and called with hidden states (batch, positions,
encoder size) and their mask (batch, positions) or None; it returns embeddings (batch, tokens, text size) and their
mask, each row's tokens in front. No token may depend on what lies behind an item's end. Its attribute ``norm`` is the
layer norm that it ends with.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import Any

from torch import nn

from paretone.errors import UserError, did_you_mean


def projectors() -> list[str]:
    """Names of all projectors."""
    return sorted(each.name.replace("_", "-") for each in pkgutil.iter_modules(__path__))


def make_projector(name: str, encoder_size: int, text_size: int, settings: Mapping[str, Any]) -> nn.Module:
    """A projector with random weights.

    Raises:
        UserError: if there is none of that name, or it has no such setting.
    """
    if name not in projectors():
        raise UserError(f"projector {name!r} is none of {', '.join(projectors())}{did_you_mean(name, projectors())}")
    made = importlib.import_module(f"{__name__}.{name.replace('-', '_')}").Projector
    known = [each for each in inspect.signature(made).parameters if each not in ("encoder_size", "text_size")]
    for setting in settings:
        if setting not in known:
            raise UserError(f"projector {name}: no setting {setting!r}; it has {', '.join(known)}")
    projector: nn.Module = made(encoder_size, text_size, **settings)
    return projector
