"""Threads that run at the same time. None can hang, and no error is lost.

with Crew() as crew:                    joins them, and raises their first error
    start = crew.barrier(2)
    crew.start(work, start)
    ...
    crew.stop()                         for threads that check crew.stopped

first, second = at_once(one, other)     the error of each, or None
"""

from __future__ import annotations

import faulthandler
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

#: How many seconds threads may wait at a barrier, or take to end.
SECONDS = 120


class Crew:
    """Threads that end together. If one of them or the main thread fails, all stop."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self.stopped = threading.Event()
        self.errors: list[BaseException] = []
        self.threads: list[threading.Thread] = []
        self.barriers: list[threading.Barrier] = []

    def barrier(self, parties: int) -> threading.Barrier:
        """Make a barrier. Waiting ends with an error after the limit, or when the crew stops."""
        self.barriers.append(threading.Barrier(parties, timeout=self.seconds))
        return self.barriers[-1]

    def start(self, call: Callable[..., object], *arguments: Any) -> threading.Thread:
        """Call a function in a new thread."""
        thread = threading.Thread(target=self._run, args=(call, arguments), daemon=True)
        self.threads.append(thread)
        thread.start()
        return thread

    def _run(self, call: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        try:
            call(*arguments)
        except threading.BrokenBarrierError as error:
            if not self.stopped.is_set():  # the time was over
                self._fail(error)
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self.errors.append(error)
        self.stop()

    def stop(self) -> None:
        """Tell all threads to stop, and break the barriers."""
        self.stopped.set()
        for barrier in self.barriers:
            barrier.abort()

    def join(self) -> None:
        """Wait until all threads have ended, but not for ever."""
        until = time.monotonic() + self.seconds
        for thread in self.threads:
            thread.join(max(until - time.monotonic(), 0))
            if thread.is_alive():
                faulthandler.dump_traceback(file=2, all_threads=True)
                raise AssertionError(f"a thread hangs: it has not ended in {self.seconds} seconds")

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        place: TracebackType | None,
    ) -> None:
        if error is not None:
            self.stop()
        self.join()
        self.threads.clear()
        errors, self.errors = self.errors, []
        if errors and (error is None or isinstance(error, threading.BrokenBarrierError)):
            for other in errors[1:]:
                errors[0].add_note(f"and in another thread: {other!r}")
            raise errors[0]


def at_once(*calls: Callable[[], object], seconds: float = SECONDS) -> list[BaseException | None]:
    """Call each function in its own thread, all at the same moment. Return what each raised."""
    raised: list[BaseException | None] = [None] * len(calls)
    with Crew(seconds) as crew:
        begin = crew.barrier(len(calls))

        def run(number: int) -> None:
            begin.wait()
            try:
                calls[number]()
            except BaseException as error:
                raised[number] = error

        for number in range(len(calls)):
            crew.start(run, number)
    return raised


@contextmanager
def taking_turns() -> Iterator[None]:
    """Make threads switch as often as possible for the time of the block."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
