"""Failures of backend calls, and events during a call. The calls are Python functions, so this
works on every system. tests/test_failures.py makes calls of the system fail."""

from __future__ import annotations

import ctypes
import errno
import gc
import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import import_on, only

import mappedfile
from mappedfile import GRANULARITY, PAGE_SIZE
from mappedfile._native import ffi, lib
from mappedfile.contract._probe import file_maps, handles

#: These modules are imported early: a later import would change the number of maps.
EARLY = [
    importlib.import_module(f"mappedfile.{name}") for name in ("_advice", "_limits", "_stream")
]
WINDOWS = sys.platform == "win32"
CONTENT = bytes(range(256)) * 1200  # longer than one step of a search
#: The error code of failing calls: EIO, or ERROR_ACCESS_DENIED.
CODE = 5
#: A value of FAILING: return success without calling the system.
DONE = -1
#: These calls release their object even when they are made to fail, so that tests leak nothing.
RELEASING = ("unmap", "close", "close_section")


class Backend:
    """The backend of this system, with some calls replaced by Python functions. The package is
    imported again on it.

    Calls that the C types make while an exception is set cannot be replaced.

    FAILING has the calls that fail, and their codes. BEFORE has functions to run just before a
    call.
    """

    def __init__(self, *calls: str, **system: int) -> None:
        self.calls = calls
        self.system = system
        self.failing: dict[str, int | list[int]] = {}
        self.before: dict[str, Callable[[], object]] = {}
        self.kept: list[object] = []
        self.package = import_on(self, "mmap")

    def __getattr__(self, name: str) -> object:
        return getattr(lib, name)

    def mf_fill_table(self, table: Any) -> None:
        lib.mf_fill_table(table)
        for name, value in self.system.items():
            setattr(table.system, name, value)
        for name in self.calls:
            self.replace(table, name)

    def replace(self, table: Any, name: str) -> None:
        """Replace a call of the system by a Python function."""
        original = getattr(table, name)

        def call(*arguments: object) -> int:
            self.before.get(name, int)()
            code = self.failing.get(name, 0)
            if isinstance(code, list):  # one for each call
                code = code.pop(0) if code else 0
            result = 0
            if code == 0 or name in RELEASING:
                result = original(*arguments)
            return 0 if code == DONE else code or result

        function = ffi.callback(ffi.typeof(original), call)
        self.kept.append(function)
        setattr(table, name, function)


def replacing(*calls: str, **system: int) -> pytest.MarkDecorator:
    """Replace these calls for a test, or change these properties of the system."""
    return pytest.mark.parametrize(
        "backend", [(calls, system)], indirect=True, ids=["-".join((*calls, *system))]
    )


@pytest.fixture
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    """Return a backend with replaced calls. Check that nothing stays open or mapped."""
    calls, system = request.param
    made = Backend(*calls, **system)
    before = handles(), file_maps()
    yield made
    gc.collect()
    assert before == (handles(), file_maps())


