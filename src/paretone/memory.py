"""How much memory this process takes."""

import gc
import platform
from pathlib import Path


def reset_peak_rss() -> None:
    """Start a new peak where the kernel allows it (Linux); elsewhere `peak_rss_bytes` is the whole process's."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_rss_bytes() -> int:
    """The highest resident memory of this process since the last reset.

    Not ``ru_maxrss`` where the kernel tells better: that starts at the size of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024
