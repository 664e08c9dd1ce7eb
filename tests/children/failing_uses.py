"""Scenarios of failing.py that use an open file."""

from __future__ import annotations

from children.failing_opens import CONTENT, SIZE, Scenario, scenario
from mappedfile import PAGE_SIZE, MappedFile
from mappedfile.contract._probe import address_of


class Using(Scenario):
    """The base of the scenarios: a mapped file in use, with a view and a buffer."""

    alive: tuple[str, ...] = ("view", "buffer")
    sparse = False
    reserve = 0
    size = SIZE  # the size after run()

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
    """Makes a view, reads a byte, and closes the view."""

    def run(self) -> None:
        with self.file.view(5000, 5000) as view:
            view[0]


@scenario
class WholeMap(Using):
    """Maps the whole file on the first access."""

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
    """Flushes a view with durable=False."""

    def run(self) -> None:
        self.kept[0].flush(7, 8, durable=False)


@scenario
class FlushFileLazily(Using):
    """Flushes the file with durable=False."""

    def run(self) -> None:
        self.file.flush(durable=False)


@scenario
class Grow(Using):
    """Grows the file while a view and a buffer are alive."""

    size = SIZE + 20 * PAGE_SIZE

    def run(self) -> None:
        self.file.resize(self.size)


@scenario
class GrowAlone(Grow):
    """Grows the file without views or buffers alive."""

    alive = ()


@scenario
class GrowWithView(Grow):
    """Grows the file while a view is alive."""

    alive = ("view",)


@scenario
class GrowWithBuffer(Grow):
    """Grows the file while a buffer is alive."""

    alive = ("buffer",)


@scenario
class GrowUnmapped(GrowAlone):
    """Grows the file before it is mapped."""

    def prepare(self) -> None:
        Scenario.prepare(self)
        self.file = MappedFile(self.path, self.mode)


@scenario
class GrowReserved(Grow):
    """Grows the file inside reserved address space."""

    reserve = 100 * PAGE_SIZE


@scenario
class GrowPastReserve(Grow):
    """Grows the file past its reserved address space."""

    reserve = SIZE + 10 * PAGE_SIZE


@scenario
class GrowInPage(Grow):
    """Grows the file inside its last page."""

    size = SIZE + 5


@scenario
class GrowSparse(Grow):
    """Grows the file by a hole."""

    sparse = True


@scenario
class Shrink(Using):
    """Shrinks the file."""

    alive = ()
    size = PAGE_SIZE + 1

    def run(self) -> None:
        self.file.resize(self.size)


@scenario
class ShrinkReserved(Shrink):
    """Shrinks a file with reserved address space."""

    reserve = 100 * PAGE_SIZE


@scenario
class Refresh(Using):
    """Calls refresh() after others have grown the file, with a view and a buffer alive."""

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
    """Calls refresh() after growth, without views or buffers alive."""

    alive = ()


@scenario
class RefreshReserved(Refresh):
    """Calls refresh() after growth inside reserved address space."""

    reserve = 100 * PAGE_SIZE


@scenario
class RefreshPrivate(Refresh):
    """Calls refresh() after growth, on a private map with a view and a buffer alive."""

    mode = "c"


@scenario
class RefreshPrivateAlone(RefreshPrivate):
    """Calls refresh() after growth, on a private map without views or buffers alive."""

    alive = ()


@scenario
class RefreshPrivateReserved(RefreshPrivate):
    """Calls refresh() after growth, on a private map inside reserved address space."""

    reserve = 100 * PAGE_SIZE


@scenario
class Close(Using):
    """Closes the view and the file."""

    def run(self) -> None:
        self.kept.pop()
        self.kept.pop().close()
        self.file.close()

    def look(self, failed: bool) -> None:
        assert self.path.read_bytes() == CONTENT
