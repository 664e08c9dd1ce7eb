"""S · Size."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import mmap
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

from mappedfile import MappedFile
from mappedfile.contract._children import in_child
from mappedfile.contract._clauses import SHARED_WRITABLE, NotHere, clause, equal, raises, true
from mappedfile.contract._probe import address_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from mappedfile.contract._subjects import Subject

PAGE = mmap.PAGESIZE
GRANULARITY = mmap.ALLOCATIONGRANULARITY
GIB = 2**30


@clause("S1")
def S1(subject: Subject, folder: Path) -> None:
    """An empty file maps in every mode, as an object of length 0, and can grow."""
    path = folder / "file"
    mapped = subject.create(path, b"")
    view, other = mapped.view(), mapped.view(0, 0)
    for window in (mapped, view, other):
        equal(0, len(window), "its length")
        equal((b"", b"", []), (window[:], window[0:10], list(window)), "its bytes")
        found = window.find(b""), window.find(b"x"), window.rfind(b""), window.rfind(b"x")
        equal((0, -1, 0, -1), found, "the places that are found in it")
        if hasattr(window, "count"):  # mmap has none
            equal(1, window.count(b""), "the number of empty matches in it")
        equal((True, False), (b"" in window, b"x" in window), "what is in it")
        equal((0, not subject.writable), (window.data.nbytes, window.data.readonly), "its buffer")
        for position in (0, -1):
            with raises(IndexError, f"[{position}] of an empty object"):
                window[position]
        if subject.writable:
            window[0:0] = b""
            with raises(IndexError, "[0] = 1 on an empty object"):
                window[0] = 1
        equal(None, window.flush(), "what flush() returns")
    for offset, length in ((1, 0), (0, 1), (1, None)):
        with raises(ValueError, f"view({offset}, {length}) of an empty file"):
            mapped.view(offset, length)
    equal(0, path.stat().st_size, "the size of the file")
    if subject.shared:
        mapped.resize(PAGE + 7)
    else:
        append(path, bytes(PAGE + 7))
        mapped.refresh()
    equal((PAGE + 7, PAGE + 7), (len(mapped), path.stat().st_size), "the lengths after it grew")
    equal(bytes(PAGE + 7), mapped[:], "the new bytes")
    equal((0, b""), (len(view), view[:]), "a view made before")
    if subject.writable:
        mapped[PAGE:] = b"written"
        equal(
            b"written" if subject.shared else bytes(7),
            path.read_bytes()[PAGE:],
            "what reached the file",
        )
    for window in (view, other, mapped):
        window.close()


@clause("S2", modes=SHARED_WRITABLE)
def S2(subject: Subject, folder: Path) -> None:
    """`resize()` to a larger size works while views and buffers are alive. They keep their
    addresses and content and stay coherent with the grown map. New bytes are zero, also where a
    write past the old end of file had left bytes in its last page."""
    path = folder / "file"
    content = bytes(range(1, 251)) * ((GRANULARITY + PAGE) // 250 + 1)
    mapped = subject.create(path, content)
    size = first = len(content)
    view, part = mapped.view(), mapped.view(PAGE + 5, 100)
    buffers = [mapped.data, view.data, view.data[10:20].cast("H"), part.data]
    addresses = [address_of(buffer) for buffer in buffers]
    for step, new in enumerate(
        (size + 1, size + 2, size + PAGE, 8 * GRANULARITY, 8 * GRANULARITY + 1, 40 * GRANULARITY)
    ):
        # Bytes between the old end and the end of its page: in our map, and in another map.
        scribble(path, size)
        if step == 0:
            scribble_past(addresses[0], size)
        mapped.resize(new)
        equal((new, new), (len(mapped), path.stat().st_size), "the length, and the file's")
        equal(bytes(new - size), mapped[size:], f"the new bytes, after growth from {size} to {new}")
        equal(
            bytes(new - size),
            path.read_bytes()[size:],
            f"the new bytes in the file, after growth from {size} to {new}",
        )
        equal(content[:first], mapped[:first], "the bytes that were there before")
        equal((first, 100), (len(view), len(part)), "the lengths of the views")
        equal(addresses, [address_of(buffer) for buffer in buffers], "the addresses of the buffers")
        equal(address_of(view.data), addresses[1], "the address of the view")
        mark = bytes([255 - step]) * 4
        for what, write in enumerate((buffers[0], view, buffers[1], part, mapped)):
            at = PAGE + 5 if write is not part else 0
            write[at : at + 4] = bytes([what]) + mark[1:]
            seen = [
                mapped[PAGE + 5 : PAGE + 9],
                view[PAGE + 5 : PAGE + 9],
                part[0:4],
                bytes(buffers[3][0:4]),
            ]
            seen += [bytes(buffers[0][PAGE + 5 : PAGE + 9]), bytes(buffers[1][PAGE + 5 : PAGE + 9])]
            equal(
                [bytes([what]) + mark[1:]] * 6,
                seen,
                "the same bytes through the old maps and the new one",
            )
        content = path.read_bytes()[:first]
        mapped[new - 1] = 7
        equal(7, path.read_bytes()[new - 1], "the last byte, written through the grown map")
        mapped[new - 1] = 0
        size = new
    del buffers, addresses, write
    view.close()
    part.close()
    mapped.close()
    equal(size, path.stat().st_size, "the size of the file after close()")


@clause("S3", modes=SHARED_WRITABLE)
def S3(subject: Subject, folder: Path) -> None:
    """`resize()` to a smaller size raises `BufferError` and changes nothing while a view or buffer
    is alive (Windows could not do it either: 1224); otherwise it works. It never cuts off bytes
    that the mapped file has not seen: if others have made the file longer, it raises `ValueError`
    until `refresh()`."""
    path = folder / "file"
    content = bytes(range(256)) * (4 * PAGE // 256) + b"end"
    size = len(content)
    mapped = subject.create(path, content)
    closed_view = mapped.view(0, 10)
    kept = closed_view.data[2:4]
    closed_view.close()
    alive = [
        mapped.view(3 * PAGE),
        mapped.view(0, 0),
        mapped.data,
        mapped.data[1:3].cast("H"),
        kept,
    ]
    del kept
    while alive:
        for new in (size - 1, PAGE, 1, 0):
            with raises(BufferError, f"resize({new}) of {size} bytes with {alive[-1]!r} alive"):
                mapped.resize(new)
        equal(
            (size, size),
            (len(mapped), path.stat().st_size),
            "the length, and the file's, after a refusal",
        )
        true(mapped[:] == content, "the content is what it was after a refusal")
        last = alive[-1]
        if hasattr(last, "flush"):
            equal(
                content[size - len(last) if len(last) else size :], last[:], "the bytes of the view"
            )
            last.close()
        else:
            true(bytes(last) in content, "the bytes of the buffer are what they were")
        del last, alive[-1]
        gc.collect()
    mapped[0] = 42
    for new in (size - 1, PAGE + 1, PAGE, 1, 0):
        mapped.resize(new)
        equal((new, new), (len(mapped), path.stat().st_size), "the length, and the file's")
        equal((b"\x2a" + content[1:])[:new], mapped[:], "what is left")
        with raises(IndexError, "an index past the new end"):
            mapped[new]
        with raises(ValueError, "a view past the new end"):
            mapped.view(0, new + 1)
    mapped.resize(2 * PAGE)
    equal(bytes(2 * PAGE), mapped[:], "the bytes after shrinking to nothing and growing again")
    mapped.resize(100)
    with open(path, "ab") as others:
        others.write(b"theirs" * 20)
    for new in (150, 99, 0):
        with raises(ValueError, f"resize({new}) of 100 bytes that others have made 220"):
            mapped.resize(new)
        equal(
            (100, 220),
            (len(mapped), path.stat().st_size),
            "the length, and the file's, after a refusal",
        )
    mapped.refresh()
    equal(b"theirs" * 20, mapped[100:], "what others wrote")
    mapped.resize(150)
    equal(
        (150, 150),
        (len(mapped), path.stat().st_size),
        "the length, and the file's, once it was seen",
    )
    mapped.close()
    equal(bytes(100) + (b"theirs" * 20)[:50], path.read_bytes(), "the file")


@clause("S4")
def S4(subject: Subject, folder: Path) -> None:
    """A resize that fails leaves size, content and mapping as they were."""
    path = folder / "file"
    content = bytes(range(256)) * (2 * GRANULARITY // 256) + b"end"
    if not subject.shared:
        with subject.create(path, content) as mapped, mapped.view(GRANULARITY) as view:
            for new in (0, 1, 10 * GRANULARITY):
                # UnsupportedOperation.
                with raises((OSError, TypeError), f"resize({new}) in mode {subject.mode!r}"):
                    mapped.resize(new)
                unchanged(mapped, view, path, content)
        return
    in_child(resize_in_vain, subject, folder)


@clause("S5", modes=SHARED_WRITABLE, alone=True)  # this may fill the disk
def S5(subject: Subject, folder: Path) -> None:
    """A full disk is an `OSError(ENOSPC)` at creation or `resize()`, not a fault later;
    `sparse=True` opts out. A new file (`"x+"`) appears with its size, or not at all, if the file
    system can name a file that is complete: some on FUSE cannot."""
    size = 2**20
    # Not for mmap: it creates the file in two steps, which a watcher may be too slow to see.
    if subject.mode == "x+" and subject.name == "mappedfile" and can_name_whole_files(folder):
        watch_creation(subject, folder)
    holes = system_leaves_holes(folder, size)
    if free_space(folder) < 64 * size:
        fill_disk(subject, folder, allocates=holes is not None)
        return
    # A large disk is not filled. It is enough that a file of that size has its blocks.
    if holes is None:
        raise NotHere(
            "this system does not tell which blocks are in use, or leaves holes where it should"
            " allocate (Wine)"
        )
    path = folder / "file"
    with subject.create(path, b"x" * PAGE) as mapped:
        mapped.resize(size)
        true(
            allocated(path) >= size,
            f"{size} bytes of blocks are there after resize(), not {allocated(path)}",
        )
    if subject.mode != "r+":
        path = folder / "created"
        with subject.open(path, subject.mode, size=size):
            true(
                allocated(path) >= size,
                f"{size} bytes of blocks are there after creation, not {allocated(path)}",
            )
    if holes:
        with subject.create(folder / "sparse", b"x" * PAGE, sparse=True) as mapped:
            mapped.resize(64 * size)
            blocks = allocated(folder / "sparse")
            true(
                blocks < 64 * size,
                f"with sparse=True there are fewer blocks than {64 * size} bytes, not {blocks}",
            )


def can_name_whole_files(folder: Path) -> bool:
    """Whether a complete file can get a name here: by a rename that replaces nothing, or by a link
    whose two names are one file. On FUSE they can be two, with pages of their own."""
    if sys.platform == "win32":
        return True
    first, second = folder / "first", folder / "second"
    first.write_bytes(b"before")
    try:
        if renames_exclusively(first, second):
            return True
        with open(first, "r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            os.link(first, second)
            mapped[:] = b"behind"
            return second.read_bytes() == b"behind"
    except OSError:
        return False
    finally:
        first.unlink(missing_ok=True)
        second.unlink(missing_ok=True)


def renames_exclusively(old: Path, new: Path) -> bool:
    """Rename a file unless another has the name; return whether the file system can."""
    names = (os.fsencode(old), os.fsencode(new))
    library = ctypes.CDLL(None)
    if sys.platform == "darwin":
        return bool(library.renamex_np(*names, 4) == 0)  # RENAME_EXCL
    if not hasattr(library, "renameat2"):
        return False
    current, no_replace = -100, 1  # AT_FDCWD, RENAME_NOREPLACE
    return bool(library.renameat2(current, names[0], current, names[1], no_replace) == 0)


def watch_creation(subject: Subject, folder: Path) -> None:
    """Another thread that looks while a file is created sees no file, or one of its full size."""
    wrong: list[int] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            for number in range(20):
                try:
                    size = os.path.getsize(folder / f"new{number}")
                except OSError:
                    continue
                if size != 3 * PAGE + number:
                    wrong.append(size)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for number in range(20):
            subject.open(folder / f"new{number}", subject.mode, size=3 * PAGE + number).close()
    finally:
        done.set()
        watcher.join()
    equal([], wrong, "the sizes that a new file had before its final size")
    equal(
        {f"new{number}" for number in range(20)},
        {path.name for path in folder.glob("*new*")},
        "the files",
    )
    with raises(FileExistsError, "a new file whose name is taken"):
        subject.open(folder / "new0", subject.mode, size=PAGE)
    for path in folder.glob("*new*"):
        path.unlink()


@clause("S6")
def S6(subject: Subject, folder: Path) -> None:
    """A view lies inside the file, and a view of a view inside that view, at any byte offset and
    with any length; outside it is a `ValueError`. Only `resize()` and the creating modes grow or
    shrink a file, and `stream(grow=True)` grows it by its writes."""
    size = GRANULARITY + PAGE + 123
    content = (bytes(range(251)) * (size // 251 + 1))[:size]
    path = folder / "file"
    mapped = subject.create(path, content)
    edges = {0, 1, size // 2}
    for edge in (PAGE, GRANULARITY, GRANULARITY + PAGE, size):
        edges |= {edge - 1, edge, edge + 1}
    for offset in sorted(edges):
        for length in sorted(
            {0, 1, 2, PAGE, GRANULARITY, size, size - offset - 1, size - offset, size - offset + 1}
        ):
            if length < 0:
                continue
            if offset + length <= size:
                with mapped.view(offset, length) as view:
                    equal(
                        (offset, length),
                        (view.offset, len(view)),
                        "the offset and length of a view",
                    )
                    true(
                        view[:] == content[offset : offset + length],
                        f"view({offset}, {length}) has the file's bytes",
                    )
                    first = length // 3
                    with view.view(first) as part:
                        equal(
                            (offset + first, length - first),
                            (part.offset, len(part)),
                            "those of a view of the view",
                        )
                        true(
                            part[:] == content[offset + first : offset + length],
                            "a view of a view has the file's bytes",
                        )
                    with raises(ValueError, f"view(0, {length + 1}) of a view of {length} bytes"):
                        view.view(0, length + 1)
            else:
                with raises(ValueError, f"view({offset}, {length}) of {size} bytes"):
                    mapped.view(offset, length)
        if offset <= size:
            with mapped.view(offset) as view:
                true(view[:] == content[offset:], f"view({offset}) has the file's bytes")
    for far in [
        (size + 1, None),
        (-1, 1),
        (0, -1),
        (size, -1),
        (2**40, 0),
        (2**62, 2**62),
        (1, 2**63 - 1),
    ]:
        with raises(ValueError, f"view{far} of {size} bytes"):
            mapped.view(*far)
    with mapped.view(size - 5) as view:
        for window in (view, mapped):
            with raises(IndexError, "an index past the end"):
                window[len(window)]
            equal(b"", window[len(window) :], "a slice past the end")
            if subject.writable:
                length = len(window)
                window[length - 5 :] = b"final"
                window[length - 1 : length + 10] = b"L"
                with raises(IndexError, "a write past the end"):
                    window[length] = 1
                with raises(ValueError, "a write over the end"):
                    window[length - 1 :] = b"12"
                with raises(ValueError, "a write past the end"):
                    window[length:] = b"1"
        mapped.flush()
        view.flush()
    equal(size, len(mapped), "the length after all that")
    mapped.close()
    equal(size, path.stat().st_size, "the file's size after all that")
    with subject.open(path, "r+" if subject.shared else subject.mode) as mapped:
        equal(size, len(mapped), "the length when it is opened again")
    equal(size, path.stat().st_size, "the file's size after that")


@clause("S7")
def S7(subject: Subject, folder: Path) -> None:
    """Sizes and offsets past 4 GiB work."""
    if sys.maxsize < 2**32:
        raise NotHere("a process of 32 bits has no room for it")
    past(subject, folder / "file", 5 * GIB)


@clause("S8")
def S8(subject: Subject, folder: Path) -> None:
    """Growth by others shows after `refresh()`; `len()` does not change by itself."""
    path = folder / "file"
    content = b"begin" * 1000
    mapped = subject.create(path, content)
    size = len(content)
    view = mapped.view(size - 10)
    data = view.data
    address = address_of(data) if subject.writable else None
    for more in (b"!", b"within the page", b"beyond it" * PAGE):
        append(path, more)
        equal(size, len(mapped), "the length before refresh()")
        equal(content, mapped[:], "the bytes before refresh()")
        with raises(IndexError, "an index past the end, before refresh()"):
            mapped[size]
        with raises(ValueError, "a view past the end, before refresh()"):
            mapped.view(size, 1)
        mapped.refresh()
        content += more
        size += len(more)
        equal(size, len(mapped), "the length after refresh()")
        true(mapped[:] == content, "the bytes after refresh() are the file's")
        with mapped.view(size - len(more)) as new:
            equal(more, new[:], "a view of the new bytes")
        equal((10, b"begin" * 2), (len(view), view[:]), "a view made before")
        equal(b"begin" * 2, bytes(data), "a buffer taken before")
        if address is not None:
            equal(address, address_of(data), "its address")
    mapped.refresh()
    equal(size, len(mapped), "the length after a refresh() for nothing")
    if subject.shared:
        mapped[size - 3 :] = b"end"
        view[0:5] = b"BEGIN"
        equal(b"BEGIN", mapped[4990:4995], "what is written through the old view, in the new map")
        equal(
            (b"BEGIN", b"end"),
            (path.read_bytes()[4990:4995], path.read_bytes()[-3:]),
            "and in the file",
        )
    del data, new
    view.close()
    mapped.close()


# Files, as other processes change them


def append(path: Path, data: bytes) -> None:
    """Make a file longer, as another process does."""
    with open(path, "ab") as file:
        file.write(data)


def scribble(path: Path, size: int) -> None:
    """Write to the last page, past the end of the file, through another map."""
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as foreign:
        scribble_past(address_of(memoryview(foreign)), size)


def scribble_past(address: int, size: int) -> None:
    """Write to the last page of a map, past its end: the hardware allows it."""
    ctypes.memset(address + size, 0xEE, -size % PAGE)


def unchanged(mapped: Any, view: Any, path: Path, content: bytes) -> None:
    """Break the clause if anything changed; *view* reaches from the first multiple of the
    granularity to the end."""
    equal(
        (len(content), len(content)),
        (len(mapped), path.stat().st_size),
        "the length, and the file's",
    )
    true(mapped[:] == content, "the content is what it was")
    true(path.read_bytes() == content, "the file's content is what it was")
    true(view[:] == content[GRANULARITY:], "the view's content is what it was")
    with mapped.view() as another:
        true(another[:] == content, "another view can be made")
    with raises(IndexError, "an index past the end"):
        mapped[len(content)]


def resize_in_vain(subject: Subject, folder: Path) -> None:
    """S4: resizes that fail, in a separate process."""
    path = folder / "file"
    content = bytes(range(256)) * (2 * GRANULARITY // 256) + b"end"
    size = len(content)
    failed = 0
    with subject.create(path, content) as mapped, mapped.view(GRANULARITY) as view:
        mapped[0], view[0]
        for limit, impossible in limits(size):
            with limit:
                data = mapped.data
                address = address_of(data)
                for keep in (True, False):
                    if not keep:
                        del data
                    for new in impossible:
                        try:
                            mapped.resize(new)
                            mapped[0]
                        except (OSError, BufferError):
                            failed += 1
                        else:
                            break
                        unchanged(mapped, view, path, content)
                        if keep:
                            equal(
                                (content, address),
                                (bytes(data), address_of(data)),
                                "a buffer taken before",
                            )
                if len(mapped) != size:
                    view.close()
                    mapped.resize(size)
                    view = mapped.view(GRANULARITY)  # noqa: PLW2901
        for kind, wrong in (
            (OverflowError, 2**63),
            (ValueError, -1),
            (TypeError, "1"),
            (TypeError, None),
        ):
            with raises(kind, f"resize({wrong!r})"):
                mapped.resize(wrong)
            unchanged(mapped, view, path, content)
        if not failed:
            raise NotHere(
                "no resize fails here: the system ignores RLIMIT_FSIZE and RLIMIT_AS, and no file"
                " is too large"
            )
        view[0:3] = b"new"
        equal(
            b"new",
            mapped[GRANULARITY : GRANULARITY + 3],
            "what is written through the view, in the map",
        )
        view.close()
        mapped.resize(4 * GRANULARITY)
        equal(
            (4 * GRANULARITY, 4 * GRANULARITY),
            (len(mapped), path.stat().st_size),
            "the length after a resize that works",
        )
        equal(bytes(4 * GRANULARITY - size), mapped[size:], "its new bytes")


def limits(size: int) -> Iterator[tuple[AbstractContextManager[None], tuple[int, ...]]]:
    """Give limits under which a file of *size* bytes cannot grow, and the sizes that fail."""
    if sys.platform == "win32":
        yield contextlib.nullcontext(), (2**63 - 1, 2**62)
        return
    import resource

    @contextlib.contextmanager
    def limited(kind: int, soft: int) -> Iterator[None]:
        old, hard = resource.getrlimit(kind)
        resource.setrlimit(kind, (soft, hard))
        try:
            yield
        finally:
            resource.setrlimit(kind, (old, hard))

    yield limited(resource.RLIMIT_FSIZE, size + PAGE), (size + PAGE + 1, 100 * size, 2**40)
    with contextlib.suppress(OSError, AttributeError, ValueError):
        with open("/proc/self/statm", encoding="ascii") as statm:
            pages = int(statm.read().split()[0])
        yield limited(resource.RLIMIT_AS, pages * PAGE + 2**22), (2**24,)


# S5


def allocated(path: Path) -> int:
    """Return the size of a file's disk blocks, in bytes."""
    if sys.platform != "win32":
        return path.stat().st_blocks * 512
    from mappedfile.contract._kernel32 import count_allocated

    return count_allocated(str(path))


