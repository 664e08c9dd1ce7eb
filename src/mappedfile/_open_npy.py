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
    """Open or create a ``.npy`` file, and return its array, on the memory of the file.

    The modes are those of ``MappedFile``. ``"w+"`` and ``"x+"`` create a file of zeros. They
    require *shape*, and take *dtype* (``float64`` without it) and *order* (``"C"`` or ``"F"``).

    The array has two more attributes: ``flush()``, which puts it on stable storage, and ``file``,
    the ``MappedFile``. The file is closed with the last array on its memory. ``array.file.close()``
    closes it earlier, and the array stays valid.

    Raises ``ValueError`` for a file that is not a ``.npy`` file or is shorter than its array;
    ``TypeError`` for Python objects; ``ImportError`` without NumPy; and the errors of
    ``MappedFile``.
    """
    import_numpy()
    from mappedfile import _npy

    return _npy.open_npy(file, mode, dtype, shape, order)
