"""What tests/test_guard.py has done in processes of their own, which may die. Not a test.

    python faulting.py FUNCTION [ARGUMENT...]

calls the function with the arguments, as text. What it says is for the test.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import hashlib
import itertools
import mmap
import os
import random
import signal
import struct
import sys
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import sigbus

import mappedfile
from mappedfile import PAGE_SIZE, MappedFile, MappingFault
from mappedfile.contract import _probe

# Threads, as NumPy's are, make a fork a DeprecationWarning; where warnings are errors fork() raises it from 3.15 on, having forked.
warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)

PAGES = 64
#: No byte is zero, no page is like another, no bytes are like their neighbours.
CONTENT = np.random.default_rng(4).integers(1, 256, PAGES * PAGE_SIZE, "u1").tobytes()
ABSENT = bytes(4)


@contextmanager
def faults(what: str = "") -> Iterator[None]:
    """Expect a MappingFault."""
    try:
        yield
    except MappingFault:
        return
    raise AssertionError(f"no MappingFault {what}")


def filled(path: Path, content: bytes = CONTENT) -> Path:
    path.write_bytes(content)
    return path


# Rounds


class Cutter:
    """Another process, which cuts files short when it is told to, after a while."""

    def __init__(self) -> None:
        commands, self._tell = os.pipe()
        self._hear, answers = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._tell)
            try:
                while line := os.read(commands, 16):
                    self._cut(*struct.unpack("<IIII", line))
                    os.write(answers, b".")
            finally:
                os._exit(0)
        os.close(commands)
        os.close(answers)
        self.path = Path()

    @staticmethod
    def _cut(name: int, pause: int, pages: int, restore: int) -> None:
        path = f"round{name}"
        size = os.stat(path).st_size
        spin(pause)
        os.truncate(path, pages * PAGE_SIZE)
        if restore:
            spin(pause // 4)
            os.truncate(path, size)

    def tell(self, name: int, pause: int, pages: int, restore: bool) -> None:
        os.write(self._tell, struct.pack("<IIII", name, pause, pages, restore))
        self.cut = False

    def done(self) -> bool:
        """Whether it has done what it was told."""
        if not self.cut:
            import select

            self.cut = bool(select.select([self._hear], [], [], 0)[0])
            if self.cut:
                os.read(self._hear, 1)
        return self.cut

    def close(self) -> None:
        os.close(self._tell)
        os.waitpid(self._pid, 0)
        os.close(self._hear)


def spin(microseconds: int) -> None:
    until = time.perf_counter() + microseconds / 1e6
    while time.perf_counter() < until:
        pass


class Round:
    """A file that another process cuts short at some moment, while all is done with it that can be done.

    It is cut at a page, so that no page is partly zeros, and perhaps made longer again. Until it is longer again, what is read is what
    was there or, through a buffer, zeros and the mark; never zeros without a word.
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
            self.step()
        for _ in range(4):
            self.step()
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
        # Faults take time where nothing was touched before, and elsewhere none but the first.
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
        """What was read must be right."""
        expected = self.content[offset : offset + len(got)].ljust(len(got), b"\0")
        if got != expected:
            assert self.zeros, f"wrong bytes at {offset}"
            a, b = np.frombuffer(got, "u1"), np.frombuffer(expected, "u1")
            assert not a[a != b].any(), f"wrong bytes at {offset}, that are not zeros"

    def reading(self, read: Callable[[], bytes], offset: int) -> None:
        """Read right bytes, or get a MappingFault that is right."""
        try:
            got = read()
        except MappingFault as fault:
            self.faults += 1
            assert (errno.EIO, self.name) == (fault.errno, fault.filename)
            assert fault.offset is None or fault.offset >= self.kept, (fault.offset, self.kept)
            assert self.file.faulted
        else:
            self.check(got, offset)

    def step(self) -> None:
        window, first = (
            (self.file, 0)
            if self.view is None or self.chance.random() < 0.6
            else (self.view, self.view.offset)
        )
        if not len(window):
            return
        start = self.chance.randrange(len(window))
        stop = min(len(window), start + self.chance.choice((1, 100, PAGE_SIZE, 20 * PAGE_SIZE)))
        what = self.chance.choice([each for each in dir(self) if each.startswith("do_")])
        getattr(self, what)(window, first, start, stop)

    def do_index(self, window: Any, first: int, start: int, stop: int) -> None:
        self.reading(lambda: bytes([window[start]]), first + start)

    def do_slice(self, window: Any, first: int, start: int, stop: int) -> None:
        self.reading(lambda: window[start:stop], first + start)

    def do_step(self, window: Any, first: int, start: int, stop: int) -> None:
        def read() -> bytes:
            got[::self_step] = window[start : start + len(got) : self_step]
            return bytes(got)

        self_step = 7
        got = bytearray(self.content[first + start : first + stop])
        self.reading(read, first + start)

    def do_iterate(self, window: Any, first: int, start: int, stop: int) -> None:
        self.reading(lambda: bytes(itertools.islice(window, 300)), first)

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

    def do_count(self, window: Any, first: int, start: int, stop: int) -> None:
        def count() -> bytes:
            number = window.count(0)
            assert not number or self.zeros, number
            return b""

        self.reading(count, first)

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

    def do_flush(self, window: Any, first: int, start: int, stop: int) -> None:
        def flush() -> bytes:
            if self.chance.random() < 0.5:
                window.flush(durable=self.chance.random() < 0.3)
            else:
                window.flush(start, stop - start, durable=self.chance.random() < 0.3)
            return b""

        self.reading(flush, first)

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

    def do_residency(self, window: Any, first: int, start: int, stop: int) -> None:
        assert len(window.residency(start, stop - start)) <= PAGES + 1

    def do_lock(self, window: Any, first: int, start: int, stop: int) -> None:
        try:
            window.lock()
        except MappingFault as fault:  # what is gone cannot be locked
            assert (errno.EIO, self.name) == (fault.errno, fault.filename)
        except OSError as error:  # it was gone, and is back
            assert (errno.ENOMEM, self.name, True) == (error.errno, error.filename, self.restored)
        else:
            self.do_index(window, first, start, stop)
        window.unlock()

    def do_resize(self, window: Any, first: int, start: int, stop: int) -> None:
        if self.mode != "r+" or self.chance.random() < 0.7:
            return

        def resize() -> bytes:
            self.zeros = True  # it may be longer by zeros
            self.file.resize(len(self.file) + self.chance.randrange(3 * PAGE_SIZE))
            return b""

        self.reading(resize, 0)

    def do_open_again(self, window: Any, first: int, start: int, stop: int) -> None:
        if self.chance.random() < 0.2:
            data = self.file.data if self.chance.random() < 0.5 else None
            self.close()
            if os.stat(self.name).st_size != len(self.content):
                self.zeros = True  # it is mapped as it is now, and may be made longer again
            if self.mode == "c":
                self.zeros = True  # what was written is no more
            self.open()
            del data

    def look(self) -> None:
        """All is done: what is gone is gone, and what is whole is whole."""
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
            # What was written to pages that are gone stays in this map.
            data = bytearray(window.data)
            assert data[:whole] == self.content[first : first + whole]
            if self.mode == "r":
                assert not any(data[whole:])
            assert hashlib.sha256(window.data).digest() == hashlib.sha256(data).digest()
            self.zeros = True
            self.check(bytes(data), first)


