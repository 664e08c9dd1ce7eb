"""Pages in memory, compared with vmtouch, fincore and the kernel's counters; and errors of the
system: M1 to M9."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from children import code, run_python
from children.crew import Crew
from hypothesis import given
from hypothesis import strategies as st
from support import LINUX, need, only, strace, traced, unmount

import mappedfile
from mappedfile import (
    GRANULARITY,
    PAGE_SIZE,
    Advice,
    MappedFile,
    MappingFault,
    Residency,
    View,
    capabilities,
)
from mappedfile._advice import _cached, evict
from mappedfile._native import ffi
from mappedfile.contract._memory import CAPABILITY

MIB = 1 << 20


def run(program: str, *arguments: object, under: tuple[str, ...] = (), expect: int = 0) -> str:
    """Run a Python program in a child process; return its output."""
    what = (*code(program), *arguments)
    done = run_python(*what, flags=("-W", "error"), under=under, check=not expect, quiet=True)
    assert expect == done.returncode, done.stdout
    return done.stdout.strip()


def injecting(*what: str) -> tuple[str, ...]:
    """Return the words before a command that make strace inject failures."""
    only(LINUX, "Linux only: makes system calls fail")
    need(strace(), "strace, and permission to trace")
    calls = ",".join(sorted({each.split(":")[0] for each in what}))
    return (
        strace(),
        "-f",
        "-qq",
        "-o",
        os.devnull,
        "-e",
        f"trace={calls}",
        *(f"-einject={each}" for each in what),
    )


# Compared with vmtouch and fincore


def by_vmtouch(path: Path) -> tuple[int, int]:
    """Return vmtouch's numbers: pages in memory, and all pages."""
    done = subprocess.run(["vmtouch", path], capture_output=True, text=True, check=True)
    found = re.search(r"Resident Pages: (\d+)/(\d+)", done.stdout)
    assert found, done.stdout
    return int(found[1]), int(found[2])


