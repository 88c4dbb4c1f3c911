"""Plans carried out on checkpoints."""

from paretone.transform.compress import Compressed, analyse, compress, make_plan
from paretone.transform.inspect import inspect

__all__ = ["Compressed", "analyse", "compress", "inspect", "make_plan"]
