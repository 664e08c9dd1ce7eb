"""Objects in unusual states: opened twice, never opened, closed while errors are kept, in cycles,
at exit: L3, L8."""

from __future__ import annotations

import gc
import inspect
import sys
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import code, run_python, storming
from children.crew import at_once, taking_turns

from mappedfile import PAGE_SIZE, MappedFile, View, _memory, _window
from mappedfile.contract._probe import file_maps, handles

CONTENT = b"0123456789" * 1000


@pytest.fixture
def file(path: Path) -> Iterator[MappedFile]:
    """Return a mapped file."""
    path.write_bytes(CONTENT)
    with MappedFile(path, "r+") as file:
        yield file


# Opened twice, or never


@pytest.mark.parametrize("mode", ["r", "r+", "w+", "x+", "c"])
@pytest.mark.parametrize("state", ["open", "mapped", "closed"])
def test_opened_twice(file: MappedFile, tmp_path: Path, mode: str, state: str) -> None:
    """An object with a file cannot open another one. The object and both files do not change."""
    two = tmp_path / "two"
    if mode != "x+":
        two.write_bytes(b"two")
    options: dict[str, Any] = {"size": 5} if mode in ("w+", "x+") else {}
    if state == "mapped":
        file[0] = 65
    elif state == "closed":
        file.close()
    before = repr(file), file.mapped, handles(), file_maps()
    for populate in (False, True):
        with pytest.raises(ValueError, match=r"has opened .*file.* already: make another"):
            file.__init__(two, mode, populate=populate, **options)  # type: ignore[misc]
    assert before == (repr(file), file.mapped, handles(), file_maps())
    assert not two.exists() if mode == "x+" else two.read_bytes() == b"two"
    if state != "closed":
        assert not file.readonly
        assert file[1:] == CONTENT[1:]


def test_view_opened(file: MappedFile, tmp_path: Path) -> None:
    """A view cannot be opened again, nor become a mapped file."""
    with file.view(3, 5) as view:
        for wrong in (
            lambda: view.__init__(),
            lambda: view.__init__(file.name),
            lambda: MappedFile.__init__(view, file.name),
            lambda: MappedFile.__init__(view, tmp_path / "new", "x+", size=5),
            lambda: MappedFile.__init__(view, file.name, "r", populate=True),
            lambda: View(),
            lambda: View(file.name),
            lambda: _memory.Window(),
        ):
            with pytest.raises((TypeError, ValueError)):
                wrong()
        assert (b"34567", 3) == (view[:], view.offset)
    assert not (tmp_path / "new").exists()


def test_methods_of_another_class(file: MappedFile) -> None:
    """Methods of MappedFile called with a view raise TypeError, and change nothing."""
    with file.view(3, 5) as view:
        for wrong in (
            lambda: MappedFile.resize(view, 4),
            lambda: MappedFile.resize(view, 4000),
            lambda: MappedFile.refresh(view),
        ):
            with pytest.raises(TypeError, match="is a view"):
                wrong()
        assert b"34567" == view[:]
        assert len(file) == len(CONTENT)
    for type in (int, dict, object, MappedFile.__mro__[-1]):
        with pytest.raises(TypeError):
            file._view(type, 0, 1)  # type: ignore[arg-type]


