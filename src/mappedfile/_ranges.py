"""Numbers that come from the caller, checked once for both systems; and how ranges are aligned."""

from __future__ import annotations

from _operator import index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import SupportsIndex

#: The largest file size and offset there is, in bytes: both systems count in a signed 64-bit number.
LARGEST = 2**63 - 1


def check_size(size: SupportsIndex, what: str = "size") -> int:
    """Return *size* as an int, or raise ``TypeError``, ``ValueError`` or ``OverflowError``."""
    number = index(size)
    if number < 0:
        raise ValueError(f"{what} must be 0 or more bytes, not {number}")
    if number > LARGEST:
        raise OverflowError(f"{what} must be at most {LARGEST} bytes, not {number}")
    return number


def check_range(offset: SupportsIndex, length: SupportsIndex | None, size: int, what: str) -> tuple[int, int]:
    """Return the range as two ints; a *length* of None reaches to the end of the *size* bytes that *what* has."""
    start = check_size(offset, "offset")
    count = None if length is None else check_size(length, "length")
    if start > size:
        raise ValueError(f"offset {start} is past the end of the {what}, which has {size} bytes")
    if count is None:
        return start, size - start
    if count > size - start:
        raise ValueError(f"offset {start} and length {count} reach past the end of the {what}, which has {size} bytes")
    return start, count


def align(start: int, length: int, granularity: int, limit: int) -> tuple[int, int]:
    """Round a range outwards to multiples of *granularity*, but not past *limit*.

    ::

        0         granularity                              limit
        |              |       start              |          |
        |              |         [== length ==]   |          |
        |              [========= result =========]          |
    """
    first = start - start % granularity
    stop = start + length
    stop += -stop % granularity
    return first, min(stop, limit) - first


def align_inwards(start: int, length: int, granularity: int, first: int, last: int) -> tuple[int, int]:
    """Round a range inwards to multiples of *granularity*, but not where it reaches *first* or *last*: there outwards.

    ::

        first     granularity                               last
        |  start       |              |              |  stop |
        |    [==================== length =============]     |
        |              [========== result ==========]        |
    """
    stop = start + length
    if start > first:
        start += -start % granularity
    else:
        start -= start % granularity
    if stop < last:
        stop -= stop % granularity
    return start, max(stop - start, 0)


def clamp(start: SupportsIndex | None, end: SupportsIndex | None, length: int) -> tuple[int, int]:
    """Resolve the *start* and *end* of a search as ``bytes.find`` does. The first may lie past *length*."""
    first = 0 if start is None else index(start)
    last = length if end is None else index(end)
    if first < 0:
        first = max(first + length, 0)
    if last < 0:
        last = max(last + length, 0)
    return first, min(last, length)
