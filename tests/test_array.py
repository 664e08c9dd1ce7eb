"""Arrays on mapped memory and .npy files. The models are numpy.memmap and numpy.load."""

import gc
import io
import os
import pickle
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import code, run_python
from hypothesis import given
from hypothesis import strategies as st
from support import traced

import mappedfile
from mappedfile import GRANULARITY, PAGE_SIZE, MappedFile, open_npy

SIZE = 2 * GRANULARITY
CONTENT = np.random.default_rng(4).integers(0, 256, SIZE, "u1").tobytes()
RECORD = np.dtype([("name", "S3"), ("place", "<f4", (2,)), ("inner", [("a", "u1"), ("b", ">i8")])])


@pytest.fixture
def file(path: Path) -> Iterator[MappedFile]:
    """Return a mapped file."""
    path.write_bytes(CONTENT)
    with MappedFile(path, "r+") as file:
        yield file


@pytest.mark.parametrize(
    "dtype",
    [
        "u1",
        "<f4",
        ">i8",
        "?",
        "S7",
        "<U2",
        "V5",
        "<M8[s]",
        "c16",
        "<f2",
        "(2,)<f4",
        RECORD,
        None,
        int,
    ],
)
def test_what_frombuffer_gives(file: MappedFile, dtype: Any) -> None:
    """An array equals what numpy.frombuffer makes of the same bytes, at any offset."""
    size = np.dtype(dtype).itemsize
    for offset in (0, 1, 7, PAGE_SIZE, PAGE_SIZE - 1):
        whole = (SIZE - offset) // size
        expected = np.frombuffer(CONTENT, dtype, whole, offset)
        array = file.array(dtype, whole, offset)
        assert type(array) is np.ndarray
        assert expected.dtype == array.dtype
        assert expected.tobytes() == array.tobytes()
        assert array.flags.writeable
        if (SIZE - offset) % size == 0:
            for shape in (None, -1, (-1,)):
                assert expected.tobytes() == file.array(dtype, shape, offset).tobytes()
        with file.view(offset, 10 * size) as view:
            assert expected[:10].tobytes() == view.array(dtype).tobytes()