def uses(window: Any) -> list[Callable[[], Any]]:
    """Return calls of every method and operator of an object, with many kinds of arguments."""
    found: list[Callable[[], Any]] = [
        lambda: window[0],
        lambda: window[:],
        lambda: window[::2],
        lambda: window.__setitem__(0, 1),
        lambda: window.__setitem__(slice(0, 1), b"x"),
        lambda: window.__delitem__(0),
        lambda: b"x" in window,
        lambda: list(window),
        lambda: list(reversed(window)),
        lambda: memoryview(window),
        lambda: np.frombuffer(window, "u1"),
        lambda: bytes(window),
        lambda: repr(window),
        lambda: window == window,
        lambda: hash(window),
    ]
    arguments: list[tuple[Any, ...]] = [
        (),
        (0,),
        (b"x",),
        ("willneed",),
        (False,),
        (0, 1),
        (View, 0, 1),
        (0, 1, True),
        (None,),
    ]
    arguments.append(("name", -1, "name", "r", 0, 0, None, False, 0))
    for name in dir(window):
        if name in (
            "__class__",
            "__init__",
            "__new__",
            "_open",
            "__init_subclass__",
            "__subclasshook__",
            "__setattr__",
            "__delattr__",
        ):
            continue
        found.append(lambda name=name: getattr(window, name))
        if callable(getattr(type(window), name, None)):
            found += [
                lambda name=name, given=given: getattr(window, name)(*given) for given in arguments
            ]
    return found


@pytest.mark.parametrize(
    "kind",
    [MappedFile, View, _window.Window, _memory.Window],
    ids=lambda kind: f"{kind.__module__}.{kind.__name__}",
)
def test_never_opened(kind: Any) -> None:
    """An object that was never opened raises an error for every use, and can be closed."""
    for use in uses(window := kind.__new__(kind)):
        try:
            use()
        except (TypeError, ValueError, AttributeError, NotImplementedError):
            continue
    assert window.closed
    assert not window.mapped
    with pytest.raises(ValueError, match="never opened"):
        len(window)
    with pytest.raises(ValueError, match="never opened"):
        memoryview(window)
    if kind is MappedFile:
        window.close()
        with pytest.raises(FileNotFoundError):
            window.__init__("no such file")
        with pytest.raises(ValueError, match="never opened"):
            window[0]


def test_opened_at_last(path: Path) -> None:
    """An object whose constructor failed can be opened later."""
    file = MappedFile.__new__(MappedFile)
    with pytest.raises(FileNotFoundError):
        file.__init__(path)  # type: ignore[misc]
    path.write_bytes(CONTENT)
    file.__init__(path)  # type: ignore[misc]
    assert CONTENT == file[:]
    file.close()


@pytest.mark.parametrize("mode", ["w+", "x+"])
def test_opening_fails(path: Path, mode: str) -> None:
    """If a new file cannot get its size, no handle or map leaks."""
    before = handles(), file_maps()
    kept = []
    for _ in range(3):
        with pytest.raises(OSError) as caught:
            MappedFile(path, mode, size=2**62)  # type: ignore[call-overload]
        kept.append(caught.value)
    assert before == (handles(), file_maps())
    assert path.exists() == (mode == "w+")


def test_opened_by_two_threads(path: Path) -> None:
    """Two threads open the same object. One succeeds. The other raises ValueError, and its file is
    closed."""
    before = handles(), file_maps()
    outcomes: list[str] = []
    # Windows does not truncate a file that another object has mapped.
    owns = [path.with_name(f"own{number}") for number in range(2)]
    with taking_turns():
        for _ in range(100):
            file = MappedFile.__new__(MappedFile)
            opens = partial(MappedFile.__init__, file, mode="w+", size=5000)
            raised = at_once(*(partial(opens, own) for own in owns))
            assert raised.count(None) == 1
            outcomes += [str(error) for error in raised if isinstance(error, ValueError)]
            del raised
            assert len(file) == 5000
            file.close(strict=True)
    assert all("opened this object" in outcome or "has opened" in outcome for outcome in outcomes)
    assert len(outcomes) == 100
    gc.collect()
    assert before == storming.left(before)


