"""Another process truncates a file while this one uses it in every way.

For tests/test_guard.py.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from children.guard_common import CONTENT, PAGES, faults, filled
from children.guard_cutter import Cutter
from children.tasks import Tasks
from mappedfile import PAGE_SIZE, MappedFile, MappingFault
from mappedfile.contract import _probe

task = Tasks()

Step = Callable[..., None]
#: The steps of a round. The arguments are a window, its offset in the file, and a range in it.
STEPS: list[Step] = []


def step(function: Step) -> Step:
    """Register a step."""
    STEPS.append(function)
    return function


class Round:
    """A file that another process truncates at some moment, while this one uses it.

    It is truncated to whole pages, and in some rounds extended again. Before that, a read returns
    the right bytes or raises MappingFault. A buffer may show zeros, and then the mark is set.
    """

    def __init__(self, number: int, chance: random.Random, cutter: Cutter) -> None:
        self.chance = chance
        self.cutter = cutter
        self.number = number
        self.pages = chance.randint(2, PAGES)
        self.kept = chance.randrange(self.pages) * PAGE_SIZE
        self.restored = chance.random() < 0.4
        self.mode = chance.choice(("r", "r+", "r+", "c"))
        self.zeros = self.restored  # whether bytes may be zero
        self.name = f"round{number}"
        self.content = CONTENT[: self.pages * PAGE_SIZE]
        self.faults = 0

    def run(self) -> None:
        filled(Path(self.name), self.content)
        self.open()
        self.cutter.tell(
            self.number, self.chance.randrange(1500), self.kept // PAGE_SIZE, self.restored
        )
        while not self.cutter.done():
            self.take_step()
        for _ in range(4):
            self.take_step()
        if not self.zeros:
            self.look()
        self.file.refresh()
        assert not self.file.faulted
        assert len(self.file) == os.stat(self.name).st_size
        self.check(self.file[:], 0)
        self.close()
        os.unlink(self.name)

    def open(self) -> None:
        self.file = MappedFile(
            self.name, self.mode, reserve=self.chance.choice((0, 0, PAGES * PAGE_SIZE))
        )
        # In half of the rounds, the pages are touched first: later faults then take less time.
        if self.chance.random() < 0.5:
            self.reading(lambda: self.file[:], 0)
        start = self.chance.randrange(len(self.content))
        self.view = (
            self.file.view(start, self.chance.randint(1, len(self.content) - start))
            if len(self.file) == len(self.content)
            else None
        )

    def close(self) -> None:
        if self.view is not None:
            self.view.close()
        self.file.close()

    def check(self, got: bytes, offset: int) -> None:
        """Fail if bytes that were read are wrong."""
        expected = self.content[offset : offset + len(got)].ljust(len(got), b"\0")
        if got != expected:
            assert self.zeros, f"wrong bytes at {offset}"
            a, b = np.frombuffer(got, "u1"), np.frombuffer(expected, "u1")
            assert not a[a != b].any(), f"wrong bytes other than zeros at {offset}"

    def reading(self, read: Callable[[], bytes], offset: int) -> None:
        """Run a read that returns right bytes, or raises a right MappingFault."""
        try:
            got = read()
        except MappingFault as fault:
            self.faults += 1
            assert (errno.EIO, self.name) == (fault.errno, fault.filename)
            assert fault.offset is None or fault.offset >= self.kept, (fault.offset, self.kept)
            assert self.file.faulted
        else:
            self.check(got, offset)

    def take_step(self) -> None:
        window, first = (
            (self.file, 0)
            if self.view is None or self.chance.random() < 0.6
            else (self.view, self.view.offset)
        )
        if not len(window):
            return
        start = self.chance.randrange(len(window))
        stop = min(len(window), start + self.chance.choice((1, 100, PAGE_SIZE, 20 * PAGE_SIZE)))
        self.chance.choice(STEPS)(self, window, first, start, stop)

    @step
    def do_index(self, window: Any, first: int, start: int, stop: int) -> None:
        self.reading(lambda: bytes([window[start]]), first + start)

    @step
    def do_slice(self, window: Any, first: int, start: int, stop: int) -> None:
        self.reading(lambda: window[start:stop], first + start)

    @step
    def do_step(self, window: Any, first: int, start: int, stop: int) -> None:
        def read() -> bytes:
            got[::self_step] = window[start : start + len(got) : self_step]
            return bytes(got)

        self_step = 7
        got = bytearray(self.content[first + start : first + stop])
        self.reading(read, first + start)

    @step
    def do_iterate(self, window: Any, first: int, start: int, stop: int) -> None:
        self.reading(lambda: bytes(itertools.islice(window, 300)), first)

    @step
    def do_write(self, window: Any, first: int, start: int, stop: int) -> None:
        if self.mode == "r":
            return
        data = self.content[first + start : first + stop].ljust(stop - start, b"\0")

        def write() -> bytes:
            if self.chance.random() < 0.3:
                window[start] = data[0]
            elif self.chance.random() < 0.5:
                window[start:stop:3] = data[::3]
            else:
                window[start:stop] = data
            return data

        self.reading(write, first + start)

    @step
    def do_find(self, window: Any, first: int, start: int, stop: int) -> None:
        needle = self.content[first + start : first + stop][-50:]
        if len(needle) < 20:
            return
        place = self.content.index(needle) - first

        def search(find: Callable[..., int], *limits: int) -> bytes:
            found = find(needle, *limits)
            assert found == place or (found == -1 and self.zeros), (found, place)
            return b""

        self.reading(lambda: search(window.find), first)
        self.reading(lambda: search(window.rfind, max(place - 100, 0)), first)

    @step
    def do_count(self, window: Any, first: int, start: int, stop: int) -> None:
        def count() -> bytes:
            number = window.count(0)
            assert not number or self.zeros, number
            return b""

        self.reading(count, first)

    @step
    def do_sum(self, window: Any, first: int, start: int, stop: int) -> None:
        array = np.frombuffer(window.data, "u1")[start:stop]
        expected = int(
            np.frombuffer(self.content[first + start : first + stop], "u1").sum(dtype="u8")
        )
        total = int(array.sum(dtype="u8"))
        assert total == expected or (
            total < expected and (self.zeros or (window.faulted and self.file.faulted))
        )
        if not self.zeros:
            below = max(min(self.kept - first - start, stop - start), 0)
            self.check(array[:below].tobytes(), first + start)

    @step
    def do_flush(self, window: Any, first: int, start: int, stop: int) -> None:
        def flush() -> bytes:
            if self.chance.random() < 0.5:
                window.flush(durable=self.chance.random() < 0.3)
            else:
                window.flush(start, stop - start, durable=self.chance.random() < 0.3)
            return b""

        self.reading(flush, first)

    @step
    def do_advise(self, window: Any, first: int, start: int, stop: int) -> None:
        kind = self.chance.choice(
            ("willneed", "sequential", "cold", "pageout", "populate_read", "populate_write")
        )
        if self.mode == "r" and kind == "populate_write":
            return
        try:
            window.advise(kind, start, stop - start)
        except MappingFault as fault:
            assert kind.startswith("populate"), kind
            assert (errno.EIO, self.name) == (fault.errno, fault.filename)

    @step
    def do_residency(self, window: Any, first: int, start: int, stop: int) -> None:
        assert len(window.residency(start, stop - start)) <= PAGES + 1

    @step
    def do_lock(self, window: Any, first: int, start: int, stop: int) -> None:
        try:
            window.lock()
        except MappingFault as fault:  # missing pages cannot be locked
            assert (errno.EIO, self.name) == (fault.errno, fault.filename)
        except OSError as error:  # the page was missing, and exists again
            assert (errno.ENOMEM, self.name, True) == (error.errno, error.filename, self.restored)
        else:
            self.do_index(window, first, start, stop)
        window.unlock()

    @step
    def do_resize(self, window: Any, first: int, start: int, stop: int) -> None:
        if self.mode != "r+" or self.chance.random() < 0.7:
            return

        def resize() -> bytes:
            self.zeros = True  # growth adds zeros
            size = len(self.file) + self.chance.randrange(3 * PAGE_SIZE)
            try:
                self.file.resize(size)
            except ValueError:  # opened while it was short; it has its old size again
                assert len(self.file) <= size < os.stat(self.name).st_size
            return b""

        self.reading(resize, 0)

    @step
    def do_open_again(self, window: Any, first: int, start: int, stop: int) -> None:
        if self.chance.random() < 0.2:
            data = self.file.data if self.chance.random() < 0.5 else None
            self.close()
            if os.stat(self.name).st_size != len(self.content):
                self.zeros = True  # it is mapped with its new size, and may grow again
            if self.mode == "c":
                self.zeros = True  # the private changes are lost
            self.open()
            del data

    def look(self) -> None:
        """Check the window after the truncation: missing bytes raise MappingFault, the others are
        right."""
        for window, first in (
            ((self.file, 0), (self.view, self.view.offset))
            if self.view is not None
            else ((self.file, 0),)
        ):
            whole = min(max(self.kept - first, 0), len(window))
            assert window[:whole] == self.content[first : first + whole]
            if whole < len(window):
                with faults():
                    window[-1]
                with faults():
                    window[:]
            assert window.faulted == (whole < len(window))
            assert window[:whole] == self.content[first : first + whole]
            # Bytes written to missing pages stay in this map.
            data = bytearray(window.data)
            assert data[:whole] == self.content[first : first + whole]
            if self.mode == "r":
                assert not any(data[whole:])
            assert hashlib.sha256(window.data).digest() == hashlib.sha256(data).digest()
            self.zeros = True
            self.check(bytes(data), first)


@task
def rounds(folder: str, seed: str, number: str) -> None:
    """Run rounds. Each has its own seed."""
    os.chdir(folder)
    cutter = Cutter()
    import resource  # noqa: F401 (the library imports it later, which would add a map)

    with MappedFile(filled(Path("first"))) as file:
        file.residency()
    before: Any = None
    met = 0
    for each in range(int(number)):
        one = Round(each, random.Random(f"{seed} {each}"), cutter)
        try:
            one.run()
        except BaseException:
            print(
                f"seed {seed}, round {each}, mode {one.mode}:"
                f" cut to {one.kept}, restored: {one.restored}",
                file=sys.stderr,
            )
            raise
        met += bool(one.faults)
        now = _probe.handles(), *_probe.file_maps()
        before = before or now
        assert before == now, f"leaked in round {each}: {before} {now}"
    cutter.close()
    print(met)


if __name__ == "__main__":
    task.main()
