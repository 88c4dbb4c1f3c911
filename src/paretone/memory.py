"""How much memory this process takes."""

import ctypes
import gc
import os
import platform
from pathlib import Path

_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_LARGE_BYTES = 1 << 20


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


def return_freed_memory() -> None:
    """Large blocks go back to the system when they are freed; call it before torch is imported.

    For work on few large tensors: inference, with its many middling ones, then spends a quarter of its time in the
    kernel (measured on the demo). Without it glibc keeps blocks of up to 32 MB for itself, a fifth of the peak of a
    large compression. Large pages, which torch takes where the variable says so, make fetching them anew cheap.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    if platform.system() == "Linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
