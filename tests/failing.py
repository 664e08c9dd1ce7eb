"""What tests/test_failures.py has done in another process, while system calls fail there. Not a test.

The process hears the name of a scenario, prepares it, and says "ready"; hears "go", runs it, and says what came of it; hears
"look", looks whether everything is as it should be, cleans up, and says what it found.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from mappedfile import PAGE_SIZE, MappedFile
from mappedfile.contract._probe import address_of, file_maps, handles

CONTENT = bytes(range(256)) * (3 * PAGE_SIZE // 256) + b"the end"
SIZE = len(CONTENT)


class Scenario:
    """Opens a file, reads a byte, closes it."""

    mode = "r+"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: Any = None
        self.kept: list[Any] = []

    def prepare(self) -> None:
        self.path.write_bytes(CONTENT)

    def run(self) -> None:
        self.file = MappedFile(self.path, self.mode)
        self.file[0]
        self.file.close()

    def look(self, failed: bool) -> None:
        """After a failure or none: is what is there whole?"""
        assert self.file is None or self.file.closed or self.file[:] == CONTENT
        assert self.path.read_bytes() == CONTENT

    def clean(self) -> None:
        self.kept.clear()
        file, self.file = self.file, None
        if file is not None:
            file.close()


class Read(Scenario):
    """The same, to read only."""

    mode = "r"


class Private(Scenario):
    """The same, privately."""

    mode = "c"


class Adopt(Scenario):
    """The same, from a descriptor."""

    def prepare(self) -> None:
        super().prepare()
        self.kept.append(open(self.path, "r+b"))  # noqa: SIM115

    def run(self) -> None:
        self.file = MappedFile(self.kept[0], self.mode)
        self.file[0]
        self.file.close()

    def look(self, failed: bool) -> None:
        super().look(failed)
        self.kept[0].seek(0)
        assert self.kept[0].read() == CONTENT
        self.kept[0].close()


class Create(Scenario):
    """Creates a file, which is not there when that fails."""

    mode = "x+"
    sparse = False

    def prepare(self) -> None:
        self.path.unlink(missing_ok=True)

    def run(self) -> None:
        self.file = MappedFile(self.path, self.mode, size=SIZE, sparse=self.sparse)

    def look(self, failed: bool) -> None:
        if failed:
            assert self.file is None
            assert not self.path.exists(), "what could not be created was left behind"
        else:
            assert self.file[:] == bytes(SIZE) == self.path.read_bytes()


class CreateSparse(Create):
    """The same, with holes."""

    sparse = True


class Empty(Create):
    """Creates a file where one was."""

    mode = "w+"

    def prepare(self) -> None:
        self.path.write_bytes(CONTENT)

    def look(self, failed: bool) -> None:
        if failed:
            assert self.file is None
            assert self.path.read_bytes() in (b"", CONTENT)
        else:
            assert self.file[:] == bytes(SIZE) == self.path.read_bytes()


class Using(Scenario):
    """Has a file open and used, with a view and a buffer."""

    alive: tuple[str, ...] = ("view", "buffer")
    sparse = False
    reserve = 0
    size = SIZE  # afterwards

    def prepare(self) -> None:
        super().prepare()
        self.file = MappedFile(self.path, self.mode, sparse=self.sparse, reserve=self.reserve)
        self.file[0]
        if "view" in self.alive:
            self.kept.append(self.file.view(PAGE_SIZE + 5))
        if "buffer" in self.alive:
            self.kept.append(self.file.data)
            self.address = address_of(self.kept[-1])

    def look(self, failed: bool) -> None:
        size = SIZE if failed else self.size
        expected = (CONTENT + bytes(max(size - SIZE, 0)))[:size]
        assert not self.file.closed
        assert (len(self.file), self.path.stat().st_size) == (size, size)
        assert self.file[:] == expected
        assert self.path.read_bytes() == expected
        self.look_at_what_is_alive()
        if self.mode == "r+":
            for size in (SIZE + 7 * PAGE_SIZE, 10):
                self.file.resize(size)
                assert (len(self.file), self.path.stat().st_size) == (size, size)
                assert self.file[:10] == CONTENT[:10]
            self.file.flush()

    def look_at_what_is_alive(self) -> None:
        if "buffer" in self.alive:
            data = self.kept.pop()
            assert bytes(data) == CONTENT
            assert self.address == address_of(data)
            if self.mode == "r+":
                self.file[PAGE_SIZE + 6] = 98
                assert data[PAGE_SIZE + 6] == 98
            data.release()
        if "view" in self.alive:
            view = self.kept.pop()
            assert view[2:] == CONTENT[PAGE_SIZE + 7 :]
            if self.mode == "r+":
                view[0] = 99
                assert self.file[PAGE_SIZE + 5] == 99
            view.close()
        assert not self.kept


class View(Using):
    """Makes a view, reads a byte, closes it."""

    def run(self) -> None:
        with self.file.view(5000, 5000) as view:
            view[0]


class WholeMap(Using):
    """Maps the whole of a file that was opened before."""

    alive = ()

    def prepare(self) -> None:
        Scenario.prepare(self)
        self.file = MappedFile(self.path, self.mode)

    def run(self) -> None:
        self.file[0]


class FlushView(Using):
    """Flushes a view."""

    def run(self) -> None:
        self.kept[0].flush(7, 8)


class FlushRange(Using):
    """Flushes a range of the file."""

    def run(self) -> None:
        self.file.flush(PAGE_SIZE, 8)


class FlushFile(Using):
    """Flushes the file."""

    def run(self) -> None:
        self.file.flush()


class FlushLazily(Using):
    """Has a flush that is not durable."""

    def run(self) -> None:
        self.kept[0].flush(7, 8, durable=False)


class FlushFileLazily(Using):
    """Has one of the whole file."""

    def run(self) -> None:
        self.file.flush(durable=False)


class Grow(Using):
    """Makes the file larger while a view and a buffer are alive."""

    size = SIZE + 20 * PAGE_SIZE

    def run(self) -> None:
        self.file.resize(self.size)


class GrowAlone(Grow):
    """The same with nothing alive."""

    alive = ()


class GrowWithView(Grow):
    """The same with a view alone."""

    alive = ("view",)


class GrowWithBuffer(Grow):
    """The same with a buffer alone."""

    alive = ("buffer",)


class GrowUnmapped(GrowAlone):
    """The same before the file is mapped."""

    def prepare(self) -> None:
        Scenario.prepare(self)
        self.file = MappedFile(self.path, self.mode)


class GrowReserved(Grow):
    """The same in address space that was set aside."""

    reserve = 100 * PAGE_SIZE


class GrowPastReserve(Grow):
    """The same past its end."""

    reserve = SIZE + 10 * PAGE_SIZE


class GrowInPage(Grow):
    """Makes it larger inside its last page."""

    size = SIZE + 5


class GrowSparse(Grow):
    """Makes it larger by a hole."""

    sparse = True


class Shrink(Using):
    """Makes it smaller."""

    alive = ()
    size = PAGE_SIZE + 1

    def run(self) -> None:
        self.file.resize(self.size)


class ShrinkReserved(Shrink):
    """The same where address space was set aside."""

    reserve = 100 * PAGE_SIZE


class Refresh(Using):
    """Takes note that others have made it larger."""

    def prepare(self) -> None:
        super().prepare()
        with open(self.path, "ab") as others:
            others.write(b"more" * PAGE_SIZE)

    def run(self) -> None:
        self.file.refresh()

    def look(self, failed: bool) -> None:
        more = CONTENT + b"more" * PAGE_SIZE
        assert self.path.read_bytes() == more
        assert (len(self.file), self.file[:]) in (
            [(SIZE, CONTENT)] if failed else [(len(more), more)]
        )
        self.file.refresh()
        assert self.file[:] == more
        self.look_at_what_is_alive()
        if self.mode == "r+":
            self.file.resize(10)
            assert self.file[:] == CONTENT[:10] == self.path.read_bytes()


class RefreshAlone(Refresh):
    """The same with nothing alive."""

    alive = ()


class RefreshReserved(Refresh):
    """The same in address space that was set aside."""

    reserve = 100 * PAGE_SIZE


class RefreshPrivate(Refresh):
    """The same, privately."""

    mode = "c"


class RefreshPrivateAlone(RefreshPrivate):
    """The same with nothing alive."""

    alive = ()


class RefreshPrivateReserved(RefreshPrivate):
    """The same in address space that was set aside."""

    reserve = 100 * PAGE_SIZE


class Close(Using):
    """Closes the file and its view."""

    def run(self) -> None:
        self.kept.pop()
        self.kept.pop().close()
        self.file.close()

    def look(self, failed: bool) -> None:
        assert self.path.read_bytes() == CONTENT


SCENARIOS = {
    each.__name__: each
    for each in (Scenario, Read, Private, Adopt, Create, CreateSparse, Empty, View, WholeMap, FlushView, FlushRange, FlushFile,
                 FlushLazily, FlushFileLazily, Grow, GrowAlone, GrowWithView, GrowWithBuffer, GrowUnmapped, GrowReserved,
                 GrowPastReserve, GrowInPage, GrowSparse, Shrink, ShrinkReserved, Refresh, RefreshAlone, RefreshReserved,
                 RefreshPrivate, RefreshPrivateAlone, RefreshPrivateReserved, Close)
}  # fmt: skip


def say(word: object) -> None:
    print(json.dumps(word), flush=True)


def main(folder: Path) -> None:
    """Do as told."""
    complaints: list[str] = []
    sys.unraisablehook = lambda one: complaints.append(f"{one.exc_value!r}")
    warnings.simplefilter("error")
    # Everything is imported, compiled and allocated before calls fail.
    for name, scenario in SCENARIOS.items():
        warm = scenario(folder / "warm")
        warm.prepare()
        warm.run()
        warm.look(False)
        warm.clean()
        outcome(ValueError(name))
    gc.collect()
    gc.disable()
    complaints.clear()
    say(os.getpid())
    for number, line in enumerate(sys.stdin):
        name = line.strip()
        before = handles(), file_maps()[1]
        scenario = SCENARIOS[name](folder / f"{name}{number}")
        scenario.prepare()
        error = kept = None
        say("ready")
        sys.stdin.readline()
        try:
            scenario.run()
        except BaseException as caught:
            error = outcome(caught)
            kept = caught  # its traceback keeps nothing of the system's
        say(error)
        sys.stdin.readline()
        found = []
        try:
            scenario.look(error is not None)
        except BaseException as caught:
            found.append(f"{type(caught).__name__} {caught} in line {line_of(caught)}")
            del caught
        try:
            scenario.clean()
        except BaseException as caught:
            found.append(f"clean-up: {type(caught).__name__} {caught}")
            del caught
        del scenario
        gc.collect()
        after = handles(), file_maps()[1]
        del kept
        found += complaints
        complaints.clear()
        (folder / f"{name}{number}").unlink(missing_ok=True)
        say({"found": found, "handles": after[0] - before[0], "mapped": after[1] - before[1]})


def outcome(error: BaseException) -> dict[str, Any]:
    name = getattr(error, "filename", None)
    return {
        "type": type(error).__name__,
        "errno": getattr(error, "errno", None),
        "filename": None if name is None else str(name),
        "text": str(error),
    }


def line_of(error: BaseException) -> int:
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place.tb_lineno if place is not None else 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
