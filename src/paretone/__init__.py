"""Smaller, faster, and the receipt: compression of speech recognisers with a measured price.

    paretone.compress(model, out, sparsity=0.5)     a smaller checkpoint
    paretone.evaluate(model, data, baseline=...)    what it cost
    paretone.finetune(model, out, data)             the same model, trained further
    paretone.prepare(source, out)                   a corpus, ready for both
    paretone.load(path)                             the model and its processor

Importing this package imports neither torch nor transformers; as soon as transformers is there, its Auto classes
know our mixed widths.
"""

from typing import TYPE_CHECKING, Any

from paretone.errors import UserError
from paretone.model.registration import register_when_transformers_is_imported
from paretone.version import __version__

if TYPE_CHECKING:
    from paretone.api import compress, finetune, make_plan, waterfall
    from paretone.data import prepare
    from paretone.evaluation import evaluate, transcribe
    from paretone.model import load, register
    from paretone.report import write_report
    from paretone.results import score

__all__ = [
    "UserError",
    "__version__",
    "compress",
    "evaluate",
    "finetune",
    "load",
    "make_plan",
    "merge_slam",
    "prepare",
    "register",
    "score",
    "train_slam",
    "transcribe",
    "waterfall",
    "write_report",
]

_HOMES = {
    "compress": "paretone.api",
    "finetune": "paretone.api",
    "make_plan": "paretone.api",
    "merge_slam": "paretone.api",
    "train_slam": "paretone.api",
    "waterfall": "paretone.api",
    "evaluate": "paretone.evaluation",
    "transcribe": "paretone.evaluation",
    "load": "paretone.model",
    "register": "paretone.model",
    "prepare": "paretone.data",
    "score": "paretone.results",
    "write_report": "paretone.report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'paretone' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


register_when_transformers_is_imported()
