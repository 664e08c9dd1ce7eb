"""Threads that work at the same time. None can hang, and no error of one is lost.

with Crew() as crew:                    joins them; raises what one of them raised
    start = crew.barrier(2)
    crew.start(work, start)
    ...
    crew.stop()                         for those that look at crew.stopped

first, second = at_once(one, other)     what each of them raised
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

#: How long threads may take to meet, or to end once they are to.
SECONDS = 120


class Crew:
    """Threads that end together. When one fails, or whoever started them does, all of them stop."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self.stopped = threading.Event()
        self.errors: list[BaseException] = []
        self.threads: list[threading.Thread] = []
        self.barriers: list[threading.Barrier] = []

    def barrier(self, parties: int) -> threading.Barrier:
        """Make a barrier. Those who wait at it go on when all stop, and when the time is over."""
        self.barriers.append(threading.Barrier(parties, timeout=self.seconds))
        return self.barriers[-1]

    def start(self, call: Callable[..., object], *arguments: Any) -> threading.Thread:
        """Have a thread call a function."""
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
        """Have all of them stop: a barrier lets nobody wait any more."""
        self.stopped.set()
        for barrier in self.barriers:
            barrier.abort()

    def join(self) -> None:
        """Wait for their end, but not for ever."""
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
    """Call each in a thread of its own, all at the same moment; return what each raised."""
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
    """Have threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        yield
    finally:
        sys.setswitchinterval(before)
