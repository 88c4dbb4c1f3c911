"""Numbers and names as a reader wants them; rates become percent here and nowhere earlier."""

import math
import re
import shlex
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"
NBSP = "\N{NO-BREAK SPACE}"
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff]")


def printable(text: str) -> str:
    """``text`` with control characters replaced, so that it is legal XML and cannot steer a terminal."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def shorten(text: str, longest: int) -> str:
    """``text`` on one line, cut in the middle where it is longer than ``longest`` characters."""
    text = " ".join(printable(text).split())
    if len(text) <= longest:
        return text
    head = (longest - 1) // 2
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def display_name(name: str) -> str:
    """A hub id or embedded name as it is; the last part of a longer path."""
    path = PurePath(name)
    return path.name if path.name and (path.is_absolute() or name.startswith(".") or len(path.parts) > 2) else name


def percent(rate: float | None, digits: int = 1) -> str:
    """A fraction as percent: ``4.2 %``."""
    return DASH if rate is None else f"{fixed(100 * rate, digits)}{NBSP}%"


def fixed(value: float, digits: int = 1) -> str:
    """A number with ``digits`` decimals, a true minus sign and no minus zero."""
    text = f"{value:.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("-")
    return text.replace("-", MINUS)


def points(rate: float | None) -> str:
    """A difference of rates in percentage points, signed: ``+1.2``."""
    if rate is None:
        return DASH
    text = fixed(100 * rate)
    return text if text.startswith(MINUS) or float(text) == 0 else f"+{text}"


def point_range(interval: tuple[float, float] | None) -> str:
    """An interval of a difference, in points: ``−0.3 to +1.4``."""
    return DASH if interval is None else f"{points(interval[0])} to {points(interval[1])}"


def percent_range(interval: tuple[float, float]) -> str:
    """An interval of a rate, in percent without the sign: ``3.1–5.2``."""
    return f"{fixed(100 * interval[0])}{DASH}{fixed(100 * interval[1])}"


def p_text(p: float | None) -> str:
    """A p-value with three decimals, ``< 0.001`` below that."""
    if p is None:
        return DASH
    return f"<{NBSP}0.001" if p < 0.001 else f"{p:.3f}"


def count(value: int) -> str:
    """A whole number with grouped digits: ``1,234,567``."""
    return f"{value:,}"


def scaled(value: float, unit: str = "") -> str:
    """Three digits and an SI prefix: ``1.23 M``; ``unit`` follows the prefix."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * factor:
            return f"{three_digits(value / factor)}{NBSP}{prefix}{unit}"
    return f"{value:.0f}{NBSP}{unit}".strip()


def three_digits(value: float) -> str:
    """``value`` with three significant digits and no exponent."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def duration(seconds: float) -> str:
    """A length of time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.1f}{NBSP}s"
    return f"{seconds / 60:.1f}{NBSP}min" if seconds < 7200 else f"{seconds / 3600:.1f}{NBSP}h"


def listed(parts: Iterable[str]) -> str:
    """``a, b and c``."""
    *first, last = list(parts)
    return f"{', '.join(first)} and {last}" if first else last


def shell(command: Iterable[str]) -> str:
    """A command as one line to paste into a shell; a program's path is cut to its name."""
    program, *arguments = list(command) or [""]
    return printable(shlex.join([PurePath(program).name or program, *arguments]))


def plain(value: Any) -> str:
    """A setting's value as a command line takes it."""
    if isinstance(value, (list, tuple)):
        return ",".join(plain(part) for part in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
