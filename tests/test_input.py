"""Bad input, one row each: the exception, its message, and that nothing leaks: I1-I4."""

from __future__ import annotations

import errno
import gc
import io
import os
import re
import socket
import stat
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from children import code, run_python
from support import need, only, strace

from mappedfile import MappedFile
from mappedfile.contract._input import duplicates_with_more_rights
from mappedfile.contract._probe import file_maps, handles

CONTENT = bytes(range(256)) * 40
SIZE = len(CONTENT)
POSIX = sys.platform != "win32"


@dataclass
class Place:
    """A folder with all kinds of files, and all kinds of descriptors."""

    folder: Path
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def file(self) -> Path:
        path = self.folder / "file"
        path.write_bytes(CONTENT)
        return path

    def fd(self, path: Any, flags: int) -> int:
        try:
            descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
        except PermissionError:
            only(not os.path.isdir(path), "folders have no descriptors here")
            raise
        self.stack.callback(os.close, descriptor)
        return descriptor

    def closed(self) -> int:
        descriptor = os.open(self.file, os.O_RDWR)
        os.close(descriptor)
        return descriptor

    def fifo(self) -> Path:
        only(hasattr(os, "mkfifo"), "there are no FIFOs here")
        path = self.folder / "fifo"
        os.mkfifo(path)
        return path

    def socket(self) -> socket.socket:
        only(hasattr(socket, "AF_UNIX"), "sockets are not descriptors here")
        return self.stack.enter_context(socket.socket())

    def unix(self) -> Path:
        only(hasattr(socket, "AF_UNIX"), "there are no sockets with a path here")
        path = self.folder / "s"
        server = self.stack.enter_context(socket.socket(socket.AF_UNIX))
        here = os.getcwd()
        os.chdir(self.folder)  # the path of a socket must be short
        try:
            server.bind("s")
        finally:
            os.chdir(here)
        return path

    def symlink(self, target: str) -> Path:
        path = self.folder / "link"
        try:
            path.symlink_to(target)
        except OSError as error:
            pytest.skip(f"no symbolic link can be made here: {error}")
        return path

    def dangling(self) -> Path:
        path = self.symlink("nowhere")
        with suppress(FileExistsError):
            open(path, "xb").close()
            pytest.skip("this system creates the target")  # not POSIX: open(2), O_EXCL
        return path

    def zero(self) -> str:
        only(os.path.exists("/dev/zero"), "there is no /dev/zero here")
        return "/dev/zero"

    def without_rights(self) -> int:
        only(hasattr(os, "O_PATH"), "there is no O_PATH here")
        return self.fd(self.file, os.O_PATH)

    def pipe(self) -> int:
        ends = os.pipe()
        for end in ends:
            self.stack.callback(os.close, end)
        return ends[1]


class Fileno:
    """An object with ``fileno()``."""

    def __init__(self, result: object) -> None:
        self.result = result

    def fileno(self) -> Any:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


class Fspath(Fileno):
    """An object with ``__fspath__()``."""

    def __fspath__(self) -> Any:
        return self.result


class Index:
    """An object whose ``__index__`` fails."""

    def __index__(self) -> int:
        raise ZeroDivisionError("no number")


@dataclass(frozen=True)
class Row:
    """One bad input to the constructor."""

    id: str
    file: Callable[[Place], Any]
    mode: Any = "r"
    kind: type[BaseException] = OSError
    says: str = ""
    codes: tuple[int, ...] = ()  # of errno; Windows has its own
    options: dict[str, Any] = field(default_factory=dict)
    named: bool = True


def errors(*rows: Row) -> list[Any]:
    return [pytest.param(row, id=row.id) for row in rows]


NEW = {"size": 100}
NOT_REGULAR = "not a regular file"
A_PATH = "file must be a path, a descriptor or an object with fileno"
missing = lambda place: place.folder / "missing"  # noqa: E731
regular = lambda place: place.file  # noqa: E731

