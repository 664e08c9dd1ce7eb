"""Growing and shrinking for a long time: against a model, from many threads, and with another
process: S2-S4, S8, T1.

Short runs here; long ones with MAPPEDFILE_STRESS=1 (tox -e stress).
"""

from __future__ import annotations

import gc
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from children import code, start_python
from children.crew import Crew
from conftest import STRESS
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support import LINUX, only

from mappedfile import GRANULARITY, PAGE_SIZE, MappedFile, MappingFault, capabilities
from mappedfile.contract._probe import address_of, file_maps, handles

SECONDS = 60 if STRESS else 1.5
CYCLES = 10_000 if STRESS else 300
STEPS = settings(max_examples=1000 if STRESS else 25, stateful_step_count=100 if STRESS else 40)


@pytest.fixture(params=["disk", "shm"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Yield a folder on disk, and one in a tmpfs."""
    if request.param == "disk":
        yield tmp_path
        return
    only(os.path.isdir("/dev/shm"), "no tmpfs at /dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="mappedfile-", dir="/dev/shm")).absolute()
    yield folder
    shutil.rmtree(folder)


# Against a model

SIZES = st.one_of(
    st.integers(0, 5 * PAGE_SIZE),
    st.integers(0, 3 * GRANULARITY),
    st.builds(
        lambda pages, by: max(pages * PAGE_SIZE + by, 0), st.integers(0, 40), st.integers(-2, 2)
    ),
)
PARTS = st.tuples(st.floats(0, 1), st.floats(0, 1))


class Model(RuleBasedStateMachine):
    """The models are two bytearrays: the mapped file, and the file itself, which others can make
    longer."""

    path: Path  # set by the test

    def __init__(self) -> None:
        super().__init__()
        self.path.write_bytes(b"")
        self.disk = bytearray()
        self.size = 0  # the size that the mapped file has
        self.alive: list[tuple[Any, int, int]] = []  # views and buffers, and their ranges
        self.file = self.open(0, False)

    def open(self, reserve: int, sparse: bool) -> MappedFile:
        self.reserve = reserve if capabilities().reserve else 0
        self.address = 0  # of the map of the whole file, or 0
        return MappedFile(self.path, "r+", reserve=self.reserve, sparse=sparse)

    def part(self, part: tuple[float, float]) -> tuple[int, int]:
        first = int(part[0] * self.size)
        return first, int(part[1] * (self.size - first))

    @rule(size=SIZES)
    def resize(self, size: int) -> None:
        if self.size < len(self.disk) > size:
            with pytest.raises(ValueError, match=r"refresh\(\) first"):
                self.file.resize(size)
            return
        if size < len(self.disk) and self.alive:
            with pytest.raises(BufferError):
                self.file.resize(size)
            return
        if size < len(self.disk):
            self.address = 0
        self.file.resize(size)
        self.disk[size:] = bytes(max(size - len(self.disk), 0))
        self.size = size

    @rule(part=PARTS, value=st.integers(0, 255))
    def write(self, part: tuple[float, float], value: int) -> None:
        first, length = self.part(part)
        self.file[first : first + length] = bytes([value]) * length
        self.disk[first : first + length] = bytes([value]) * length

    @rule(part=PARTS)
    def view(self, part: tuple[float, float]) -> None:
        first, length = self.part(part)
        self.alive.append((self.file.view(first, length), first, length))

    @rule(part=PARTS)
    def buffer(self, part: tuple[float, float]) -> None:
        first, length = self.part(part)
        if length:
            self.alive.append((self.file.data[first : first + length], first, length))

    @precondition(lambda self: self.alive)
    @rule(which=st.floats(0, 0.999), value=st.integers(0, 255))
    def write_through(self, which: float, value: int) -> None:
        window, first, length = self.alive[int(which * len(self.alive))]
        if length:
            window[length - 1] = value
            self.disk[first + length - 1] = value

    @precondition(lambda self: self.alive)
    @rule(which=st.floats(0, 0.999))
    def drop(self, which: float) -> None:
        window, _, _ = self.alive.pop(int(which * len(self.alive)))
        window.release() if isinstance(window, memoryview) else window.close()

    @rule()
    def drop_all(self) -> None:
        while self.alive:
            self.drop(0)

    @rule(part=PARTS, durable=st.booleans())
    def flush(self, part: tuple[float, float], durable: bool) -> None:
        self.file.flush(*self.part(part), durable=durable)

    @rule(more=st.binary(max_size=3000))
    def others_append(self, more: bytes) -> None:
        with open(self.path, "ab") as file:
            file.write(more)
        self.disk += more

    @rule(part=PARTS, value=st.integers(0, 255))
    def others_write(self, part: tuple[float, float], value: int) -> None:
        first, length = self.part(part)
        with open(self.path, "r+b") as file:
            file.seek(first)
            file.write(bytes([value]) * length)
        self.disk[first : first + length] = bytes([value]) * length

    @rule()
    def refresh(self) -> None:
        self.file.refresh()
        self.size = len(self.disk)

    @rule(
        reserve=st.sampled_from([0, 0, 1, 3 * PAGE_SIZE + 1, GRANULARITY, 4 * GRANULARITY]),
        sparse=st.booleans(),
    )
    def reopen(self, reserve: int, sparse: bool) -> None:
        self.file.close()
        self.drop_all()
        self.file = self.open(reserve, sparse)
        self.size = len(self.disk)

    @invariant()
    def same(self) -> None:
        assert self.size == len(self.file)
        assert self.disk[: self.size] == self.file[:]
        assert self.disk == self.path.read_bytes()
        for window, first, length in self.alive:
            assert self.disk[first : first + length] == bytes(window[:])
        if self.size and self.size <= self.reserve:
            address = address_of(self.file.data)
            assert self.address in (0, address), "the map of the whole file stays where it is"
            self.address = address

    def teardown(self) -> None:
        self.file.close()
        self.drop_all()


def test_as_a_bytearray(place: Path) -> None:
    """In any order of operations, a mapped file behaves like a bytearray when it is resized: S2,
    S3, S8."""
    machine = type("Machine", (Model,), {"path": place / "file"})
    # The first run imports modules.
    run_state_machine_as_test(machine, settings=settings(STEPS, max_examples=1))
    before = handles(), file_maps()
    run_state_machine_as_test(machine, settings=STEPS)
    assert before == (handles(), file_maps())


# From many threads, and with another process. The word at offset n of the file is n, or zero.


def word(offset: int) -> bytes:
    return offset.to_bytes(8, "little")


def check(data: bytes, offset: int) -> None:
    """Fail if a word is neither zero nor the word of its offset."""
    skip = -offset % 8
    for place in range(skip, len(data) - 7, 8):
        assert data[place : place + 8] in (bytes(8), word(offset + place)), (
            f"at {offset + place}: {data[place : place + 8]!r}"
        )


class Player:
    """Does one operation repeatedly, in a thread."""

    def __init__(self, number: int, step: Any, pause: threading.Event | None) -> None:
        self.random, self.step, self.pause = random.Random(number), step, pause
        self.done = self.refused = 0

    def play(self, until: float, stopped: threading.Event) -> None:
        step, pause = self.step, self.pause
        while (time.monotonic() < until or not self.done) and not stopped.is_set():
            if pause is not None and pause.is_set():
                time.sleep(0.0001)
                continue
            try:
                step(self.random)
                self.done += 1
            except (BufferError, IndexError, MappingFault):
                self.refused += 1
            except ValueError as error:  # the file was shrunk after the range was chosen
                if "past the end" not in str(error) and "cannot be set to" not in str(error):
                    raise
                self.refused += 1


def somewhere(file: MappedFile, random: random.Random, most: int = 4096) -> tuple[int, int]:
    size = len(file)
    first = random.randrange(size + 1)
    return first, min(random.randrange(most), size - first)


def grow(file: MappedFile, turn: threading.Lock, pause: threading.Event) -> Any:
    def step(random: random.Random) -> None:
        with turn:
            size = len(file) + random.choice([1, 8, 100, PAGE_SIZE, 3 * PAGE_SIZE + 5, GRANULARITY])
            if size > 2**20:
                pause.set()  # the others pause, so that no view is alive
                size = random.randrange(64)
            file.resize(size)
            pause.clear()

    return step


def mark(file: MappedFile) -> Any:
    def step(random: random.Random) -> None:
        first = somewhere(file, random)[0] // 8 * 8
        file[first : first + 8] = word(first)

    return step


def read(file: MappedFile) -> Any:
    def step(random: random.Random) -> None:
        first, length = somewhere(file, random)
        check(file[first : first + length], first)
        if length:
            file[first]
        file.find(b"not there", first)
        file.count(b"\0")

    return step


def look(file: MappedFile) -> Any:
    def step(random: random.Random) -> None:
        first, length = somewhere(file, random)
        with file.view(first, length) as view:
            check(view[:], first)
            if length >= 16:
                place = (-first) % 8
                view[place : place + 8] = word(first + place)
                # Zeros are right too: another process can cut the file and grow it.
                check(view[place : place + 8], first + place)

    return step


def take(file: MappedFile) -> Any:
    def step(random: random.Random) -> None:
        data = file.data
        address = address_of(data) if len(data) else 0
        content = data[:4096].tobytes()
        check(content, 0)
        time.sleep(0.0001)
        assert address == (address_of(data) if len(data) else 0)
        check(data[-4096:].tobytes(), max(len(data) - 4096, 0))
        data.release()

    return step


def flush(file: MappedFile) -> Any:
    def step(random: random.Random) -> None:
        file.flush(*somewhere(file, random), durable=False)

    return step


@pytest.mark.parametrize("reserve", [0, 2**20])
def test_threads(place: Path, reserve: int) -> None:
    """Threads grow, shrink, read, write, search, view and flush one object. Each gets the file's
    content or an error: S2, S3, S4, L6."""
    only(capabilities().reserve or not reserve, "no address space can be reserved here")
    before = handles(), file_maps()
    with MappedFile(place / "file", "x+", size=10, reserve=reserve) as file:
        play(file)
        assert len(file) == (place / "file").stat().st_size
        check(file[:], 0)
        assert file[:] == (place / "file").read_bytes()
    gc.collect()  # threads and locks are handles on Windows
    assert before == (handles(), file_maps())


def play(file: MappedFile) -> None:
    """Run threads with every operation on a file."""
    until = time.monotonic() + SECONDS
    turn, pause = threading.Lock(), threading.Event()
    growing = [Player(number, grow(file, turn, pause), None) for number in (1, 2)]
    using = [each(file) for each in (mark, mark, read, look, take, flush)]
    players = growing + [Player(number, step, pause) for number, step in enumerate(using, 3)]
    with Crew(SECONDS + 120) as crew:
        for player in players:
            crew.start(player.play, until, crew.stopped)
    print([(player.done, player.refused) for player in players])


def test_shrinking_under_a_search(place: Path) -> None:
    """Shrinking raises BufferError while another thread searches the file, and the search
    continues: S3."""
    size = 2**28
    refused = 0
    with MappedFile(place / "file", "x+", size=size, sparse=True) as file:
        while not refused:  # else the search was over before the first attempt
            file.resize(size)
            file[0]
            found = []
            with Crew() as crew:
                searcher = crew.start(lambda found=found: found.append(file.find(b"absent")))
                while searcher.is_alive():
                    try:
                        file.resize(10)
                        break
                    except BufferError as error:
                        assert "another thread" in str(error)
                        refused += 1
            assert found == [-1]
        file.resize(10)
        assert bytes(10) == file[:]


class Shrinks:
    """An offset that shrinks the file in its __index__."""

    def __init__(self, file: MappedFile, offset: int) -> None:
        self.file, self.offset = file, offset

    def __index__(self) -> int:
        self.file.resize(5)
        return self.offset


def test_shrinking_between_two_looks(place: Path) -> None:
    """A range is checked after all code of the caller has run: S6."""
    with MappedFile(place / "file", "x+", size=10 * PAGE_SIZE) as file:
        for use in (
            file.flush,
            file.view,
            file.residency,
            lambda *range_: file.advise("willneed", *range_),
        ):
            file.resize(10 * PAGE_SIZE)
            file[0]
            with pytest.raises(
                ValueError, match=r"past the end of the mapped file, which has 5 bytes"
            ):
                use(Shrinks(file, 9 * PAGE_SIZE), 10)
            file.resize(10 * PAGE_SIZE)
            with pytest.raises(
                ValueError, match=r"past the end of the mapped file, which has 5 bytes"
            ):
                use(9 * PAGE_SIZE, Shrinks(file, 10))
        file.resize(10 * PAGE_SIZE)
        assert b"" == file[Shrinks(file, 9 * PAGE_SIZE) :]
        file.resize(10 * PAGE_SIZE)
        with pytest.raises(IndexError):
            file[Shrinks(file, 9 * PAGE_SIZE)]
        file.resize(10 * PAGE_SIZE)
        with pytest.raises(IndexError):
            file[9 * PAGE_SIZE] = Shrinks(file, 1)
        file.resize(10 * PAGE_SIZE)
        assert -1 == file.find(b"\0", Shrinks(file, 9 * PAGE_SIZE))


OTHER = """
import os, random, sys, threading
path = sys.argv[1]
dice = random.Random(3)
turns = 0
reader = threading.Thread(target=sys.stdin.readline)
reader.start()
with open(path, "r+b", buffering=0) as file:
    while reader.is_alive():
        size = os.path.getsize(path)
        sizes = [dice.randrange(2**19), size + 8, size + 4096, max(size - 8, 0), size // 2]
        new = dice.choice(sizes) // 8 * 8
        try:
            file.truncate(new)
        except OSError:  # Windows, while it is mapped
            new = size
        at = dice.randrange(new // 8 + 1) * 8
        file.seek(at)
        file.write(at.to_bytes(8, "little"))
        turns += 1
print(turns)
"""


@pytest.mark.parametrize(("mode", "reserve"), [("r+", 0), ("r+", 2**20), ("c", 0), ("c", 2**20)])
def test_another_process(place: Path, mode: str, reserve: int) -> None:
    """While another process grows and shrinks the file, this process gets the file's content, zeros
    or MappingFault. It can call refresh() at any time: S8, T1."""
    only(capabilities().reserve or not reserve, "no address space can be reserved here")
    path = place / "file"
    path.write_bytes(bytes(PAGE_SIZE))
    with start_python(*code(OTHER), path) as other:
        dice = random.Random(4)
        turns = faults = refreshed = 0
        before = handles(), file_maps()
        until = time.monotonic() + SECONDS
        with MappedFile(path, mode, reserve=reserve) as file:
            steps = [read(file), look(file), take(file), mark(file), flush(file)]
            while time.monotonic() < until or turns <= 10 or refreshed <= 3:
                try:
                    dice.choice(steps)(dice)
                except MappingFault:
                    faults += 1
                    file.refresh()
                    continue
                except (IndexError, ValueError):
                    pass
                turns += 1
                if dice.random() < 0.2:
                    size = len(file)
                    file.refresh()
                    refreshed += size != len(file)
            other.say("stop")
            other.process.wait(60)
            file.refresh()
            assert len(file) == path.stat().st_size
            check(file[:], 0)
            if mode == "r+":
                assert file[:] == path.read_bytes()
                file.resize(7 * PAGE_SIZE + 3)
                file.resize(5)
                assert file[:] == path.read_bytes()
        assert before == (handles(), file_maps())
        theirs = other.end().stdout.strip()
    print(f"{theirs} turns of theirs, {turns} of ours, {refreshed} new sizes, {faults} faults")


# Leaks


def memory() -> int:
    """Return the bytes of address space of the process, or 0 if unknown."""
    if sys.platform == "win32":
        from mappedfile.contract import _kernel32

        return _kernel32.address_space_taken()
    if not LINUX:
        return 0
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[0]) * PAGE_SIZE


@pytest.mark.parametrize("reserve", [0, 40 * PAGE_SIZE])
@pytest.mark.parametrize("alive", ["nothing", "view", "buffer"])
def test_cycles(place: Path, reserve: int, alive: str) -> None:
    """Growing and shrinking thousands of times leaks no handles, maps or address space: L7, S2,
    S3."""
    only(capabilities().reserve or not reserve, "no address space can be reserved here")
    path = place / "file"
    path.write_bytes(b"x" * 100)
    with MappedFile(path, "r+", reserve=reserve) as file:
        marks = []
        for cycle in range(CYCLES):
            file[50] = cycle % 256
            kept: Any = {
                "nothing": lambda: None,
                "view": lambda: file.view(3, 60),
                "buffer": lambda: file.data,
            }[alive]()
            for size in (101, PAGE_SIZE + 1, 20 * PAGE_SIZE):
                file.resize(size)
                file[size - 1] = 1
            assert (cycle % 256, 1) == (file[50], file[size - 1])
            if kept is not None:
                assert kept[47 if alive == "view" else 50] == cycle % 256
                kept.close() if alive == "view" else kept.release()
            file.resize(100)
            if cycle % (CYCLES // 10) == CYCLES // 10 - 1:
                marks.append((handles(), file_maps(), memory()))
    assert [mark[:2] for mark in marks] == [marks[0][:2]] * 10
    assert marks[-1][2] < marks[0][2] + 2**21, "address space leaks"
    assert 100 == path.stat().st_size