def by_fincore(path: Path) -> tuple[int, int]:
    """Return fincore's number of pages in memory. It does not show the number of all pages."""
    done = subprocess.run(
        ["fincore", "-n", "-r", "-o", "PAGES,SIZE", "-b", path],
        capture_output=True,
        text=True,
        check=True,
    )
    pages, size = map(int, done.stdout.split())
    return pages, -(-size // PAGE_SIZE)


def by_us(path: Path) -> tuple[int, int]:
    with MappedFile(path) as file:
        found = file.residency()
        assert found.count(1) == found.resident
        assert found.fraction == found.resident / found.pages
        return found.resident, found.pages


def settled(
    path: Path, theirs: Callable[[Path], tuple[int, int]]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return both numbers from a moment without changes: the system can evict or read pages at any
    time."""
    for _ in range(20):
        before, said, after = by_us(path), theirs(path), by_us(path)
        if before == after:
            return before, said
    pytest.fail(f"the pages in memory of {path} change all the time")


def written(file: MappedFile, *pages: int) -> None:
    """Write a byte to each of these pages, without reading other pages."""
    with open(file.name, "r+b", buffering=0) as others:
        for page in pages:
            others.seek(page * PAGE_SIZE)
            others.write(b"x")


def write(path: Path, size: int) -> None:
    """Write a file, flush it to its disk, and evict all its pages."""
    path.write_bytes(os.urandom(size))
    with MappedFile(path) as file:
        evict(file)
        need(file.residency().resident == 0, f"a file system that can evict pages, at {path}")


@contextmanager
def kept(path: Path, *ranges: tuple[int, int]) -> Iterator[None]:
    """Keep ranges of a file in memory for the time of the block."""
    with MappedFile(path) as file, ExitStack() as stack:
        for first, count in ranges:
            view = stack.enter_context(file.view(first, count))
            view.advise("random")  # no readahead
            try:
                view.lock()
            except OSError as error:
                need(False, f"to lock some MiB: {error}")
        yield


@contextmanager
def cold(path: Path) -> Iterator[None]:
    write(path, 10 * MIB + 7)
    yield


@contextmanager
def warm(path: Path) -> Iterator[None]:
    write(path, 3 * MIB + 7)
    with kept(path, (0, 3 * MIB + 7)):
        yield


@contextmanager
def half_warm(path: Path) -> Iterator[None]:
    """Have only the first 4 of 8 MiB in memory."""
    write(path, 8 * MIB)
    read_alone(path, (0, 4 * MIB))
    with kept(path, (0, 4 * MIB)):
        yield


PLACES = (0, 3, 4, 5, 100, 1000, 1001, 4095)


@contextmanager
def here_and_there(path: Path) -> Iterator[None]:
    write(path, 16 * MIB)
    read_alone(path, *((page * PAGE_SIZE, 1) for page in PLACES))
    with kept(path, *((page * PAGE_SIZE, 1) for page in PLACES)):
        yield


def read_alone(path: Path, *ranges: tuple[int, int]) -> None:
    """Read ranges of a file without readahead."""
    with open(path, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for first, count in ranges:
            file.seek(first)
            assert count == len(file.read(count))


@contextmanager
def sparse(path: Path) -> Iterator[None]:
    with MappedFile(path, "x+", size=256 * MIB, sparse=True) as file:
        for place in (0, 100 * MIB + 5, 256 * MIB - 1):
            file[place] = 1
        yield


@contextmanager
def sparse_past_4_gib(path: Path) -> Iterator[None]:
    with MappedFile(path, "x+", size=5 << 30, sparse=True) as file:
        file[(4 << 30) + 12345] = 1
        file[0]
        yield


@contextmanager
def just_written(path: Path) -> Iterator[None]:
    with MappedFile(path, "x+", size=3 * MIB + 1) as file:
        file.advise("random")  # no readahead
        file[0 : 2 * MIB] = b"x" * (2 * MIB)
        # Without this, ext4 has an empty page there since the file was created. Newer versions of
        # fincore count it: cachestat.
        file[-1] = 1
        yield


@contextmanager
def one_byte(path: Path) -> Iterator[None]:
    path.write_bytes(b"x")
    with kept(path, (0, 1)):
        yield


@contextmanager
def evicted(path: Path) -> Iterator[None]:
    """Evict a file that was in memory."""
    with warm(path):
        pass
    with MappedFile(path) as file:
        evict(file)
    yield


STATES = [
    cold,
    warm,
    half_warm,
    here_and_there,
    sparse,
    sparse_past_4_gib,
    just_written,
    one_byte,
    evicted,
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
@pytest.mark.parametrize("theirs", [by_vmtouch, by_fincore], ids=["vmtouch", "fincore"])
def test_compared(
    path: Path, state: Callable[[Path], Any], theirs: Callable[[Path], tuple[int, int]]
) -> None:
    """residency() counts the pages that vmtouch and fincore count: M4."""
    only(LINUX, "Linux only: compares with its tools")
    need(shutil.which(theirs.__name__.removeprefix("by_")), theirs.__name__.removeprefix("by_"))
    with state(path):
        ours, said = settled(path, theirs)
    assert said == ours
    if state in (cold, evicted):
        assert ours[0] == 0
    elif state in (warm, one_byte):
        assert ours[0] == ours[1]
    else:
        assert 0 < ours[0] < ours[1]


def test_on_top_of_another_file_system(folder: Path) -> None:
    """On an overlay, the mapped pages belong to a file of the lower file system. They are counted
    too: M4."""
    only(LINUX, "Linux only: mounts a file system")
    need(os.geteuid() == 0, "root, to mount a file system")
    need(shutil.which("vmtouch"), "vmtouch")
    below, above, work, place = (folder / name for name in ("below", "above", "work", "place"))
    for each in (below, above, work, place):
        each.mkdir()
    (below / "file").write_bytes(os.urandom(100 * PAGE_SIZE))
    options = f"lowerdir={below},upperdir={above},workdir={work}"
    done = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", options, place],
        capture_output=True,
        check=False,
    )
    need(done.returncode == 0, f"to mount an overlay: {done.stderr!r}")
    try:
        with kept(place / "file", (0, 70 * PAGE_SIZE)):
            ours, said = settled(place / "file", by_vmtouch)
        assert said == ours
        assert ours[0] >= 70
    finally:
        unmount(place)


def test_page_by_page(path: Path) -> None:
    """residency() shows exactly the pages that were read, of a file and of a view, for any range:
    M4."""
    only(
        hasattr(os, "posix_fadvise"),
        "needs posix_fadvise, to read without readahead",
    )
    expected = {*PLACES}
    with here_and_there(path), MappedFile(path) as file, file.view(3 * PAGE_SIZE + 5) as view:
        assert expected == {page for page, there in enumerate(file.residency()) if there}
        assert {page - 3 for page in expected if page >= 3} == {
            page for page, there in enumerate(view.residency()) if there
        }
        for first, count, there in (
            (0, PAGE_SIZE - 5, b"\1"),
            (PAGE_SIZE - 5, PAGE_SIZE * 2, b"\1\1"),
            (PAGE_SIZE - 6, PAGE_SIZE * 3, b"\1\1\1\0"),
            (997 * PAGE_SIZE, PAGE_SIZE, b"\1\1"),
        ):
            assert there == view.residency(first, count)


def test_past_what_one_call_looks_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large range is examined and populated in steps. The result does not depend on the steps:
    M4, M5."""
    only(capabilities().file_residency, "this system reports only the working set")
    monkeypatch.setattr("mappedfile._advice._STEP", 16 * PAGE_SIZE)
    with MappedFile(path, "x+", size=100 * PAGE_SIZE + 1, sparse=True) as file:
        written(file, 0, 15, 16, 17, 31, 32, 95, 96, 100)
        assert {0, 15, 16, 17, 31, 32, 95, 96, 100} == {
            page for page, there in enumerate(file.residency()) if there
        }
        with file.view(5 * PAGE_SIZE + 1) as view:
            assert {10, 11, 12, 26, 27, 90, 91, 95} == {
                page for page, there in enumerate(view.residency()) if there
            }
            view.advise("populate_read")
            assert 1.0 == view.residency().fraction


def test_without_cachestat(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without cachestat every page is examined. With it, parts without cached pages are skipped:
    M4."""
    only(capabilities().file_residency, "this system reports only the working set")
    with MappedFile(path, "x+", size=64 * PAGE_SIZE, sparse=True) as file:
        written(file, 0, 7, 63)
        expected = file.residency()
        assert expected.resident >= 3
        monkeypatch.setattr("mappedfile._advice._cached", lambda *_: True)
        assert expected == file.residency()
        monkeypatch.setattr("mappedfile._advice._cached", lambda *_: False)
        assert bytes(64) == file.residency()
    monkeypatch.undo()
    assert _cached(ffi.new("mf_file *", [-1, 0]), 0, PAGE_SIZE), (
        "after an error, pages are examined"
    )


def test_private_pages_count(path: Path) -> None:
    """In a private map, written pages count as in memory, independent of the file: M4."""
    only(capabilities().evict, "this system cannot evict")
    write(path, 4 * MIB)
    with MappedFile(path, "c") as file:
        file.advise("random")
        file[100 * PAGE_SIZE : 102 * PAGE_SIZE] = b"x" * (2 * PAGE_SIZE)
        with MappedFile(path) as other:
            evict(other)
        assert {100, 101} == {page for page, there in enumerate(file.residency()) if there}


# Files of other users


NOBODY = """
    import os, sys
    from mappedfile import MappedFile
    path, whose = sys.argv[1:]
    # Imports happen before the user changes.
    with MappedFile(path) as file:
        file.residency()
    if whose != "root":
        os.setgid(65534)
        os.setuid(65534)
    with MappedFile(path) as file:
        try:
            print(file.residency().count(1))
        except PermissionError as error:
            print(error.errno, error.filename == path, error.strerror)
        view = file.view(0, 100)
    print(view.residency().pages)
    view.close()
"""


@pytest.mark.parametrize("whose", ["root", "nobody", "theirs"])
def test_told_to_the_owner(path: Path, whose: str) -> None:
    """For a file of another user without write permission, Linux reports all pages as in memory.
    residency() raises PermissionError instead. The owner and root get the residency: M4."""
    only(LINUX, "Linux only: depends on its permission checks")
    need(os.geteuid() == 0, "root, to become another user")
    with here_and_there(path):
        check_residency_of(path, whose)


def check_residency_of(path: Path, whose: str) -> None:
    path.chmod(0o444)
    for folder in path.parents[:3]:
        folder.chmod(0o755)
    if whose == "theirs":
        os.chown(path, 65534, 65534)
    first, second = run(NOBODY, path, whose).splitlines()
    expected = "1 True on Linux, only the owner of a file, and processes that may write to it,"
    expected += " can see its residency"
    assert (expected if whose == "nobody" else "8") == first
    assert "1" == second


# System calls


CALLS = """
    import sys
    from mappedfile import MappedFile
    path = sys.argv[1]
    with MappedFile(path, "r+") as file:
        file[0]
        with file.view(5 * 4096 + 100, 4 * 4096) as view:
            for kind in sys.argv[2:]:
                assert view.advise(kind), kind
                assert view.advise(kind, 5000, 5000)
"""


@pytest.mark.parametrize("kind", [kind.value for kind in Advice])
def test_madvise(path: Path, folder: Path, kind: str) -> None:
    """madvise gets whole pages, rounded outwards or inwards, and the right kind of advice: M1,
    M3."""
    path.write_bytes(bytes(100 * PAGE_SIZE))
    only(PAGE_SIZE == 4096, "needs pages of 4096 bytes")
    lines = traced(textwrap.dedent(CALLS), path, kind, calls="mmap,madvise", folder=folder)
    (view,) = [line for line in lines if f"<{path}>, 0x5000)" in line]
    start = int(view.rpartition(" = ")[2], 16)
    calls = [re.search(r"madvise\((0x[0-9a-f]+), (\d+), (MADV_\w+)\) += 0", line) for line in lines]
    asked = [
        (int(call[1], 16), int(call[2]))
        for call in calls
        if call and call[3] == f"MADV_{kind.upper()}"
    ]
    # Python calls madvise for its own memory too.
    (base, size), (inner, part) = [
        each for each in asked if start <= each[0] < start + 5 * PAGE_SIZE
    ]
    assert (0, 5 * PAGE_SIZE) == (base % PAGE_SIZE, -(-size // PAGE_SIZE) * PAGE_SIZE)
    # Bytes 5000 to 10000 of a view that begins 100 bytes into a page.
    expected = (
        (2 * PAGE_SIZE, 0)
        if kind in ("dontneed", "cold", "pageout")
        else (PAGE_SIZE, 2 * PAGE_SIZE)
    )
    assert expected == (inner - base, part)


def test_evict_writes_back_first(path: Path, folder: Path) -> None:
    """Evicting writes dirty pages back before it asks the kernel to evict them."""
    program = """
    import sys
    from mappedfile import MappedFile
    from mappedfile._advice import evict
    with MappedFile(sys.argv[1], "x+", size=10 << 20) as file:
        file[:] = b"x" * len(file)
        other = MappedFile(sys.argv[1])
    evict(other)
    print(other.residency().resident)
    other.close()
    """
    lines = traced(textwrap.dedent(program), path, calls="fsync,fadvise64", folder=folder)
    assert ["fsync", "fadvise64"] == [line.partition("(")[0] for line in lines if str(path) in line]
    with MappedFile(path) as file:
        assert 0 == file.residency().resident
        assert b"x" * 100 == file[-100:]


# Missing and refused advice


LACKING = """
    import sys
    from mappedfile import Advice, MappedFile, capabilities
    from mappedfile.contract._memory import in_map
    with MappedFile(sys.argv[1], "r+", populate=True) as file:
        assert in_map(file) == len(file), in_map(file)
        known = {kind.value: file.advise(kind) for kind in Advice}
        assert known.pop("populate_read")
        print(sorted({*known.values()}))
        able = vars(capabilities()).items()
        print(sorted({value for name, value in able if name.startswith("advise_")}))
        print(file.advise("willneed", 0, 0), file.advise("populate_read", 5, 0))
"""


@pytest.mark.parametrize("code", ["EINVAL", "ENOSYS"])
def test_without_madvise(path: Path, code: str) -> None:
    """If the kernel does not know a kind of advice (EINVAL), advise() returns false, and populating
    touches each page: M1, M5. Other errors are raised."""
    path.write_bytes(bytes(300 * PAGE_SIZE))
    if code == "EINVAL":
        said = run(LACKING, path, under=injecting("madvise:error=EINVAL"))
        assert ["[False]", "[False]", "False True"] == said.splitlines()
    else:
        said = run(
            """
            import sys
            from mappedfile import MappedFile
            with MappedFile(sys.argv[1]) as file:
                file[0]
                try:
                    file.advise("willneed")
                except OSError as error:
                    print(error.errno, error.filename)
            """,
            path,
            under=injecting(f"madvise:error={code}"),
        )
        assert f"{errno.ENOSYS} {path}" == said


FAILING = """
    import errno, gc, os, resource, sys  # no import happens later
    from mappedfile import MappedFile
    from mappedfile.contract._probe import file_maps, handles
    path, call, code = sys.argv[1:]
    def refused(function, *arguments, name=path, **options):
        try:
            function(*arguments, **options)
        except OSError as error:
            assert (getattr(errno, code), name) == (error.errno, error.filename), repr(error)
        else:
            sys.exit(f"{function.__name__}: no error")
    with MappedFile(path, "r+") as file:
        file[0]
    before = handles(), file_maps()
    with MappedFile(path, "r+") as file:
        file[0]
        if call == "madvise":
            refused(MappedFile, path, populate=True)
            refused(MappedFile, path + "-new", "x+", size=5, populate=True, name=path + "-new")
            assert not os.path.exists(path + "-new")
            refused(file.view, 5, 5, populate=True)
            refused(file.advise, "populate_read")
            refused(file.advise, "sequential", 3, 4)
        elif call == "mincore":
            refused(file.residency)
        else:
            refused(getattr(file, call.removeprefix("m").removesuffix("2")))
        assert file[:5] == bytes(5)
        with file.view(0, 5) as view:
            view[0]
    gc.collect()
    assert before == (handles(), file_maps())
"""


@pytest.mark.parametrize(
    "failure",
    [
        "madvise EIO",
        "madvise EAGAIN",
        "mincore EAGAIN",
        "mincore ENOMEM",
        "mlock EAGAIN",
        "munlock ENOMEM",
        "munlock EINVAL",
    ],
)
def test_failures(path: Path, failure: str) -> None:
    """Other failures are OSErrors with number and file name. Nothing leaks, and the object stays
    usable."""
    path.write_bytes(bytes(10 * PAGE_SIZE))
    call, code = failure.split()
    run(FAILING, path, call, code, under=injecting(f"{call}:error={code}"))


@pytest.mark.parametrize("call", ["madvise", "mlock", "munlock"])
def test_interrupted(path: Path, call: str) -> None:
    """A call that a signal interrupts is repeated: PEP 475."""
    path.write_bytes(bytes(10 * PAGE_SIZE))
    said = run(
        """
        import sys
        from mappedfile import MappedFile
        with MappedFile(sys.argv[1], populate=True) as file:
            file.lock(), file.unlock()
            print(file.residency())
        """,
        path,
        under=injecting(f"{call}:error=EINTR:when=1"),
    )
    assert "<Residency: 10 of 10 pages in memory>" == said


def test_cut_short(path: Path) -> None:
    """Populating or locking pages behind the end of a truncated file raises MappingFault.
    residency() does not, and the other pages stay usable: M5, M6, T1."""
    only(capabilities().truncate_mapped, "this system does not truncate mapped files")
    path.write_bytes(b"x" * (10 * PAGE_SIZE))
    with MappedFile(path, "r+") as file, file.view() as view:
        view[0]
        os.truncate(path, 5 * PAGE_SIZE)
        for call in (
            lambda: view.advise("populate_read"),
            view.lock,
            lambda: view.advise("populate_read", 9 * PAGE_SIZE),
        ):
            with pytest.raises(MappingFault) as caught:
                call()
            assert str(path) == str(caught.value.filename)
        assert locked() == 0
        assert (10, b"\1" * 5) == ((found := view.residency()).pages, found[:5])
        assert view.advise("populate_read", 0, 5 * PAGE_SIZE)
        assert (b"x" * 10, False) == (view[:10], view.faulted)
        # The kernel may keep the file in folios that reach past its end, so every page is in
        # memory.
        with MappedFile(path) as other:
            assert b"\1" * 5 == other.residency()


# Locks


def locked() -> int:
    """Return how many pages this process has locked: proc_pid_status(5)."""
    only(LINUX, "Linux only: reads the locked pages from /proc")
    text = Path("/proc/self/status").read_text("ascii", "replace")
    return int(re.search(r"^VmLck:\s+(\d+) kB", text, re.MULTILINE)[1]) * 1024 // PAGE_SIZE


LIMITED = """
    import errno, os, resource, sys
    from mappedfile import PAGE_SIZE, MappedFile
    path = sys.argv[1]
    def locked():
        with open("/proc/self/status", encoding="utf-8") as status:
            (line,) = (line for line in status if line.startswith("VmLck:"))
        return int(line.split()[1]) * 1024 // PAGE_SIZE
    with MappedFile(path, "r+") as file:
        file.lock(), file.unlock()
    with open("/proc/self/status", encoding="ascii", errors="replace"): pass
    file = MappedFile(path, "r+", **dict(eval(sys.argv[2])))
    file.lock()
    content = bytes(file)
    if os.geteuid() == 0:
        os.setgid(65534), os.setuid(65534)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (6 * PAGE_SIZE, 6 * PAGE_SIZE))
    errors = []  # kept errors do not keep maps
    for kept in (False, True):
        buffer = file.data if kept else None
        for size in (7 * PAGE_SIZE, 6 * PAGE_SIZE + 1, 100 * PAGE_SIZE):
            try:
                file.resize(size)
            except OSError as error:
                errors.append(error)
                assert error.filename == path and "RLIMIT_MEMLOCK" in error.strerror, repr(error)
            else:
                sys.exit(f"grew to {size}")
            assert len(file) == len(content) == os.path.getsize(path), len(file)
            assert file[:] == content
            assert locked() == 4, locked()
    file.resize(6 * PAGE_SIZE)
    assert (file[:], locked()) == (content + bytes(2 * PAGE_SIZE), 6), locked()
    assert bytes(buffer) == content
    del buffer
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (2 * PAGE_SIZE, 2 * PAGE_SIZE))
    for use in (lambda: file.resize(3 * PAGE_SIZE), lambda: file[0]):  # the first shrinks the file
        try:
            use()
        except OSError as error:
            assert error.filename == path and "RLIMIT_MEMLOCK" in error.strerror, repr(error)
        else:
            sys.exit("locked")
        assert (3 * PAGE_SIZE, 0) == (len(file), locked())
    file.unlock()
    assert file[:] == content[: 3 * PAGE_SIZE]
    file.resize(20 * PAGE_SIZE)
    assert locked() == 0
    file.close()
"""


@pytest.mark.parametrize("options", ["{}", "{'reserve': 1 << 20}", "{'sparse': True}"])
def test_growth_past_the_limit(path: Path, options: str) -> None:
    """If the larger file cannot be locked, the resize fails, and size, content, map and lock do not
    change. If the smaller file cannot be locked, it is smaller, and each use raises an error until
    unlock(): M8, S4."""
    only(LINUX, "Linux only: reads the locked pages from /proc")
    path.write_bytes(os.urandom(4 * PAGE_SIZE))
    path.chmod(0o666)
    for folder in path.parents[:3]:
        folder.chmod(0o755)
    run(LIMITED, path, options)


def test_refresh_keeps_the_lock(path: Path) -> None:
    """After refresh(), appended bytes are locked too. Private maps keep their written bytes: M8."""
    only(LINUX, "Linux only: reads the locked pages from /proc")
    for mode in ("r", "r+", "c"):
        path.write_bytes(b"x" * (2 * PAGE_SIZE))
        with MappedFile(path, mode) as file:
            file.lock()
            if mode == "c":
                file[5] = 1
            with open(path, "ab") as others:
                others.write(b"y" * (3 * PAGE_SIZE))
            file.refresh()
            assert (5 * PAGE_SIZE, 5) == (len(file), locked())
            assert (1 if mode == "c" else ord("x"), ord("y")) == (file[5], file[-1])
        assert 0 == locked()


def test_lock_of_an_empty_file(path: Path) -> None:
    """An empty file can be locked. Bytes added later are locked: M8."""
    with MappedFile(path, "w+", size=0) as file:
        file.lock()
        file.resize(3 * PAGE_SIZE)
        assert 3 == locked()
        file.resize(0)
        assert 0 == locked()
        file.resize(PAGE_SIZE)
        assert 1 == locked()
        file.unlock()
        assert 0 == locked()


@pytest.mark.parametrize("kind", ["file", "view"])
def test_lock_of_what_is_gone(path: Path, kind: str) -> None:
    """Locking a missing page raises MappingFault, and leaves nothing locked."""
    path.write_bytes(bytes(8 * PAGE_SIZE))
    only(LINUX, "Linux only: reads the locked pages from /proc")
    with MappedFile(path, "r+") as file, file.view() as view:
        window = file if kind == "file" else view
        window[0]
        os.truncate(path, 4 * PAGE_SIZE)
        for _ in range(2):
            with pytest.raises(MappingFault):
                window.lock()
            assert 0 == locked()


def test_locking_copies(path: Path) -> None:
    """Locking a private map copies its pages: later writes to the file do not show, as the
    docstring says."""
    path.write_bytes(b"before" * PAGE_SIZE)
    only(LINUX, "Linux only: depends on its mlock")
    with MappedFile(path, "c") as plain, MappedFile(path, "c") as file:
        plain[0]
        file.lock()
        with open(path, "r+b") as others:
            others.write(b"after!")
        assert (b"after!", b"before") == (plain[:6], file[:6])


def test_dontneed_of_what_is_locked(path: Path) -> None:
    """On Linux, discarding locked pages raises an error that says so. Windows unlocks them: M1,
    M6."""
    path.write_bytes(bytes(10 * PAGE_SIZE))
    with MappedFile(path, "r+") as file:
        file.lock()
        if not LINUX:
            assert file.advise("dontneed") in (True, False)
            return
        for kind in ("dontneed", "cold", "pageout"):
            with pytest.raises(OSError, match="unlock") as caught:
                file.advise(kind)
            assert (errno.EINVAL, str(path)) == (caught.value.errno, str(caught.value.filename))
        assert 10 == locked()
        file.unlock()
        assert file.advise("dontneed")


# Populating


def test_populate_write(path: Path) -> None:
    """populate_write allocates the blocks of a sparse file, and copies the pages of a private map,
    without changing a byte. The map must be writable: M1, M2, M5."""
    only(capabilities().advise_populate, "this system cannot populate")
    with MappedFile(path, "x+", size=50 * PAGE_SIZE, sparse=True) as file:
        assert file.advise("populate_write", 0, 20 * PAGE_SIZE)
        file.flush()
        assert path.stat().st_blocks * 512 >= 20 * PAGE_SIZE
        assert bytes(50 * PAGE_SIZE) == file[:]
    with MappedFile(path, "c") as file:
        assert file.advise("populate_write")
        with open(path, "r+b") as others:
            others.write(b"later")
        assert bytes(5) == file[:5]
    with MappedFile(path) as file, pytest.raises(io.UnsupportedOperation, match="read-only"):
        file.advise("populate_write")


def test_populate_reads_no_more_than_its_view(path: Path) -> None:
    """populate=True reads the view and its readahead, not the whole file."""
    only(capabilities().evict, "this system cannot evict")
    write(path, 64 * MIB)
    with MappedFile(path) as file:
        with file.view(MIB, MIB, populate=True) as view:
            assert 1.0 == view.residency().fraction
        assert not file.mapped
        assert file.residency().fraction < 0.5


def test_populate_is_a_bool_and_a_keyword(path: Path) -> None:
    path.write_bytes(b"x")
    with MappedFile(path, populate=False) as file:
        assert not file.mapped
        with pytest.raises(TypeError):
            file.view(0, 1, True)
    with MappedFile(path, populate=True) as file:
        assert file.mapped


# Names and types


def test_capabilities_tell() -> None:
    """Each kind of advice has a capability, which says whether the system knows it: M1."""
    assert CAPABILITY.keys() == {kind.value for kind in Advice}
    for kind in Advice:
        assert kind.known == getattr(capabilities(), CAPABILITY[kind.value])
    if LINUX:
        assert Advice.SEQUENTIAL.known
        assert Advice.WILLNEED.known
        assert Advice.DONTNEED.known


def test_names() -> None:
    """The package exports Advice and Residency, and loads their modules on first use."""
    assert (mappedfile.Advice, mappedfile.Residency) == (Advice, Residency)
    program = """
    import sys
    sys.path[:] = eval(sys.argv[1])
    import mappedfile
    print([name for name in ("enum", "dataclasses", "mappedfile._advice") if name in sys.modules])
    with mappedfile.MappedFile(sys.argv[0] if len(sys.argv) < 3 else sys.argv[2]) as file:
        file.residency()
    print("mappedfile._advice" in sys.modules)
    """
    done = run_python(*code(program), repr(sys.path), __file__, flags=["-S"])
    assert ["[]", "True"] == done.stdout.splitlines()


def test_residency_is_bytes(path: Path) -> None:
    """A Residency is bytes of 1 and 0 with a short repr. Its slices are plain bytes."""
    there = Residency(b"\1\0\1\1")
    assert (4, 3, 0.75) == (there.pages, there.resident, there.fraction)
    assert "<Residency: 3 of 4 pages in memory>" == repr(there) == str(there)
    assert (b"\1\0\1\1", b"\0\1", 1) == (there, there[1:3], there.find(0))
    assert (0, 0, 1.0) == ((none := Residency()).pages, none.resident, none.fraction)
    path.write_bytes(bytes(3 * PAGE_SIZE))
    with MappedFile(path, populate=True) as file:
        first, second = file.residency(), file.residency()
        assert (b"\1\1\1", first) == (first, second)
        assert first is not second


@pytest.mark.parametrize("kind", list(Advice))
def test_of_every_kind_while_threads_close(path: Path, kind: Advice) -> None:
    """advise() works or raises ValueError while another thread closes the object: L6."""
    path.write_bytes(bytes(64 * PAGE_SIZE))
    for _ in range(30):
        file = MappedFile(path, "r+")
        view = file.view(GRANULARITY - PAGE_SIZE)
        with Crew() as crew:
            crew.start(lambda view=view, file=file: (view.close(), file.close()))
            with pytest.raises(ValueError, match="closed"):
                while True:
                    view.advise(kind, PAGE_SIZE)
                    view.residency()
                    view.lock()


@given(st.integers(0, 4), st.integers(0, 3), st.data())
def test_pages_of_a_range(
    sixteen_pages: MappedFile, pages: int, more: int, data: st.DataObject
) -> None:
    """Rounded outwards, a range has all pages with one of its bytes. Rounded inwards, it has the
    pages without other bytes of the window."""
    length = pages * PAGE_SIZE + data.draw(st.integers(1, PAGE_SIZE))
    offset = data.draw(st.integers(0, 16 * PAGE_SIZE - length))
    near = st.sampled_from(
        [0, 1, PAGE_SIZE - offset % PAGE_SIZE, length - 1, length]
    ) | st.integers(0, length)
    first, stop = sorted(min(data.draw(near), length) for _ in range(2))
    window = range(offset, offset + length)
    with sixteen_pages.view(offset, length) as view:
        for inwards in (False, True):
            with view._use(first, stop - first, inwards) as use:
                assert stop == first or use.offset % PAGE_SIZE == 0
                found = (
                    list(range(use.offset // PAGE_SIZE, -(-(use.offset + use.size) // PAGE_SIZE)))
                    if use.size
                    else []
                )
            expected = []
            for page in range(16):
                inside = range(
                    max(page * PAGE_SIZE, window.start), min((page + 1) * PAGE_SIZE, window.stop)
                )
                asked = (
                    [offset + first <= byte < offset + stop for byte in (inside[0], inside[-1])]
                    if inside
                    else []
                )
                if (inwards and all(asked) and asked) or (
                    not inwards
                    and range(max(inside.start, offset + first), min(inside.stop, offset + stop))
                ):
                    expected.append(page)
            assert expected == found


@pytest.fixture(scope="module")
def sixteen_pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MappedFile]:
    with MappedFile(tmp_path_factory.mktemp("pages") / "file", "w+", size=16 * PAGE_SIZE) as file:
        yield file


# Windows


@pytest.fixture
def calls() -> object:
    """Return the module that records the calls to kernel32, and makes them fail."""
    return pytest.importorskip("kernel32_calls", reason="no kernel32 here", exc_type=ImportError)


ERROR_NOT_LOCKED = 158
ERROR_NO_SYSTEM_RESOURCES = 1450
ERROR_WORKING_SET_QUOTA = 1453


def test_working_set_is_raised(path: Path, calls: object) -> None:
    """If VirtualLock meets the limit, the limit is raised by the missing size, once, and
    VirtualLock is repeated: M6."""
    path.write_bytes(bytes(10 * PAGE_SIZE))
    with MappedFile(path, "r+") as file:
        file[0]
        with calls.watched() as watch:
            file.lock()
        assert ["VirtualLock"] == [name for name in watch.names() if name in LOCKING]
        with calls.watched() as watch:
            watch.failing["VirtualLock", 1] = ERROR_WORKING_SET_QUOTA
            file.lock()
        made = [(name, arguments) for name, arguments in watch.made if name in LOCKING]
        assert [
            "VirtualLock",
            "GetProcessWorkingSetSize",
            "SetProcessWorkingSetSize",
            "VirtualLock",
        ] == [name for name, _ in made]
        assert 10 * PAGE_SIZE == made[0][1][1] == made[3][1][1]


LOCKING = ("VirtualLock", "VirtualUnlock", "GetProcessWorkingSetSize", "SetProcessWorkingSetSize")


def test_working_set_cannot_be_raised(path: Path, calls: object) -> None:
    """If the limit cannot be raised, or the new one is too small, lock() raises OSError with the
    limit: M7."""
    path.write_bytes(bytes(10 * PAGE_SIZE))
    with MappedFile(path, "r+") as file:
        file[0]
        for failing in (
            {("VirtualLock", None): ERROR_WORKING_SET_QUOTA},
            {
                ("VirtualLock", None): ERROR_WORKING_SET_QUOTA,
                ("SetProcessWorkingSetSize", 1): ERROR_NO_SYSTEM_RESOURCES,
            },
        ):
            with calls.watched() as watch:
                watch.failing.update(failing)
                with pytest.raises(OSError, match="working set") as caught:
                    file.lock()
            assert (ERROR_WORKING_SET_QUOTA, str(path)) == (
                caught.value.winerror,
                str(caught.value.filename),
            )
            assert f"{10 * PAGE_SIZE} bytes" in str(caught.value)
            assert bytes(10) == file[:10]
        file.lock()


def test_unlock_of_what_is_not_locked(path: Path, calls: object) -> None:
    """VirtualUnlock of pages that are not locked returns 158, which the backend ignores. The call
    removes the pages from the working set: dontneed uses this."""
    path.write_bytes(bytes(10 * PAGE_SIZE))
    with MappedFile(path, "r+") as file:
        file[0]
        with calls.watched() as watch:
            watch.failing["VirtualUnlock", None] = ERROR_NOT_LOCKED
            file.unlock()
            assert file.advise("dontneed")
            assert file.advise("dontneed", PAGE_SIZE + 1, 2 * PAGE_SIZE)
        sizes = [arguments[1] for name, arguments in watch.made if name == "VirtualUnlock"]
        assert [10 * PAGE_SIZE, 10 * PAGE_SIZE, PAGE_SIZE] == sizes


def test_without_prefetch(path: Path, calls: object) -> None:
    """Without PrefetchVirtualMemory (Windows 7 and older), advise("willneed") returns false, and
    populating works: M1, M5."""
    path.write_bytes(bytes(10 * PAGE_SIZE))
    with MappedFile(path) as file:
        with calls.watched() as watch:
            watch.failing["GetProcAddress", None] = 127
            assert file.advise("willneed") is False
            assert file.advise("populate_read") is True
        assert "GetProcAddress" in watch.failed
        assert 1.0 == file.residency().fraction
        assert file.advise("willneed") is True


def test_working_set_query_fails(path: Path, calls: object) -> None:
    """A failing QueryWorkingSetEx is an OSError with its code and the file's name."""
    path.write_bytes(bytes(300 * PAGE_SIZE))
    with MappedFile(path) as file:
        file[0]
        with calls.watched() as watch:
            watch.failing["K32QueryWorkingSetEx", 2] = 5
            with pytest.raises(PermissionError) as caught:
                file.residency()
        assert (5, str(path)) == (caught.value.winerror, str(caught.value.filename))
        assert 300 == file.residency().pages


def test_view_is_a_window() -> None:
    """Both classes have the same methods."""
    for name in ("advise", "residency"):
        assert getattr(View, name) is getattr(MappedFile, name)