OPENING = errors(
    # Missing files, and files without permission
    Row(
        "missing r",
        missing,
        "r",
        FileNotFoundError,
        "No such file|cannot find|not found",
        (errno.ENOENT,),
    ),
    Row("missing r+", missing, "r+", FileNotFoundError, "", (errno.ENOENT,)),
    Row("missing c", missing, "c", FileNotFoundError, "", (errno.ENOENT,)),
    Row("missing str", lambda p: str(missing(p)), "r", FileNotFoundError, "", (errno.ENOENT,)),
    Row(
        "missing bytes",
        lambda p: os.fsencode(missing(p)),
        "r",
        FileNotFoundError,
        "",
        (errno.ENOENT,),
    ),
    Row(
        "missing folder w+",
        lambda p: p.folder / "no" / "file",
        "w+",
        FileNotFoundError,
        "",
        (errno.ENOENT,),
        NEW,
    ),
    Row(
        "missing folder x+",
        lambda p: p.folder / "no" / "file",
        "x+",
        FileNotFoundError,
        "",
        (errno.ENOENT,),
        NEW,
    ),
    Row("empty path", lambda p: "", "r", FileNotFoundError, "", (errno.ENOENT,)),
    Row("empty bytes path", lambda p: b"", "r", FileNotFoundError, "", (errno.ENOENT,)),
    Row("file as folder", lambda p: p.file / "x", "r", OSError, "", (errno.ENOTDIR,)),
    Row("long name", lambda p: p.folder / ("x" * 300), "r", OSError, "", (errno.ENAMETOOLONG,)),
    Row("exists x+", regular, "x+", FileExistsError, "", (errno.EEXIST,), NEW),
    Row(
        "dangling link x+", lambda p: p.dangling(), "x+", FileExistsError, "", (errno.EEXIST,), NEW
    ),
    Row("link to itself", lambda p: p.symlink("link"), "r", OSError, "", (errno.ELOOP,)),
    # Files that are not regular
    Row("directory r", lambda p: p.folder, "r", OSError, "", (errno.EISDIR,)),
    Row("directory r+", lambda p: p.folder, "r+", OSError, "", (errno.EISDIR,)),
    Row("directory w+", lambda p: p.folder, "w+", OSError, "", (errno.EISDIR,), NEW),
    Row("directory x+", lambda p: p.folder, "x+", FileExistsError, "", (errno.EEXIST,), NEW),
    Row("directory c", lambda p: p.folder, "c", OSError, "", (errno.EISDIR,)),
    Row(
        "directory fd",
        lambda p: p.fd(p.folder, os.O_RDONLY),
        "r",
        IsADirectoryError,
        "",
        (errno.EISDIR,),
    ),
    Row("FIFO r", lambda p: p.fifo(), "r", OSError, NOT_REGULAR, (errno.ENODEV,)),
    Row("FIFO r+", lambda p: p.fifo(), "r+", OSError, NOT_REGULAR, (errno.ENODEV,)),
    Row("FIFO w+", lambda p: p.fifo(), "w+", OSError, NOT_REGULAR, (errno.ENODEV,), NEW),
    Row("FIFO c", lambda p: p.fifo(), "c", OSError, NOT_REGULAR, (errno.ENODEV,)),
    Row("pipe", lambda p: p.pipe(), "r", OSError, "", (errno.EACCES,)),
    Row("socket path", lambda p: p.unix(), "r", OSError, "", (errno.ENXIO, errno.EOPNOTSUPP)),
    Row("socket", lambda p: p.socket(), "r", OSError, "", (errno.ENODEV,)),
    Row("socket fd", lambda p: p.socket().fileno(), "r+", OSError, "", (errno.ENODEV,)),
    Row("device r", lambda p: os.devnull, "r", OSError, NOT_REGULAR, (errno.ENODEV,)),
    Row("device r+", lambda p: os.devnull, "r+", OSError, NOT_REGULAR, (errno.ENODEV,)),
    Row("device w+", lambda p: os.devnull, "w+", OSError, "", (errno.ENODEV,), NEW),
    Row("device zero", lambda p: p.zero(), "r+", OSError, NOT_REGULAR, (errno.ENODEV,)),
    Row(
        "device fd",
        lambda p: p.fd(os.devnull, os.O_RDWR),
        "r+",
        OSError,
        NOT_REGULAR,
        (errno.ENODEV,),
    ),
    # Descriptors
    Row("closed fd", lambda p: p.closed(), "r", OSError, "", (errno.EBADF,)),
    Row("closed fd w+", lambda p: p.closed(), "w+", OSError, "", (errno.EBADF,), NEW),
    Row("huge fd", lambda p: 2**31 - 1, "r", OSError, "", (errno.EBADF,)),
    Row("larger fd", lambda p: 2**31, "r", OverflowError, f"at most {2**31 - 1}, not {2**31}"),
    Row("fd past 64 bits", lambda p: 2**64, "r", OverflowError, str(2**64)),
    Row("negative fd", lambda p: -1, "r", ValueError, "must be 0 or more, not -1"),
    Row("very negative fd", lambda p: -(2**64), "r", ValueError, "must be 0 or more"),
    Row(
        "read-only fd r+",
        lambda p: p.fd(p.file, os.O_RDONLY),
        "r+",
        PermissionError,
        "",
        (errno.EACCES,),
    ),
    Row(
        "read-only fd w+",
        lambda p: p.fd(p.file, os.O_RDONLY),
        "w+",
        PermissionError,
        "",
        (errno.EACCES,),
        NEW,
    ),
    Row(
        "write-only fd r",
        lambda p: p.fd(p.file, os.O_WRONLY),
        "r",
        PermissionError,
        "",
        (errno.EACCES,),
    ),
    Row(
        "write-only fd r+",
        lambda p: p.fd(p.file, os.O_WRONLY),
        "r+",
        PermissionError,
        "",
        (errno.EACCES,),
    ),
    Row(
        "write-only fd c",
        lambda p: p.fd(p.file, os.O_WRONLY),
        "c",
        PermissionError,
        "",
        (errno.EACCES,),
    ),
    Row("O_PATH fd", lambda p: p.without_rights(), "r", OSError, "", (errno.EBADF,)),
    Row(
        "fd x+",
        lambda p: p.fd(p.file, os.O_RDWR),
        "x+",
        ValueError,
        "'x\\+' creates a file and needs a path",
        (),
        NEW,
    ),
    Row("closed file object", lambda p: closed_file(p), "r", ValueError, "closed"),
    Row("BytesIO", lambda p: io.BytesIO(b"x"), "r", io.UnsupportedOperation, "fileno", named=False),
    Row(
        "fileno() None",
        lambda p: Fileno(None),
        "r",
        TypeError,
        r"fileno\(\) must return an int, not None",
    ),
    Row("fileno() str", lambda p: Fileno("3"), "r", TypeError, "must return an int, not '3'"),
    Row("fileno() negative", lambda p: Fileno(-1), "r", ValueError, "must be 0 or more, not -1"),
    Row("fileno() fails", lambda p: Fileno(KeyError("mine")), "r", KeyError, "mine"),
    Row("fileno no method", lambda p: type("T", (), {"fileno": 3})(), "r", TypeError, ""),
    # Types
    Row("bool", lambda p: True, "r", TypeError, A_PATH),
    Row("False", lambda p: False, "r", TypeError, A_PATH),
    Row("None", lambda p: None, "r", TypeError, A_PATH + ".*NoneType"),
    Row("None x+", lambda p: None, "x+", TypeError, A_PATH, (), NEW),
    Row("float", lambda p: 3.0, "r", TypeError, A_PATH + ".*float"),
    Row("list", lambda p: ["file"], "r", TypeError, A_PATH + ".*list"),
    Row("bytearray", lambda p: bytearray(b"file"), "r", TypeError, A_PATH),
    Row("memoryview", lambda p: memoryview(b"file"), "r", TypeError, A_PATH),
    Row("class", lambda p: io.FileIO, "r", TypeError, ""),
    Row("__fspath__ int", lambda p: Fspath(3), "r", TypeError, "__fspath__"),
    Row(
        "__fspath__ fails",
        lambda p: type("T", (), {"__fspath__": lambda self: 1 / 0})(),
        "r",
        ZeroDivisionError,
        "",
    ),
    Row("NUL in str", lambda p: f"{p.file}\0", "r", ValueError, "NUL"),
    Row("NUL in bytes", lambda p: os.fsencode(p.file) + b"\0more", "r", ValueError, "NUL"),
    Row("NUL in PathLike", lambda p: Fspath(f"\0{p.file}"), "r+", ValueError, "NUL"),
    Row("NUL x+", lambda p: f"{p.folder}/new\0", "x+", ValueError, "NUL", (), NEW),
    Row("surrogate", lambda p: f"{p.folder}/\ud800", "r", (OSError, UnicodeEncodeError), ""),
    # Modes
    *(
        Row(
            f"mode {mode!r}",
            regular,
            mode,
            ValueError,
            r"mode must be one of 'r', 'r\+', 'w\+', 'x\+', 'c', not ",
        )
        for mode in ("", "rw", "w", "a", "x", "rb", "r+b", "R", " r", "r\0", "c+", "readwrite")
    ),
    *(
        Row(
            f"mode {mode!r} of open()",
            regular,
            mode,
            ValueError,
            re.escape(f"not {mode!r}: write {instead}"),
        )
        for mode, instead in {
            "rb": "'r'",
            "r+b": "'r+'",
            "rb+": "'r+'",
            "rt": "'r'",
            "R": "'r'",
            "rw": "'r+'",
            "w": "'w+', with size=",
            "wb": "'w+', with size=",
            "xb": "'x+', with size=",
            "ab": "'r+', and append to stream(grow=True)",
        }.items()
    ),
    *(
        Row(f"mode {mode!r}", regular, mode, TypeError, "mode must be one of")
        for mode in (None, 1, b"r", ["r"], {}, 1.5)
    ),
    # Sizes
    Row(
        "size for r",
        regular,
        "r",
        ValueError,
        r"size is for the modes 'w\+' and 'x\+'",
        (),
        {"size": SIZE},
    ),
    Row("size for r+", regular, "r+", ValueError, "size is for", (), {"size": 0}),
    Row("size for c", regular, "c", ValueError, "size is for", (), {"size": SIZE}),
    Row("no size w+", regular, "w+", ValueError, r"'w\+' creates a file and needs size="),
    Row("no size x+", missing, "x+", ValueError, r"'x\+' creates a file and needs size="),
    Row(
        "size negative w+",
        regular,
        "w+",
        ValueError,
        "size must be 0 or more bytes, not -1",
        (),
        {"size": -1},
    ),
    Row(
        "size negative x+",
        missing,
        "x+",
        ValueError,
        "size must be 0 or more",
        (),
        {"size": -(2**64)},
    ),
    Row(
        "size huge",
        missing,
        "x+",
        OverflowError,
        f"size must be at most {2**63 - 1}",
        (),
        {"size": 2**63},
    ),
    Row("size wrapped", missing, "x+", OverflowError, "size", (), {"size": 2**64 + 100}),
    Row("size wrapped w+", regular, "w+", OverflowError, "size", (), {"size": 2**32 * 2**32}),
    Row("size str", missing, "x+", TypeError, "", (), {"size": "100"}),
    Row("size float", missing, "x+", TypeError, "", (), {"size": 100.0}),
    Row("size bytes w+", regular, "w+", TypeError, "", (), {"size": b"1"}),
    Row("size fails", missing, "x+", ZeroDivisionError, "no number", (), {"size": Index()}),
    Row("size past the file system", missing, "x+", OSError, "", (), {"size": 2**63 - 1}),
    # Other arguments
    Row(
        "reserve negative",
        regular,
        "r+",
        ValueError,
        "reserve must be 0 or more",
        (),
        {"reserve": -1},
    ),
    Row(
        "reserve huge",
        regular,
        "r+",
        OverflowError,
        "reserve must be at most",
        (),
        {"reserve": 2**63},
    ),
    *(
        Row(f"reserve {wrong!r}", regular, "r+", TypeError, "", (), {"reserve": wrong})
        for wrong in ("1", "", None, 0.0)
    ),
    Row("unknown keyword", regular, "r", TypeError, "length", (), {"length": 3}),
    Row("file twice", regular, "r", TypeError, "", (), {"file": "x"}),
)