def rounds(folder: str, seed: str, number: str) -> None:
    """Round after round, each with its own seed."""
    os.chdir(folder)
    cutter = Cutter()
    import resource  # noqa: F401 (as the library does when it needs it: a module is a map too)

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
                f"seed {seed}, round {each}, mode {one.mode}: cut to {one.kept}, restored: {one.restored}",
                file=sys.stderr,
            )
            raise
        met += bool(one.faults)
        now = _probe.handles(), *_probe.file_maps()
        before = before or now
        assert before == now, f"left behind in round {each}: {before} {now}"
    cutter.close()
    print(met)


# Threads


def storm(folder: str, times: str) -> None:
    """Threads that meet what is gone all at once, in maps of their own and in one, while others open and close maps all the time."""
    os.chdir(folder)
    workers = 4
    failures: list[str] = []
    stop = threading.Event()
    start, end = threading.Barrier(workers + 1), threading.Barrier(workers + 1)
    files = [MappedFile(filled(Path(f"own{number}")), "r+") for number in range(workers)]
    shared = MappedFile(filled(Path("shared")), "r+")
    left = CONTENT[:PAGE_SIZE].ljust(len(CONTENT), b"\0")
    opened = 0

    def guarded(function: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: Any) -> None:
            try:
                function(*arguments)
            except BaseException as error:
                failures.append(f"{function.__name__}: {error!r}")
                stop.set()
                start.abort()
                end.abort()

        return run

    @guarded
    def work(number: int) -> None:
        with suppress(threading.BrokenBarrierError):
            while True:
                start.wait()
                if stop.is_set():
                    return
                # None of these holds the GIL.
                own = files[number]
                with faults("in a file of its own"):
                    own.count(number)
                assert zlib.crc32(shared.data) == zlib.crc32(left), (
                    "wrong bytes of a file that all share"
                )
                assert shared.faulted
                with faults("in a file that all share"):
                    shared.find(ABSENT, number * 100)
                assert zlib.crc32(own.data) == zlib.crc32(left), "wrong bytes of a file of its own"
                with faults("at an index"):
                    shared[PAGE_SIZE * (number + 1)]
                end.wait()

    @guarded
    def open_and_close(number: int) -> None:
        nonlocal opened
        path = filled(Path(f"other{number}"))
        while not stop.is_set():
            with MappedFile(path, "r+") as file:
                views = [file.view(page * PAGE_SIZE, 100) for page in range(20)]
                for page, view in enumerate(views):
                    assert view[:] == CONTENT[page * PAGE_SIZE :][:100], (
                        "wrong bytes of a map that nobody cut"
                    )
                    view.close()
                assert file[-10:] == CONTENT[-10:]
                assert not file.faulted
            opened += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(workers)]
    threads += [threading.Thread(target=open_and_close, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    with suppress(threading.BrokenBarrierError):
        for _ in range(int(times)):
            for file in (*files, shared):
                os.truncate(file.name, PAGE_SIZE)
            start.wait()
            end.wait()
            for file in (*files, shared):
                filled(Path(str(file.name)))
                file.refresh()
                assert file[:] == CONTENT
        stop.set()
        start.wait()
    for thread in threads:
        thread.join()
    for file in (*files, shared):
        file.close()
    assert not failures, failures
    print(opened)


def grown(folder: str, reserve: str) -> None:
    """A map becomes longer, and the file is cut."""
    os.chdir(folder)
    with MappedFile(
        filled(Path("file"), CONTENT[: 3 * PAGE_SIZE]), "r+", reserve=int(reserve)
    ) as file:
        assert file[:] == CONTENT[: 3 * PAGE_SIZE]
        file.resize(len(CONTENT))
        os.truncate("file", PAGE_SIZE)
        for page in (1, 2, 3, PAGES - 1):
            with faults(f"on page {page}"):
                file[page * PAGE_SIZE]
        assert file[:PAGE_SIZE] == CONTENT[:PAGE_SIZE]
    print("done")


# Interrupts


def interrupts(folder: str, times: str) -> None:
    """A signal's handler raises an exception in the midst of mapping and unmapping: nothing is left behind, and the guard's list of
    maps is sound."""
    os.chdir(folder)
    sys.unraisablehook = lambda _: None  # what comes in a destructor has nowhere else to go
    warnings.simplefilter("ignore")
    armed = False
    chance = random.Random(1)

    class Interruption(Exception):  # noqa: N818
        pass

    def interrupt(*_: object) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise Interruption

    def view() -> None:
        with file.view(PAGE_SIZE, PAGE_SIZE) as view:
            view[0]

    def views() -> None:
        for each in [file.view(page * PAGE_SIZE, 10) for page in range(5)]:
            each.close()

    def another() -> None:
        with MappedFile("other", "r+") as other:
            other[0]
            other.resize(len(other) + 3 * PAGE_SIZE)
            other[-1]

    signal.signal(signal.SIGALRM, interrupt)
    filled(Path("other"))
    file = MappedFile(filled(Path("file")), "r+")
    assert file[:] == CONTENT
    another()
    before = _probe.file_maps()
    interrupted = 0
    while interrupted < int(times):
        what, length = chance.choice(((view, 40e-6), (views, 150e-6), (another, 200e-6)))
        os.truncate("other", PAGE_SIZE)
        try:
            armed = True
            signal.setitimer(signal.ITIMER_REAL, chance.random() * length + 1e-6)
            what()
            armed = False
        except Interruption:
            interrupted += 1
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
    gc.collect()
    after = _probe.file_maps()
    assert before == after, f"left behind: {before} {after}"
    rubbish = [
        bytes([255]) * size for size in range(40, 400) for _ in range(200)
    ]  # where freed memory was
    os.truncate("file", PAGE_SIZE)
    for page in range(1, 50):
        with faults():
            file[page * PAGE_SIZE]
        with MappedFile("other") as other, other.view(0, 10) as part:
            assert other[0] == part[0] == CONTENT[0]
    file.close()
    del rubbish
    print("done")


# fork


def fork(folder: str) -> None:
    """Parent and child each meet what is gone, and are each told."""
    os.chdir(folder)
    for first in ("parent", "child"):
        file = MappedFile(filled(Path(first)), "r+")
        view = file.view(PAGE_SIZE, PAGE_SIZE)
        assert (file[:], view[0]) == (CONTENT, CONTENT[PAGE_SIZE])
        os.truncate(first, PAGE_SIZE)
        if first == "parent":
            with faults():
                view[0]
        pid = os.fork()
        if pid == 0:
            os._exit(run_child(file, view, first == "parent"))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert (first == "parent") == view.faulted == file.faulted
        assert file[0] == CONTENT[0]
        for window in (file, view):
            with faults():
                window[-1]
            assert window.faulted
        filled(Path(first))
        file.refresh()
        assert file[:] == CONTENT
        view.close()
        file.close()
    print("done")


def run_child(file: MappedFile, view: Any, met: bool) -> int:
    try:
        assert met == view.faulted == file.faulted
        assert file[0] == CONTENT[0]
        for window in (file, view):
            with faults():
                window[-1]
            assert window.faulted
        with MappedFile(filled(Path("child's"))) as another:
            os.truncate("child's", 0)
            with faults():
                another[:]
        view.close()
        file.close()
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        return 1
    return 0


def fork_storm(folder: str, times: str, guard: str) -> None:
    """Children are born while threads map, unmap and meet what is gone; each can do the same."""
    os.chdir(folder)
    if guard == "without":
        mappedfile.fault_guard(False)
    file = MappedFile(filled(Path("file")))
    assert file[0] == CONTENT[0]
    stop = threading.Event()

    def open_and_close() -> None:
        while not stop.is_set():
            views = [file.view(page * PAGE_SIZE, 100) for page in range(20)]
            for view in views:
                view.close()

    def meet(name: str) -> None:
        while not stop.is_set():
            with MappedFile(filled(Path(name))) as mine:
                os.truncate(name, 0)
                with faults():
                    mine.count(7)

    threads = [threading.Thread(target=open_and_close, daemon=True) for _ in range(2)]
    if guard == "with":
        threads.append(threading.Thread(target=meet, args=("cut",), daemon=True))
    for thread in threads:
        thread.start()
    for born in range(int(times)):
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)  # the default action ends it
            with file.view(PAGE_SIZE, 10) as view:
                right = view[:] == CONTENT[PAGE_SIZE : PAGE_SIZE + 10]
            if guard == "with":
                with MappedFile(filled(Path("child's"))) as mine:
                    os.truncate("child's", 0)
                    with faults():
                        mine.count(7)
            os._exit(0 if right else 1)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status:
            stop.set()
            raise SystemExit(f"child {born} ended with {status}")
    stop.set()
    for thread in threads:
        thread.join()
    file.close()
    print("done")


# What the guard is told, and tells


def told(folder: str) -> None:
    """fault_guard(), before and after the first map."""
    os.chdir(folder)
    guard = mappedfile.fault_guard
    states = [guard()]
    file = MappedFile(filled(Path("file")))
    states.append(guard())  # opened, not mapped
    file[0]
    states += [guard(), guard(True)]
    for wanted in (0, 1, "no", b"", np.False_):
        try:
            guard(wanted)  # type: ignore[arg-type]
        except TypeError as error:
            assert repr(wanted) in str(error)
        else:
            raise AssertionError(f"no TypeError for {wanted!r}")
    for _ in range(2):
        try:
            guard(False)
        except RuntimeError as error:
            assert "before the first map" in str(error)
        else:
            raise AssertionError("no RuntimeError")
        # Also when somebody has taken the signal: it is still under there.
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
    states.append(guard())
    file.close()
    print(*states)


def told_never(folder: str) -> None:
    """fault_guard(False): the process dies as it would have."""
    os.chdir(folder)
    print(mappedfile.fault_guard(False), mappedfile.fault_guard(False), end=" ")
    file = MappedFile(filled(Path("file")))
    view = file.view(PAGE_SIZE)
    print(file[0] == CONTENT[0], mappedfile.fault_guard(), flush=True)
    os.truncate("file", PAGE_SIZE)
    view[0]


def told_late(folder: str) -> None:
    """fault_guard(True) after fault_guard(False): maps made meanwhile are covered too, and it goes on top again as ever."""
    os.chdir(folder)
    mappedfile.fault_guard(False)
    file = MappedFile(filled(Path("file")))
    view = file.view(PAGE_SIZE)
    assert file[0] == CONTENT[0]
    print(mappedfile.fault_guard(), mappedfile.fault_guard(True), end=" ")
    os.truncate("file", PAGE_SIZE)
    for window in (file, view):
        with faults():
            window[-1]
        window.close()
    signal.signal(signal.SIGBUS, signal.SIG_DFL)
    with MappedFile("file") as file:
        file[0]
        print(mappedfile.fault_guard())


def first_view(folder: str) -> None:
    """A view is a first map too."""
    os.chdir(folder)
    file = MappedFile(filled(Path("file")))
    view = file.view(PAGE_SIZE)
    print(mappedfile.fault_guard())
    os.truncate("file", PAGE_SIZE)
    with faults():
        view[0]
    view.close()
    file.close()


def taken(folder: str) -> None:
    """Whoever takes SIGBUS afterwards comes first, until a file is mapped as a whole; views do not count."""
    os.chdir(folder)
    file = MappedFile(filled(Path("file")))
    states = []
    for handler in (signal.SIG_DFL, signal.SIG_IGN, lambda *_: None):
        file[0]
        signal.signal(signal.SIGBUS, handler)
        states.append(mappedfile.fault_guard())
        file.view(PAGE_SIZE, 10).close()
        states.append(mappedfile.fault_guard())
        with MappedFile("file") as another:
            another[0]
        states.append(mappedfile.fault_guard())
    file.close()
    print(*states)


def taken_by_many(folder: str, helper: str) -> None:
    """The guard goes on top of four different handlers; of a fifth it does not, and tells."""
    import faulthandler

    os.chdir(folder)
    library = sigbus.load(helper)
    filled(Path("file"))
    takers: list[Callable[[], object]] = [
        lambda: None,
        lambda: signal.signal(signal.SIGBUS, signal.SIG_IGN),
        lambda: signal.signal(signal.SIGBUS, lambda *_: None),
        faulthandler.enable,
        lambda: library.take(0, 0),
        lambda: signal.signal(signal.SIGBUS, signal.SIG_IGN),  # known already
    ]
    states = []
    for take in takers:
        take()
        with MappedFile("file") as file:
            file[0]
            states.append(mappedfile.fault_guard())
    try:
        library.take(1, 0)
        mappedfile.fault_guard(True)
    except OSError as error:
        states.append(error.errno == errno.EAGAIN)
    print(*states)


# What the guard cannot do, and what it leaves alone


def jumps(folder: str, helper: str) -> None:
    """Another library's handler, there before the guard, jumps back to where it tried."""
    os.chdir(folder)
    library = sigbus.load(helper)
    library.take(3, 0)
    with open(filled(Path("theirs")), "r+b") as theirs, MappedFile(filled(Path("file"))) as file:
        foreign = library.map_file(theirs.fileno(), 2 * PAGE_SIZE)
        assert file[:] == CONTENT
        os.truncate("theirs", PAGE_SIZE)
        os.truncate("file", PAGE_SIZE)
        for place in range(PAGE_SIZE, 5 * PAGE_SIZE, PAGE_SIZE):
            assert library.try_touch(foreign + PAGE_SIZE) == 1
            assert library.try_touch(foreign) == 0
            with faults():
                file[place]
        with file.view(0, 10) as view:  # which waits for handlers when it is unmapped
            assert view[:] == CONTENT[:10]
        print(library.blocked() == 0)


def chained(folder: str, helper: str) -> None:
    """Another library's handler, there after the guard, passes on what is not its own."""
    os.chdir(folder)
    library = sigbus.load(helper)
    with open(filled(Path("theirs")), "r+b") as theirs, MappedFile(filled(Path("file"))) as file:
        assert file[:] == CONTENT
        library.take(2, 0)
        foreign = library.map_file(theirs.fileno(), 2 * PAGE_SIZE)
        os.truncate("theirs", PAGE_SIZE)
        os.truncate("file", PAGE_SIZE)
        for place in range(PAGE_SIZE, 3 * PAGE_SIZE, PAGE_SIZE):
            with faults():
                file[place]
            library.touch(foreign + PAGE_SIZE)
        print(sigbus.seen(library)["calls"] == 1, end=" ")
        library.give_back()
        with faults():
            file[4 * PAGE_SIZE]
        print(mappedfile.fault_guard())


def on_the_stack(folder: str, helper: str) -> None:
    """The handler that was there before asked for no alternate stack; the thread has one."""
    os.chdir(folder)
    library = sigbus.load(helper)
    library.take(1, 0)
    library.use_stack()
    with open(filled(Path("theirs")), "r+b") as theirs:
        foreign = library.map_file(theirs.fileno(), 3 * PAGE_SIZE)
    os.truncate("theirs", 0)
    library.touch(foreign)
    print(sigbus.seen(library)["stack"], end=" ")
    with MappedFile(filled(Path("file"))) as file:
        file[0]
        library.touch(foreign + PAGE_SIZE)
        print(sigbus.seen(library)["stack"])


def unseen(folder: str) -> None:
    """What the signal module knows of the guard."""
    os.chdir(folder)
    with MappedFile(filled(Path("file"))) as file:
        file[0]
        print(mappedfile.fault_guard(), int(signal.getsignal(signal.SIGBUS)))


def later(folder: str, who: str) -> None:
    """Somebody who does not pass it on takes SIGBUS after the last file was mapped."""
    import faulthandler

    os.chdir(folder)
    file = MappedFile(filled(Path("file")))
    assert file[0] == CONTENT[0]
    if who == "faulthandler":
        faulthandler.enable()
    else:
        signal.signal(signal.SIGBUS, lambda *_: None)
        signal.alarm(2)  # it would be called for ever
    os.truncate("file", 0)
    print(mappedfile.fault_guard(), flush=True)
    file[0]


def toggles(folder: str) -> None:
    """faulthandler is enabled and disabled, and files are mapped, in every order of five steps; each in a fork."""
    import faulthandler

    os.chdir(folder)
    Path("theirs").write_bytes(CONTENT)
    with open("theirs", "rb") as theirs:
        foreign = mmap.mmap(theirs.fileno(), 0, access=mmap.ACCESS_READ)
    os.truncate("theirs", PAGE_SIZE)
    tried = 0
    for steps in itertools.product(("enable", "disable", "map"), repeat=5):
        tried += 1
        pid = os.fork()
        if pid == 0:
            report = os.open("report", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            os.dup2(report, 2)
            signal.alarm(20)
            try:
                for number, step in enumerate(steps):
                    if step == "map":
                        with MappedFile(filled(Path("file"), CONTENT[: 3 * PAGE_SIZE])) as file:
                            assert file[0] == CONTENT[0]
                            assert mappedfile.fault_guard()
                            os.truncate("file", 0)
                            with faults(f"in step {number}"):
                                file[0]
                    else:
                        getattr(faulthandler, step)()
                enabled = faulthandler.is_enabled()
                os.write(report, b"enabled\n" if enabled else b"disabled\n")
                foreign[PAGE_SIZE]
            except BaseException as error:
                print(f"{error!r}", file=sys.stderr)
            os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        text = Path("report").read_text()
        assert status == -signal.SIGBUS, (steps, status, text)
        assert text.startswith("enabled\nFatal Python error: Bus error") or text == "disabled\n", (
            steps,
            text,
        )
        assert text.count("Fatal") <= 1, (steps, text)
    print(tried)


def reads_only(folder: str) -> None:
    """The zeros of a read-only map cannot be written either."""
    os.chdir(folder)
    file = MappedFile(filled(Path("file"), CONTENT[: 3 * PAGE_SIZE]))
    data = file.data
    assert data[PAGE_SIZE] == CONTENT[PAGE_SIZE]
    os.truncate("file", 0)
    assert data[PAGE_SIZE] == 0
    address = _probe.address_of(data) + PAGE_SIZE
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, stop = (int(number, 16) for number in line.split()[0].split("-"))
        if start <= address < stop:
            print(line.split()[1], flush=True)
    ctypes.memset(address, 1, 1)


def blocks(folder: str, helper: str) -> None:
    """What is blocked while the guard's handler runs."""
    os.chdir(folder)
    with MappedFile(filled(Path("file"))) as file:
        file[0]
        print(sigbus.load(helper).blocks())


def keeps_errno(folder: str, helper: str, mode: Any) -> None:
    """What was interrupted has errno as it was."""
    os.chdir(folder)
    library = sigbus.load(helper)
    file = MappedFile(filled(Path("file")), mode)
    data = file.data
    os.truncate("file", PAGE_SIZE)
    print(library.touch(_probe.address_of(data) + PAGE_SIZE) == errno.ERANGE, file.faulted)
    file.close()


def blocked(folder: str) -> None:
    """A thread that has SIGBUS blocked cannot be saved."""
    os.chdir(folder)
    file = MappedFile(filled(Path("file")))
    assert file[0] == CONTENT[0]
    os.truncate("file", PAGE_SIZE)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGBUS})
    print("blocked", flush=True)
    file[PAGE_SIZE]


