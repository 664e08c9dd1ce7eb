"""Wrong arguments and wrong states of mappedfile.mmap. The expected exceptions are those of the
standard library's mmap, called in the same tests."""

from __future__ import annotations

import errno
import io
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support import only

from mappedfile import GRANULARITY, PAGE_SIZE, MappingFault, capabilities
from mappedfile import mmap as layer

WINDOWS = sys.platform == "win32"
CONTENT = b"0123456789"


class Bad:
    """An object whose __index__ and __bool__ raise."""

    def __index__(self) -> int:
        raise KeyError("no number")

    def __bool__(self) -> bool:
        raise KeyError("no answer")


@pytest.fixture
def descriptor(path: Path) -> Iterator[int]:
    """Yield the descriptor of a small file."""
    path.write_bytes(CONTENT)
    with open(path, "r+b") as file:
        yield file.fileno()


def outcome(call: Callable[[], object]) -> object:
    """Return the result of a call, or the type of its exception."""
    try:
        return call()
    except Exception as error:
        return type(error)


# The constructor

#: Arguments of mmap(). FD stands for the descriptor.
FD = object()
WRONG: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((), {}),
    ((FD,), {}),
    ((), {"fileno": FD}),
    ((), {"length": 10}),
    ((FD, 10, 1, 3, 0, 0, 1), {}),
    ((FD, 10), {"fileno": FD}),
    ((FD, 10), {"length": 10}),
    ((FD, 10), {"unknown": 1}),
    (("a", 10), {}),
    ((None, 10), {}),
    ((Bad(), 10), {}),
    ((2**40, 10), {}),
    ((2**80, 10), {}),
    ((FD, "a"), {}),
    ((FD, 1.5), {}),
    ((FD, Bad()), {}),
    ((FD, -1), {}),
    ((FD, 2**80), {}),
    ((FD, -(2**80)), {}),
    ((FD, 10), {"access": "a"}),
    ((FD, 10), {"access": Bad()}),
    ((FD, 10), {"access": 2**40}),
    ((FD, 10), {"access": 4}),
    ((FD, 10), {"access": -1}),
    ((FD, 10), {"offset": "a"}),
    ((FD, 10), {"offset": 1.5}),
    ((FD, 10), {"offset": Bad()}),
    ((FD, 10), {"offset": -1}),
    ((FD, 10), {"offset": 2**80}),
    ((FD, 10), {"offset": -(2**80)}),
    ((FD, 0), {"offset": mmap.ALLOCATIONGRANULARITY}),
    ((FD, 10), {"tagname": 5}),
]


@pytest.mark.parametrize(("places", "names"), WRONG)
def test_wrong_arguments(descriptor: int, places: tuple[Any, ...], names: dict[str, Any]) -> None:
    """The constructor raises the same exceptions as mmap's."""
    given = [descriptor if each is FD else each for each in places]
    named = {name: descriptor if each is FD else each for name, each in names.items()}
    expected = outcome(lambda: mmap.mmap(*given, **named))

    assert isinstance(expected, type)
    assert expected is outcome(lambda: layer.mmap(*given, **named))


@pytest.mark.skipif(WINDOWS, reason="mmap has no flags and prot on Windows")
@pytest.mark.parametrize(
    "names",
    [
        {"flags": "a"},
        {"flags": Bad()},
        {"flags": 2**40},
        {"prot": "a"},
        {"prot": 2**40},
        {"access": 1, "prot": 1},
        {"access": 1, "flags": 2},
    ],
)
def test_wrong_flags(descriptor: int, names: dict[str, Any]) -> None:
    """Wrong flags and prot raise the same exceptions as in mmap."""
    expected = outcome(lambda: mmap.mmap(descriptor, 10, **names))

    assert isinstance(expected, type)
    assert expected is outcome(lambda: layer.mmap(descriptor, 10, **names))


def test_wrong_arguments_of_other_pythons(descriptor: int) -> None:
    """Arguments that this Python's mmap may lack raise the right exceptions: both orders of the
    arguments, and trackfd."""
    for wrong in ((descriptor, 10, "tag", 1, 0, 0), (descriptor, 10, None, 1, 0, 0)):
        with pytest.raises(TypeError, match="at most 5"):
            layer.mmap(*wrong)
    with pytest.raises(KeyError, match="no answer"):
        layer.mmap(descriptor, 10, trackfd=Bad())  # type: ignore[arg-type]
    if not WINDOWS:
        with pytest.raises(OSError, match="cannot have a tagname"):
            layer.mmap(-1, 10, tagname="tag")


