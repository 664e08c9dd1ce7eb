"""P · Programs written for mmap: ``mappedfile.mmap``.

The oracle is the standard library's module.
"""

from __future__ import annotations

import copy
import gc
import mmap
import random
import weakref
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mappedfile import GRANULARITY, PAGE_SIZE
from mappedfile import mmap as layer
from mappedfile.contract._clauses import Broken, clause, equal, raises, true

if TYPE_CHECKING:
    from collections.abc import Callable

    from mappedfile.contract._subjects import Subject

MODES = ("r", "r+", "c")
SIZE = 3 * PAGE_SIZE + 100

#: Names that portable programs use, and some system or version of Python lacks.
PORTABLE = (
    *(
        "MAP_SHARED",
        "MAP_PRIVATE",
        "MAP_ANON",
        "MAP_ANONYMOUS",
        "MAP_NORESERVE",
        "MAP_POPULATE",
        "MAP_STACK",
    ),
    *("PROT_READ", "PROT_WRITE", "PROT_EXEC", "MS_SYNC", "MS_ASYNC", "MS_INVALIDATE"),
    *("MADV_NORMAL", "MADV_RANDOM", "MADV_SEQUENTIAL", "MADV_WILLNEED", "MADV_DONTNEED"),
    *("MADV_HUGEPAGE", "MADV_NOHUGEPAGE", "MADV_FREE", "MADV_DONTDUMP", "MADV_DODUMP"),
)


def module_of(subject: Subject) -> Any:
    """Return the module under test: the layer or the oracle."""
    return mmap if subject.name == "mmap" else layer


def access_of(subject: Subject) -> int:
    """Return the access argument of mmap for the subject's mode."""
    return {"r": mmap.ACCESS_READ, "r+": mmap.ACCESS_WRITE, "c": mmap.ACCESS_COPY}[subject.mode]


def content(seed: int = 1) -> bytes:
    """Return bytes with few different values, so that searches find something, and with lines."""
    return bytes(random.Random(seed).choices(b"\0abc\n", k=SIZE))


@clause("P1", modes=("r",))
def P1(subject: Subject, folder: Path) -> None:
    """`mappedfile.mmap` has every public name of `mmap`, with its value, and every method. Names
    that a system or a version of Python lacks are there too, with the nearest meaning: a hint that
    the system does not know is ignored, and a flag that changes no byte is 0."""
    module = module_of(subject)
    for name in dir(mmap):
        if name[0].isupper():
            equal(getattr(mmap, name), getattr(module, name, None), name)
    true(module.error is OSError, "error is OSError")
    for name in dir(mmap.mmap):
        true(hasattr(module.mmap, name), f"mmap.{name} is there")
    for name in PORTABLE:
        true(isinstance(getattr(module, name, None), int), f"{name} is there")
    with module.mmap(-1, 2 * PAGE_SIZE) as memory:
        memory[:] = bytes(memory[:]).replace(b"\0", b"x")
        for name in PORTABLE:
            if name.startswith("MADV_") and name not in ("MADV_DONTNEED", "MADV_FREE"):
                with suppress(OSError):  # the kernel may be built without it
                    equal(None, memory.madvise(getattr(module, name)), name)
        equal(b"x" * 2 * PAGE_SIZE, memory[:], "the bytes after all hints")
        memory.flush(0, PAGE_SIZE, flags=module.MS_ASYNC)


