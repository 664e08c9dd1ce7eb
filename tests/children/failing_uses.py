"""Scenarios of failing.py: a file is open, and is used."""

from __future__ import annotations

from children.failing_opens import CONTENT, SIZE, Scenario, scenario
from mappedfile import PAGE_SIZE, MappedFile
from mappedfile.contract._probe import address_of


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


@scenario
class View(Using):
    """Makes a view, reads a byte, closes it."""

    def run(self) -> None:
        with self.file.view(5000, 5000) as view:
            view[0]


@scenario
class WholeMap(Using):
    """Maps the whole of a file that was opened before."""

    alive = ()

    def prepare(self) -> None:
        Scenario.prepare(self)
        self.file = MappedFile(self.path, self.mode)

    def run(self) -> None:
        self.file[0]


@scenario
class FlushView(Using):
    """Flushes a view."""

    def run(self) -> None:
        self.kept[0].flush(7, 8)


@scenario
class FlushRange(Using):
    """Flushes a range of the file."""

    def run(self) -> None:
        self.file.flush(PAGE_SIZE, 8)


@scenario
class FlushFile(Using):
    """Flushes the file."""

    def run(self) -> None:
        self.file.flush()


@scenario
class FlushLazily(Using):
    """Has a flush that is not durable."""

    def run(self) -> None:
        self.kept[0].flush(7, 8, durable=False)


@scenario
class FlushFileLazily(Using):
    """Has one of the whole file."""

    def run(self) -> None:
        self.file.flush(durable=False)


@scenario
class Grow(Using):
    """Makes the file larger while a view and a buffer are alive."""

    size = SIZE + 20 * PAGE_SIZE

    def run(self) -> None:
        self.file.resize(self.size)


@scenario
class GrowAlone(Grow):
    """The same with nothing alive."""

    alive = ()


@scenario
class GrowWithView(Grow):
    """The same with a view alone."""

    alive = ("view",)


@scenario
class GrowWithBuffer(Grow):
    """The same with a buffer alone."""

    alive = ("buffer",)


@scenario
class GrowUnmapped(GrowAlone):
    """The same before the file is mapped."""

    def prepare(self) -> None:
        Scenario.prepare(self)
        self.file = MappedFile(self.path, self.mode)


@scenario
class GrowReserved(Grow):
    """The same in address space that was set aside."""

    reserve = 100 * PAGE_SIZE


@scenario
class GrowPastReserve(Grow):
    """The same past its end."""

    reserve = SIZE + 10 * PAGE_SIZE


@scenario
class GrowInPage(Grow):
    """Makes it larger inside its last page."""

    size = SIZE + 5


@scenario
class GrowSparse(Grow):
    """Makes it larger by a hole."""

    sparse = True


@scenario
class Shrink(Using):
    """Makes it smaller."""

    alive = ()
    size = PAGE_SIZE + 1

    def run(self) -> None:
        self.file.resize(self.size)


@scenario
class ShrinkReserved(Shrink):
    """The same where address space was set aside."""

    reserve = 100 * PAGE_SIZE


@scenario
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


@scenario
class RefreshAlone(Refresh):
    """The same with nothing alive."""

    alive = ()


@scenario
class RefreshReserved(Refresh):
    """The same in address space that was set aside."""

    reserve = 100 * PAGE_SIZE


@scenario
class RefreshPrivate(Refresh):
    """The same, privately."""

    mode = "c"


@scenario
class RefreshPrivateAlone(RefreshPrivate):
    """The same with nothing alive."""

    alive = ()


@scenario
class RefreshPrivateReserved(RefreshPrivate):
    """The same in address space that was set aside."""

    reserve = 100 * PAGE_SIZE


@scenario
class Close(Using):
    """Closes the file and its view."""

    def run(self) -> None:
        self.kept.pop()
        self.kept.pop().close()
        self.file.close()

    def look(self, failed: bool) -> None:
        assert self.path.read_bytes() == CONTENT
