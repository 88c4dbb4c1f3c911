"""What a step may learn from beside weights."""

from collections.abc import Callable
from dataclasses import dataclass

from paretone.modules import Seen
from paretone.plan.plan import Calibration


def _nothing(module: str) -> Seen | None:
    return None


@dataclass(frozen=True)
class Material:
    """What one step reads of a model that runs.

    Attributes:
        calibration: the data that the model heard; None where it heard none.
        seen: a module's full name in the source model -> what was seen there, if anything.
    """

    calibration: Calibration | None = None
    seen: Callable[[str], Seen | None] = _nothing