def closed_file(place: Place) -> Any:
    with open(place.file, "rb") as opened:
        return opened


@pytest.fixture
def place(folder: Path) -> Iterator[Place]:
    place = Place(folder)
    with place.stack:
        yield place


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail if an object whose constructor failed warns when it is deallocated."""
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [] == [one.exc_value for one in complaints] + [one.message for one in warned]


def state(folder: Path) -> dict[str, Any]:
    """Return the names, sizes, content and times of the files in a folder."""
    found = {}
    for path in sorted(folder.iterdir()):
        status = path.lstat()
        regular = stat.S_ISREG(status.st_mode)
        found[path.name] = (
            status.st_mode,
            status.st_size,
            status.st_mtime_ns,
            path.read_bytes() if regular else b"",
        )
    return found


@pytest.mark.usefixtures("silence")
@pytest.mark.parametrize("row", OPENING)
def test_opening(row: Row, place: Place) -> None:
    """A file that cannot be opened raises the right error, with a reason and the file's name. No
    handle or map leaks, and no file is created or changed: I2, I3."""
    file = row.file(place)
    if "-only fd" in row.id:
        only(
            not duplicates_with_more_rights(file),
            "this system duplicates a handle with more rights: Wine",
        )
    before, held = state(place.folder), (handles(), file_maps())
    with pytest.raises(row.kind) as caught:
        MappedFile(file, row.mode, **row.options)
    error = caught.value
    assert re.search(row.says or ".", str(error)), str(error)
    if isinstance(error, OSError) and row.named:
        name = (
            file
            if isinstance(file, (str, bytes, int))
            else file.fileno()
            if hasattr(file, "fileno")
            else os.fspath(file)
        )
        assert name == error.filename
        if POSIX:
            assert error.errno in (row.codes or (error.errno,))
        else:
            assert error.winerror or error.errno
        assert error.strerror
        # The type is the one that Python has for the code, as for every other OSError.
        assert type(error) is type(OSError(error.errno, ""))
    del caught, error
    gc.collect()
    assert held == (handles(), file_maps())
    assert before == state(place.folder)


USING: list[Any] = [
    # name, modes, error, message, call
    ("view negative offset", "*", ValueError, "offset must be 0 or more", lambda f, v: f.view(-1)),
    (
        "view negative length",
        "*",
        ValueError,
        "length must be 0 or more",
        lambda f, v: f.view(0, -1),
    ),
    (
        "view past the end",
        "*",
        ValueError,
        f"offset {SIZE + 1} .*{SIZE} bytes",
        lambda f, v: f.view(SIZE + 1),
    ),
    (
        "view past the end, empty",
        "*",
        ValueError,
        f"offset {SIZE + 1} ",
        lambda f, v: f.view(SIZE + 1, 0),
    ),
    (
        "view too long",
        "*",
        ValueError,
        f"length {SIZE + 1} .*{SIZE} bytes",
        lambda f, v: f.view(0, SIZE + 1),
    ),
    (
        "view too long by offset",
        "*",
        ValueError,
        "past the end of the mapped file",
        lambda f, v: f.view(SIZE, 1),
    ),
    ("view sum wraps", "*", ValueError, "past the end", lambda f, v: f.view(2**63 - 1, 2**63 - 1)),
    ("view offset huge", "*", OverflowError, "offset must be at most", lambda f, v: f.view(2**63)),
    (
        "view length huge",
        "*",
        OverflowError,
        "length must be at most",
        lambda f, v: f.view(0, 2**64),
    ),
    ("view offset str", "*", TypeError, "", lambda f, v: f.view("0")),
    ("view offset float", "*", TypeError, "", lambda f, v: f.view(0.0)),
    ("view offset None", "*", TypeError, "", lambda f, v: f.view(None, 1)),
    ("view length float", "*", TypeError, "", lambda f, v: f.view(0, 1.0)),
    ("view index fails", "*", ZeroDivisionError, "", lambda f, v: f.view(Index())),
    ("view keyword", "*", TypeError, "", lambda f, v: f.view(size=3)),
    ("index past the end", "*", IndexError, "", lambda f, v: f[SIZE]),
    ("index before the start", "*", IndexError, "", lambda f, v: f[-SIZE - 1]),
    ("index wraps", "*", IndexError, "", lambda f, v: f[2**64]),
    ("index wraps in a view", "*", IndexError, "", lambda f, v: v[2**32]),
    ("index huge", "*", IndexError, "", lambda f, v: v[-(2**200)]),
    ("index str", "*", TypeError, "", lambda f, v: f["0"]),
    ("index float", "*", TypeError, "", lambda f, v: f[0.0]),
    ("index None", "*", TypeError, "", lambda f, v: v[None]),
    ("index tuple", "*", TypeError, "", lambda f, v: v[0, 1]),
    ("index fails", "*", ZeroDivisionError, "", lambda f, v: v[Index()]),
    ("slice str", "*", TypeError, "", lambda f, v: f["a":]),
    ("slice float", "*", TypeError, "", lambda f, v: f[:1.5]),
    ("slice step 0", "*", ValueError, "step", lambda f, v: f[::0]),
    ("slice fails", "*", ZeroDivisionError, "", lambda f, v: f[Index() :]),
    ("find str", "*", TypeError, "bytes-like", lambda f, v: f.find("a")),
    ("find None", "*", TypeError, "bytes-like", lambda f, v: f.rfind(None)),
    ("find float", "*", TypeError, "", lambda f, v: f.count(1.5)),
    ("find 256", "*", ValueError, "256", lambda f, v: f.find(256)),
    ("find -1", "*", ValueError, "-1", lambda f, v: v.rfind(-1)),
    ("find start str", "*", TypeError, "", lambda f, v: f.find(b"a", "0")),
    ("find end float", "*", TypeError, "", lambda f, v: f.find(b"a", 0, 1.5)),
    ("find fails", "*", ZeroDivisionError, "", lambda f, v: f.find(Index())),
    ("in str", "*", TypeError, "", lambda f, v: "a" in f),
    ("in 256", "*", ValueError, "", lambda f, v: 256 in v),
    (
        "flush negative offset",
        "*",
        ValueError,
        "offset must be 0 or more",
        lambda f, v: f.flush(-1),
    ),
    (
        "flush negative length",
        "*",
        ValueError,
        "length must be 0 or more",
        lambda f, v: v.flush(0, -1),
    ),
    (
        "flush past the end",
        "*",
        ValueError,
        "past the end of the view",
        lambda f, v: v.flush(0, 101),
    ),
    (
        "flush past the end of the file",
        "*",
        ValueError,
        "past the end of the mapped file",
        lambda f, v: f.flush(1, SIZE),
    ),
    ("flush offset huge", "*", (OverflowError, ValueError), "offset", lambda f, v: v.flush(2**64)),
    ("flush offset str", "*", TypeError, "", lambda f, v: f.flush("0")),
    ("flush offset float", "*", TypeError, "", lambda f, v: f.flush(0.0)),
    ("flush length float", "*", TypeError, "", lambda f, v: f.flush(0, 1.0)),
    ("flush positional durable", "*", TypeError, "", lambda f, v: f.flush(0, 1, False)),
    ("resize str", "+", TypeError, "", lambda f, v: f.resize("1")),
    ("resize float", "+", TypeError, "", lambda f, v: f.resize(1.0)),
    ("resize None", "+", TypeError, "", lambda f, v: f.resize(None)),
    (
        "resize negative",
        "+",
        ValueError,
        "size must be 0 or more bytes, not -1",
        lambda f, v: f.resize(-1),
    ),
    ("resize huge", "+", OverflowError, "size must be at most", lambda f, v: f.resize(2**63)),
    ("resize alive", "+", BufferError, "1 view of it alive", lambda f, v: f.resize(1)),
    ("resize r", "-", io.UnsupportedOperation, r"open it in mode 'r\+'", lambda f, v: f.resize(1)),
    (
        "set byte 256",
        "w",
        ValueError,
        r"range\(0, 256\), not 256",
        lambda f, v: f.__setitem__(0, 256),
    ),
    ("set byte -1", "w", ValueError, r"range\(0, 256\), not -1", lambda f, v: v.__setitem__(0, -1)),
    ("set byte huge", "w", ValueError, str(2**64), lambda f, v: v.__setitem__(0, 2**64)),
    ("set byte str", "w", TypeError, "", lambda f, v: f.__setitem__(0, "a")),
    ("set byte bytes", "w", TypeError, "", lambda f, v: f.__setitem__(0, b"a")),
    ("set byte float", "w", TypeError, "", lambda f, v: f.__setitem__(0, 1.0)),
    ("set byte past the end", "w", IndexError, "", lambda f, v: v.__setitem__(100, 1)),
    ("set byte wraps", "w", IndexError, "", lambda f, v: f.__setitem__(2**64, 1)),
    ("set byte fails", "w", ZeroDivisionError, "", lambda f, v: f.__setitem__(0, Index())),
    (
        "set slice short",
        "w",
        ValueError,
        "4 bytes .* 3 bytes",
        lambda f, v: f.__setitem__(slice(4), b"abc"),
    ),
    (
        "set slice long",
        "w",
        ValueError,
        "4 bytes .* 5 bytes",
        lambda f, v: f.__setitem__(slice(4), b"abcde"),
    ),
    ("set slice empty", "w", ValueError, "", lambda f, v: f.__setitem__(slice(4), b"")),
    (
        "set slice past the end",
        "w",
        ValueError,
        "",
        lambda f, v: v.__setitem__(slice(100, 104), b"abcd"),
    ),
    ("set slice str", "w", TypeError, "", lambda f, v: f.__setitem__(slice(4), "abcd")),
    ("set slice int", "w", TypeError, "", lambda f, v: f.__setitem__(slice(4), 4)),
    ("set slice None", "w", TypeError, "", lambda f, v: f.__setitem__(slice(4), None)),
    ("set slice list", "w", TypeError, "", lambda f, v: f.__setitem__(slice(4), [1, 2, 3, 4])),
    (
        "set slice fails",
        "w",
        ZeroDivisionError,
        "",
        lambda f, v: f.__setitem__(slice(Index()), b""),
    ),
    (
        "set extended slice",
        "w",
        ValueError,
        "",
        lambda f, v: f.__setitem__(slice(0, 4, 2), b"abcd"),
    ),
    ("set in r", "r", TypeError, "read-only", lambda f, v: f.__setitem__(0, 1)),
    ("set slice in r", "r", TypeError, "read-only", lambda f, v: v.__setitem__(slice(4), b"abcd")),
    (
        "set slice in r, empty",
        "r",
        TypeError,
        "read-only",
        lambda f, v: v.__setitem__(slice(0), b""),
    ),
    ("close positional", "*", TypeError, "", lambda f, v: f.close(True)),
    ("close strict", "*", BufferError, "1 view of it alive", lambda f, v: f.close(strict=True)),
    ("assign attribute", "*", AttributeError, "", lambda f, v: setattr(f, "colour", 1)),
    ("assign name", "*", AttributeError, "", lambda f, v: setattr(f, "name", "x")),
    ("add", "*", TypeError, "", lambda f, v: f + b"a"),
]
MODES = {"*": ("r", "r+", "c"), "+": ("r+",), "-": ("r", "c"), "w": ("r+", "c"), "r": ("r",)}


@pytest.mark.parametrize(
    ("mode", "kind", "says", "call"),
    [
        pytest.param(mode, *rest, id=f"{name}-{mode}")
        for name, modes, *rest in USING
        for mode in MODES[modes]
    ],
)
def test_using(
    place: Place, mode: str, kind: Any, says: str, call: Callable[[Any, Any], object]
) -> None:
    """A wrong call raises the right error, with a reason. It changes no byte, and keeps no handle
    or map: I3."""
    path = place.file
    with MappedFile(path, mode) as file, file.view(0, 100) as view:
        file[0], view[0], file.refresh()  # the first use makes a map and imports modules
        held = handles(), file_maps()
        with pytest.raises(kind, match=says or ".") as caught:
            call(file, view)
        del caught
        gc.collect()
        assert held == (handles(), file_maps())
        assert (SIZE, 100) == (len(file), len(view))
        assert CONTENT == file[:] == view[:] + file[100:]
        assert not file.closed
    assert CONTENT == path.read_bytes()


def test_table_is_long() -> None:
    """There are at least sixty bad inputs."""
    assert len(OPENING) + len(USING) >= 60
    assert len({param.id for param in OPENING}) == len(OPENING)


# Missing permission: root has every permission


UNPRIVILEGED = """
import os, sys
from mappedfile import MappedFile
folder = sys.argv[1]
cases = [("none", mode) for mode in ("r", "r+", "w+", "c")]
cases += [("read", mode) for mode in ("r+", "w+")]
cases += [("folder/new", "x+"), ("folder/new", "w+"), ("closed/file", "r")]
cases += [("write", "r"), ("write", "c"), ("write", "r+")]
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
for name, mode in cases:
    path = os.path.join(folder, name)
    try:
        MappedFile(path, mode, **({"size": 10} if mode in ("w+", "x+") else {}))
    except PermissionError as error:
        found = error.errno, error.filename, error.strerror
        assert (13, path, "Permission denied") == found, error
    else:
        sys.exit(f"{name} could be opened in mode {mode}")
