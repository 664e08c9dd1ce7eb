"""What tests/test_interrupts.py interrupts, and how. Not a test.

An interrupt comes at a place of the library's Python code, which a tracer counts; or when a timer says so; or with a system
call that strace has fail with EINTR, and that sends a signal:

    python interrupting.py FOLDER use|raise HANDLER...      what strace runs: every call, under every handler
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import mappedfile
from mappedfile import PAGE_SIZE, MappedFile, View, _limits
from mappedfile.contract._probe import file_maps, handles

assert _limits  # and what it loads: a call that did would leave maps

SIZE = 5 * PAGE_SIZE + 7
BYTE = b"b"
PACKAGE = os.path.dirname(mappedfile.__file__)

Call = Callable[[MappedFile, Path], Any]


class Interrupt(KeyboardInterrupt):
    """Ctrl-C, as nobody else raises it."""


# What is interrupted. A call is given a file that is open in mode "r+", mapped, and five pages long; and a path that is free.


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
    """Errors are built in Python."""
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
    "open descriptor": lambda file, path: MappedFile(file.fileno(), "r+") if os.name != "nt" else None,
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
    "locked, resize": lambda file, path: (file.lock(), file.resize(len(file) + 5000), file.unlock()),
    "advise": lambda file, path: file.advise("willneed"),
    "advise, inwards": lambda file, path: file.advise("cold", 5, 5000),
    "advise, populate": lambda file, path: file.advise("populate_write"),
    "residency": lambda file, path: file.residency(),
    "find": lambda file, path: (file.find(b"absent"), file.rfind(b"absent"), file.count(BYTE)),
    "with": enters,
    "read": reads,
    "write": writes,
    "fail": fails,
}  # fmt: skip


@contextmanager
def given(folder: Path) -> Iterator[tuple[MappedFile, Path]]:
    """Make what a call is given. Afterwards look whether all is right, works on, and is given back."""
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
    """Whether a file is closed, or all works and nothing is counted that is gone. It is closed then."""
    if not file.closed:
        size = len(file)
        file.refresh()
        assert size in (len(file), len(file) - 5000), "what others wrote may not have been seen yet"
        assert len(file) == path.stat().st_size
        assert file[:] == path.read_bytes()
        assert not file[:].translate(None, BYTE + b"\0")
        file.resize(SIZE + 20_000)
        file[-1] = BYTE[0]
        file.flush()
        file.resize(10)  # nobody uses its map
        assert len(file) == 10 == path.stat().st_size
        file[:] = BYTE * 10
        assert file[:] == path.read_bytes()
        file.close(strict=True)  # no view and no buffer is counted
    assert file.closed
    assert not file.mapped


def once(call: Call, file: MappedFile, path: Path) -> bool:
    """Make a call, and let go of its result; or be interrupted. Return whether it was. What was open then is dropped."""
    try:
        result = call(file, path)
        if isinstance(result, memoryview):
            result.release()
        elif isinstance(result, (MappedFile, View)):
            result.close()
    except Interrupt:
        return True
    return False


# By a tracer


def interrupted_at(number: int, event: str, call: Call, file: MappedFile, path: Path) -> bool:
    """Make a call, with an interrupt at the so manieth line, or instruction, in the library. Return whether it came to that."""
    left = number

    def trace(frame: FrameType, what: str, _: Any) -> Any:
        nonlocal left
        if what == "call":
            if (
                not frame.f_code.co_filename.startswith(PACKAGE)
                or "contract" in frame.f_code.co_filename
            ):
                return None
            frame.f_trace_opcodes = event == "opcode"
        if what in (event, "call", "return"):
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise Interrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return once(call, file, path)
    finally:
        sys.settrace(before)


# By a timer


class Timer:
    """Interrupts a call after a time: raises, or has a function called."""

    def __init__(self, act: Callable[[], None] | None = None) -> None:
        self.act, self.armed, self.again, self.came = act, False, 0.0, 0
        self.before = signal.signal(signal.SIGALRM, self.handle)

    def handle(self, *_: Any) -> None:
        if not self.armed:
            return
        self.came += 1
        self.armed = False  # what comes after an interrupt is not interrupted, nor is the handler
        if self.act is None:
            raise Interrupt
        self.act()
        if self.again:
            self.armed = True
            signal.setitimer(signal.ITIMER_REAL, self.again)  # from now on: the call has its share

    def __call__(
        self, seconds: float, call: Call, file: MappedFile, path: Path, again: float = 0
    ) -> bool:
        came = False
        try:
            try:
                self.armed, self.again = True, again
                signal.setitimer(signal.ITIMER_REAL, seconds)
                came = once(call, file, path)
            finally:
                self.armed, self.again = False, 0
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupt:
            came = True
        return came

    def close(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)


# Handlers that use the file while the same thread is in a call

HANDLERS: dict[str, Callable[[MappedFile], Any]] = {
    "read": lambda file: file[:100],
    "write": lambda file: file.__setitem__(0, BYTE[0]),
    "data": lambda file: file.data.release(),
    "view": lambda file: file.view(0, 1).close(),
    "find": lambda file: file.find(b"absent"),
    "flush": lambda file: file.flush(),
    "flush range": lambda file: file.flush(0, 1, durable=False),
    "advise": lambda file: file.advise("willneed"),
    "residency": lambda file: file.residency(0, 100),
    "lock": lambda file: (file.lock(), file.unlock()),
    "resize up": lambda file: file.resize(len(file) + 1),
    "resize down": lambda file: file.resize(len(file) - 1),
    "refresh": lambda file: file.refresh(),
    "close": lambda file: file.close(),
}


class Nested:
    """A handler of signals that does something with a file; what it met is kept."""

    def __init__(self, name: str, most: int) -> None:
        self.name, self.most = (
            name,
            most,
        )  # times: a handler that makes the call that is interrupted would go on for ever
        self.file: MappedFile | None = None
        self.busy = False
        self.done = self.refused = 0
        self.errors: list[BaseException] = []

    def __call__(self, *_: object) -> None:
        if self.file is None or self.done + self.refused >= self.most:
            return
        self.busy = True
        try:
            HANDLERS[self.name](self.file)
            self.done += 1
        except BufferError as error:
            self.refused += 1
            if not re.search("is being changed|is using its memory|alive", str(error)):
                self.errors.append(error)
        except BaseException as error:
            self.refused += 1
            self.errors.append(error)
        finally:
            self.busy = False

    def settle(self, what: str) -> None:
        """Raise what the handler met and should not have; it may well find the file closed, or without bytes."""
        for error in self.errors:
            is_closed = (self.name == "close" or what.startswith("close")) and "is closed" in str(
                error
            )
            if not is_closed and what != "resize to nothing" and self.name != "resize down":
                error.add_note(f"in the handler: {self.name}, during: {what}")
                raise error


def main(folder: str, how: str, *names: str) -> None:
    """Make every call under every handler of SIGUSR1: it uses the file and, if it is to, raises then. Say how often it came."""
    came = dict.fromkeys(("called", "done", "refused", "raised"), 0)
    for name in names or HANDLERS:
        for what, call in CALLS.items():
            nested = Nested(name, 3)

            def handle(*_: object, nested: Nested = nested) -> None:
                if nested.file is not None and not nested.busy:  # nor is the handler interrupted
                    came["called"] += 1
                    nested()
                    if how == "raise":
                        nested.file = None
                        raise Interrupt

            signal.signal(signal.SIGUSR1, handle)
            with given(Path(folder)) as (file, path):
                nested.file = file
                try:
                    came["raised"] += once(call, file, path)
                except (ValueError, BufferError, IndexError) as error:
                    nested.file = None
                    if not (name == "close" or name.startswith("resize")):
                        error.add_note(f"in the call: {what}, with the handler: {name}")
                        raise
                nested.file = None
                nested.settle(what)
                del file
            came["done"] += nested.done
            came["refused"] += nested.refused
    print(came)


if __name__ == "__main__":
    main(*sys.argv[1:])