@pytest.mark.parametrize("offset", [1, mmap.ALLOCATIONGRANULARITY, 2**62, 2**63 - 1])
def test_no_such_address_space(offset: int) -> None:
    """A map that ends past the largest address raises an error."""
    with pytest.raises((OSError, OverflowError)):
        layer.mmap(-1, sys.maxsize, offset=offset)


@pytest.mark.skipif(sys.platform != "linux", reason="needs a /dev/zero that can be mapped")
def test_no_such_address_space_for_a_device() -> None:
    """The same is true of a device, which has no size."""
    with open("/dev/zero", "rb") as zero, pytest.raises(OSError):
        layer.mmap(zero.fileno(), sys.maxsize, access=layer.ACCESS_READ, offset=1)


def test_audit_is_gone(descriptor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mapping works if sys.audit was deleted. It fails if an audit hook raises."""
    monkeypatch.delattr(sys, "audit")
    layer.mmap(descriptor, 0).close()
    monkeypatch.setattr(sys, "audit", lambda *_: 1 / 0, raising=False)
    with pytest.raises(ZeroDivisionError):
        layer.mmap(descriptor, 0)


# Methods

#: Calls on a map M of ten bytes.
CALLS = [
    "m.read(1, 2)",
    "m.read('a')",
    "m.read(1.5)",
    "m.read(2**80)",
    "m.read(Bad())",
    "m.read(None)",
    "m.read(-5)",
    "m.read(100)",
    "m.write(5)",
    "m.write('a')",
    "m.write(b'a' * 11)",
    "m.write(b'')",
    "m.write_byte(65)",
    "m.write_byte('a')",
    "m.write_byte(256)",
    "m.write_byte(-1)",
    "m.write_byte(2**80)",
    "m.write_byte(Bad())",
    "(m.seek(0, 2), m.read_byte())",
    "(m.seek(0, 2), m.write_byte(1))",
    "(m.seek(0, 2), m.readline())[1]",
    "(m.seek(0, 2), m.write(b'1'))",
    "(m.seek(0, 2), m.write(b''))[1]",
    "m.seek()",
    "m.seek(1, 2, 3)",
    "m.seek('a')",
    "m.seek(1.5)",
    "m.seek(0, 'a')",
    "m.seek(Bad())",
    "m.seek(0, Bad())",
    "m.seek(2**80)",
    "m.seek(0, 2**40)",
    "m.seek(0, 3)",
    "m.seek(0, -1)",
    "m.seek(-1)",
    "m.seek(11)",
    "m.seek(-11, 2)",
    "m.seek(1, 2)",
    "m.seek(-sys.maxsize - 1)",
    "m.move()",
    "m.move(1, 2)",
    "m.move('a', 0, 1)",
    "m.move(0, Bad(), 1)",
    "m.move(0, 0, 2**80)",
    "m.move(0, 0, 11)",
    "m.move(-1, 0, 1)",
    "m.move(0, -1, 1)",
    "m.move(0, 0, -1)",
    "m.move(9, 0, 2)",
    "m.move(0, 9, 2)",
    "m.move(10, 10, 0)",
    "m.find()",
    "m.find(5)",
    "m.find('a')",
    "m.find(b'1', 'a')",
    "m.find(b'1', 2, 'a')",
    "m.find(b'1', Bad())",
    "m.find(b'1', 2, Bad())",
    "m.find(b'1', 2, 3, 4)",
    "m.rfind()",
    "m.rfind('a')",
    "m.flush('a')",
    "m.flush(0, 'a')",
    "m.flush(Bad())",
    "m.flush(0, Bad())",
    "m.flush(2**80)",
    "m.flush(0, 2**80)",
    "m.flush(-1, 1)",
    "m.flush(0, -2)",
    "m.flush(0, 11)",
    "m.flush(11)",
    "m.flush(1, 2, 3)",
    "m.resize('a')",
    "m.resize(Bad())",
    "m.resize(2**80)",
    "m.resize(-1)",
    "m.size(1)",
    "m.tell(1)",
    "m['a']",
    "m[1.5]",
    "m[10]",
    "m[-11]",
    "m[2**80]",
    "m[Bad()]",
    "m[Bad():]",
    "m.__setitem__('a', 1)",
    "m.__setitem__(10, 1)",
    "m.__setitem__(2**80, 1)",
    "m.__setitem__(Bad(), 1)",
    "m.__setitem__(0, 'a')",
    "m.__setitem__(0, Bad())",
    "m.__setitem__(slice(0, 2), b'a')",
    "m.__setitem__(slice(0, 2), 5)",
    "m.__setitem__(slice(0, 10, 2), b'a')",
    "m.__setitem__(slice(Bad(), 2), b'ab')",
    "m.__delitem__(0)",
    "m.__delitem__(slice(0, 2))",
    "m.read_byte()",
    "m.readline()",
    "m.size()",
    "list(m)",
    "m.closed",
    "repr(m)",
    "m.tell()",
    "len(m)",
]
if hasattr(mmap.mmap, "madvise"):
    CALLS += [
        "m.madvise()",
        "m.madvise(0, 0, 1, 2)",
        "m.madvise('a')",
        "m.madvise(Bad())",
        "m.madvise(2**40)",
        "m.madvise(0, 'a')",
        "m.madvise(0, Bad())",
        "m.madvise(0, 2**80)",
        "m.madvise(0, 0, Bad())",
        "m.madvise(0, 0, 2**80)",
        "m.madvise(0, -1)",
        "m.madvise(0, 10)",
        "m.madvise(0, 0, -1)",
        "m.madvise(0, 5, sys.maxsize)",
        "m.madvise(12345)",
        "m.madvise(0, 0, 5)",
    ]


def call(text: str, m: object) -> object:
    """Evaluate a call of CALLS."""
    return eval(text, {"m": m, "Bad": Bad, "sys": sys})


@pytest.mark.parametrize("text", CALLS)
@pytest.mark.parametrize("state", ["open", "closed", "readonly"])
def test_calls(path: Path, text: str, state: str) -> None:
    """A method returns or raises the same as mmap's, also on a closed map and on a read-only one.

    For a closed map and wrong arguments, mmap of Python 3.14 raises the error of the argument.
    Earlier versions and mappedfile raise the error of the closed map.
    """
    found = []
    for module in (mmap, layer):
        path.write_bytes(CONTENT)
        with open(path, "r+b") as file:
            access = module.ACCESS_READ if state == "readonly" else module.ACCESS_DEFAULT
            made = module.mmap(file.fileno(), 0, access=access)
            if state == "closed":
                made.close()
            found.append((outcome(partial(call, text, made)), path.read_bytes()))
            made.close()

    closed = [(ValueError, CONTENT)] if state == "closed" else []
    assert found[1] in (found[0], *closed)


def test_flush_of_a_negative_size(path: Path) -> None:
    """A size of -1 is refused, as before Python 3.15. Newer versions of mmap flush to the end."""
    path.write_bytes(CONTENT)
    with open(path, "r+b") as file:
        made = layer.mmap(file.fileno(), 0)
    with made, pytest.raises(ValueError, match="flush values out of range"):
        made.flush(0, -1)


class Closing:
    """A number that closes a map in its __index__."""

    def __init__(self, map: layer.mmap, number: int = 1) -> None:
        self.map, self.number = map, number

    def __index__(self) -> int:
        self.map.close()
        return self.number


@pytest.mark.parametrize(
    "text",
    [
        "m.read(n)",
        "m.write_byte(n)",
        "m.seek(n)",
        "m.seek(0, n)",
        "m.move(n, 0, 1)",
        "m.move(0, 0, n)",
        "m.find(b'1', n)",
        "m.rfind(b'1', 0, n)",
        "m.flush(n)",
        "m.flush(0, n)",
        "m.resize(n)",
        "m.madvise(0, n)",
        "m[n]",
        "m[n:]",
        "m.__setitem__(n, 1)",
        "m.__setitem__(0, n)",
        "m.__setitem__(slice(n, 2), b'a')",
        "m.__contains__(n)",
    ],
)
def test_closed_meanwhile(descriptor: int, path: Path, text: str) -> None:
    """An argument that closes the map in its __index__ makes the call raise ValueError. Nothing is
    read or written: L6.

    mmap is not called here: some versions of it access unmapped memory.
    """
    made = layer.mmap(descriptor, 0)
    with pytest.raises(ValueError, match="mmap closed or invalid"):
        eval(text, {"m": made, "n": Closing(made)})
    assert made.closed
    assert CONTENT == path.read_bytes()


def test_closed_by_a_buffer(descriptor: int) -> None:
    """An argument that closes the map in its __buffer__ makes the call raise ValueError."""
    only(sys.version_info >= (3, 12), "__buffer__ is new in Python 3.12")
    made = layer.mmap(descriptor, 0)

    class Giving:
        def __buffer__(self, flags: int) -> memoryview:
            made.close()
            return memoryview(b"ab")

    for text in ("m.write(b)", "m.__setitem__(slice(0, 2), b)", "m.find(b)"):
        made = layer.mmap(descriptor, 0)
        with pytest.raises(ValueError, match="mmap closed or invalid"):
            eval(text, {"m": made, "b": Giving()})


def test_no_buffer(descriptor: int) -> None:
    """A released buffer as an argument raises its own error, and changes nothing."""
    gone = memoryview(b"ab")
    gone.release()
    with layer.mmap(descriptor, 0) as made:
        for text in ("m.write(b)", "m.find(b)", "m.rfind(b)", "m.__setitem__(slice(0, 2), b)"):
            with pytest.raises(ValueError, match="released"):
                eval(text, {"m": made, "b": gone})
        assert CONTENT == made[:]


# Methods that mmap has on some Pythons only


def test_seekable(descriptor: int) -> None:
    """seekable() is true, also after close()."""
    made = layer.mmap(descriptor, 0)
    assert made.seekable()
    made.close()
    assert made.seekable()
    if hasattr(mmap.mmap, "seekable"):
        theirs = mmap.mmap(descriptor, 0)
        theirs.close()
        assert theirs.seekable()


def test_size_of_the_object(descriptor: int) -> None:
    """sys.getsizeof() counts the object and its tagname."""
    with layer.mmap(descriptor, 0) as plain, layer.mmap(descriptor, 0, tagname="tag") as named:
        assert sys.getsizeof(plain) > sys.getsizeof(mmap.mmap(-1, 1))
        assert sys.getsizeof(plain) + 8 == sys.getsizeof(named)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (5, TypeError),
        (b"name", TypeError),
        ("\ud800", UnicodeEncodeError),
        ("a\0b", ValueError),
        ("a" * 67, ValueError),
        ("\xe4" * 34, ValueError),
    ],
)
def test_no_such_name(name: Any, error: type[Exception]) -> None:
    """A name is a str of at most 66 bytes without a NUL, as in Python 3.15."""
    with layer.mmap(-1, 10) as made:
        assert error is outcome(lambda: made.set_name(name))
        if hasattr(mmap.mmap, "set_name"):
            assert error is outcome(lambda: mmap.mmap(-1, 10).set_name(name))


def test_named(descriptor: int) -> None:
    """Memory without a file can have a name; a map of a file cannot."""
    with layer.mmap(-1, 10) as made:
        for name in ("a" * 66, "", "of mine"):
            assert made.set_name(name) is None
    with pytest.raises(ValueError, match="closed"):
        made.set_name("of mine")
    with layer.mmap(descriptor, 0) as made, pytest.raises(ValueError, match="without a file"):
        made.set_name("of mine")


# Sizes


def test_no_such_size(descriptor: int) -> None:
    """A size that is not possible raises an error, and changes nothing."""
    memory = layer.mmap(-1, PAGE_SIZE)
    with pytest.raises(OSError) as caught:
        memory.resize(0)
    assert WINDOWS or errno.EINVAL == caught.value.errno
    data = memoryview(memory)
    with pytest.raises(BufferError):
        memory.resize(2 * PAGE_SIZE)
    del data
    if not WINDOWS:
        with pytest.raises(ValueError, match="can't expand a shared anonymous"):
            memory.resize(2 * PAGE_SIZE)
    assert memory.resize(PAGE_SIZE) is None
    assert bytes(PAGE_SIZE) == memory[:]
    memory.close()
    with layer.mmap(-1, PAGE_SIZE, flags=layer.MAP_PRIVATE) as private:
        private[0] = 65
        private.resize(3 * PAGE_SIZE)
        assert b"A" + bytes(3 * PAGE_SIZE - 1) == private[:]
        private.resize(1)
        assert b"A" == private[:]
    with layer.mmap(descriptor, 0) as made:
        with pytest.raises((OSError, ValueError)):
            made.resize(sys.maxsize)
        assert CONTENT == made[:]
    for options, error in (
        ({"trackfd": False}, ValueError),
        ({"access": layer.ACCESS_READ}, TypeError),
        ({"access": layer.ACCESS_COPY}, TypeError),
        ({"flags": layer.MAP_PRIVATE}, TypeError),
    ):
        with layer.mmap(descriptor, 0, **options) as made:
            assert error is outcome(lambda: made.resize(20))
            assert CONTENT == made[:]
    offset = GRANULARITY
    os.ftruncate(descriptor, offset + 10)
    with layer.mmap(descriptor, 0, offset=offset) as made:
        assert ValueError is outcome(lambda: made.resize(sys.maxsize))


def test_part_of_a_page(path: Path) -> None:
    """Advice on a part of a page applies to the whole page if it is a hint. Advice that discards
    data skips the page."""
    path.write_bytes(bytes(3 * PAGE_SIZE))
    with open(path, "r+b") as file:
        made = layer.mmap(file.fileno(), 0, access=layer.ACCESS_COPY)
        with made:
            made[:] = b"a" * 3 * PAGE_SIZE
            for advice in (layer.MADV_NORMAL, layer.MADV_WILLNEED, layer.MADV_DONTNEED):
                assert made.madvise(advice, 5, 10) is None
                assert made.madvise(advice, PAGE_SIZE - 5, 10) is None
            assert b"a" * 3 * PAGE_SIZE == made[:]


def test_flags_of_a_flush(descriptor: int) -> None:
    """Contradictory and unknown flags raise EINVAL. Flushing read-only and private maps does
    nothing."""
    with layer.mmap(descriptor, 0) as made:
        for flags in (layer.MS_SYNC, layer.MS_ASYNC, layer.MS_SYNC | layer.MS_INVALIDATE):
            assert made.flush(0, 10, flags=flags) is None
        for flags in (layer.MS_SYNC | layer.MS_ASYNC, 1 << 20):
            with pytest.raises(OSError) as caught:
                made.flush(flags=flags)
            assert WINDOWS or errno.EINVAL == caught.value.errno
    for access in (layer.ACCESS_READ, layer.ACCESS_COPY):
        with layer.mmap(descriptor, 0, access=access) as made:
            assert made.flush() is None


def test_length_past_the_end(descriptor: int) -> None:
    """A map longer than its file raises ValueError on every system."""
    for wrong in ({"length": 11}, {"length": 10, "offset": 1}, {"length": 0, "offset": 11}):
        with pytest.raises(ValueError, match="greater than file size"):
            layer.mmap(descriptor, **wrong)


def test_protection(descriptor: int) -> None:
    """prot and flags decide whether a map is writable, and repr() shows it."""
    for names, shown, writable in (
        ({"prot": layer.PROT_READ}, "ACCESS_READ", False),
        ({"flags": layer.MAP_PRIVATE}, "ACCESS_DEFAULT", True),
        ({"flags": layer.MAP_PRIVATE, "prot": layer.PROT_READ}, "ACCESS_READ", False),
    ):
        with layer.mmap(descriptor, 0, **names) as made:
            assert shown in repr(made)
            if not writable:
                with pytest.raises(TypeError):
                    made[0] = 1


def test_size_without_a_descriptor(descriptor: int) -> None:
    """Without a descriptor, size() raises an error that is both an OSError and a ValueError."""
    with layer.mmap(descriptor, 0, trackfd=False) as made:
        with pytest.raises(io.UnsupportedOperation, match="trackfd=False") as caught:
            made.size()
        assert errno.EBADF == caught.value.args[0]
    assert ValueError is outcome(made.size)


@pytest.mark.skipif(not capabilities().truncate_mapped, reason="maps prevent truncation here")
def test_a_fault_in_the_middle(path: Path) -> None:
    """A call that reaches missing bytes raises MappingFault with the offset of the first one, and
    the position does not change: T1."""
    path.write_bytes(bytes(3 * GRANULARITY))
    with open(path, "r+b") as file, layer.mmap(file.fileno(), 0) as made:
        made[:]
        os.truncate(path, GRANULARITY)
        for use in (
            lambda: made.read(2 * GRANULARITY),
            lambda: made.write(b"a" * 2 * GRANULARITY),
            lambda: made.move(GRANULARITY - 5, 0, 10),
            lambda: made.move(0, GRANULARITY - 5, 10),
            lambda: made.__setitem__(slice(None, None, -1), bytes(3 * GRANULARITY)),
            lambda: made[GRANULARITY],
            lambda: made.find(b"x"),
            lambda: made.find(b"\0", GRANULARITY),
            lambda: made.rfind(b"\0"),
            lambda: list(made),
        ):
            made.seek(100)
            with pytest.raises(MappingFault) as caught:
                use()
            assert GRANULARITY == caught.value.offset
            assert 100 == made.tell()
        made.seek(GRANULARITY)
        for use in (made.read_byte, lambda: made.write_byte(1), made.readline):
            with pytest.raises(MappingFault):
                use()
            assert GRANULARITY == made.tell()


# Files without a size


@pytest.mark.skipif(WINDOWS, reason="maps of descriptors without a file are POSIX")
@pytest.mark.parametrize("kind", ["pipe", "directory", "read-only file"])
def test_anonymous_with_a_descriptor(path: Path, kind: str) -> None:
    """With MAP_ANONYMOUS the descriptor may be of anything, since the system ignores it."""
    path.write_bytes(bytes(100))
    opened = {
        "pipe": os.pipe,
        "directory": lambda: [os.open(path.parent, os.O_RDONLY)],
        "read-only file": lambda: [os.open(path, os.O_RDONLY)],
    }[kind]()
    try:
        for module in (mmap, layer):
            made: Any = module.mmap(opened[0], 100, flags=mmap.MAP_SHARED | mmap.MAP_ANON)
            made[:3] = b"abc"
            assert b"abc\0" == made[:4]
            made.close()
            with pytest.raises(OSError, match="Bad file descriptor"):
                module.mmap(1023, 100, flags=mmap.MAP_SHARED | mmap.MAP_ANON)  # type: ignore[attr-defined]
        assert bytes(100) == path.read_bytes()
    finally:
        for number in opened:
            os.close(number)


@pytest.mark.skipif(WINDOWS, reason="devices are files on POSIX")
def test_a_character_device() -> None:
    """A character device has no size, and cannot be resized."""
    with open("/dev/zero", "r+b", buffering=0) as file:
        for module in (mmap, layer):
            with module.mmap(file.fileno(), 100) as made:  # type: ignore[attr-defined]
                assert 0 == made.size()
                with pytest.raises(OSError) as caught:
                    made.resize(200)
                assert errno.EINVAL == caught.value.errno


def test_advice_for_an_empty_map(path: Path) -> None:
    """Advice for an empty map does nothing; a start behind its end is an error."""
    path.touch()
    with open(path, "r+b") as file, layer.mmap(file.fileno(), 0) as made:
        assert made.madvise(layer.MADV_SEQUENTIAL) is None
        assert made.madvise(layer.MADV_WILLNEED, 0, 10) is None
        with pytest.raises(ValueError, match="start out of bounds"):
            made.madvise(layer.MADV_WILLNEED, 1)


@pytest.mark.skipif(WINDOWS, reason="MAP_FIXED is POSIX")
def test_a_map_at_address_zero() -> None:
    """MAP_FIXED asks for the address NULL, which stands for "not mapped": OSError."""
    only(sys.platform == "linux", "has MAP_FIXED as 16")
    with pytest.raises(OSError):
        layer.mmap(-1, PAGE_SIZE, flags=layer.MAP_PRIVATE | layer.MAP_ANON | 16)
    assert not Path("/proc/self/maps").read_bytes().startswith(b"00000000-")
