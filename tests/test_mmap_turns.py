"""Long calls of mappedfile.mmap and resize() take turns, as they do with the standard library's
mmap, which holds the GIL: P3. A forked child does not wait for a thread of its parent: L11."""

from __future__ import annotations

import gc
import random
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from children import code, run_python
from children.crew import Crew
from support import only
from test_backend import WINDOWS, Backend, backend, once, replacing

from mappedfile import GRANULARITY, PAGE_SIZE, capabilities, mmap
from mappedfile.contract._probe import file_maps, handles

__all__ = ["backend"]

#: More than the first piece of a search, which holds the GIL.
SIZE = 32 * GRANULARITY


def resize_during(
    backend: Backend, call: str, use: str, made: Any, size: int
) -> list[BaseException | None]:
    """Call a method of a map, and resize the map in another thread during the call.

    Return what the thread raised, or None if it raised nothing.
    """
    outcome: list[BaseException | None] = []

    def resize() -> None:
        try:
            made.resize(size)
            outcome.append(None)
        except BaseException as error:
            outcome.append(error)

    def start() -> None:
        thread.start()
        thread.join(0.05)
        outcome.append(None if thread.is_alive() else AssertionError("it did not wait"))

    thread = threading.Thread(target=resize)
    backend.before[call] = once(start)
    {
        "flush": made.flush,
        "find": lambda: made.find(b"absent"),
        "rfind": lambda: made.rfind(b"absent"),
        "in": lambda: b"absent" in made,
        "madvise": lambda: made.madvise(backend.package.mmap.MADV_NORMAL),
        "size": made.size,
    }[use]()
    thread.join()
    return outcome


@pytest.mark.parametrize("use", ["flush", "find", "rfind", "in", "madvise", "size"])
@pytest.mark.parametrize("size", [PAGE_SIZE, 2 * SIZE])
@replacing("flush", "milliseconds", "madvise", "get_size")
def test_resize_waits(backend: Backend, path: Path, size: int, use: str) -> None:
    """resize() waits until a call of another thread has ended, and then does its work."""
    path.write_bytes(bytes(SIZE))
    call = {"find": "milliseconds", "rfind": "milliseconds", "in": "milliseconds"}.get(
        use, "get_size" if use == "size" else use
    )
    with open(path, "r+b") as file, backend.package.mmap.mmap(file.fileno(), 0) as made:
        assert [None, None] == resize_during(backend, call, use, made, size)
        assert size == len(made) == path.stat().st_size
        made.flush()
        assert -1 == made.find(b"absent")


@replacing("flush")
def test_closed_during_a_call(backend: Backend, path: Path) -> None:
    """close() does not wait for a call. The last of both gives the map back."""
    path.write_bytes(bytes(SIZE))
    with open(path, "r+b") as file:
        made = backend.package.mmap.mmap(file.fileno(), 0)
    backend.before["flush"] = once(made.close)
    made.flush()
    assert made.closed
    with pytest.raises(ValueError, match="closed"):
        made.flush()


@replacing("flush")
def test_closed_while_resize_waits(backend: Backend, path: Path) -> None:
    """A map is closed while resize() waits for a call: ValueError, and the file is unchanged."""
    path.write_bytes(bytes(SIZE))
    with open(path, "r+b") as file:
        made = backend.package.mmap.mmap(file.fileno(), 0)
    raised: list[BaseException] = []

    def resize() -> None:
        try:
            made.resize(PAGE_SIZE)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=resize)

    def close() -> None:
        thread.start()
        thread.join(0.05)
        made.close()

    backend.before["flush"] = once(close)
    made.flush()
    thread.join()
    assert ["ValueError"] == [type(error).__name__ for error in raised]
    assert SIZE == path.stat().st_size


FORKS = """
import os, sys, threading, warnings
from mappedfile import mmap
from mappedfile.contract._probe import file_maps, handles

warnings.simplefilter("ignore")
path, use = sys.argv[1:]
before = handles(), file_maps()
for _ in range(5):
    with open(path, "r+b") as file:
        made = mmap.mmap(file.fileno(), 0)
    calls = {
        "flush": made.flush,
        "find": lambda: made.find(b"absent"),
        "madvise": lambda: made.madvise(mmap.MADV_NORMAL),
        "size": made.size,
    }
    stopped = threading.Event()

    def work():
        while not stopped.is_set():
            calls[use]()

    thread = threading.Thread(target=work)
    thread.start()
    child = os.fork()
    if child == 0:
        try:
            made.resize(2 << 20)
            made.resize((1 << 20) + 4096)
            made.close()
            assert before == (handles(), file_maps()), (before, handles(), file_maps())
            os._exit(0)
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    stopped.set()
    thread.join()
    made.close()
"""