@given(data=st.data())
def test_shapes(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """An array of any shape and order that fits equals the model."""
    path = tmp_path_factory.getbasetemp() / "shapes"
    if not path.exists():
        path.write_bytes(CONTENT[:240])
    shape = tuple(data.draw(st.lists(st.integers(0, 7), max_size=4)))
    dtype = data.draw(st.sampled_from(["u1", "<i2", "<f8"]))
    offset = data.draw(st.integers(0, 250))
    order: Any = data.draw(st.sampled_from("CF"))
    minus = data.draw(st.none() | st.integers(0, 3))
    size = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
    with MappedFile(path) as file:
        if minus is not None and minus < len(shape):
            others = (
                np.prod(shape[:minus] + shape[minus + 1 :], dtype=int) * np.dtype(dtype).itemsize
            )
            fits = offset <= 240 and others and (240 - offset) % others == 0
            given = (*shape[:minus], -1, *shape[minus + 1 :])
            if not fits:
                with pytest.raises(ValueError):
                    file.array(dtype, given, offset, order)
                return
            shape = (*shape[:minus], (240 - offset) // others, *shape[minus + 1 :])
            size = 240 - offset
        else:
            given = shape
        if offset + size > 240:
            with pytest.raises(ValueError):
                file.array(dtype, given, offset, order)
        else:
            array = file.array(dtype, given, offset, order)
            model = np.ndarray(shape, dtype, CONTENT[offset : offset + size], order=order)
            assert (model.shape, model.strides if size else ()) == (
                array.shape,
                array.strides if size else (),
            )
            assert model.tobytes() == array.tobytes()


def test_written_through(file: MappedFile, path: Path) -> None:
    """Writing to an array changes the window and the file."""
    array = file.array("<u4", (2, 3), offset=5, order="F")
    array[:] = [[1, 2, 3], [4, 5, 6]]
    assert np.array([1, 4, 2, 5, 3, 6], "<u4").tobytes() == file[5:29] == path.read_bytes()[5:29]
    file[5] = 9
    assert 9 == array[0, 0]


@pytest.mark.parametrize("how", [{}, {"shape": (2, 3)}, {"offset": 3, "shape": 4, "dtype": "<f4"}])
def test_read_only(path: Path, how: dict[str, Any]) -> None:
    """An array of a read-only window cannot be written, nor made writable through its flags, its
    base, or a view of it."""
    path.write_bytes(CONTENT)
    with MappedFile(path) as file, file.view(3, 100) as view:
        for window in (file, view):
            array = window.array(**how)
            base = array.base
            for one in (
                array,
                array[1:],
                array.view("u1") if array.ndim == 1 else array.T,
                np.asarray(base),
            ):
                with pytest.raises(ValueError):
                    one[0] = 1
                with pytest.raises(ValueError):
                    one.flags.writeable = True
                with pytest.raises(ValueError):
                    one.setflags(write=True)
            with pytest.raises((BufferError, ValueError, TypeError)):
                np.frombuffer(base, "u1")[0] = 1
            assert memoryview(base).readonly
            del array, base, one
    assert CONTENT == path.read_bytes()


def test_private(path: Path) -> None:
    """In mode "c" an array can be written, and the file does not change."""
    path.write_bytes(CONTENT)
    with MappedFile(path, "c") as file:
        file.array()[:4] = 7
        assert (b"\7\7\7\7", CONTENT) == (file[:4], path.read_bytes())


def test_survives(path: Path) -> None:
    """An array keeps the memory when the file is closed or resized. The last slice of it frees the
    memory."""
    path.write_bytes(CONTENT)
    file = MappedFile(path, "r+")
    view = file.view(1, 100)
    arrays = [file.array(), view.array("<f4"), view.array("u1", (10, 10))]
    with pytest.raises(BufferError, match="1 view and 3 buffers"):
        file.close(strict=True)
    with pytest.raises(BufferError, match="2 buffers"):
        view.close(strict=True)
    view.close()
    file.resize(3 * SIZE)
    file[5:8] = b"new"
    file.close()
    assert view.mapped
    assert (b"new", b"new") == (arrays[0][5:8].tobytes(), arrays[2].ravel()[4:7].tobytes())
    last = arrays[2][1:, 2:]
    del arrays
    gc.collect()
    assert view.mapped
    del last
    gc.collect()
    assert not view.mapped


def test_empty(path: Path) -> None:
    """An empty file, or a part of length 0, gives an empty array."""
    path.touch()
    with MappedFile(path, "r+") as file:
        for array in (
            file.array(),
            file.array("<f8"),
            file.array("<f8", 0),
            file.array("u1", (3, 0)),
            file.array(RECORD, -1),
        ):
            assert 0 == array.size
        assert (0,) == file.array("<f8").shape
        assert (0, 7) == file.array("<f8", (-1, 7)).shape
        file.resize(10)
        assert (0,) == file.array("<f8", None, 10).shape
        with file.view(10) as view:
            assert (0,) == view.array("<f8").shape
            with pytest.raises(ValueError, match="needs 8 bytes"):
                view.array("<f8", ())


@pytest.mark.parametrize(
    ("kind", "says", "arguments"),
    [
        (ValueError, "past the end", {"offset": SIZE + 1}),
        (ValueError, "0 or more", {"offset": -1}),
        (ValueError, "no whole number", {"dtype": "<f4", "offset": 1}),
        (ValueError, "needs", {"shape": SIZE + 1}),
        (ValueError, "needs", {"shape": 1, "offset": SIZE}),
        (ValueError, "needs", {"shape": (2**40, 2**40), "dtype": "f8"}),
        (ValueError, "cannot be an array", {"shape": (-1, 3)}),
        (ValueError, "cannot be an array", {"shape": (-1, 0)}),
        (ValueError, "at most once", {"shape": (-1, -1)}),
        (ValueError, "at most once", {"shape": (-2, 3)}),
        (ValueError, "at most once", {"shape": -2}),
        (ValueError, "order", {"order": "A"}),
        (ValueError, "order", {"order": None, "shape": 3}),
        (ValueError, "no bytes", {"dtype": "S"}),
        (ValueError, "no bytes", {"dtype": "V0"}),
        (TypeError, "Python objects", {"dtype": object}),
        (TypeError, "Python objects", {"dtype": [("a", "u1"), ("b", "O")]}),
        (TypeError, "Python objects", {"dtype": "O", "shape": 2}),
        (TypeError, None, {"dtype": "no such type"}),
        (TypeError, None, {"offset": 1.0}),
        (TypeError, None, {"shape": 1.0}),
        (TypeError, None, {"shape": (2, "3")}),
    ],
)
def test_errors(file: MappedFile, kind: Any, says: str, arguments: dict[str, Any]) -> None:
    """Wrong arguments raise errors with a reason, and leave no buffer behind."""
    with pytest.raises(kind, match=says):
        file.array(**arguments)
    gc.collect()
    file.close(strict=True)
    with pytest.raises(ValueError, match="closed"):
        file.array(**arguments)


WITHOUT = """
import sys
sys.modules["numpy"] = None
import mappedfile
from mappedfile import *
file = mappedfile.MappedFile(sys.argv[1])
assert b"12345" == file.stream().read() == file[:]
for call in (file.array, lambda: open_npy(sys.argv[1])):
    try:
        call()
    except ImportError as error:
        assert "mappedfile[numpy]" in str(error), error
    else:
        sys.exit("no error")
file.close()
"""


def test_without_numpy(path: Path) -> None:
    """Without NumPy, only arrays raise an error, which says how to install NumPy. Importing the
    library and opening a file does not import NumPy."""
    path.write_bytes(b"12345")
    for program in (
        WITHOUT,
        "import sys, mappedfile; mappedfile.MappedFile(sys.argv[1]).close()\n"
        "assert 'numpy' not in sys.modules",
    ):
        run_python(*code(program), path, quiet=True)


# .npy files

DTYPES = [
    "<f4",
    ">i2",
    "?",
    "S5",
    "<U3",
    "<M8[us]",
    [("a", "<i4"), ("b", "<f8", (2,))],
    [("\xe9", "<i4")],
    [("\u4e2d", "<i4")],
    [(f"a rather long name, the {n}th of many", "u1") for n in range(2000)],
]


@pytest.mark.parametrize("dtype", DTYPES, ids=range(len(DTYPES)))
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("shape", [(3, 4), 5, (), (0, 3)], ids=str)
def test_npy(path: Path, dtype: Any, order: Any, shape: Any) -> None:
    """numpy.load reads the files that open_npy makes, and open_npy opens the files that numpy.save
    makes, in all versions of the format."""
    made = open_npy(path, "w+", dtype=dtype, shape=shape, order=order)
    assert (np.dtype(dtype), (shape,) if shape == 5 else shape) == (made.dtype, made.shape)
    assert made.flags.f_contiguous if order == "F" else made.flags.c_contiguous
    assert not any(made.tobytes())
    made[...] = (
        np.ones(made.shape, "u1").astype(dtype)
        if made.dtype.names is None
        else np.ones((), "u1").astype(dtype)
    )
    made.flush()
    limit = {"max_header_size": 10**6}
    loaded = np.load(path, **limit)
    assert loaded.dtype == made.dtype
    assert np.array_equal(loaded, made)
    assert loaded.flags.f_contiguous == made.flags.f_contiguous
    del made
    other = path.with_name("other.npy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns of versions past 1.0
        np.save(other, np.asarray(loaded, order=order))
    assert path.read_bytes()[:8] == other.read_bytes()[:8]
    if order == "C":
        assert path.read_bytes() == other.read_bytes()
    if path.stat().st_size > 100_000:
        return  # NumPy refuses such a header, see below
    for mode in ("r", "r+", "c"):
        array = open_npy(other, mode)
        assert (loaded.dtype, loaded.shape, mode != "r") == (
            array.dtype,
            array.shape,
            array.flags.writeable,
        )
        assert np.array_equal(loaded, array)
        assert array.flags.f_contiguous == loaded.flags.f_contiguous


def test_a_header_too_long(path: Path) -> None:
    """A header of more than 10000 bytes is refused by default, as in NumPy: it is Python code."""
    made = open_npy(path, "w+", dtype=DTYPES[-1], shape=3)
    del made
    with pytest.raises(ValueError):
        open_npy(path)


def test_its_file(path: Path) -> None:
    """An array and views of it have the file as an attribute. A computed array is a plain one."""
    array = open_npy(path, "x+", dtype="f8", shape=(3, 4))
    assert isinstance(array.file, MappedFile)
    assert ("x+", str(path)) == (array.file.mode, str(array.file.name))
    array += 1
    for part in (array[1:], array.T, array.reshape(-1), array[0]):
        assert (type(array), array.file) == (type(part), part.file)
    for result in (
        array + 1,
        np.sqrt(array),
        array.sum(axis=0),
        array > 1,
        np.mean(array, axis=1),
        np.add(1, array),
        array.dot(array.T),
    ):
        assert getattr(result, "file", None) is None
    for result in (array + 1, np.sqrt(array), np.add(1, array)):
        assert type(result) is np.ndarray
    assert isinstance(array.sum(), float)
    assert isinstance(array[0, 0], float)
    for copied in (pickle.loads(pickle.dumps(array)), np.array(array), np.asarray(array)):
        assert type(copied) is np.ndarray
    with pytest.raises(ValueError, match="not on the memory of a file"):
        array.copy().flush()
    array[0, 0] = 5
    array.flush(durable=False)
    array[1:].flush()
    file = array.file
    file.close()
    with pytest.raises(ValueError, match="closed"):
        array.flush()
    assert 5 == array[0, 0] == np.load(path)[0, 0]
    file = None


def test_goes_without_a_word(path: Path) -> None:
    """When the last array is deallocated, its file is closed without a warning."""
    array = open_npy(path, "w+", dtype="f8", shape=(3, 4))
    part = array[1:]
    descriptor = array.file.fileno()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del array
        gc.collect()
        part.flush()
        assert part.file.fileno() == descriptor
        del part
        gc.collect()
    if sys.platform != "win32":
        with pytest.raises(OSError):
            os.fstat(descriptor)
    path.unlink()


@pytest.mark.skipif(sys.platform != "linux", reason="strace is Linux'")
def test_flush_is_durable(tmp_path: Path) -> None:
    """flush() waits until the device has the data."""
    program = """
    import sys, mappedfile
    a = mappedfile.open_npy(sys.argv[1], "w+", shape=9); a[:] = 1; a.flush()
    """
    assert any(
        "fsync" in line
        for line in traced(program, tmp_path / "a.npy", calls="fsync,msync", folder=tmp_path)
    )


@pytest.mark.parametrize("mode", ["r", "r+", "w+", "x+", "c"])
def test_arguments_of_modes(path: Path, mode: Any) -> None:
    """Arguments for creating a file are errors in other modes, and are required in "w+". After an
    error no file exists."""
    if mode in ("w+", "x+"):
        for wrong, kind in (
            ({}, ValueError),
            ({"shape": -1}, ValueError),
            ({"shape": 3, "dtype": "O"}, TypeError),
            ({"shape": 3, "order": "K"}, ValueError),
            ({"shape": 2.5}, TypeError),
        ):
            with pytest.raises(kind):
                open_npy(path, mode, **wrong)
            assert not path.exists()
        assert np.float64 == open_npy(path, mode, shape=3).dtype
    else:
        np.save(path.with_suffix(".npy"), np.arange(3))
        for given in ({"dtype": "f8"}, {"shape": 3}, {"order": "F"}):
            with pytest.raises(ValueError, match="which make a file"):
                open_npy(path.with_suffix(".npy"), mode, **given)
        with pytest.raises(FileNotFoundError):
            open_npy(path, mode)
    with pytest.raises(ValueError, match="write 'r'"):
        open_npy(path, "rb")


def npy(header: bytes, data: bytes = bytes(100), version: bytes = b"\1\0") -> bytes:
    """Return the bytes of a .npy file with this header."""
    length = len(header).to_bytes(2 if version == b"\1\0" else 4, "little")
    return b"\x93NUMPY" + version + length + header + data


GOOD = b"{'descr': '<f8', 'fortran_order': False, 'shape': (3,)}\n"


@pytest.mark.parametrize("version", [b"\1\0", b"\2\0", b"\3\0"], ids=str)
@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (ValueError, lambda version: b""),
        (ValueError, lambda version: b"\x93NUMPY"),
        (ValueError, lambda version: b"not a file of NumPy's"),
        (ValueError, lambda version: npy(GOOD, b"", version)[:-3]),
        (ValueError, lambda version: npy(GOOD, bytes(23), version)),
        (ValueError, lambda version: npy(GOOD, version=b"\4\0")),
        (ValueError, lambda version: npy(b"{", b"", version)),
        (ValueError, lambda version: npy(b"[1]\n", b"", version)),
        (ValueError, lambda version: npy(b"{'descr': '<f8', 'shape': (3,)}\n", b"", version)),
        (
            ValueError,
            lambda version: npy(
                b"{'descr': '<f8', 'fortran_order': 0, 'shape': (3,)}\n", b"", version
            ),
        ),
        (
            ValueError,
            lambda version: npy(
                b"{'descr': '<f8', 'fortran_order': False, 'shape': 3}\n", b"", version
            ),
        ),
        (
            ValueError,
            lambda version: npy(
                b"{'descr': 'x', 'fortran_order': False, 'shape': (3,)}\n", b"", version
            ),
        ),
        (
            ValueError,
            lambda version: npy(
                b"{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}\n", b"", version
            ),
        ),
        (
            TypeError,
            lambda version: npy(
                b"{'descr': '|O', 'fortran_order': False, 'shape': (3,)}\n", version=version
            ),
        ),
    ],
)
def test_no_npy(path: Path, kind: Any, content: Any, version: bytes) -> None:
    """A file that is not a .npy file raises an error with its name, and is closed."""
    path.write_bytes(content(version))
    with pytest.raises(kind) as caught:
        open_npy(path)
    assert repr(str(path)) in str(caught.value).replace("PosixPath(", "").replace(
        "WindowsPath(", ""
    )
    gc.collect()
    path.write_bytes(npy(GOOD, version=version))
    assert (3,) == open_npy(path).shape


def test_from_a_file_object(path: Path) -> None:
    """open_npy accepts everything that MappedFile accepts."""
    np.save(path.with_suffix(".npy"), np.arange(5))
    with open(path.with_suffix(".npy"), "rb") as opened:
        assert 10 == open_npy(opened).sum()
        assert io.SEEK_SET == opened.tell()
    assert mappedfile.open_npy is open_npy