def system_calls(folder: str) -> None:
    """System calls on a buffer whose pages are gone say EFAULT; they mark nothing. Once zeros are there, they take them."""
    os.chdir(folder)
    file = MappedFile(filled(Path("file")), "r+")
    data = file.data[PAGE_SIZE : 2 * PAGE_SIZE]
    os.truncate("file", PAGE_SIZE)
    read, write = os.pipe()
    os.write(write, b"full")
    for call in (lambda: os.write(write, data), lambda: os.readv(read, [data])):
        try:
            call()
        except OSError as error:
            print(error.errno == errno.EFAULT, file.faulted, end=" ")
    data[0]
    print(file.faulted, os.write(write, data[:10]), end=" ")
    os.read(read, 10)
    print(os.readv(read, [data]))
    file.close()


def lost_silently(folder: str) -> None:
    """What was written into a private map is lost without a word when the file is long again before the next access."""
    os.chdir(folder)
    file = MappedFile(filled(Path("file")), "c")
    file[0], file[5 * PAGE_SIZE] = 1, 2
    os.truncate("file", PAGE_SIZE)
    filled(Path("again"))
    with open("file", "r+b") as other:
        other.write(CONTENT)
    print(file[0], file[5 * PAGE_SIZE] == CONTENT[5 * PAGE_SIZE], file.faulted)
    file.close()