@clause("P2", modes=MODES)
def P2(subject: Subject, folder: Path) -> None:
    """`mmap()` has one signature on every system: `fileno, length, flags, prot, access, offset,
    trackfd, tagname`. Positional arguments may have the order of POSIX (`flags`, `prot`, `access`,
    `offset`) or of Windows (`tagname`, `access`, `offset`). Flags or a protection together with an
    access are a ValueError, and so is an unknown access."""
    module, access, path = module_of(subject), access_of(subject), folder / "file"
    path.write_bytes(content() * 100)
    shared, both = module.MAP_SHARED, module.PROT_READ | module.PROT_WRITE
    with open(path, "rb" if subject.mode == "r" else "r+b") as file:
        fd = file.fileno()
        expected = path.read_bytes()[GRANULARITY : GRANULARITY + 50]
        for what, make in {
            "by name": lambda: module.mmap(fileno=fd, length=50, access=access, offset=GRANULARITY),
            "in POSIX' order": lambda: module.mmap(fd, 50, shared, both, access, GRANULARITY),
            "in Windows' order": lambda: module.mmap(fd, 50, None, access, GRANULARITY),
            "with trackfd": lambda: module.mmap(
                fd, 50, access=access, offset=GRANULARITY, trackfd=False
            ),
            "with tagname": lambda: module.mmap(
                fd, 50, tagname=None, access=access, offset=GRANULARITY
            ),
        }.items():
            with make() as mapped:
                equal(expected, mapped[:], f"the bytes of a map that was made {what}")
        with raises(ValueError, "an access and a protection"):
            module.mmap(fd, 50, prot=module.PROT_READ, access=module.ACCESS_WRITE)
        with raises(ValueError, "an access of 4"):
            module.mmap(fd, 50, access=4)
        with raises(TypeError, "a name that is a number"):
            module.mmap(fd, 50, tagname=1)
        with raises(TypeError, "seven positional arguments"):
            module.mmap(fd, 50, shared, both, access, 0, True)
        with raises(OverflowError, "a length below 0"):
            module.mmap(fd, -1, access=access)
        with raises(ValueError, "a length past the end"):
            module.mmap(fd, len(content()) * 100 + 1, access=access)
        with (
            module.mmap(fd, 50, module.MAP_PRIVATE, module.PROT_READ) as mapped,
            raises(TypeError, "a write to a read-only map"),
        ):
            mapped[0] = 1
        with module.mmap(fd, 50, module.MAP_PRIVATE, both) as mapped:
            mapped[:] = b"z" * 50
            true(path.read_bytes()[:50] != b"z" * 50, "a private map is private")


#: Operations on a map, with valid and invalid arguments; r is the random generator.
CALLS: dict[str, Callable[[Any, random.Random], Any]] = {
    "len": lambda m, r: len(m),
    "item": lambda m, r: m[r.randrange(-SIZE - 3, SIZE + 3)],
    "slice": lambda m, r: m[r.randrange(-SIZE - 3, SIZE + 3) : r.randrange(-SIZE - 3, SIZE + 3)],
    "step": lambda m, r: m[r.randrange(SIZE) : r.randrange(SIZE) : r.choice([-7, -1, 2, 5])],
    "set": lambda m, r: m.__setitem__(
        r.randrange(-SIZE - 3, SIZE + 3), r.choice([0, 97, 255, 256, -1])
    ),
    "set slice": lambda m, r: m.__setitem__(
        slice(at := r.randrange(SIZE), at + r.choice([0, 3, 9])),
        r.choice([b"", b"abc", b"abcabcabc"]),
    ),
    "set step": lambda m, r: m.__setitem__(
        slice(at := r.randrange(SIZE - 9), at + 6, 2), r.choice([b"xyz", b"xy"])
    ),
    "set wrong": lambda m, r: m.__setitem__(5, r.choice([b"a", "a", None, 1.5])),
    "delete": lambda m, r: m.__delitem__(5),
    "find": lambda m, r: m.find(r.choice([b"a", b"ab\n", b"abcabc", b"q", b""])),
    "find from": lambda m, r: m.find(
        r.choice([b"a", b"\n\n"]), r.randrange(-SIZE, SIZE), r.randrange(-SIZE, SIZE + 9)
    ),
    "rfind": lambda m, r: m.rfind(r.choice([b"a", b"ab\n", b"abcabc", b"q"])),
    "rfind from": lambda m, r: m.rfind(
        b"\n\n", r.randrange(-SIZE, SIZE), r.randrange(-SIZE, SIZE + 9)
    ),
    "find wrong": lambda m, r: m.find(r.choice(["a", 97, None])),
    "read": lambda m, r: m.read(r.choice([0, 1, 5, 100, -1, None])),
    "read wrong": lambda m, r: m.read("5"),
    "read byte": lambda m, r: m.read_byte(),
    "readline": lambda m, r: m.readline(),
    "write": lambda m, r: m.write(r.choice([b"", b"a", b"bc\n" * 5, bytearray(b"xy")])),
    "write wrong": lambda m, r: m.write("a"),
    "write byte": lambda m, r: m.write_byte(r.choice([0, 255, 10])),
    "write byte wrong": lambda m, r: m.write_byte(r.choice([256, -1, "a"])),
    "seek": lambda m, r: (m.seek(r.randrange(-9, SIZE + 9)), None)[1],
    "seek by": lambda m, r: (m.seek(r.randrange(-99, 99), 1), None)[1],
    "seek from the end": lambda m, r: (m.seek(r.randrange(-SIZE - 9, 9), 2), None)[1],
    "seek wrong": lambda m, r: m.seek(0, 3),
    "tell": lambda m, r: m.tell(),
    "size": lambda m, r: m.size(),
    "move": lambda m, r: m.move(
        r.randrange(-3, SIZE), r.randrange(-3, SIZE), r.randrange(0, 2 * PAGE_SIZE)
    ),
    "flush": lambda m, r: m.flush(),
    "flush page": lambda m, r: m.flush(PAGE_SIZE, PAGE_SIZE),
    "flush wrong": lambda m, r: m.flush(0, SIZE + 1),
    "closed": lambda m, r: m.closed,
    "iterate": lambda m, r: next(iter(m)),
    "add": lambda m, r: m + m,
    "readonly": lambda m, r: memoryview(m).readonly,
    "buffer": lambda m, r: bytes(memoryview(m)[3:9]),
    "reversed": lambda m, r: next(reversed(m)),
    "by its class": lambda m, r: (type(m).__getitem__(m, 7), type(m).__len__(m)),
    "key": lambda m, r: m["a"],
}