MappedFile(os.path.join(folder, "read"), "r").close()
MappedFile(os.path.join(folder, "read"), "c").close()
after = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
assert before == after
"""


def test_missing_permission(folder: Path) -> None:
    """Without permission there is PermissionError with its number and the file's name. No file is
    created or emptied: I2."""
    only(hasattr(os, "setresuid"), "a process cannot become another user here")
    need(os.geteuid() == 0, "root, to become another user")
    for parent in (folder, *folder.parents):
        with suppress(OSError):
            parent.chmod(parent.stat().st_mode | 0o111)
    for name, mode in (("none", 0o000), ("read", 0o444), ("write", 0o222)):
        (folder / name).write_bytes(b"content")
        (folder / name).chmod(mode)
    (folder / "folder").mkdir(mode=0o755)
    (folder / "closed").mkdir(mode=0o700)
    (folder / "closed" / "file").write_bytes(b"content")
    before = state(folder)
    program = f"import sys; sys.path[:] = {sys.path!r}\n{UNPRIVILEGED}"
    # Imports happen before the user changes: other users may be unable to read the sources.
    run_python(*code(program), folder, quiet=True)
    assert before == state(folder)
    assert [] == list((folder / "folder").iterdir())


# Descriptors


def test_descriptor_is_duplicated(folder: Path) -> None:
    """After the caller closes the descriptor, and its number becomes another file's, the mapped
    file works as before: I1."""
    path, other = folder / "file", folder / "other"
    path.write_bytes(CONTENT)
    other.write_bytes(b"other" * 100)
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
    with MappedFile(descriptor, "r+") as file:
        assert descriptor == file.name
        assert descriptor != file.fileno()
        replacement = os.open(other, os.O_RDWR)
        os.dup2(replacement, descriptor)
        os.close(replacement)
        file[0:4] = b"mine"
        file.flush()
        file.resize(SIZE + 1)
        with file.view(SIZE - 1) as view:
            view[1] = 5
        file.refresh()
    os.fstat(descriptor)
    os.close(descriptor)
    assert b"mine" + CONTENT[4:] + b"\5" == path.read_bytes()
    assert b"other" * 100 == other.read_bytes()


@pytest.mark.parametrize("mode", ["r", "r+", "w+", "c"])
def test_position_and_flags(folder: Path, mode: str) -> None:
    """The position, flags and inheritance of the caller's descriptor do not change: I1, I4."""
    path = folder / "file"
    path.write_bytes(CONTENT)
    with open(path, "r+b", buffering=0) as opened:
        opened.seek(77)
        os.set_inheritable(opened.fileno(), True)
        with MappedFile(opened, mode, **({"size": SIZE} if mode == "w+" else {})) as file:
            assert str(path) == str(file.name)
            assert 77 == opened.tell()
            assert os.get_inheritable(opened.fileno())
            if POSIX:
                assert not os.get_inheritable(file.fileno())
            else:
                assert not os.get_handle_inheritable(file.handle)
            assert (bytes(SIZE) if mode == "w+" else CONTENT) == file[:]
        assert 77 == opened.tell()