@pytest.mark.parametrize("kind", ["file", "view"])
def test_closed_refuses(file: MappedFile, kind: str) -> None:
    """A closed object raises an error for every use, and nothing crashes."""
    window: Any = file if kind == "file" else file.view(3)
    window[0]
    window.close()
    for use in uses(window):
        try:
            use()
        except (TypeError, ValueError, AttributeError, NotImplementedError):
            continue
    assert window.closed
    assert not window.mapped


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_class_exchanged(file: MappedFile) -> None:
    """An object with an assigned __class__ works as before or raises errors, and nothing
    crashes."""
    with file.view(3, 5) as view:
        view.__class__ = MappedFile  # type: ignore[assignment]
        for use in uses(view):
            try:
                use()
            except (TypeError, ValueError, AttributeError, OSError, BufferError, IndexError):
                continue
        view.__class__ = View
    file.__class__ = View  # type: ignore[assignment]
    for use in uses(file):
        try:
            use()
        except (TypeError, ValueError, AttributeError, OSError, BufferError, IndexError):
            continue
    file.__class__ = MappedFile  # type: ignore[assignment]


# As bytes


def test_as_bytes(path: Path) -> None:
    """Numbers of every integer type work as bytes, steps can have any length, and iteration ends at
    the end of the file."""
    path.write_bytes(bytes(range(256)) * 4)
    with MappedFile(path, "r+") as file, file.view(0, 256) as view:
        for window in (file, view):
            for kind in (int, np.int64, np.uint8, np.int8):
                assert kind(1) in window
                assert window.find(kind(1) if kind is int else int(kind(1))) == 1
            for wrong in (np.int64(256), np.int64(-1), 10**30, -(10**30)):
                with pytest.raises(ValueError, match="byte must be in"):
                    wrong in window  # noqa: B015
            for step in (
                10**30,
                -(10**30),
                sys.maxsize,
                -sys.maxsize,
                -sys.maxsize - 1,
                2**62,
                2**63,
                255,
                -255,
            ):
                assert bytes(window[::step]) == window[:][::step]
        view.close()
        seen = 0
        for seen, byte in enumerate(file, 1):
            assert byte == (seen - 1) % 256
            if seen == 100:
                file.resize(110)
        assert seen == 110
        iterator = iter(file)
        next(iterator)
        file.resize(0)
        assert [] == list(iterator)
        file.resize(5)
        assert [] == list(iterator), "the iterator has ended"


# Errors that are kept


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_errors_kept(path: Path) -> None:
    """Closing unmaps at once, also while errors of many calls are kept with all their frames."""
    path.write_bytes(CONTENT)
    before = handles(), file_maps()
    file = MappedFile(path, "r+")
    view = file.view(3)
    kept = []
    for window in (file, view):
        for wrong in uses(window):
            try:
                if inspect.getclosurevars(wrong).nonlocals.get("name") not in (
                    "close",
                    "_close",
                    "_abandon",
                    "__exit__",
                    "resize",
                    "_resize",
                ):
                    wrong()
            except (
                TypeError,
                ValueError,
                AttributeError,
                OSError,
                BufferError,
                IndexError,
            ) as error:
                kept.append(error)
    assert len(kept) > 50
    for window in (view, file):
        window.close(strict=True)
        assert not window.mapped
    assert before == (handles(), file_maps())
    del kept


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_buffer_errors_kept(path: Path, mode: str) -> None:
    """An error of a consumer of the buffer does not prevent closing."""
    path.write_bytes(CONTENT)
    file = MappedFile(path, mode)
    try:
        with file.data as data:
            np.frombuffer(data, "u1", 10**6)
    except ValueError as error:
        kept = error
    file.close(strict=True)
    assert not file.mapped
    del kept


# Subclasses, weak references, the garbage collector