def too_many_maps(folder: str) -> None:
    """Where the system allows no more maps, the page of zeros cannot be had."""
    os.chdir(folder)
    file = MappedFile(filled(Path("file")))
    data = file.data
    assert data[0] == CONTENT[0]
    os.truncate("file", 0)
    assert data[-1] == 0
    fill = []
    with suppress(OSError):
        while True:  # of two kinds by turns: the system makes one map of neighbours of a kind
            fill.append(
                mmap.mmap(
                    -1,
                    PAGE_SIZE,
                    prot=(mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE)[len(fill) % 2],
                )
            )
    os.write(1, b"full\n")
    data[PAGE_SIZE * 5]


def many_maps(folder: str, number: str) -> None:
    """However many maps there are, each is found."""
    os.chdir(folder)
    count = int(number)
    Path("file").touch()
    os.truncate("file", count * PAGE_SIZE)
    os.truncate(filled(Path("other")), PAGE_SIZE)
    file = MappedFile("file", "r+")
    # From the last to the first: the system puts each below the one before, and makes one map of neighbours.
    views = [file.view(page * PAGE_SIZE, PAGE_SIZE) for page in reversed(range(count))]
    os.truncate("file", 0)
    chosen = {0, count - 1, *random.Random(1).sample(range(count), 200)}
    for place in chosen:
        with faults(f"in view {place}"):
            views[place][5]
    assert {place for place, view in enumerate(views) if view.faulted} == chosen
    for view in views[::2]:
        view.close()
    for place in (1, count - 1, count // 2 | 1):
        with faults():
            views[place][5]
    for view in views:
        view.close()
    file.close()
    print(len(chosen))


def fills_the_disk(folder: str) -> None:
    """A write into a hole for which there is no room: it is told, and what is whole stays so."""
    os.chdir(folder)
    with MappedFile("file", "w+", size=64 << 20, sparse=True) as file:
        file[:3] = b"yes"
        met = None
        for place in range(PAGE_SIZE, len(file), PAGE_SIZE):
            try:
                file[place] = 7
            except MappingFault as fault:
                met = fault
                break
        assert met is not None
        assert (met.errno, met.filename, met.offset) == (errno.ENOSPC, "file", place)
        assert "the disk is full" in str(met)
        assert file.faulted
        assert file[:3] == b"yes"
        assert file[place - PAGE_SIZE] == 7
        with faults():
            file[place]
        # Through a buffer it goes nowhere.
        data = file.data
        data[place] = 9
        assert (data[place], data[place + 1]) == (9, 0)
        with faults():
            file.flush()
        del data
        os.unlink("filler")
        file.refresh()
        assert not file.faulted
        file[place] = 8
        file.flush()
        assert (file[place], file[:3]) == (8, b"yes")
        with open("file", "rb") as other:
            other.seek(place)
            assert other.read(1) == b"\x08"
    print("done")


def fills_the_disk_inside(folder: str) -> None:
    """A page of a file has something in it, and room for no more: what is in it can still be read."""
    os.chdir(folder)
    block = os.statvfs(".").f_frsize
    if block >= PAGE_SIZE:
        raise SystemExit("no smaller blocks than pages")
    with open("file", "wb") as file:
        for page in range(3):
            file.seek(page * PAGE_SIZE)
            file.write(CONTENT[page * PAGE_SIZE :][:block])
        file.truncate(3 * PAGE_SIZE)
        os.fsync(file.fileno())
    with suppress(OSError), open("filler", "wb", 0) as file:
        while True:
            file.write(bytes(block))
    expected = bytearray(Path("file").read_bytes())
    for mode in ("r+", "c"):
        with MappedFile("file", mode) as file:
            data = file.data
            assert data == expected
            if mode == "c":  # takes nothing of the disk
                data[PAGE_SIZE + block] = 9
                assert not file.faulted
                continue
            data[PAGE_SIZE + block] = 9
            expected[PAGE_SIZE + block] = 9
            assert file.faulted
            assert data == expected
            assert (file[0], file[2 * PAGE_SIZE]) == (expected[0], expected[2 * PAGE_SIZE])
            with faults():
                file[PAGE_SIZE]
            expected[PAGE_SIZE + block] = 0
            assert Path("file").read_bytes() == expected
    print("done")


def device_fails(path: str, control: str, mode: str) -> None:
    """Pages that the device does not give: tests/fuse.py."""
    import fuse

    failing = Path(control)
    pages = os.stat(path).st_size // PAGE_SIZE

    def expect(window: Any, number: int) -> None:
        assert window[number * PAGE_SIZE :][:PAGE_SIZE] == fuse.page(number)

    failing.write_text("3 6")
    with MappedFile(path, mode) as file:
        for number in (3, 6):
            with faults(f"on page {number}"):
                file[number * PAGE_SIZE + 1]
        for number in {*range(pages)} - {3, 4, 5, 6}:
            assert file[number * PAGE_SIZE : (number + 1) * PAGE_SIZE] == fuse.page(number)
        with file.view(100) as view:  # in the midst of a page
            with faults("in a view"):
                view[3 * PAGE_SIZE]
            assert view[3 * PAGE_SIZE - 101] == fuse.page(2)[-1]
            assert view[4 * PAGE_SIZE - 100] == fuse.page(4)[0]
        # The mark is the range from the first such page to the last: more is refused than is gone, and a view has it.
        for number in (4, 5):
            with faults(f"on page {number}"):
                file[number * PAGE_SIZE]
            with file.view(number * PAGE_SIZE, PAGE_SIZE) as view:
                assert view[:] == fuse.page(number)
                assert not view.faulted
        expected = b"".join(
            bytes(PAGE_SIZE) if number in (3, 6) else fuse.page(number) for number in range(pages)
        )
        assert np.frombuffer(file.data, "u1").tobytes() == expected
        failing.write_text("")
        file.refresh()
        assert not file.faulted
        assert file[:] == b"".join(map(fuse.page, range(pages)))
    print("done")


def disk_goes(path: str, image: str) -> None:
    """The disk loses its second half: what was on it cannot be read, and the rest can."""
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with MappedFile(path) as mapped:
        os.truncate(image, os.stat(image).st_size // 2)
        gone = right = 0
        for place in range(0, size, PAGE_SIZE):
            try:
                assert mapped[place : place + 8] == struct.pack("<Q", place)
                right += 1
            except MappingFault as fault:
                assert fault.filename == path
                gone += 1
        print(right, gone, mapped.faulted)


def sub_interpreter(own_gil: bool, program: str) -> Any:
    """Run a program in a sub-interpreter; return what failed."""
    try:
        import _interpreters as interpreters  # type: ignore[import-not-found]
    except ImportError:
        import _xxsubinterpreters as interpreters  # type: ignore[import-not-found]

        one = interpreters.create(isolated=own_gil)
    else:
        one = interpreters.create("isolated" if own_gil else "legacy")
    try:
        return interpreters.run_string(one, f"import sys; sys.path[:] = {[*sys.path]!r}\n{program}")
    except interpreters.RunFailedError as error:
        return error
    finally:
        interpreters.destroy(one)


def interpreters(folder: str) -> None:
    """Sub-interpreters that share the GIL: each has the library to itself, and the process has one guard."""
    os.chdir(folder)
    program = """
import os
import mappedfile
before = mappedfile.fault_guard()
with open("theirs", "wb") as file:
    file.write(b"t" * 3 * mappedfile.PAGE_SIZE)
with mappedfile.MappedFile("theirs") as file:
    first, after = file[0], mappedfile.fault_guard()
    os.truncate("theirs", 1)
    try:
        told = file[mappedfile.PAGE_SIZE]
    except mappedfile.MappingFault:
        told = "MappingFault"
    try:
        mappedfile.fault_guard(False)
    except RuntimeError:
        stays = True
os.write(1, f"{before} {first} {after} {told} {stays}\\n".encode())
"""
    with MappedFile(filled(Path("ours"))) as file:
        for number in range(3):
            failed = sub_interpreter(False, program)
            assert failed is None, failed
            if number == 1:
                assert file[0] == CONTENT[0]
        os.truncate("ours", PAGE_SIZE)
        with faults():
            file[PAGE_SIZE]


def interpreter_with_gil(folder: str) -> None:
    """One with a GIL of its own cannot import cffi's modules."""
    print(sub_interpreter(True, "import mappedfile"))


def inherits(folder: str) -> None:
    """A program that is started has the default action again, unless the signal was ignored."""
    import subprocess

    os.chdir(folder)
    with MappedFile(filled(Path("file"))) as file:
        file[0]
        code = "import signal; print(int(signal.getsignal(signal.SIGBUS)))"
        subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
