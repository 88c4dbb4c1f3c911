"""Plans carried out on checkpoints."""

from paretone.transform.compress import Compressed, compress, make_plan

__all__ = ["Compressed", "compress", "make_plan"]
