"""Calls to interrupt, for interrupting.py and tests/test_interrupts.py.

The arguments of a call are a mapped file of five pages and a bit, open in mode "r+", and a path
where no file exists.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mappedfile import PAGE_SIZE, MappedFile, View, _limits
from mappedfile.contract._probe import file_maps, handles

assert _limits  # imported early: importing it in a call would add maps

SIZE = 5 * PAGE_SIZE + 7
BYTE = b"b"

Call = Callable[[MappedFile, Path], Any]


class Interrupt(KeyboardInterrupt):
    """A KeyboardInterrupt that only the tests raise."""


# Calls to interrupt


def opens(mode: str, **options: Any) -> Call:
    def call(file: MappedFile, path: Path) -> MappedFile:
        if mode in ("w+", "x+"):
            options["size"] = SIZE
            return MappedFile(path, mode, **options)  # type: ignore[call-overload]
        return MappedFile(file.name, mode, **options)  # type: ignore[call-overload]

    return call


def opens_object(file: MappedFile, path: Path) -> MappedFile:
    with open(file.name, "rb") as other:
        return MappedFile(other)


def refreshes(file: MappedFile, path: Path) -> None:
    with open(file.name, "ab") as other:
        other.write(BYTE * 5000)
    file.refresh()


def enters(file: MappedFile, path: Path) -> None:
    with MappedFile(file.name) as other, other.view(5) as view:
        assert view[0] in BYTE + b"\0"


def reads(file: MappedFile, path: Path) -> None:
    file[0], file[-1], file[5:], file[::7], len(file), repr(file), b"q" in file, next(iter(file))
    _ = file.mapped, file.faulted, file.readonly, file.mode, file.name, file.closed


def writes(file: MappedFile, path: Path) -> None:
    file[0] = BYTE[0]
    file[7:9] = BYTE * 2


def fails(file: MappedFile, path: Path) -> None:
    """Make calls that fail: Python code builds their errors."""
    for wrong in (
        lambda: file[10**9],
        lambda: file.view(10**9),
        lambda: MappedFile(path),
        lambda: file.advise("someday"),
    ):
        with suppress(IndexError, OSError, ValueError):
            wrong()


def shrinks_with_view(file: MappedFile, path: Path) -> None:
    with file.view(7), suppress(BufferError):
        file.resize(5)


CALLS: dict[str, Call] = {
    **{f"open {mode}": opens(mode) for mode in ("r", "r+", "c", "w+", "x+")},
    **{f"open {mode}, populate": opens(mode, populate=True) for mode in ("r", "c", "w+", "x+")},
    "open x+, sparse": opens("x+", sparse=True),
    "open descriptor": lambda file, path: (
        MappedFile(file.fileno(), "r+") if os.name != "nt" else None
    ),
    "open object": opens_object,
    "view": lambda file, path: file.view(3, 100),
    "view, populate": lambda file, path: file.view(3, populate=True),
    "data": lambda file, path: file.data,
    "close": lambda file, path: file.close(),
    "close strict": lambda file, path: file.close(strict=True),
    "resize up": lambda file, path: file.resize(len(file) + 100_000),
    "resize down": lambda file, path: file.resize(100),
    "resize to nothing": lambda file, path: file.resize(0),
    "shrink with view": shrinks_with_view,
    "refresh": refreshes,
    "refresh of nothing": lambda file, path: file.refresh(),
    "flush": lambda file, path: file.flush(),
    "flush range": lambda file, path: file.flush(1, 5000),
    "flush later": lambda file, path: file.flush(durable=False),
    "lock": lambda file, path: (file.lock(), file.unlock()),
    "locked, resize": lambda file, path: (
        file.lock(),
        file.resize(len(file) + 5000),
        file.unlock(),
    ),
    "advise": lambda file, path: file.advise("willneed"),
    "advise, inwards": lambda file, path: file.advise("cold", 5, 5000),
    "advise, populate": lambda file, path: file.advise("populate_write"),
    "residency": lambda file, path: file.residency(),
    "find": lambda file, path: (file.find(b"absent"), file.rfind(b"absent"), file.count(BYTE)),
    "with": enters,
    "read": reads,
    "write": writes,
    "fail": fails,
}


@contextmanager
def given(folder: Path) -> Iterator[tuple[MappedFile, Path]]:
    """Yield a mapped file and a path for a call.

    Afterwards check that everything works and nothing leaks.
    """
    path, free = folder / "file", folder / "free"
    free.unlink(missing_ok=True)
    path.write_bytes(BYTE * SIZE)
    before = handles(), file_maps()
    file = MappedFile(path, "r+")
    file[0]
    yield file, free
    works(file, path)
    del file
    after = handles(), file_maps()
    assert before == after, f"{before} became {after}"


def works(file: MappedFile, path: Path) -> None:
    """Check that a file is closed, or works and has right counts.

    It is closed afterwards.
    """
    if not file.closed:
        size = len(file)
        file.refresh()
        assert size in (len(file), len(file) - 5000), "only appended bytes may be new"
        assert len(file) == path.stat().st_size
        assert file[:] == path.read_bytes()
        assert not file[:].translate(None, BYTE + b"\0")
        file.resize(SIZE + 20_000)
        file[-1] = BYTE[0]
        file.flush()
        file.resize(10)  # works: its map is not in use
        assert len(file) == 10 == path.stat().st_size
        file[:] = BYTE * 10
        assert file[:] == path.read_bytes()
        file.close(strict=True)  # works: no view or buffer is counted
    assert file.closed
    assert not file.mapped


def once(call: Call, file: MappedFile, path: Path) -> bool:
    """Make a call, and release its result. Return whether the call was interrupted.

    After an interrupt, objects may stay open.
    """
    try:
        result = call(file, path)
        if isinstance(result, memoryview):
            result.release()
        elif isinstance(result, (MappedFile, View)):
            result.close()
    except Interrupt:
        return True
    return False
