"""Numbers, sizes and times in readable form."""

from __future__ import annotations

import re

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:iB)?)?", re.IGNORECASE)


def count(number: int) -> str:
    """Format a number with separators: 1,024."""
    return f"{number:,}"


def unit_for(size: float) -> str:
    """Return the largest unit that is not larger than *size* bytes."""
    number = 0
    while size >= 1024 and number < len(UNITS) - 1:
        size /= 1024
        number += 1
    return UNITS[number]


def amount(size: float, unit: str = "") -> str:
    """Format a number of bytes: 1.5 GiB; in *unit*, if it is given."""
    unit = unit or unit_for(size)
    written = figure(size, unit)
    return "1 byte" if (written, unit) == ("1", "bytes") else f"{written} {unit}"


def figure(size: float, unit: str) -> str:
    """Format a number of bytes in a unit, without the unit: 1.5."""
    scaled = size / 1024 ** UNITS.index(unit)
    return f"{scaled:,.0f}" if unit == "bytes" else f"{scaled:,.1f}"


def share(some: int, of: int) -> str:
    """Describe how many pages are in memory. 0 % and 100 % are exact, never rounded."""
    part = 100 * some / of if of else 0
    if 0 < some < of:
        part = min(max(part, 0.1), 99.9)
    return f"{count(some)} of {count(of)} pages in memory" + (f" ({part:.1f} %)" if of else "")


def span(seconds: float) -> str:
    """Format a time as 0:05 or 1:00:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size_of(text: str) -> int:
    """Convert a size such as 4096, 64K or 1.5G to bytes. Raises ``ValueError``."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a size")
    number, letter = match[1], match[2]
    scale = 1024 ** ("KMGT".index(letter.upper()) + 1) if letter else 1
    size = float(number) * scale if "." in number else int(number) * scale
    if size != int(size):
        raise ValueError(f"{text!r} is not a whole number of bytes")
    return int(size)


def range_of(text: str) -> tuple[int, int | None]:
    """Convert a range such as 0-1G, 1G- or -1G to its first byte and its end.

    The end is the first byte after the range, or None. A single size is the end, as in ``vmtouch
    -p``.
    """
    start, dash, stop = text.partition("-")
    if not dash:
        start, stop = "", start
    if not (start.strip() or stop.strip()):
        raise ValueError("it has no size")
    first = size_of(start) if start.strip() else 0
    last = size_of(stop) if stop.strip() else None
    if last is not None and last <= first:
        raise ValueError("it ends where it begins, or before")
    return first, last