def test_emptied_through_a_descriptor(folder: Path) -> None:
    """Mode "w+" empties the file of a descriptor too: I1."""
    path = folder / "file"
    path.write_bytes(CONTENT)
    with open(path, "r+b") as opened, MappedFile(opened, "w+", size=10) as file:
        assert bytes(10) == file[:]
    assert bytes(10) == path.read_bytes()


def test_fifo_does_not_wait(folder: Path) -> None:
    """A FIFO that no other process has open is refused at once, in every mode: I2."""
    only(hasattr(os, "mkfifo"), "there are no FIFOs here")
    os.mkfifo(folder / "fifo")
    program = f"""
from mappedfile import MappedFile
for mode in ("r", "r+", "c", "w+"):
    try:
        MappedFile({str(folder / "fifo")!r}, mode, **({{"size": 1}} if mode == "w+" else {{}}))
    except OSError as error:
        assert error.errno == {errno.ENODEV}, error
"""
    run_python(*code(program), timeout=20)


def test_not_inherited(folder: Path) -> None:
    """Child programs do not inherit the library's descriptors. The call that makes a descriptor
    also sets the flag, so that a fork in another thread cannot come between: I4."""
    need(strace(), "strace, and permission to trace")
    path = folder / "file"
    path.write_bytes(CONTENT)
    program = f"""
import os
from mappedfile import MappedFile
opened = open({str(path)!r}, "r+b")
os.set_inheritable(opened.fileno(), True)
with MappedFile({str(path)!r}, "r+") as one, MappedFile(opened, "r+") as two:
    os.access("/mark", 0)
"""
    log = folder / "log"
    calls = "trace=openat,dup,dup2,dup3,fcntl"
    under = [strace(), "-f", "-qq", "-y", "-e", calls, "-P", path, "-o", log]
    run_python(*code(program), under=under)
    ours = [
        line
        for line in log.read_text().splitlines()
        if "openat" in line or "DUPFD" in line or "dup" in line
    ]
    assert len(ours) == 3, ours
    for line in ours[1:]:
        assert "O_CLOEXEC" in line or "F_DUPFD_CLOEXEC" in line, line
