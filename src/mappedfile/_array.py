"""NumPy arrays on mapped memory. NumPy is imported on first use, so it is optional."""

from __future__ import annotations

import math
from operator import index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, Literal, SupportsIndex

    import numpy as np
    from numpy.typing import DTypeLike

    from mappedfile._memory import Window

    Shape = SupportsIndex | tuple[SupportsIndex, ...] | None

_numpy: ModuleType | None = None


def import_numpy() -> ModuleType:
    """Import NumPy, or say how to install it."""
    global _numpy
    try:
        import numpy
    except ImportError as error:
        raise ImportError(
            "arrays need NumPy, which cannot be imported: pip install 'mappedfile[numpy]'",
            name="numpy",
        ) from error
    _numpy = numpy
    return numpy


def array(
    window: Window, dtype: DTypeLike, shape: Shape, offset: SupportsIndex, order: Literal["C", "F"]
) -> np.ndarray[Any, Any]:
    """Return an array on the memory of *window*: ``Window.array``."""
    numpy = _numpy or import_numpy()
    if shape is None and order == "C":
        try:
            return numpy.frombuffer(window, dtype, -1, offset)  # type: ignore[no-any-return]
        except (ValueError, TypeError, OverflowError):
            pass  # the code below raises a better error, or makes an empty array
    data = window.data
    kind = numpy.dtype(dtype)
    size, room = kind.itemsize, data.nbytes
    place = index(offset)
    if place < 0:
        raise ValueError(f"offset must be 0 or more bytes, not {place}")
    if place > room:
        raise ValueError(f"offset {place} is past the end of the window, which has {room} bytes")
    if size == 0:
        raise ValueError(f"an item of {kind!r} has no bytes: give its length, as in 'S8'")
    if kind.hasobject:
        raise TypeError(f"{kind!r} has Python objects, which cannot be in a file")
    if order not in ("C", "F"):
        raise ValueError(f"order must be 'C' or 'F', not {order!r}")
    room -= place
    if shape is not None:
        whole = _whole(shape, kind, room)
    elif room % size:
        raise ValueError(
            f"{room} bytes from offset {place} on are no whole number of items of {kind!r},"
            f" {size} bytes each"
        )
    else:
        whole = (room // size,)
    return numpy.ndarray(whole, kind, data, place, order=order)  # type: ignore[no-any-return]


def _whole(shape: Any, kind: np.dtype[Any], room: int) -> tuple[int, ...]:
    """Return the shape as a tuple, with -1 resolved, after a check against *room* bytes."""
    numbers = tuple(map(index, shape)) if hasattr(shape, "__iter__") else (index(shape),)
    known = [number for number in numbers if number != -1]
    if min(known, default=0) < 0 or len(known) < len(numbers) - 1:
        raise ValueError(
            f"the numbers of a shape must be 0 or more, with -1 at most once, not {shape!r}"
        )
    size = math.prod(known) * kind.itemsize
    if len(known) < len(numbers):
        if size == 0 or room % size:
            raise ValueError(f"{room} bytes cannot be an array of {kind!r} of shape {shape!r}")
        return tuple(room // size if number == -1 else number for number in numbers)
    if size > room:
        raise ValueError(
            f"an array of {kind!r} of shape {shape!r} needs {size} bytes, and the window has {room}"
            " there"
        )
    return numbers
