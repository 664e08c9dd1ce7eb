"""Subclasses whose objects refer to each other, override methods, or fail: L3, L8, L10."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import code, run_python
from support import only

from mappedfile import PAGE_SIZE, MappedFile, View, _memory, mmap
from mappedfile.contract._probe import file_maps, handles

CONTENT = b"0123456789" * 1000


# Cycles: the garbage collector finds them


class Logged(MappedFile):
    """A mapped file with a stream on itself."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "r+")
        self.out = self.stream(grow=True)


class Text(str):
    """A str with attributes."""


class Bytes(bytes):
    """A bytes object with attributes."""


class Number(int):
    """An int with attributes."""


class Opened:
    """A file object whose name has attributes."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("r+b")
        self.name = Text(path)

    def fileno(self) -> int:
        return self.file.fileno()


def growing(path: Path) -> object:
    return Logged(path)


def named_by_text(path: Path) -> object:
    name = Text(path)
    name.file = MappedFile(name, "r+")  # type: ignore[attr-defined]
    assert name.file.name == name  # type: ignore[attr-defined]
    return name


def named_by_bytes(path: Path) -> object:
    name = Bytes(os.fsencode(path))
    name.file = MappedFile(name, "r+")  # type: ignore[attr-defined]
    return name


def named_by_an_object(path: Path) -> object:
    opened = Opened(path)
    opened.name.file = MappedFile(opened, "r+")  # type: ignore[attr-defined, arg-type]
    assert str(path) == opened.name.file.name  # type: ignore[attr-defined]
    opened.file.close()
    return opened


def with_a_mode(path: Path) -> object:
    mode = Text("r+")
    mode.file = MappedFile(path, mode)  # type: ignore[attr-defined, call-overload]
    assert mode.file.mode == "r+"  # type: ignore[attr-defined]
    return mode


def with_a_descriptor(path: Path) -> object:
    with path.open("r+b") as opened:
        number = Number(opened.fileno())
        number.map = mmap.mmap(number, 0)  # type: ignore[attr-defined]
        number.file = MappedFile(number, "r+")  # type: ignore[attr-defined]
        assert number.file.name == opened.fileno()  # type: ignore[attr-defined]
    return number


def with_a_tag(path: Path) -> object:
    tag = Text(f"mappedfile-{os.getpid()}")
    with path.open("r+b") as opened:
        tag.map = mmap.mmap(opened.fileno(), 0, tagname=tag)  # type: ignore[attr-defined]
    return tag


MAKERS = [
    growing,
    named_by_text,
    named_by_bytes,
    named_by_an_object,
    with_a_mode,
    with_a_descriptor,
    with_a_tag,
]


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("make", MAKERS)
def test_cycles_are_collected(path: Path, make: Callable[[Path], object]) -> None:
    """A cycle through a mapped file is collected: no handle and no map leaks."""
    path.write_bytes(CONTENT)
    make(path)
    gc.collect()
    before = handles(), file_maps()
    for _ in range(5):
        make(path)
    gc.collect()
    assert before == (handles(), file_maps())


def test_a_failed_opening_keeps_nothing(path: Path) -> None:
    """An opening that fails keeps no reference to its arguments."""
    mode: Any = "".join(["r", "+"])
    name = str(path)
    before = sys.getrefcount(mode), sys.getrefcount(name)
    for _ in range(100):
        with pytest.raises(FileNotFoundError):
            MappedFile(name, mode)
    assert before == (sys.getrefcount(mode), sys.getrefcount(name))


# Exceptions


class Finalized(MappedFile):
    """A mapped file with its own __del__."""

    def __del__(self) -> None:
        pass


@pytest.mark.parametrize("kind", ["file", "mmap"])
def test_the_exception_in_flight_stays(
    path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception deallocates an object that cannot be closed. The exception is not changed, and
    the error of closing goes to sys.unraisablehook."""
    only(kind == "file" or sys.platform != "win32", "POSIX only: maps have descriptors")
    path.write_bytes(CONTENT)
    reported: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda one: reported.append(one.exc_value))

    def broken() -> object:
        if kind == "file":
            made: Any = Finalized(path)
            close_handle(made.handle)
            return made
        with path.open("r+b") as opened:
            before = set(descriptors())
            made = mmap.mmap(opened.fileno(), 0)
            (ours,) = set(descriptors()) - before
        close_handle(ours)
        return made

    with pytest.raises(ZeroDivisionError):
        [broken(), 1 / 0]
    gc.collect()
    assert ["OSError"] == [type(one).__name__ for one in reported]


def descriptors() -> list[int]:
    """Return the descriptors of this process."""
    found = []
    for number in range(256):
        try:
            os.fstat(number)
        except OSError:
            continue
        found.append(number)
    return found


def close_handle(number: int) -> None:
    """Close a handle that the library owns."""
    if sys.platform == "win32":
        import _winapi

        _winapi.CloseHandle(number)
    else:
        os.close(number)


# Overriding


class Forged:
    """A wrong result of _use()."""

    address, size, offset, handle = 4096, 4096, 0, 12345

    def __enter__(self) -> Forged:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class Forger(MappedFile):
    """A subclass that overrides the method from which Python code gets addresses."""

    def _use(self, *arguments: object) -> Any:
        return Forged()


def test_no_address_is_forged(path: Path) -> None:
    """A subclass cannot give the library an address."""
    path.write_bytes(CONTENT)
    with Forger(path) as file:
        file[0]
        assert file.residency().pages == -(-len(CONTENT) // PAGE_SIZE)
        assert file.advise("normal") in (True, False)


@pytest.mark.parametrize(
    "type_",
    [_memory.Window, _memory.Buffer, _memory.Stream, mmap.mmap],
)
def test_types_cannot_be_changed(type_: type) -> None:
    """Attributes of the C types cannot be set."""
    with pytest.raises(TypeError, match="immutable type"):
        type_.__buffer__ = None  # type: ignore[attr-defined]


def test_views_and_streams_are_made_by_methods(path: Path) -> None:
    """Calling these classes raises TypeError."""
    for type_ in (View, _memory.Stream, _memory.Buffer):
        with pytest.raises(TypeError):
            type_()


def test_types_without_a_backend() -> None:
    """A second import of the C types alone has no backend: RuntimeError."""
    program = """
import sys, mappedfile
del sys.modules["mappedfile._memory"]
from mappedfile import mmap
try:
    mmap.mmap(-1, 4096)
except RuntimeError as error:
    print(error)
"""
    out = run_python(*code(program)).stdout
    assert "the C types are not connected to the backend: import mappedfile does it\n" == out


# Arrays as needles


@pytest.mark.parametrize("kind", ["file", "mmap"])
def test_arrays_in_a_window(path: Path, kind: str) -> None:
    """``in`` searches for the bytes of an array, as for a bytes object."""
    path.write_bytes(CONTENT)
    with path.open("r+b") as opened:
        window: Any = MappedFile(opened, "r+") if kind == "file" else mmap.mmap(opened.fileno(), 0)
    with window:
        assert np.frombuffer(b"901", "u1") in window
        assert np.frombuffer(b"109", "u1") not in window
        assert np.array(ord("3"), "u1") in window
        with pytest.raises(TypeError):
            1.5 in window  # noqa: B015