class Deleted(MappedFile):
    """A subclass with attributes that records its __del__."""

    def __init__(self, path: Path, said: list[str], first: bool = True) -> None:
        super().__init__(path)
        self.said, self.first = said, first

    def __del__(self) -> None:
        self.said.append(f"closed: {self.closed}, {self[0] if not self.closed else None}")
        if self.first:
            super().__del__()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("cycle", ["none", "attribute", "iterator", "view", "bound method"])
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_subclass_goes(path: Path, first: bool, cycle: str) -> None:
    """An object of a subclass is released with all its memory and handles, also in a cycle, and
    also if its __del__ does not call the inherited one."""
    path.write_bytes(CONTENT)
    said: list[str] = []
    before = handles(), file_maps()
    gc.disable()
    try:
        file: Any = Deleted(path, said, first)
        seen: list[Any] = []
        weak = weakref.ref(file, seen.append)
        file[0]
        if cycle == "attribute":
            file.me = file
        elif cycle == "iterator":
            file.iterator = iter(file)
        elif cycle == "view":
            file.one = file.view(3)
        elif cycle == "bound method":
            file.method = file.find
        del file
        if cycle not in ("none", "view"):
            assert weak() is not None
            gc.collect()
        assert weak() is None
    finally:
        gc.enable()
    assert [weak] == seen
    assert ["closed: False, 48"] == said
    assert before == (handles(), file_maps())


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_comes_back(path: Path) -> None:
    """An object that its own __del__ keeps alive is closed, and can be deallocated later."""
    path.write_bytes(CONTENT)
    saved = []

    class Saved(MappedFile):
        def __del__(self) -> None:
            saved.append(self)
            super().__del__()

    before = handles(), file_maps()
    file = Saved(path)
    file[0]
    weak = weakref.ref(file)
    del file
    (back,) = saved
    assert back.closed
    with pytest.raises(ValueError, match="is closed"):
        back[0]
    assert before == (handles(), file_maps())
    back.__del__()
    saved.clear()
    del back
    assert weak() is None


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_no_repr(path: Path) -> None:
    """An object that is not closed is released, even if its __repr__ closes it."""
    path.write_bytes(CONTENT)

    class Bad(MappedFile):
        def __repr__(self) -> str:
            self.close()
            return "closed by itself"

    before = handles(), file_maps()
    for _ in range(10):
        Bad(path)[0]
    assert before == (handles(), file_maps())


def test_weak_callbacks(file: MappedFile) -> None:
    """When a weak reference's callback runs, the memory is released."""
    seen = []
    other = MappedFile(file.name)
    other[0]
    before = file_maps()
    weak = weakref.ref(other, lambda _: seen.append(file_maps()))
    other.close()
    del other
    assert weak() is None
    assert seen[0] != before or file.mapped


# In child processes: with a tracer, and at exit

TRACED = """
import sys
path, how = sys.argv[1:]
kept = []
def trace(frame, event, argument):
    frame.f_locals
    kept.append((frame, argument))
    return trace
if how == "settrace":
    sys.settrace(trace)
elif how == "setprofile":
    sys.setprofile(trace)
elif how == "monitoring":
    tool = sys.monitoring
    tool.use_tool_id(1, "keeps")
    for event in (tool.events.CALL, tool.events.LINE, tool.events.PY_START, tool.events.C_RETURN):
        tool.register_callback(1, event, lambda *arguments: kept.append(arguments))
    tool.set_events(1, tool.events.CALL | tool.events.LINE | tool.events.PY_START)
from mappedfile import MappedFile
with MappedFile(path, "r+") as file:
    content = file[:]
    for number in (1, 2, 3):
        buffers = [file.data for _ in range(number)]
        slices = [buffer[5:] for buffer in buffers]
        file.resize(len(file) + 10_000_000 * number)
        for buffer, part in zip(buffers, slices):
            assert buffer[:len(content)].tobytes() == content
            assert part[:5].tobytes() == content[5:10]
            part.release()
            buffer.release()
    sys.settrace(None)
    sys.setprofile(None)
print("done")
"""


@pytest.mark.parametrize("how", ["no tracer", "settrace", "setprofile", "monitoring"])
def test_traced(path: Path, how: str) -> None:
    """Buffers keep their address when the file grows, even if a tracer keeps every frame and
    argument."""
    if how == "monitoring" and sys.version_info < (3, 12):
        pytest.skip("sys.monitoring is new in Python 3.12")
    path.write_bytes(CONTENT)
    done = run_python(*code(TRACED), path, how, flags=("-X", "faulthandler"), quiet=True)
    assert "done" == done.stdout.strip()


