"""``open_npy()``: NumPy's ``.npy`` files."""

from __future__ import annotations

import ast
import io
from operator import index
from typing import Any, BinaryIO, Literal, NamedTuple, cast

import numpy as np
from numpy.lib import format as npy

from mappedfile._file import MappedFile
from mappedfile._types import File, Mode

_MADE_BY = ("w+", "x+")
_DIGITS = 21  # of the longest axis that NumPy leaves room for in a header


class NpyFile(MappedFile):
    """The file of an array. It is closed with the array, without a ``ResourceWarning``."""

    __slots__ = ()

    def __del__(self) -> None:
        self.close()


class MappedArray(np.ndarray[Any, Any]):
    """The array of a ``.npy`` file, from ``open_npy()``.

    Arrays that share its memory, such as slices, have this type too. The result of a computation is
    a plain ``ndarray``.
    """

    #: The file. None if the array is not on its memory.
    file: MappedFile | None = None

    def flush(self, *, durable: bool = True) -> None:
        """Write the file back to stable storage: ``MappedFile.flush``.

        Raises ``ValueError`` if ``file`` is closed or None; ``OSError`` if the system cannot write.
        """
        if self.file is None:
            raise ValueError(
                "this array is not on the memory of a file: flush the array that it was made from"
            )
        self.file.flush(durable=durable)

    def __array_finalize__(self, origin: Any) -> None:
        if self.base is not None:
            self.file = getattr(origin, "file", None)

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        if self is array:  # the result of an operation in place
            return array
        return array[()] if return_scalar or array.shape == () else np.asarray(array)

    def __reduce__(self) -> Any:
        return np.asarray(self).__reduce__()


MappedArray.__module__ = "mappedfile"


class Header(NamedTuple):
    """The header of a file."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]


def open_npy(
    file: File, mode: Mode, dtype: Any, shape: Any, order: Literal["C", "F"]
) -> MappedArray:
    """Open or create a file, and return its array: ``mappedfile.open_npy``."""
    if mode in _MADE_BY:
        return _make(file, mode, dtype, shape, order)
    if dtype is not None or shape is not None or order != "C":
        raise ValueError(
            "dtype, shape and order are for the modes 'w+' and 'x+', which make a file, not for"
            f" {mode!r}: the file says its own"
        )
    mapped = NpyFile(file, cast("Literal['r']", mode))
    try:
        with mapped.stream() as stream:
            header = _read_header(stream, mapped.name)
            return _array_of(mapped, header, stream.tell())
    except BaseException:
        mapped.close()
        raise


def _make(file: File, mode: Mode, dtype: Any, shape: Any, order: str) -> MappedArray:
    kind = np.dtype(dtype)
    if shape is None:
        raise ValueError(f"mode {mode!r} makes a file and needs shape=")
    numbers = tuple(map(index, shape)) if hasattr(shape, "__iter__") else (index(shape),)
    if min(numbers, default=0) < 0:
        raise ValueError(f"the numbers of the shape of a new file must be 0 or more, not {shape!r}")
    if order not in ("C", "F"):
        raise ValueError(f"order must be 'C' or 'F', not {order!r}")
    header = Header(numbers, order == "F", kind)
    _refuse_objects(header, file)
    head = _header_bytes(header)
    mapped = NpyFile(file, cast("Literal['w+']", mode), size=len(head) + _size(header))
    try:
        mapped[: len(head)] = head
        return _array_of(mapped, header, len(head))
    except BaseException:
        mapped.close()
        raise


def _array_of(mapped: MappedFile, header: Header, offset: int) -> MappedArray:
    _refuse_objects(header, mapped.name)
    size, there = _size(header), len(mapped) - offset
    if size > there:
        raise ValueError(
            f"{mapped.name!r} ends before its array does: the array has {size} bytes, and the file"
            f" has {there} of them"
        )
    order: Literal["C", "F"] = "F" if header.fortran_order else "C"
    array: Any = MappedArray(header.shape, header.dtype, mapped.data, offset, order=order)
    array.file = mapped
    return array  # type: ignore[no-any-return]


def _size(header: Header) -> int:
    size = header.dtype.itemsize
    for number in header.shape:
        size *= number
    return size


def _refuse_objects(header: Header, name: object) -> None:
    if header.dtype.hasobject:
        raise TypeError(
            f"{name!r}: {header.dtype!r} has Python objects, which cannot be mapped: use"
            " numpy.load()"
        )


def _read_header(stream: BinaryIO, name: object) -> Header:
    try:
        version = npy.read_magic(stream)
        read = _READ.get(version)
        header = None if read is None else Header(*read(stream))
    except (OSError, MemoryError):
        raise
    except Exception as error:  # the parsers raise errors of many kinds
        raise ValueError(f"{name!r} is no .npy file: {error}") from error
    if header is None:
        raise ValueError(
            f"{name!r} is a .npy file of version {version[0]}.{version[1]}: 1.0 to 3.0 are known"
        )
    if min(header.shape, default=0) < 0:
        raise ValueError(f"{name!r} is no .npy file: its shape is {header.shape}")
    return header


# numpy.lib.format has no public functions for version 3.0, which is version 2.0 with names in
# UTF-8.


def _read_header_3_0(stream: BinaryIO) -> Header:
    length = int.from_bytes(stream.read(4), "little")
    text = stream.read(length)
    if len(text) < length:
        raise ValueError("its header is cut off")
    if length > 10_000:  # the limit of NumPy: Python's parser is not safe for untrusted input
        raise ValueError(f"its header has {length} bytes, and at most 10000 are allowed")
    fields = ast.literal_eval(text.decode("utf-8").strip())
    if not isinstance(fields, dict) or fields.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError("its header does not have the keys descr, fortran_order and shape")
    shape, fortran_order = fields["shape"], fields["fortran_order"]
    if not (isinstance(shape, tuple) and all(isinstance(number, int) for number in shape)):
        raise ValueError(f"its shape is {shape!r}")
    if not isinstance(fortran_order, bool):
        raise ValueError(f"its fortran_order is {fortran_order!r}")
    return Header(shape, fortran_order, npy.descr_to_dtype(fields["descr"]))


_READ: dict[tuple[int, int], Any] = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
    (3, 0): _read_header_3_0,
}


def _header_bytes(header: Header) -> bytes:
    fields = {
        "descr": npy.dtype_to_descr(header.dtype),
        "fortran_order": header.fortran_order,
        "shape": header.shape,
    }
    for write in (npy.write_array_header_1_0, npy.write_array_header_2_0):
        out = io.BytesIO()
        try:
            write(out, fields)
        except ValueError:  # too long for this version, or not in Latin-1
            continue
        return out.getvalue()
    # The form that NumPy writes, to the byte, for readers that know no other. It leaves room for
    # an axis that grows.
    text = "{" + "".join(f"{name!r}: {fields[name]!r}, " for name in sorted(fields)) + "}"
    if header.shape:
        text += " " * (_DIGITS - len(str(header.shape[-1 if header.fortran_order else 0])))
    encoded = text.encode("utf-8")
    magic = npy.magic(3, 0)
    room = npy.ARRAY_ALIGN - (len(magic) + 4 + len(encoded) + 1) % npy.ARRAY_ALIGN
    encoded += b" " * room + b"\n"
    return magic + len(encoded).to_bytes(4, "little") + encoded
