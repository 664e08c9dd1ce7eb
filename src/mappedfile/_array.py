"""NumPy's arrays on mapped memory. NumPy is imported with the first one: without it all else works."""

from __future__ import annotations

import math
from operator import index

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, Literal, SupportsIndex

    import numpy as np
    from numpy.typing import DTypeLike

    from mappedfile._npy import MappedArray
    from mappedfile._types import File, Mode
    from mappedfile._window import Window

    Shape = SupportsIndex | tuple[SupportsIndex, ...] | None

_numpy: ModuleType | None = None


def _import() -> ModuleType:
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
    numpy = _numpy or _import()
    if shape is None and order == "C":
        try:
            return numpy.frombuffer(window, dtype, -1, offset)  # type: ignore[no-any-return]
        except (ValueError, TypeError, OverflowError):
            pass  # it is said below what is wrong, or an empty array is made
    data = window.data
    kind = numpy.dtype(dtype)
    size, room = kind.itemsize, data.nbytes
    place = index(offset)
    if place < 0:
        raise ValueError(f"offset must be 0 or more bytes, not {place}")
    if place > room:
        raise ValueError(f"offset {place} is past the end of the window, which has {room} bytes")
    if size == 0:
        raise ValueError(f"an array of {kind!r} has no bytes: say how many each has, as in 'S8'")
    if kind.hasobject:
        raise TypeError(f"{kind!r} has Python objects, which are in no file")
    if order not in ("C", "F"):
        raise ValueError(f"order must be 'C' or 'F', not {order!r}")
    room -= place
    if shape is not None:
        whole = _whole(shape, kind, room)
    elif room % size:
        raise ValueError(
            f"{room} bytes from offset {place} on are no whole number of {kind!r}, {size} bytes each"
        )
    else:
        whole = (room // size,)
    return numpy.ndarray(whole, kind, data, place, order=order)  # type: ignore[no-any-return]


def _whole(shape: Any, kind: np.dtype[Any], room: int) -> tuple[int, ...]:
    """Return the shape with its numbers, one of which may be -1, checked against *room* bytes."""
    numbers = tuple(map(index, shape)) if hasattr(shape, "__iter__") else (index(shape),)
    known = [number for number in numbers if number != -1]
    if min(known, default=0) < 0 or len(known) < len(numbers) - 1:
        raise ValueError(f"a shape has numbers from 0 on, and -1 at most once, not {shape!r}")
    size = math.prod(known) * kind.itemsize
    if len(known) < len(numbers):
        if size == 0 or room % size:
            raise ValueError(f"{room} bytes cannot be an array of {kind!r} of shape {shape!r}")
        return tuple(room // size if number == -1 else number for number in numbers)
    if size > room:
        raise ValueError(
            f"an array of {kind!r} of shape {shape!r} needs {size} bytes, and the window has {room} there"
        )
    return numbers


def open_npy(
    file: File,
    mode: Mode = "r",
    *,
    dtype: DTypeLike | None = None,
    shape: Shape = None,
    order: Literal["C", "F"] = "C",
) -> MappedArray:
    """Open a ``.npy`` file, or make one, and return its array, on the memory of the file.

    The modes are ``MappedFile``'s. *dtype*, *shape* and *order* are for ``"w+"`` and ``"x+"``,
    which make a file of zeros: of ``float64`` without *dtype*, as everywhere in NumPy; *shape* is
    required.

    The array has a ``flush()``, which puts it on stable storage, and ``file``, the ``MappedFile``.
    That is open as long as the array, or a slice of it, is there; ``array.file.close()`` closes it
    before, and the array stays.

    Raises ``ValueError`` for what is no ``.npy`` file, or ends before its array does; ``TypeError``
    for an array of Python objects; what ``MappedFile`` raises; ``ImportError`` without NumPy.
    """
    _numpy or _import()
    from mappedfile import _npy

    return _npy.open_npy(file, mode, dtype, shape, order)