@pytest.fixture
def content(path: Path) -> Path:
    """Return a file with CONTENT."""
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def unraisable(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the list of errors that sys.unraisablehook got, each with its object."""
    errors: list[Any] = []
    monkeypatch.setattr(
        sys, "unraisablehook", lambda one: errors.append((one.object, one.exc_value))
    )
    return errors


def code_of(error: OSError) -> object:
    """Return the system's number of an error."""
    return getattr(error, "winerror", None) or error.errno


def refused(use: Callable[[], object], name: object) -> None:
    """Check that a call raises OSError with CODE and the file's name."""
    with pytest.raises(OSError) as caught:
        use()
    assert (CODE, name) == (code_of(caught.value), caught.value.filename)


def once(action: Callable[[], object]) -> Callable[[], object]:
    """Return a function that calls ACTION the first time only."""
    todo = [action]
    return lambda: todo.pop()() if todo else None


@pytest.fixture
def file(backend: Backend, content: Path) -> Iterator[Any]:
    """Return a mapped file on the replaced backend."""
    made = backend.package.MappedFile(content, "r+")
    yield made
    backend.failing.clear()
    made.close()


@pytest.fixture
def memory(backend: Backend, content: Path) -> Iterator[Any]:
    """Return a map of mappedfile.mmap on the replaced backend, and its descriptor."""
    with open(content, "r+b") as opened:
        made = backend.package.mmap.mmap(opened.fileno(), 0)
        yield made, opened.fileno()
        backend.failing.clear()
        made.close()


# Releasing: L10


@pytest.mark.parametrize("kind", ["file", "view", "stream", "use"])
@replacing("unmap")
def test_unmapping_fails(backend: Backend, file: Any, kind: str) -> None:
    """The last user of a map gets the error of munmap, once."""
    made = {
        "file": lambda: file,
        "view": lambda: file.view(5, 10),
        "stream": lambda: file.stream(),
        "use": lambda: file._use(0, 10, False),
    }[kind]()
    file[0]
    if kind != "file":
        file.close()
    end = made.close if kind != "use" else lambda: made.__exit__(None, None, None)
    backend.failing["unmap"] = CODE
    refused(end, file.name)
    assert end() is None
    assert file.closed


@pytest.mark.parametrize("kind", ["Buffer", "Stream", "Use", "View"])
@replacing("unmap")
def test_nobody_to_tell(backend: Backend, file: Any, unraisable: list[Any], kind: str) -> None:
    """If the last user is a deallocated object, the error goes to sys.unraisablehook."""
    made = {
        "Buffer": lambda: file.data,
        "Stream": file.stream,
        "Use": lambda: file._use(0, 10, False),
        "View": lambda: file.view(5, 10),
    }[kind]()
    file.close()
    backend.failing["unmap"] = CODE
    with warnings.catch_warnings(action="ignore") if kind == "View" else nullcontext():
        del made
    ((where, error),) = unraisable
    assert kind == where.__name__
    assert (CODE, file.name) == (code_of(error), error.filename)


@replacing("close")
def test_closing_fails(backend: Backend, file: Any) -> None:
    """close() raises the error of closing the file, once."""
    backend.failing["close"] = CODE
    refused(file.close, file.name)
    assert file.closed
    assert file.close() is None


# Events during a call


@replacing("milliseconds", "unmap")
def test_closed_during_a_search(backend: Backend, file: Any) -> None:
    """A long search continues after its file was closed, and then unmaps the memory. It raises the
    error of munmap."""
    backend.before["milliseconds"] = once(file.close)
    assert -1 == file.find(b"nowhere")
    assert file.closed
    with backend.package.MappedFile(file.name) as file:
        file[0]
        backend.before["milliseconds"] = once(file.close)
        backend.failing["unmap"] = CODE
        refused(lambda: file.find(b"nowhere"), file.name)


def is_as_it_was(name: str) -> bool:
    """Whether a file has its old content. On Windows zeros may follow it."""
    content = Path(name).read_bytes()
    return CONTENT == (content.rstrip(b"\0") if WINDOWS else content)


@pytest.mark.parametrize("call", ["flush", "sync", "size", "refresh", "advise"])
@replacing("flush", "sync", "get_size", "close")
def test_closed_during_a_call(backend: Backend, file: Any, memory: Any, call: str) -> None:
    """A call continues when its file is closed during it. It raises the error of closing."""
    made, number = memory
    backend.failing["close"] = CODE
    if call == "flush":
        view = file.view(0, 100)
        backend.before["flush"] = once(file.close)
        refused(view.flush, file.name)
        view.close()
    elif call == "sync":
        backend.before["sync"] = once(file.close)
        refused(file.flush, file.name)
    elif call == "size":
        backend.before["get_size"] = once(made.close)
        refused(made.size, number)
    elif call == "refresh":
        backend.before["get_size"] = once(file.close)
        refused(file.refresh, file.name)
    else:
        with pytest.raises(OSError), file._use(0, 10, False):
            file.close()


@replacing("grow")
def test_closed_during_a_resize(backend: Backend, file: Any) -> None:
    """A resize raises ValueError if the file was closed during it, and the file keeps its size. On
    Windows zeros may be added, since the sections are closed later."""
    file[0]
    backend.before["grow"] = once(file.close)
    with pytest.raises(ValueError, match="is closed"):
        file.resize(2 * len(CONTENT))
    assert is_as_it_was(file.name)


@replacing("guard")
def test_closed_when_it_is_mapped(backend: Backend, file: Any) -> None:
    """Mapping a file raises ValueError if the file is closed while the guard is installed."""
    for use in (
        lambda other: other[0],
        lambda other: other.view(),
        lambda other: other.stream(),
        lambda other: other.startswith(b"a"),
    ):
        backend.package._memory.guard_policy(0)
        other = backend.package.MappedFile(file.name)
        backend.before["guard"] = once(other.close)
        with pytest.raises(ValueError, match="is closed"):
            use(other)


@replacing("open", "create")
def test_opened_during_opening(backend: Backend, tmp_path: Path) -> None:
    """An object that opens another file during its constructor keeps that one. The constructor
    raises ValueError, and its new file is removed."""
    kind = backend.package.MappedFile
    for call, size in (("open", 0), ("create", 10)):
        made = kind.__new__(kind)
        one, two = tmp_path / f"{call}-one", tmp_path / f"{call}-two"
        backend.before[call] = once(partial(kind.__init__, made, one, "x+", size=3))
        with pytest.raises(ValueError, match="another thread has opened this object"):
            kind.__init__(made, two, "x+", size=size)
        assert (str(one), 3, [one]) == (made.name, len(made), [*tmp_path.glob(f"{call}*")])
        made.close()


@replacing("lock")
def test_closed_during_locking(backend: Backend, file: Any) -> None:
    """A resize of a locked file raises ValueError if the file is closed while the new map is
    locked."""
    file.lock()
    backend.before["lock"] = once(file.close)
    with pytest.raises(ValueError, match="is closed"):
        file.resize(PAGE_SIZE)
        file[0]


# Opening


@replacing("create", "publish", "grow")
def test_without_a_way_to_create(backend: Backend, tmp_path: Path) -> None:
    """If the system cannot create a file of full size, the file is created empty and grown. If
    growing fails, the file is removed."""
    path = tmp_path / "file"
    unknown = backend.package._system.NOT_SUPPORTED
    for call in ("create", "publish"):
        backend.failing = {call: unknown}
        with backend.package.MappedFile(path, "x+", size=10) as file:
            assert bytes(10) == file[:]
        path.unlink()
        backend.failing["grow"] = [CODE] if call == "create" else [0, CODE]
        refused(lambda: backend.package.MappedFile(path, "x+", size=10), str(path))
        assert [] == os.listdir(tmp_path)
    backend.failing = {"publish": CODE}
    refused(lambda: backend.package.MappedFile(path, "x+", size=10), str(path))
    assert [] == os.listdir(tmp_path)


@replacing(can_reserve=0)
def test_without_room_to_reserve(backend: Backend, file: Any) -> None:
    """A system that cannot reserve address space raises an error, as Windows before 10 version
    1803."""
    with pytest.raises(io.UnsupportedOperation, match="cannot reserve"):
        backend.package.MappedFile(file.name, reserve=1)
    with file.stream(grow=True) as stream:
        stream.seek(0, 2)
        assert 5 == stream.write(b"abcde")


# Mapping: S4


@pytest.mark.parametrize("call", ["guard", "map"])
@replacing("guard", "map")
def test_mapping_fails(backend: Backend, file: Any, call: str) -> None:
    """Each use raises OSError while mapping fails. Then the next use maps the file."""
    uses: list[Callable[[], object]] = [
        lambda: file[0],
        lambda: file[0:2],
        lambda: file.__setitem__(0, 1),
        lambda: file.__setitem__(slice(0, 2), b"ab"),
        lambda: memoryview(file),
        lambda: file.find(b"a"),
        lambda: file.startswith(b"a"),
        lambda: file.view(),
        lambda: file.stream(),
        lambda: file._use(0, 5, False),
        lambda: file.lock(),
        lambda: next(iter(file)),
        lambda: file.view(0, 5).flush(),
    ]
    for use in uses:
        backend.package._memory.guard_policy(0)
        backend.failing[call] = CODE
        refused(use, file.name)
    assert not file.mapped
    backend.failing.clear()
    assert CONTENT == file[:]


@pytest.mark.parametrize("tracked", [True, False])
@pytest.mark.parametrize(
    "backend",
    [((call,), {}) for call in ("duplicate", "guard", "map", "close", "open_section")],
    indirect=True,
)
def test_mapping_fails_for_mmap(backend: Backend, content: Path, tracked: bool) -> None:
    """mappedfile.mmap raises OSError too, and keeps no descriptor."""
    (call,) = backend.calls
    only(call != "open_section" or WINDOWS, "there are no sections here")
    only(call != "close" or not tracked, "the descriptor is kept")
    backend.failing = {call: CODE}
    with open(content, "r+b") as opened:
        number = opened.fileno()
        refused(lambda: backend.package.mmap.mmap(number, 0, trackfd=tracked), number)


# Sizes: S4


@replacing("get_size")
def test_size_is_unknown(backend: Backend, file: Any, memory: Any) -> None:
    """A call that cannot read the size of the file raises OSError."""
    made, number = memory
    stream = file.stream(grow=True)
    stream.seek(0, 2)
    backend.failing["get_size"] = CODE
    refused(lambda: file.resize(5 * PAGE_SIZE + 1), file.name)
    refused(file.refresh, file.name)
    refused(lambda: stream.write(b"a"), file.name)
    refused(made.size, number)
    refused(lambda: made.resize(GRANULARITY), number)
    backend.failing.clear()
    assert len(CONTENT) == len(file) == made.size()
    assert not file.refresh()
    stream.close()


@pytest.mark.skipif(WINDOWS, reason="Windows makes maps from sections")
@replacing("set_size", "remap", "map")
def test_mmap_does_not_grow(backend: Backend, memory: Any) -> None:
    """If a map cannot grow, mmap.resize() leaves the file as it was."""
    made, number = memory
    for failing in ({"set_size": [CODE]}, {"remap": CODE, "map": [CODE]}):
        backend.failing = dict(failing)
        refused(lambda: made.resize(2 * len(CONTENT)), number)
        assert len(CONTENT) == len(made) == made.size()
        assert CONTENT == made[:]


@pytest.mark.skipif(WINDOWS, reason="Windows makes maps from sections")
@replacing("remap", "open_memory", "map")
def test_memory_without_a_file(backend: Backend) -> None:
    """Private memory without a file is copied if it cannot be remapped."""
    layer = backend.package.mmap
    backend.failing["remap"] = CODE
    with layer.mmap(-1, PAGE_SIZE, flags=layer.MAP_PRIVATE | layer.MAP_ANON) as private:
        private[:5] = b"abcde"
        private.resize(3 * PAGE_SIZE)
        assert b"abcde" + bytes(3 * PAGE_SIZE - 5) == private[:]
        private.resize(3)
        assert b"abc" == private[:]
        for call in ("open_memory", "map"):
            backend.failing[call] = CODE
            refused(lambda: private.resize(PAGE_SIZE), -1)
            assert b"abc" == private[:]
            del backend.failing[call]
    with layer.mmap(-1, 3 * PAGE_SIZE) as shared:
        with pytest.raises(OSError) as caught:
            shared.resize(PAGE_SIZE)
        assert backend.package._system.NOT_SUPPORTED == caught.value.errno
        assert 3 * PAGE_SIZE == len(shared)


@pytest.mark.parametrize("how", ["closed", "exported"])
@replacing("remap", "open_memory")
def test_memory_that_is_taken_during_a_resize(backend: Backend, how: str) -> None:
    """A resize of memory without a file fails if another thread closes or exports the memory during
    it."""
    layer = backend.package.mmap
    backend.failing["remap"] = CODE
    flags = {} if WINDOWS else {"flags": layer.MAP_PRIVATE | layer.MAP_ANON}
    made = layer.mmap(-1, PAGE_SIZE, **flags)
    made[:5] = b"abcde"
    kept: list[memoryview] = []
    if how == "closed":
        backend.before["open_memory"] = once(made.close)
        with pytest.raises(ValueError, match="closed"):
            made.resize(3 * PAGE_SIZE)
        assert made.closed
        return
    backend.before["open_memory"] = once(lambda: kept.append(memoryview(made)))
    with pytest.raises(BufferError, match="buffers or calls use it"):
        made.resize(3 * PAGE_SIZE)
    kept[0][0] = 65
    assert (PAGE_SIZE, b"Abcde") == (len(made), made[:5])
    kept.clear()
    made.resize(3 * PAGE_SIZE)
    assert b"Abcde" == made[:5]
    made.close()


@replacing("madvise", "set_name")
def test_advice_and_names_fail(backend: Backend, memory: Any) -> None:
    """A refused advice is an OSError. So is a refused name, unless the kernel does not support
    names."""
    made, number = memory
    backend.failing = {"madvise": CODE, "set_name": CODE}
    refused(lambda: made.madvise(0), number)
    with backend.package.mmap.mmap(-1, 10) as anonymous:
        refused(lambda: anonymous.set_name("name"), -1)
        backend.failing["set_name"] = backend.package._system.NOT_SUPPORTED
        assert anonymous.set_name("name") is None


@replacing("remap", "map", "open_section")
def test_refresh_fails(backend: Backend, file: Any) -> None:
    """If refresh() cannot map the larger file, the object does not change."""
    file[0]
    os.truncate(file.name, 2 * len(CONTENT))
    backend.failing = {"remap": CODE, "map": CODE, "open_section": CODE if WINDOWS else 0}
    refused(file.refresh, file.name)
    backend.failing.clear()
    assert len(CONTENT) == len(file)
    assert CONTENT == file[:]
    assert file.refresh()
    assert 2 * len(CONTENT) == len(file)


@replacing("lock", "remap")
def test_private_writes_while_the_new_map_is_locked(backend: Backend, content: Path) -> None:
    """Bytes written to a locked private file are kept if they are written while refresh() locks the
    new map."""
    backend.failing = {"lock": DONE, "remap": CODE}
    made = backend.package.MappedFile(content, "c")
    made.lock()
    made[2] = 1
    os.truncate(content, 2 * len(CONTENT))
    backend.before["lock"] = once(lambda: made.__setitem__(3, 7))
    assert made.refresh()
    assert (1, 7, 2 * len(CONTENT)) == (made[2], made[3], len(made))
    made.close()


# Locks: M6


@replacing("lock", "allow_locked", "unlock", over_quota=CODE)
def test_locking_more(backend: Backend, file: Any) -> None:
    """If the limit of locked memory can be raised, lock() raises it, once."""
    raised: list[int] = []
    backend.before["allow_locked"] = lambda: raised.append(1)
    backend.failing = {"lock": [CODE], "allow_locked": CODE}
    refused(file.lock, file.name)
    backend.failing = {"lock": [CODE, CODE]}
    refused(file.lock, file.name)
    backend.failing = {"lock": [CODE], "allow_locked": DONE}
    file.lock()
    assert [1, 1, 1] == raised
    backend.failing = {"unlock": CODE}
    refused(file.unlock, file.name)


# Copies


@pytest.mark.parametrize("call", ["copy", "search"])
@replacing("copy", "search")
def test_copying_fails(backend: Backend, file: Any, call: str) -> None:
    """A copy or search that fails in the backend raises MappingFault. On Windows this means that a
    page is missing."""
    uses: dict[str, list[Callable[[], object]]] = {
        "copy": [
            lambda: file[::2],
            lambda: file[::-1],
            lambda: file.__setitem__(slice(0, 4, 2), b"ab"),
            lambda: file._use(0, 10, False).touch(0, 10),
        ],
        "search": [
            lambda: file.find(b"nowhere"),
            lambda: file.rfind(b"nowhere"),
            lambda: file.count(b"nowhere"),
            lambda: file.startswith(b"a"),
            lambda: file.endswith(b"a"),
        ],
    }
    for use in uses[call]:
        backend.failing[call] = CODE
        with pytest.raises(backend.package.MappingFault) as caught:
            use()
        assert file.name == caught.value.filename
    backend.failing.clear()
    assert CONTENT == file[:]


@replacing("copy", "unmap")
def test_use_that_ends_meanwhile(backend: Backend, file: Any) -> None:
    """A loop that touches pages continues to the end after its use and its file were closed."""
    use = file._use(0, 10, False)

    def end() -> None:
        use.__exit__(None, None, None)
        file.close()

    backend.before["copy"] = once(end)
    backend.failing["unmap"] = CODE
    refused(lambda: use.touch(0, 10), file.name)
    for wrong in (lambda: use.touch(0, 10), lambda: use.touch(0, 2**40)):
        with pytest.raises(ValueError, match="the use has ended"):
            wrong()
    with pytest.raises(TypeError):
        use.touch("a", 1)
    assert use.check() is None
    assert 0 == use.handle


# Streams that grow: B4


@replacing("grow", "remap", "map")
def test_stream_that_cannot_grow(backend: Backend, file: Any) -> None:
    """A write that cannot grow the file writes nothing, and the stream stays usable."""
    with file.stream(grow=True) as stream:
        stream.seek(0, 2)
        backend.failing = {"grow": CODE}
        refused(lambda: stream.write(b"abc"), file.name)
        assert (len(CONTENT), len(CONTENT)) == (len(file), stream.tell())
        backend.failing = {"remap": CODE, "map": [CODE]}  # only a map without spare room works
        assert 3 == stream.write(b"abc")
    assert b"abc" == file[len(CONTENT) :]


@replacing("grow")
def test_stream_on_a_file_that_is_closed(backend: Backend, file: Any) -> None:
    """A write raises ValueError if the file is closed during it. The old content stays readable."""
    with file.stream(grow=True) as stream:
        stream.seek(0, 2)
        backend.before["grow"] = once(file.close)
        with pytest.raises(ValueError, match="is closed"):
            stream.write(b"abc")
        assert is_as_it_was(file.name)
        stream.seek(0)
        assert CONTENT == stream.read()


@replacing("map", "remap", "unmap", "guard")
def test_stream_follows_no_further(backend: Backend, file: Any) -> None:
    """If a stream cannot map its grown file, it raises OSError. The next call tries again."""
    file.resize(0)
    with file.stream(grow=True) as stream:
        file.resize(10)
        backend.failing = {"map": CODE}
        refused(stream.read, file.name)
        refused(stream.readline, file.name)
        refused(lambda: stream.write(b"a"), file.name)
        backend.failing.clear()
        assert bytes(10) == stream.read()
        backend.failing = {"remap": CODE, "unmap": CODE}
        refused(lambda: (file.resize(10 * GRANULARITY), stream.read()), file.name)
        backend.failing.clear()
        assert bytes(10 * GRANULARITY - 10) == stream.read()
    file.resize(0)
    with file.stream(grow=True) as stream, file.stream(grow=True) as another:
        file.resize(10)
        backend.before["guard"] = once(another.close)
        with pytest.raises(ValueError, match=r"stream .* is closed"):
            another.read()
        file.refresh()
    file.resize(0)
    with file.stream(grow=True) as stream:
        file.resize(10)
        backend.before["guard"] = once(file.close)
        assert b"" == stream.read()  # of the file that was empty when it was closed


# Calls from Python code to the backend


class Refusing:
    """A backend in which some calls from Python code fail."""

    def __init__(self, *calls: str) -> None:
        self.calls = calls

    def __getattr__(self, name: str) -> object:
        return (lambda *_: CODE) if name in self.calls else getattr(lib, name)


def test_no_answer(content: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Advice, residency, eviction and the guard raise OSError if the system refuses."""
    _advice = importlib.import_module("mappedfile._advice")
    _guard = importlib.import_module("mappedfile._guard")
    refusing = Refusing("mf_advise", "mf_residency", "mf_evict", "mf_guard")
    with mappedfile.MappedFile(content) as file:
        file.residency()
        for module in (_advice, _guard):
            monkeypatch.setattr(module, "lib", refusing)
        for use in (
            lambda: file.advise("willneed"),
            lambda: file.advise("cold"),
            lambda: file.advise("populate_read"),
            lambda: file.residency(),
            lambda: _advice.evict(file),
        ):
            refused(use, str(content))
        refused(lambda: mappedfile.fault_guard(True), None)
        refusing.calls = ("mf_sync",)
        refused(lambda: _advice.evict(file), str(content))
        refusing.calls = ("mf_count_cached",)  # then every page is checked
        assert file.residency().pages == -(-len(CONTENT) // PAGE_SIZE)


def test_why_a_page_is_gone() -> None:
    """A fault gets a message even if the free space of the disk is unknown."""
    fault = mappedfile._errors.mapping_fault("name", 5, 2**20)
    assert ("name", 5) == (fault.filename, fault.offset)
    assert "was truncated" in str(fault)


def test_names_of_the_package() -> None:
    """dir() lists every public name, including names of modules that are imported on first use."""
    assert set(mappedfile.__all__) <= set(dir(mappedfile))
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        mappedfile.other  # noqa: B018


# The C functions themselves


@replacing()
def test_connected_once(backend: Backend) -> None:
    """The C types accept one backend, of their own version."""
    memory = backend.package._memory
    for wrong in (b"", bytes(ffi.sizeof("mf_table"))):
        with pytest.raises(RuntimeError, match="connected already, or is of another version"):
            memory.connect(wrong, *[None] * 5)
    for wrong_call in (
        memory.connect,
        lambda: memory.guard_policy("a"),
        lambda: backend.package.MappedFile.__new__(backend.package.MappedFile)._open(),
    ):
        with pytest.raises(TypeError):
            wrong_call()


@replacing()
def test_descriptor_that_is_made(backend: Backend, file: Any, unraisable: list[Any]) -> None:
    """On Windows fileno() makes a descriptor once, and closing the file closes it. If it was closed
    before, the error goes to sys.unraisablehook."""
    made: list[int] = []

    def make(handle: int, readonly: bool) -> int:
        made.append(os.open(file.name, os.O_RDONLY))
        return made[-1]

    def twice(handle: int, readonly: bool) -> int:
        file._descriptor(make)
        return make(handle, readonly)

    with pytest.raises(KeyError):
        file._descriptor(lambda *_: {}["none"])
    number = file._descriptor(twice)
    assert number == made[0] == file._descriptor(make)
    assert 2 == len(made)
    with pytest.raises(OSError):
        os.fstat(made[1])
    os.close(number)
    file.close()
    ((where, error),) = unraisable
    assert (os.close, errno.EBADF) == (where, error.errno)


@replacing()
def test_called_from_c(file: Any) -> None:
    """C code can ask for an item, and for a buffer without a place for its description."""
    item = ctypes.pythonapi.PySequence_GetItem
    item.restype, item.argtypes = ctypes.py_object, [ctypes.py_object, ctypes.c_ssize_t]
    fill = ctypes.pythonapi.PyObject_GetBuffer
    fill.argtypes = [ctypes.py_object, ctypes.c_void_p, ctypes.c_int]
    assert (3, 255) == (item(file, 3), item(file, -1))
    with pytest.raises(IndexError):
        item(file, len(file))
    never = type(file).__mro__[-2]
    with pytest.raises(ValueError, match="never opened"):
        item(never.__new__(never), 0)
    for each in (file, file.data.obj):
        with pytest.raises(BufferError):
            fill(each, None, 0)