END = """
import sys, threading, types, weakref, itertools
import mappedfile
from mappedfile import MappedFile
path, how = sys.argv[1:]
class Deleted(MappedFile):
    def __del__(self):
        try:
            self[0], len(self), self.data
        except ValueError:
            pass
        super().__del__()
def make(kind=MappedFile):
    file = kind(path, "r+"); file[0]
    return file, file.view(3), file.data, iter(file)
if how == "module":
    module = types.ModuleType("module"); sys.modules["module"] = module
    module.kept = make(); mappedfile.kept = make(); mappedfile._memory.kept = make()
    sys.kept = make()
elif how == "builtins":
    import builtins; builtins.kept = make(Deleted)
elif how == "cycle":
    class Cycle:
        def __del__(self): self.kept[1][0]
    for _ in range(3):
        one = Cycle(); one.me = one; one.kept = make(Deleted)
    del one
elif how == "subclass":
    kept = make(Deleted)
elif how == "atexit":
    import atexit
    kept = make(); atexit.register(lambda: kept[0].close()); atexit.register(lambda: kept[1][0])
elif how == "weakref":
    kept = make(); weakref.finalize(kept[0], print, end="")
    weak = weakref.ref(kept[1], lambda _: MappedFile)
elif how == "thread-local":
    local = threading.local(); local.kept = make(Deleted)
elif how == "sys.modules cleared":
    kept = make(Deleted); sys.modules.clear()
elif how == "globals None":
    kept = make()
    for name in list(vars(mappedfile._errors)) : setattr(mappedfile._errors, name, None)
    for name in list(vars(mappedfile._file)) : setattr(mappedfile._file, name, None)
elif how == "threads":
    began = threading.Barrier(7)
    def work(use):
        file = MappedFile(path, "r+"); file[0]
        began.wait()
        for number in itertools.count():
            try:
                use(file, number)
            # Windows does not truncate a file that another object has mapped.
            except (BufferError, ValueError, OSError):
                pass
    for use in (lambda f, n: f.resize(10_000 + n % 9), lambda f, n: f.find(b"absent"),
                lambda f, n: f.view(n % 100)[0],
                lambda f, n: f.data[5:], lambda f, n: f.flush(durable=False), lambda f, n: make()):
        threading.Thread(target=work, args=(use,), daemon=True).start()
    began.wait()
"""


@pytest.mark.parametrize(
    "how",
    [
        "module",
        "builtins",
        "cycle",
        "subclass",
        "atexit",
        "weakref",
        "thread-local",
        "sys.modules cleared",
        "globals None",
        "threads",
    ],
)
def test_end(path: Path, how: str) -> None:
    """The interpreter exits without a crash and without output, wherever objects are alive."""
    path.write_bytes(CONTENT)
    flags = ("-X", "faulthandler", "-W", "ignore::ResourceWarning")
    for _ in range(5 if how == "threads" else 1):
        run_python(*code(END), path, how, flags=flags, quiet=True)


def test_no_types_leak(file: MappedFile) -> None:
    """Creating and releasing objects of the C types does not change the reference counts of types
    and files."""
    types = [
        MappedFile,
        View,
        _memory.Window,
        _memory.Buffer,
        type(iter(file)),
        type(file._use(0, None, False)),
    ]
    for _ in range(2):
        before = [sys.getrefcount(each) for each in types], sys.getrefcount(file)
        for _ in range(100):
            with file.view(3) as view:
                view.data.release()
                iter(view)
                iter(file)
                file.data.release()
                file.advise("normal")
                file.find(b"9", PAGE_SIZE)
        after = [sys.getrefcount(each) for each in types], sys.getrefcount(file)
    assert before == after
