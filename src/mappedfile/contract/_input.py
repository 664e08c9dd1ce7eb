"""I · Input."""

from __future__ import annotations

import contextlib
import gc
import io
import mmap
import os
import socket
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mappedfile.contract._clauses import clause, equal, raises, true
from mappedfile.contract._probe import handles

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from mappedfile.contract._subjects import Subject

    #: A name, the expected errors, and a function that makes the call.
    Call: TypeAlias = tuple[str, Any, Callable[[], object]]

PAGE = mmap.PAGESIZE
CONTENT = bytes(range(256)) * (2 * PAGE // 256)
BINARY = getattr(os, "O_BINARY", 0)


class Paths:
    """An object that is not a path, but has one."""

    def __init__(self, path: str | bytes) -> None:
        self.path = path

    def __fspath__(self) -> str | bytes:
        return self.path


class Number:
    """An object that is not a number, but has one."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __index__(self) -> int:
        return self.number


@clause("I1")
def I1(subject: Subject, folder: Path) -> None:
    """A file is opened by a path (str, bytes, PathLike), a descriptor, or an object with
    `fileno()`. The caller's descriptor is duplicated: it is never used later and never closed.
    `fileno()` of the mapped file is a descriptor on every system, which closes with the mapped
    file."""
    path = folder / "file-\u00e4\u20ac"
    kinds: list[Callable[[Path], Any]] = [
        str,
        os.fsencode,
        Path,
        lambda it: Paths(str(it)),
        lambda it: Paths(os.fsencode(it)),
    ]
    for kind in kinds:
        with subject.open(kind(path), subject.mode, **creation(subject, path)) as mapped:
            equal(len(CONTENT), len(mapped), f"the length of a file opened by {kind(path)!r}")
            check_bytes(subject, mapped, path)
            check_descriptor(subject, mapped, path)
        path.unlink()
    if subject.mode == "x+":
        return  # creates a file, so it needs a path
    other = folder / "other"
    other.write_bytes(b"not mine" * PAGE)
    for opened_as in ("descriptor", "file object"):
        path.write_bytes(CONTENT)
        options = {"size": len(CONTENT)} if subject.mode == "w+" else {}
        with open(path, "r+b" if subject.shared else "rb") as file:
            file.seek(100)
            number = file.fileno()
            mapped = subject.open(
                number if opened_as == "descriptor" else file, subject.mode, **options
            )
            equal(100, file.tell(), "the caller's position in the file")
            mapped.view(0, 5).close()
            mapped.close()
            os.fstat(number)  # raises OSError if it was closed
            if subject.shared:
                file.write(b"still mine")
                file.flush()
            mapped = subject.open(
                number if opened_as == "descriptor" else file, subject.mode, **options
            )
        if subject.mode == "w+":
            mapped[:] = CONTENT
        # The number belongs to another file now.
        theirs = os.open(other, os.O_RDWR | BINARY)
        if theirs != number:
            os.dup2(theirs, number)
            os.close(theirs)
        check_bytes(subject, mapped, path)
        with mapped.view() as view:
            equal(len(CONTENT), len(view), "the length of a view")
        mapped.flush()
        if subject.shared:
            mapped.resize(3 * PAGE)
            equal(3 * PAGE, path.stat().st_size, "the size of the file after resize()")
        mapped.close()
        actual = (
            os.pread(number, 9 * PAGE, 0) if hasattr(os, "pread") else os.read(number, 9 * PAGE)
        )
        equal(b"not mine" * PAGE, actual, "the bytes of the number, which is another file's now")
        os.close(number)
        equal(b"not mine" * PAGE, other.read_bytes(), "that other file")


@clause("I2")
def I2(subject: Subject, folder: Path) -> None:
    """A missing file, a directory, a FIFO, a socket, a character device, a closed descriptor, an
    embedded NUL and a missing permission each raise the fitting `OSError` subclass or `ValueError`,
    with the file name, and leak no handle. So does a file that reports a size of 0 and cannot be
    mapped (`/proc`): it is not taken for an empty file."""
    options = {"size": PAGE} if subject.mode in ("w+", "x+") else {}
    here = folder / "here"
    here.write_bytes(b"here")
    if subject.mode in ("w+", "x+"):
        with refused(
            subject, FileNotFoundError, "no such folder", folder / "no" / "such", **options
        ) as file:
            file()
    else:
        with refused(subject, FileNotFoundError, "a missing file", folder / "missing") as file:
            file()
        true(not (folder / "missing").exists(), "a missing file is still missing")
    if subject.mode == "x+":
        with refused(subject, FileExistsError, "a file that exists", here, **options) as file:
            file()
        equal(b"here", here.read_bytes(), "its content")
        special: tuple[type[BaseException], ...] = (FileExistsError,)
    else:
        special = (OSError,)
    # POSIX, Windows.
    directory = special if subject.mode == "x+" else (IsADirectoryError, PermissionError)
    with refused(subject, directory, "a directory", folder, **options) as file:
        file()
    for name in (f"nul\0{here}", os.fsencode(here) + b"\0", Paths(f"{here}\0tail")):
        with refused(
            subject, ValueError, "a path with NUL in it", name, named=False, **options
        ) as file:
            file()
    with refused(subject, OSError, "an empty path", "", **options) as file:
        file()
    with refused(subject, OSError, "a character device", os.devnull, **options) as file:
        file()
    if sys.platform != "win32" and os.path.exists("/proc/self/maps") and subject.mode in ("r", "c"):
        with refused(subject, OSError, "a file of /proc", "/proc/self/maps", **options) as file:
            file()
    for fifo in fifos(folder):
        # Without O_NONBLOCK, open waits for the other end: a thread must open that, or the check
        # would hang.
        opened = threading.Event()
        helper = threading.Thread(target=open_the_other_end, args=(fifo, opened))
        helper.start()
        try:
            with refused(subject, special, "a FIFO", fifo, **options) as file:
                file()
        finally:
            in_time = not opened.is_set()
            opened.set()
            helper.join()
        true(in_time, "the open of a FIFO does not wait for its other end")
    for path in sockets(folder):
        with refused(subject, special, "a socket", path, **options) as file:
            file()
    if subject.mode != "x+":
        bad_descriptors(subject, folder, options)
    denied = folder / "denied"
    denied.write_bytes(b"denied")
    denied.chmod(0o000 if sys.platform != "win32" else 0o400)
    # Root and Wine may open any file.
    if subject.mode != "x+" and not opens(denied, "r+b" if subject.shared else "rb"):
        with refused(
            subject, PermissionError, "a file without permission", denied, **options
        ) as file:
            file()
    denied.chmod(0o600)
    equal(b"denied", denied.read_bytes(), "the content of a file without permission")


@clause("I3")
def I3(subject: Subject, folder: Path) -> None:
    """Arguments of a wrong type raise `TypeError`. Negative, too large and out-of-range numbers
    raise `ValueError` or `OverflowError`. There is never a wrapped integer, a crash or a half-made
    object."""
    path = folder / "file"
    mapped = subject.create(path, CONTENT)
    view = mapped.view(0, PAGE)
    before = handles()
    for number in (7, Number(7)):
        equal((7, b"\7\x08"), (mapped[number], view[number : Number(9)]), "the bytes at 7")
        with mapped.view(0, number) as another:
            equal(CONTENT[:7], another[:], "a view of 7 bytes")
    for what, kinds, call in calls(subject, mapped, view):
        with raises(kinds, what):
            call()
        equal((len(CONTENT), PAGE), (len(mapped), len(view)), f"the lengths after {what}")
    true(mapped[:] == CONTENT, "the bytes are what they were")
    true(path.read_bytes() == CONTENT, "the file is what it was")
    gc.collect()
    equal(before, handles(), "the number of handles")
    view.close()
    mapped.close()
    options: dict[str, Any] = {"size": PAGE} if subject.mode in ("w+", "x+") else {}
    new = folder / "new"
    before = handles()
    with no_half_made_objects():
        for wrong in (None, 1.5, ["file"], {}, object(), bytearray(b"file"), memoryview(b"file")):
            with raises(TypeError, f"the file {wrong!r}"):
                subject.open(wrong, subject.mode, **options)
        for number, kinds in (
            (-1, ValueError),
            (2**31, OverflowError),
            (2**64 + 1, OverflowError),
            (-(2**80), ValueError),
        ):
            with raises((kinds, ValueError), f"the descriptor {number}"):
                subject.open(number, subject.mode, **options)
        for mode in ("", "rw", "R", "w", "a", "rb", "r+b", "x", "r ", "r\0"):
            with raises(ValueError, f"the mode {mode!r}", says="'x+'"):
                subject.open(new, mode, **options)
        for wrong in (None, 0, b"r", ["r"]):
            with raises(TypeError, f"the mode {wrong!r}"):
                subject.open(new, wrong, **options)
        if options:
            for size, kind in (
                (-1, ValueError),
                (2**63, OverflowError),
                (2**200, OverflowError),
                ("1", TypeError),
                (1.0, TypeError),
            ):
                with raises(kind, f"size={size!r}"):
                    subject.open(new, subject.mode, size=size)
            with raises(ValueError, "no size", says="size"):
                subject.open(new, subject.mode)
        else:
            for size in (0, PAGE, -1):
                with raises(ValueError, f"size={size} in mode {subject.mode!r}", says="size"):
                    subject.open(new, subject.mode, size=size)
        with raises(TypeError, "an argument that there is not"):
            subject.open(new, subject.mode, length=PAGE, **options)
        for reserve, kind in (
            (-1, ValueError),
            (2**63, OverflowError),
            ("", TypeError),
            (0.0, TypeError),
        ):
            with raises(kind, f"reserve={reserve!r}"):
                subject.open(new, subject.mode, reserve=reserve, **options)
        # This error comes after the file was opened: from the system or, if it cannot reserve, from
        # the library.
        with raises(OSError, "more address space than there is"):
            subject.open(
                new if subject.mode == "x+" else path,
                subject.mode,
                reserve=2**62,
                populate=True,
                **options,
            )
    true(not new.exists(), "no file was created")
    equal(before, handles(), "the number of handles")


def check_descriptor(subject: Subject, mapped: Any, path: Path) -> None:
    """Check that `fileno()` is a descriptor of the file, can open it again, and closes with it."""
    number = mapped.fileno()
    equal(number, mapped.fileno(), "fileno() when it is asked again")
    with open(path, "rb") as other:
        ours, theirs = os.fstat(number), os.fstat(other.fileno())
    # Wine gives no volume for a renamed file.
    equal(theirs.st_ino, ours.st_ino, "the file that fileno() leads to")
    if subject.mode in ("r", "r+", "c"):
        with subject.open(mapped, subject.mode) as again:
            equal(mapped[:], again[:], "the bytes of a file opened by a mapped file")
    mapped.close()
    with raises(OSError, "fstat of the descriptor of a closed file"):
        os.fstat(number)
    with raises(ValueError, "fileno() of a closed file"):
        mapped.fileno()


@clause("I4")
def I4(subject: Subject, folder: Path) -> None:
    """Child programs do not inherit the handles."""
    before = inheritable()
    path = folder / "file"
    mapped = subject.create(path, CONTENT)
    opened = [mapped]
    view = mapped.view(0, PAGE)
    with open(path, "r+b") as file:
        os.set_inheritable(file.fileno(), True)
        if subject.mode in ("r", "r+", "c"):
            opened.append(subject.open(file.fileno(), subject.mode))
    mapped[0], view[0], opened[-1][0]
    equal(set(), inheritable() - before, "the handles that a child would inherit")
    if sys.platform != "win32":
        program = (
            "import os\n"
            "for fd in range(3, 256):\n"
            "    try: status = os.fstat(fd)\n"
            "    except OSError: continue\n"
            "    print(status.st_dev, status.st_ino)\n"
        )
        command = [sys.executable, "-c", program]
        seen = subprocess.run(
            command, close_fds=False, stdin=subprocess.DEVNULL, capture_output=True, check=True
        ).stdout
        status = path.stat()
        true(
            f"{status.st_dev} {status.st_ino}".encode() not in seen.splitlines(),
            "the file is not open in a child",
        )
    view.close()
    for one in opened:
        one.close()


# I1


def creation(subject: Subject, path: Path) -> dict[str, Any]:
    """Create the file, unless the mode does; return the options that the mode needs."""
    if subject.mode in ("w+", "x+"):
        return {"size": len(CONTENT)}
    path.write_bytes(CONTENT)
    return {}


def check_bytes(subject: Subject, mapped: Any, path: Path) -> None:
    """Check that a mapped file is the file of a path."""
    if subject.shared:
        mapped[10:14] = b"mine"
        equal(b"mine", path.read_bytes()[10:14], "what was written, as others read it")
        mapped[10:14] = CONTENT[10:14]
    else:
        true(mapped[:] == CONTENT, "the bytes are the file's")


# I2


@contextlib.contextmanager
def refused(
    subject: Subject, kinds: Any, what: str, file: Any, *, named: bool = True, **options: Any
) -> Iterator[Callable[[], Any]]:
    """Break the clause unless opening fails with the right error and leaves nothing open."""
    before = handles()
    with no_half_made_objects(), raises(kinds, f"{what}, in mode {subject.mode!r}") as caught:
        yield lambda: subject.open(file, subject.mode, **options)
    error = caught.error
    if isinstance(error, OSError) and named:
        true(error.errno, f"the error for {what} has a number")
        name = file if isinstance(file, (int, bytes)) else str(file)
        told = error.filename if isinstance(error.filename, (int, bytes)) else str(error.filename)
        equal(name, told, f"the file name of the error for {what}")
    del caught, error
    gc.collect()
    equal(before, handles(), f"the number of handles after {what}")


@contextlib.contextmanager
def no_half_made_objects() -> Iterator[None]:
    """Break the clause if an object whose construction failed warns or fails at its end."""
    complaints: list[Any] = []
    hook, sys.unraisablehook = sys.unraisablehook, complaints.append
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield
            gc.collect()
    finally:
        sys.unraisablehook = hook
    equal(
        [],
        [str(one.exc_value) for one in complaints] + [str(one.message) for one in warned],
        "complaints afterwards",
    )


def fifos(folder: Path) -> Iterator[Path]:
    """Make a FIFO, if the system has FIFOs."""
    if hasattr(os, "mkfifo"):
        with contextlib.suppress(OSError):  # some file systems have no FIFOs
            os.mkfifo(folder / "fifo")
            yield folder / "fifo"


def sockets(folder: Path) -> Iterator[Path]:
    """Make a socket in the file system, if the system has such sockets."""
    if not hasattr(socket, "AF_UNIX") or sys.platform == "win32":
        return
    with socket.socket(socket.AF_UNIX) as unix:
        try:
            unix.bind(str(folder / "s"))
        except OSError:  # the path is too long, or the file system has no sockets
            return
        yield folder / "s"


def open_the_other_end(fifo: Path, opened: threading.Event) -> None:
    """Wait five seconds, then release a thread that still waits in open()."""
    if opened.wait(5):
        return
    opened.set()
    with contextlib.suppress(OSError):
        os.close(os.open(fifo, os.O_RDWR | os.O_NONBLOCK))


def bad_descriptors(subject: Subject, folder: Path, options: dict[str, Any]) -> None:
    """Check descriptors that cannot be mapped."""
    here = folder / "here"
    closed = os.open(here, os.O_RDWR | BINARY)
    os.close(closed)
    with refused(subject, OSError, "a closed descriptor", closed, **options) as file:
        file()
    with open(here, "rb") as reader:
        pass
    with refused(
        subject, ValueError, "a closed file object", reader, named=False, **options
    ) as file:
        file()
    ends = os.pipe()
    for end in ends:
        with refused(subject, OSError, "a pipe", end, **options) as file:
            file()
        os.close(end)
    with (
        open(os.devnull, "r+b", buffering=0) as null,
        refused(subject, OSError, "a device's descriptor", null.fileno(), **options) as file,
    ):
        file()
    # On Windows a socket's number is a handle: as a descriptor it may be any file.
    if sys.platform != "win32":
        for one in socket.socketpair():
            with refused(
                subject, OSError, "a socket's descriptor", one.fileno(), **options
            ) as file:
                file()
            one.close()
    with refused(
        subject,
        (OSError, ValueError),
        "an object whose fileno() fails",
        io.BytesIO(),
        named=False,
        **options,
    ) as file:
        file()
    wrong_rights = [os.O_WRONLY] + [os.O_RDONLY] * subject.shared
    for flags in wrong_rights:
        descriptor = os.open(here, flags | BINARY)
        if duplicates_with_more_rights(descriptor):
            os.close(descriptor)
            continue
        with refused(
            subject, PermissionError, "a descriptor that is not open for it", descriptor, **options
        ) as file:
            file()
        os.close(descriptor)
    equal(b"here", here.read_bytes(), "the content of a file whose descriptor would not do")


def duplicates_with_more_rights(descriptor: int) -> bool:
    """Whether a duplicate can have rights that the original lacks: on Wine, but not on Windows
    (DuplicateHandle, Remarks); POSIX has no such rights."""
    if sys.platform != "win32":
        return False
    import _winapi
    import msvcrt

    process = _winapi.GetCurrentProcess()
    rights = _winapi.GENERIC_READ | _winapi.GENERIC_WRITE
    try:
        handle = _winapi.DuplicateHandle(
            process, msvcrt.get_osfhandle(descriptor), process, rights, False, 0
        )
    except OSError:
        return False
    _winapi.CloseHandle(handle)
    return True


def opens(path: Path, mode: str) -> bool:
    """Whether this process may open a file."""
    try:
        with open(path, mode):
            return True
    except PermissionError:
        return False


# I3


LARGE = OverflowError, ValueError


def calls(subject: Subject, mapped: Any, view: Any) -> Iterator[Call]:
    """Give invalid calls."""
    for name, window in (("mapped", mapped), ("view", view)):
        yield from reading_calls(name, window)
        if subject.writable:
            yield from writing_calls(name, window)
    yield from sizing_calls(mapped)


def reading_calls(name: str, window: Any) -> Iterator[Call]:
    """Give invalid calls that read, search, flush or close."""
    length = len(window)
    for key in ("0", 1.0, None, b"0", [0], (0, 1)):
        yield f"{name}[{key!r}]", TypeError, lambda w=window, k=key: w[k]
    for key in (length, -length - 1, 2**31, 2**32, 2**63, 2**64, -(2**64), 2**200):
        yield f"{name}[{key}]", IndexError, lambda w=window, k=key: w[k]
    for key in (slice("0", None), slice(None, 1.5), slice(None, None, "1")):
        yield f"{name}[{key}]", TypeError, lambda w=window, k=key: w[k]
    yield f"{name}[::0]", ValueError, lambda w=window: w[::0]
    for sub in ("a", None, 1.5, ["a"]):
        for method in ("__contains__", "find", "rfind", "count"):
            yield (
                f"{name}.{method}({sub!r})",
                TypeError,
                lambda w=window, m=method, s=sub: getattr(w, m)(s),
            )
    for sub in (256, -1, 2**64):
        yield (
            f"{name}.find({sub})",
            (ValueError, OverflowError),
            lambda w=window, s=sub: w.find(s),
        )
    for start, end in (("0", None), (0, "1"), (1.5, None), (0, 2.5)):
        yield (
            f"{name}.find(b'', {start!r}, {end!r})",
            TypeError,
            lambda w=window, s=start, e=end: w.find(b"", s, e),
        )
    for offset, count in (("0", None), (0.0, None), (0, "1"), (0, 1.5), (None, 1)):
        yield (
            f"{name}.flush({offset!r}, {count!r})",
            TypeError,
            lambda w=window, o=offset, c=count: w.flush(o, c),
        )
    for offset, count in (
        (-1, None),
        (0, -1),
        (length + 1, 0),
        (0, length + 1),
        (2**63, 0),
        (0, 2**64),
    ):
        yield (
            f"{name}.flush({offset}, {count})",
            LARGE,
            lambda w=window, o=offset, c=count: w.flush(o, c),
        )
    yield f"{name}.flush(wait=True)", TypeError, lambda w=window: w.flush(wait=True)
    yield f"{name}.close(True)", TypeError, lambda w=window: w.close(True)
    yield f"{name} + b'a'", TypeError, lambda w=window: w + b"a"


def writing_calls(name: str, window: Any) -> Iterator[Call]:
    """Give invalid calls that write."""
    length = len(window)
    for value in (256, -1, 2**64, -(2**64)):
        yield (
            f"{name}[0] = {value}",
            (ValueError, OverflowError),
            lambda w=window, v=value: w.__setitem__(0, v),
        )
    for value in ("a", b"a", 1.0, None):
        yield (
            f"{name}[0] = {value!r}",
            TypeError,
            lambda w=window, v=value: w.__setitem__(0, v),
        )
    for key in (length, -length - 1, 2**64):
        yield f"{name}[{key}] = 1", IndexError, lambda w=window, k=key: w.__setitem__(k, 1)
    for key in ("0", 1.0, None):
        yield f"{name}[{key!r}] = 1", TypeError, lambda w=window, k=key: w.__setitem__(k, 1)
    for value in ("abcd", None, 4, [1, 2, 3, 4]):
        yield (
            f"{name}[0:4] = {value!r}",
            TypeError,
            lambda w=window, v=value: w.__setitem__(slice(0, 4), v),
        )
    for value in (b"", b"abc", b"abcde"):
        yield (
            f"{name}[0:4] = {value!r}",
            (ValueError, IndexError),
            lambda w=window, v=value: w.__setitem__(slice(4), v),
        )
    yield (
        f"{name}[:0] = b'a'",
        (ValueError, IndexError),
        lambda w=window: w.__setitem__(slice(0), b"a"),
    )
    yield (
        f"{name}[::2] = too much",
        (ValueError, IndexError),
        lambda w=window: w.__setitem__(slice(0, 4, 2), b"abc"),
    )


def sizing_calls(mapped: Any) -> Iterator[Call]:
    """Give invalid calls of view() and resize()."""
    size = len(mapped)
    for offset, count in (("0", None), (0.0, None), (0, "1"), (0, 1.5), (None, 1), (b"0", 1)):
        yield f"view({offset!r}, {count!r})", TypeError, lambda o=offset, c=count: mapped.view(o, c)
    for offset, count in (
        (-1, None), (0, -1), (size + 1, None), (0, size + 1), (size, 1), (2**63, 0), (0, 2**63),
        (2**64, 2**64), (-(2**64), 1), (2**64, None),
    ):  # fmt: skip
        yield f"view({offset}, {count})", LARGE, lambda o=offset, c=count: mapped.view(o, c)
    for new in ("1", 1.5, None, b"1"):
        yield f"resize({new!r})", TypeError, lambda n=new: mapped.resize(n)
    for new in (-1, 2**63, 2**64, -(2**64)):
        yield f"resize({new})", LARGE, lambda n=new: mapped.resize(n)


# I4


def inheritable() -> set[int]:
    """Return the descriptors or handles that a child program would inherit."""
    found = set()
    if sys.platform == "win32":
        candidates, ask = range(4, 8192, 4), os.get_handle_inheritable
    else:
        candidates, ask = range(256), os.get_inheritable
    for number in candidates:
        with contextlib.suppress(OSError):
            if ask(number):
                found.add(number)
    return found
