"""``open_npy``. NumPy is imported with the first call: the name is there without it."""

from __future__ import annotations

from mappedfile._array import import_numpy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from numpy.typing import DTypeLike

    from mappedfile._array import Shape
    from mappedfile._npy import MappedArray
    from mappedfile._types import File, Mode


def open_npy(
    file: File,
    mode: Mode = "r",
    *,
    dtype: DTypeLike | None = None,
    shape: Shape = None,
    order: Literal["C", "F"] = "C",
) -> MappedArray:
    """Open a ``.npy`` file, or make one, and return its array, on the memory of the file.

    The modes are ``MappedFile``'s. *dtype*, *shape* and *order* are for ``"w+"`` and ``"x+"``, which make a file of
    zeros: of ``float64`` without *dtype*, as everywhere in NumPy; *shape* is required.

    The array has a ``flush()``, which puts it on stable storage, and ``file``, the ``MappedFile``. That is open as long
    as the array, or a slice of it, is there; ``array.file.close()`` closes it before, and the array stays.

    Raises ``ValueError`` for what is no ``.npy`` file, or ends before its array does; ``TypeError`` for an array of
    Python objects; what ``MappedFile`` raises; ``ImportError`` without NumPy.
    """
    import_numpy()
    from mappedfile import _npy

    return _npy.open_npy(file, mode, dtype, shape, order)