@clause("P3", modes=MODES)
def P3(subject: Subject, folder: Path) -> None:
    """Every operation on a map gives the same result on both modules, or an error of the same
    class, the same bytes and the same position."""
    module, access = module_of(subject), access_of(subject)
    with ExitStack() as stack:
        maps = []
        for name, kind in (("theirs", mmap), ("ours", module)):
            (folder / name).write_bytes(content())
            file = stack.enter_context(open(folder / name, "rb" if subject.mode == "r" else "r+b"))
            maps.append(stack.enter_context(kind.mmap(file.fileno(), 0, access=access)))
        steps = random.Random(7)
        for number in range(3000):
            what = steps.choice(list(CALLS))
            seed = steps.random()
            theirs, ours = (outcome(CALLS[what], one, random.Random(seed)) for one in maps)
            equal(theirs, ours, f"step {number}, {what}")
            equal(maps[0].tell(), maps[1].tell(), f"the position after step {number}, {what}")
            if number % 100 == 0:
                equal(maps[0][:], maps[1][:], f"the bytes after step {number}")
    equal(
        (folder / "theirs").read_bytes(), (folder / "ours").read_bytes(), "the bytes of the files"
    )
    for what, call in CALLS.items():
        # If two arguments are wrong, versions of Python differ in the error that they raise.
        if "wrong" not in what and what not in ("delete", "set", "set slice", "set step"):
            theirs, ours = (outcome(call, one, random.Random(1)) for one in maps)
            equal(theirs, ours, f"{what}, once it is closed")


def outcome(call: Callable[[Any, random.Random], Any], mapped: Any, chance: random.Random) -> Any:
    """Return the outcome of a call: a value, or the class of an error."""
    try:
        return call(mapped, chance)
    except Exception as error:
        return type(error)


@clause("P4", modes=MODES)
def P4(subject: Subject, folder: Path) -> None:
    """The traps of `mmap` are gone: an empty file is an empty map, a map begins at any offset, a
    flush begins at any byte, `in` finds what `find` finds, and `close()` works while a buffer is
    alive, which keeps its memory."""
    module, access, path = module_of(subject), access_of(subject), folder / "file"
    how = "rb" if subject.mode == "r" else "r+b"
    path.write_bytes(b"")
    with open(path, how) as file, module.mmap(file.fileno(), 0, access=access) as mapped:
        equal(
            (0, b"", b"", False, -1),
            (len(mapped), mapped[:], mapped.read(), b"a" in mapped, mapped.find(b"a")),
            "empty",
        )
    path.write_bytes(content())
    with open(path, how) as file:
        odd = module.mmap(file.fileno(), 50, access=access, offset=1003)
        equal(content()[1003:1053], odd[:], "a map that begins within a page")
        equal(None, odd.flush(7, 9), "a flush that begins within a page")
        true(b"abc" in odd or odd.find(b"abc") == -1, "in finds what find finds")
        for sub in (content()[1010:1020], content()[1003:1005], 10, 200):
            there = bytes([sub]) if isinstance(sub, int) else sub
            equal(odd.find(there, 0) >= 0, sub in odd, f"{sub!r} in the map")
        buffer = memoryview(odd)
        odd.close()
        equal(content()[1003:1053], bytes(buffer), "a buffer of a map that is closed")
        del buffer
    if subject.mode != "r+":
        return
    with open(path, how) as file, module.mmap(file.fileno(), 0) as mapped:
        buffer = memoryview(mapped)
        mapped.resize(SIZE + PAGE_SIZE)
        equal(
            content() + bytes(PAGE_SIZE), mapped[:], "a map that has grown while a buffer is alive"
        )
        mapped[5] = buffer[5] ^ 1
        equal(mapped[5], buffer[5], "what the buffer sees")
        with raises(BufferError, "to shrink it while the buffer is alive"):
            mapped.resize(10)
        del buffer
        mapped.resize(10)
        equal(
            (10, 10),
            (len(mapped), path.stat().st_size),
            "the map and the file after shrinking",
        )


