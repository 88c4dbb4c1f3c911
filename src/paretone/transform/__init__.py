"""Plans carried out on checkpoints."""

from paretone.transform.compress import Compressed, check_apart, compress, make_plan
from paretone.transform.inspect import inspect

__all__ = ["Compressed", "check_apart", "compress", "inspect", "make_plan"]
