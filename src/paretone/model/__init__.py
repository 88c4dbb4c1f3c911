"""Loading of models, with mixed widths too. Importing this imports neither torch nor transformers."""

from paretone.model.loading import load, weight_files
from paretone.model.registration import REMOTE_CODE, auto_map_for, register, register_when_transformers_is_imported

__all__ = [
    "REMOTE_CODE",
    "auto_map_for",
    "load",
    "register",
    "register_when_transformers_is_imported",
    "weight_files",
]