@clause("P5", modes=("r+",))
def P5(subject: Subject, folder: Path) -> None:
    """A descriptor of -1 maps memory without a file: zeros, either private or shared with forked
    children. It supports every operation of a map of a file, except that shared memory does not
    grow on systems that cannot extend it."""
    module = module_of(subject)
    for options in (
        {},
        {"flags": module.MAP_PRIVATE},
        {"access": module.ACCESS_COPY},
        {"trackfd": False},
    ):
        with module.mmap(-1, SIZE, **options) as memory:
            equal(bytes(SIZE), memory[:], "new memory")
            memory.write(b"abc")
            equal((b"abc\0", 3), (memory[:4], memory.tell()), "what was written")
            equal(None, memory.flush(), "what flush() returns")
    with module.mmap(-1, 2 * PAGE_SIZE, module.MAP_PRIVATE) as memory:
        memory[:3] = b"abc"
        memory.resize(3 * PAGE_SIZE)
        equal((3 * PAGE_SIZE, b"abc\0"), (len(memory), memory[:4]), "private memory that has grown")
        memory.resize(PAGE_SIZE)
        equal((PAGE_SIZE, b"abc\0"), (memory.size(), memory[:4]), "private memory that has shrunk")
    with module.mmap(-1, 2 * PAGE_SIZE) as memory:
        memory[:3] = b"abc"
        memory.resize(PAGE_SIZE)
        equal((PAGE_SIZE, b"abc\0"), (len(memory), memory[:4]), "shared memory that has shrunk")
    with raises(OSError, "no memory"):
        module.mmap(-1, 0)


@clause("P6", modes=MODES)
def P6(subject: Subject, folder: Path) -> None:
    """A map can be subclassed, weakly referenced, used in a `with` statement, and dropped without a
    warning. It cannot be pickled. The caller's descriptor may be closed at once. With
    `trackfd=False` the map keeps no descriptor, and `size()` and `resize()` raise ValueError."""
    module, access, path = module_of(subject), access_of(subject), folder / "file"
    path.write_bytes(content())

    class Map(module.mmap):  # type: ignore[misc,name-defined]
        def __new__(cls, path: Path) -> Any:
            with open(path, "rb" if subject.mode == "r" else "r+b") as file:
                return super().__new__(cls, file.fileno(), 0, access=access)

        def first(self) -> int:
            return int(self[0])

    mapped = Map(path)
    mapped.mark = "a subclass has attributes"
    equal((content()[0], content()), (mapped.first(), mapped[:]), "what a subclass sees")
    refers = weakref.ref(mapped)
    del mapped
    gc.collect()
    equal(None, refers(), "what a weak reference has once the map is gone")
    with open(path, "rb" if subject.mode == "r" else "r+b") as file:
        loose = module.mmap(file.fileno(), 0, access=access, trackfd=False)
    with loose as entered:
        true(entered is loose, "with gives the map itself")
        equal(content(), loose[:], "what a map sees that keeps no descriptor")
        equal(None, loose.flush(), "what flush() returns")
        with raises((ValueError, OSError), "the size of its file"):
            loose.size()
        with raises(ValueError, "another size"):
            loose.resize(10)
    with raises(ValueError, "to enter it again"), loose:
        raise Broken("it was entered")
    with (
        open(path, "rb") as file,
        module.mmap(file.fileno(), 0, access=module.ACCESS_READ) as mapped,
        raises(TypeError, "a copy"),
    ):
        copy.copy(mapped)
