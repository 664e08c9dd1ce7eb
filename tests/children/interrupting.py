"""Interrupts calls at a chosen place or time. For tests/test_interrupts.py.

A tracer interrupts a call at a line or instruction of the library. A timer interrupts it after some
time. strace makes a system call fail with EINTR, and sends a signal. The program that strace runs
makes every call, with every handler:

    python -m children.interrupting FOLDER use|raise
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import mappedfile
from children.interrupted import BYTE, CALLS, Call, Interrupt, given, once
from mappedfile import MappedFile

PACKAGE = os.path.dirname(mappedfile.__file__)


# By a tracer


def interrupted_at(number: int, event: str, call: Call, file: MappedFile, path: Path) -> bool:
    """Interrupt a call at line or instruction *number* of the library.

    Return whether the call got that far.
    """
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
    """Interrupts a call after some time, by an exception or by calling a function."""

    def __init__(self, act: Callable[[], None] | None = None) -> None:
        self.act, self.armed, self.again, self.came = act, False, 0.0, 0
        self.before = signal.signal(signal.SIGALRM, self.handle)

    def handle(self, *_: Any) -> None:
        if not self.armed:
            return
        self.came += 1
        self.armed = False  # no second interrupt, also not of the handler
        if self.act is None:
            raise Interrupt
        self.act()
        if self.again:
            self.armed = True
            # The time counts from here, so that the call makes progress.
            signal.setitimer(signal.ITIMER_REAL, self.again)

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


# Handlers that use the file during a call in the same thread

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
    """A signal handler that uses a file, and keeps its errors."""

    def __init__(self, name: str, most: int) -> None:
        # The limit is needed for a handler that makes the call that it interrupts.
        self.name, self.most = name, most
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
        """Raise the first error that the handler should not have met.

        A closed file and an empty one are allowed.
        """
        for error in self.errors:
            is_closed = (self.name == "close" or what.startswith("close")) and "is closed" in str(
                error
            )
            if not is_closed and what != "resize to nothing" and self.name != "resize down":
                error.add_note(f"in the handler: {self.name}, during: {what}")
                raise error


def main() -> None:
    """Make every call with every handler of SIGUSR1. Print how often the handlers ran.

    Each handler uses the file. With "raise", it then raises an exception.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("how", choices=["use", "raise"])
    options = parser.parse_args()
    came = dict.fromkeys(("called", "done", "refused", "raised"), 0)
    for name in HANDLERS:
        for what, call in CALLS.items():
            nested = Nested(name, 3)

            def handle(*_: object, nested: Nested = nested) -> None:
                if nested.file is not None and not nested.busy:  # the handler is not interrupted
                    came["called"] += 1
                    nested()
                    if options.how == "raise":
                        nested.file = None
                        raise Interrupt

            signal.signal(signal.SIGUSR1, handle)
            with given(options.folder) as (file, path):
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
    main()
