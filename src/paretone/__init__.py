"""Smaller, faster, and the receipt: compression of speech recognisers with a measured price."""

from paretone.model.registration import register_when_transformers_is_imported
from paretone.version import __version__

__all__ = ["__version__"]

# So that transformers' own auto classes load mixed widths; costs nothing until transformers is imported.
register_when_transformers_is_imported()
