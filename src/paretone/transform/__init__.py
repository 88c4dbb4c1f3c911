"""Plans carried out on checkpoints."""

from paretone.transform.compress import Compressed, compress, make_plan
from paretone.transform.inspect import inspect

__all__ = ["Compressed", "compress", "inspect", "make_plan"]
