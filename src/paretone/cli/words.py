"""Numbers as people read them."""


def span(seconds: float) -> str:
    """A time: ``9.5 s``, ``45 s``, ``12 min``, ``2.6 h``."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