def system_leaves_holes(folder: Path, size: int) -> bool | None:
    """Whether files can have holes here. None if that cannot be seen, or if the system leaves a
    hole where it should allocate: Wine, when a file grows with its section."""
    path = folder / "probe-of-blocks"
    with open(path, "wb") as file:
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())
    full = allocated(path)
    with open(path, "w+b") as file:
        if sys.platform == "win32":  # truncate() may write zeros
            mmap.mmap(file.fileno(), size).close()
        else:
            file.truncate(size)
        file.flush()
        os.fsync(file.fileno())
    hollow = allocated(path)
    path.unlink()
    if full < size or (sys.platform == "win32" and hollow < size):
        return None
    return sys.platform == "win32" or hollow < size


def free_space(folder: Path) -> int:
    """Return the free bytes of a folder's file system."""
    import shutil  # the import is slow, and few processes need it

    return shutil.disk_usage(folder).free


def fill_disk(subject: Subject, folder: Path, *, allocates: bool) -> None:
    """Create and grow files that are larger than a small disk."""
    free = free_space(folder)
    too_much = free + 2**20
    kept = folder / "kept"
    content = b"kept" * GRANULARITY
    with subject.create(kept, content) as mapped, mapped.view(GRANULARITY) as view:
        if allocates:
            with raises(OSError, f"resize({too_much}) with {free} bytes free") as caught:
                mapped.resize(too_much)
            equal(
                (errno.ENOSPC, str(kept)),
                (caught.error.errno, str(caught.error.filename)),
                "the error",
            )
            unchanged(mapped, view, kept, content)
            if subject.mode != "r+":
                new = folder / "new"
                with raises(
                    OSError, f"creation of {too_much} bytes with {free} bytes free"
                ) as caught:
                    subject.open(new, subject.mode, size=too_much)
                equal(
                    (errno.ENOSPC, str(new)),
                    (caught.error.errno, str(caught.error.filename)),
                    "the error",
                )
                if subject.mode == "x+":
                    true(not new.exists(), "no file is left behind")
                else:
                    equal(0, new.stat().st_size, "the size of what is left behind")
            left = free_space(folder)
            true(
                left >= free - 2**18,
                f"the blocks are free again: {left} bytes are free, after {free} before",
            )
            mapped.resize(free // 2)
            mapped[len(content) :] = b"\1" * (free // 2 - len(content))  # every page has a block
            equal(1, mapped[free // 2 - 1], "the last byte")
    kept.unlink()
    if subject.mode != "r+":
        with subject.open(folder / "sparse", subject.mode, size=too_much, sparse=True) as mapped:
            equal(too_much, len(mapped), "the length with sparse=True")
    else:
        with subject.create(folder / "sparse", b"x", sparse=True) as mapped:
            mapped.resize(too_much)
            equal(too_much, len(mapped), "the length with sparse=True")
    if not allocates:
        raise NotHere("this system leaves holes where Windows allocates")


# S7


def past(subject: Subject, path: Path, size: int) -> None:
    """Map a sparse file of *size* bytes, 5 GiB or more, whole and in parts."""
    places = (2**32 - 3, 2**32 + 100, 2**32 + 123_457, 4 * GIB + 2**29 + 1, size - 7)
    try:
        with MappedFile(path, "x+", size=size, sparse=True):
            pass
    except OSError as error:
        raise NotHere(f"no file of {size} bytes can be made here: {error}") from error
    true(
        allocated(path) < size // 4,
        f"a file made with sparse=True has holes; {allocated(path)} bytes are there",
    )
    if subject.mode in ("w+", "x+"):
        path = path.with_name("created")
        mapped = subject.open(path, subject.mode, size=size, sparse=True)
    else:
        mapped = subject.open(path, subject.mode, sparse=True)
    with open(path, "r+b") as file:
        for number, place in enumerate(places, 1):
            file.seek(place)
            file.write(b"%d" % number * 7)
    with mapped:
        equal(size, len(mapped), "the length")
        mapped.refresh()
        equal(size, len(mapped), "the length after a refresh() for nothing")
        for number, place in enumerate(places, 1):
            there = b"%d" % number * 7
            with mapped.view(place, 7) as view:
                equal((place, there), (view.offset, view[:]), "a view")
            with mapped.view(place - 5000, 5010 if place < size - 7 else 5007) as view:
                equal(there, view[5000:5007], "the bytes in a view that begins before")
                if subject.writable:
                    view[5000:5003] = b"new"
        with mapped.view(size - 7) as view:
            equal(7, len(view), "the length of a view up to the end")
        for outside in ((size - 6, 7), (size + 1, 0), (2**62, 1)):
            with raises(ValueError, f"view{outside} of {size} bytes"):
                mapped.view(*outside)
        whole = maps_whole(subject, path, size)
        if whole:
            for number, place in enumerate(places, 1):
                there = (b"new" if subject.shared else b"%d" % number * 3) + b"%d" % number * 4
                equal(there, mapped[place : place + 7], "the bytes in the map of the whole file")
                equal(there[6], mapped[place + 6], "a byte of it")
                equal(place, mapped.find(there, place - 100, place + 7), "where it is found")
                equal(
                    place,
                    mapped.rfind(there, place - 100, place + 100),
                    "where it is found from the end",
                )
            equal(mapped[size - 1], mapped[-1], "the last byte")
        else:
            with raises(OSError, "the map of the whole file, which the system refuses") as caught:
                mapped[0]
            equal(str(path), str(caught.error.filename), "the file name of the error")
        if subject.shared:
            with mapped.view(2**32 + 50, 1) as view:
                view[0] = 77
                view.flush()
            with open(path, "rb") as file:
                file.seek(2**32 + 50)
                equal(b"M", file.read(1), "what was written, as others read it")
            with mapped.view(0, 1), raises(BufferError, "a resize to less with a view alive"):
                mapped.resize(2**32 + 103)
            for new in (size + PAGE + 1, 2**32 + 103, size):
                mapped.resize(new)
                equal(
                    (new, new),
                    (len(mapped), path.stat().st_size),
                    f"the length, and the file's, after resize({new})",
                )
                with mapped.view(new - 1) as view:
                    equal(
                        b"w" if new == 2**32 + 103 else b"\0",
                        view[:],
                        f"the last byte after resize({new})",
                    )
                    equal(
                        view[0],
                        mapped[new - 1] if whole else view[0],
                        "the same in the map of the whole file",
                    )
            with mapped.view(2**32 + 100, 7) as view:
                equal(
                    b"new\0\0\0\0",
                    view[:],
                    "the bytes where the file was truncated, after it has grown again",
                )


def maps_whole(subject: Subject, path: Path, size: int) -> bool:
    """Whether the system can map a file of this size as a whole: Wine reserves memory for shared
    maps, and may refuse."""
    access = {"r": mmap.ACCESS_READ, "c": mmap.ACCESS_COPY}.get(subject.mode, mmap.ACCESS_WRITE)
    options: dict[str, Any] = {"access": access}
    # Private maps need no memory before they are written to.
    if subject.mode == "c" and sys.platform != "win32":
        # New in Python 3.13.
        no_reserve = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
        options = {"flags": mmap.MAP_PRIVATE | no_reserve}
    with open(path, "rb" if access == mmap.ACCESS_READ else "r+b") as file:
        try:
            mmap.mmap(file.fileno(), size, **options).close()
        except OSError:
            return False
    return True