@pytest.mark.skipif(WINDOWS, reason="there is no fork")
@pytest.mark.parametrize("use", ["flush", "find", "madvise", "size"])
def test_fork_during_a_call(path: Path, use: str) -> None:
    """A child that is forked while another thread is in a call resizes and closes its map: the call
    keeps neither the map nor the descriptor there."""
    only(capabilities().fork, "has fork")
    path.write_bytes(bytes(1 << 20))
    run_python(*code(FORKS), path, use)


THREADS = """
import os, sys, threading, warnings
from mappedfile import mmap

warnings.simplefilter("ignore")
with open(sys.argv[1], "r+b") as file:
    made = mmap.mmap(file.fileno(), 0)
stopped = threading.Event()

def work():
    while not stopped.is_set():
        made.find(b"absent")
        made.flush()

threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for _ in range(10):
    child = os.fork()
    if child == 0:  # its threads have identifiers of its parent's threads
        errors = []

        def use(size):
            try:
                made.resize(size)
                made.find(b"absent")
            except BaseException as error:
                errors.append(error)

        sizes = [(1 << 20) + 4096 * number for number in range(1, 4)]
        ours = [threading.Thread(target=use, args=[size]) for size in sizes]
        for thread in ours:
            thread.start()
        for thread in ours:
            thread.join()
        made.close()
        print(*errors, end="", flush=True)
        os._exit(bool(errors))
    assert os.waitpid(child, 0)[1] == 0
    made.resize(1 << 20)
stopped.set()
for thread in threads:
    thread.join()
made.close()
"""


@pytest.mark.skipif(WINDOWS, reason="there is no fork")
def test_threads_of_a_forked_child(path: Path) -> None:
    """Threads of a child take turns, although the child was forked during a turn of its parent."""
    path.write_bytes(bytes(1 << 20))
    run_python(*code(THREADS), path)


@pytest.mark.parametrize("kind", ["file", "memory"])
@pytest.mark.parametrize("closing", [False, True])
def test_storm(path: Path, kind: str, closing: bool) -> None:
    """Threads that do everything with one map at once: each call does its work, or says that the
    map is closed or in use. None waits for ever, and nothing is left behind."""
    storm(path, kind, closing, 0)
    gc.collect()  # threads and their locks: on Windows they are handles
    before = handles(), file_maps()
    for seed in range(1, 6):
        storm(path, kind, closing, seed)
    gc.collect()
    assert before == (handles(), file_maps())


def storm(path: Path, kind: str, closing: bool, seed: int) -> None:
    """Have five threads use one map."""
    path.write_bytes(b"x" * (1 << 20))
    with open(path, "r+b") as file:
        made = (
            mmap.mmap(-1, 1 << 20, **PRIVATE) if kind == "memory" else mmap.mmap(file.fileno(), 0)
        )
    with Crew() as crew:
        for number in range(5):
            crew.start(use_all, made, random.Random(10 * seed + number), closing and not number)
    made.close()


PRIVATE: dict[str, Any] = {} if WINDOWS else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANON}


def use_all(made: Any, dice: random.Random, closes: bool) -> None:
    """Do everything with a map, and close it in the midst."""
    calls = [
        lambda: made.find(b"absent"),
        lambda: made.rfind(b"absent", 0, 700_000),
        lambda: b"absent" in made,
        made.flush,
        lambda: made.flush(0, 5000),
        lambda: made.madvise(mmap.MADV_NORMAL),
        made.size,
        lambda: made.resize(dice.choice([1, 4096, 1 << 19, 1 << 20, 1 << 21])),
        lambda: made[dice.randrange(5)],
        lambda: memoryview(made).release(),
        lambda: made.read(10),
        made.readline,
        lambda: made.seek(0),
    ]
    for number in range(100):
        if closes and number == 50:
            made.close()
        with suppress(ValueError, IndexError, BufferError):
            dice.choice(calls)()
