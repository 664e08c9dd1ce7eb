"""Failing system calls, one at a time, and limits of the system. Each is an OSError with its number
and the file's name. Nothing leaks, and no change is partly done: I2, L10, S4, F8."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from children import Talk, child, code, failing, run_python, start_python
from support import need, needs, only, strace, strace_attached

from mappedfile import capabilities
from mappedfile.contract._probe import file_maps, handles

try:
    import kernel32_calls
except ImportError:
    kernel32_calls = None  # type: ignore[assignment]

makes_calls_fail = needs(strace(), "strace, and permission to trace")
reaches_limits = needs(
    importlib.util.find_spec("resource") and os.path.exists("/proc/self/statm"),
    "limits that a process can set",
)

CALLS = (
    "openat,fstat,newfstatat,fcntl,dup,dup3,mmap,munmap,mremap,msync,fsync,fdatasync,"
    "sync_file_range,fallocate,ftruncate,pwrite64,close"
)
FINE = {"found": [], "handles": 0, "mapped": 0}


@dataclass
class Victim:
    """The process in which calls fail: tests/children/failing.py."""

    process: Talk
    pid: int
    log: Path
    known: dict[str, list[tuple[str, int, bool]]] = field(default_factory=dict)

    def hear(self) -> Any:
        return json.loads(self.process.hear())

    def run_traced(self, scenario: str, *options: str) -> tuple[list[str], Any, dict[str, Any]]:
        """Run a scenario under strace. Return strace's lines, the error, and the state
        afterwards."""
        self.process.say(scenario)
        assert "ready" == self.hear()
        with strace_attached(self.pid, *options, log=self.log):
            self.process.say("go")
            error = self.hear()
        self.process.say("look")
        return self.log.read_text().splitlines(), error, self.hear()

    def calls(self, scenario: str) -> list[tuple[str, int, bool]]:
        """Return the system calls of a scenario.

        Each has its name, its number among the calls of that name, and whether the library made it.
        """
        if scenario not in self.known:
            lines, error, after = self.run_traced(scenario, "-e", f"trace={CALLS}")
            assert (None, FINE) == (error, after)
            count: Counter[str] = Counter()
            self.known[scenario] = calls = []
            for line in lines:
                if found := re.search(r"^\d+ +(\w+)\(", line):
                    count[found[1]] += 1
                    calls.append((found[1], count[found[1]], is_ours(line)))
        return self.known[scenario]


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Victim]:
    need(strace(), "strace, and permission to trace")
    folder = tmp_path_factory.mktemp("failing")
    with start_python(*child("failing"), folder) as process:
        victim = Victim(process, 0, folder / "log")
        victim.pid = victim.hear()
        yield victim
        process.end()


# The system calls of each scenario, and the errors to test. test_all_calls_fail checks that no call
# is missing.
FAILURES = {
    "Scenario": ("openat EMFILE", "fstat EIO", "mmap ENOMEM", "munmap ENOMEM", "close EIO"),
    "Read": ("openat EACCES", "fstat EOVERFLOW", "mmap ENODEV", "munmap EINVAL", "close EIO"),
    "Private": ("openat ENFILE", "fstat EIO", "mmap EAGAIN", "munmap ENOMEM", "close ENOSPC"),
    "Adopt": (
        "fcntl EBADF",
        "fcntl EMFILE",
        "fstat EIO",
        "mmap ENOMEM",
        "munmap ENOMEM",
        "close EIO",
    ),
    "Create": ("openat ENOSPC", "fstat EIO", "fallocate ENOSPC", "fallocate EIO"),
    "CreateSparse": ("openat EDQUOT", "fstat EIO", "ftruncate EFBIG"),
    "Empty": ("openat EROFS", "fstat EIO", "fallocate EDQUOT"),
    "View": ("mmap ENOMEM", "munmap ENOMEM"),
    "WholeMap": ("mmap ENOMEM",),
    "FlushView": ("msync EIO",),
    "FlushRange": ("msync ENOMEM",),
    "FlushFile": ("fsync EIO", "fsync ENOSPC"),
    "FlushLazily": ("msync EIO", "sync_file_range EIO"),
    "FlushFileLazily": ("sync_file_range ENOSPC",),
    "Grow": ("fstat EIO", "pwrite64 EIO", "fallocate ENOSPC", "fallocate EFBIG", "mmap ENOMEM"),
    "GrowAlone": ("fstat EIO", "pwrite64 EDQUOT", "fallocate ENOSPC"),
    "GrowWithView": ("fstat EIO", "pwrite64 EIO", "fallocate EDQUOT"),
    "GrowWithBuffer": ("fstat EIO", "pwrite64 EFBIG", "fallocate EIO", "mmap ENOMEM"),
    "GrowUnmapped": ("fstat EIO", "pwrite64 ENOSPC", "fallocate ENOSPC"),
    "GrowReserved": ("fstat EIO", "pwrite64 ENOSPC", "fallocate ENOSPC"),
    "GrowPastReserve": ("fstat EIO", "pwrite64 EIO", "fallocate EFBIG", "mmap ENOMEM"),
    "GrowInPage": ("fstat EIO", "pwrite64 ENOSPC", "mmap ENOMEM"),
    "GrowSparse": ("fstat EIO", "pwrite64 EIO", "ftruncate EFBIG", "mmap ENOMEM"),
    "Shrink": ("fstat EIO", "munmap ENOMEM", "ftruncate EPERM"),
    "ShrinkReserved": ("fstat EIO", "munmap ENOMEM", "ftruncate EIO"),
    "Refresh": ("fstat EIO", "mmap ENOMEM"),
    "RefreshAlone": ("fstat EIO",),
    "RefreshReserved": ("fstat EIO",),
    "RefreshPrivate": ("fstat EIO", "mmap ENOMEM"),
    "RefreshPrivateAlone": ("fstat EIO", "mmap ENOMEM", "munmap ENOMEM"),
    "RefreshPrivateReserved": ("fstat EIO", "mmap ENOMEM", "munmap ENOMEM"),
    "Close": ("munmap ENOMEM", "close EIO"),
}
SAME = {"newfstatat": "fstat"}


def is_ours(call: str) -> bool:
    """Whether the library made a call: the call names the file, or it is about memory that is not
    the interpreter's."""
    if re.search(r"\b(munmap|msync|mremap)\(", call):
        # The sizes are those of the interpreter's arenas.
        return not re.search(r"munmap\(0x[0-9a-f]+, (262144|1048576)\)", call)
    return "/failing" in call


@makes_calls_fail
@pytest.mark.parametrize(
    ("scenario", "failure"), [(name, one) for name, many in FAILURES.items() for one in many]
)
def test_call_fails(victim: Victim, scenario: str, failure: str) -> None:
    """A failing call is an OSError with its number and the file's name.

    Opened files are closed, created files are removed, and the process goes on.
    """
    name, code = failure.split()
    # glibc's fstat() makes one of two system calls.
    hits = [
        (call, number)
        for call, number, ours in victim.calls(scenario)
        if ours and SAME.get(call, call) == name
    ]
    assert hits, f"{scenario} has no {name}"
    for call, number in hits:
        inject = f"inject={call}:error={code}:when={number}"
        lines, error, after = victim.run_traced(scenario, "-e", f"trace={call}", "-e", inject)
        (injected,) = (line for line in lines if "(INJECTED)" in line)
        where = f"{injected}: {error}, {after}"
        assert error is not None, where
        assert errno.errorcode[error["errno"]] == code, where
        assert error["type"] == type(OSError(error["errno"], "")).__name__, where
        assert "/failing" in (error["filename"] or ""), where
        assert [] == after["found"], where
        # strace does not make the failing call, so the map or descriptor is still there.
        assert (1 if call == "close" else 0) == after["handles"], where
        assert (after["mapped"] > 0) == (call == "munmap"), where


@makes_calls_fail
@pytest.mark.parametrize("scenario", FAILURES)
def test_all_calls_fail(victim: Victim, scenario: str) -> None:
    """The table has every call of a scenario except mremap, which has a fallback."""
    made = {SAME.get(call, call) for call, _, ours in victim.calls(scenario) if ours}
    assert made - {"mremap"} == {failure.split()[0] for failure in FAILURES[scenario]}


REMAPPED = ["GrowAlone", "GrowWithView", "RefreshAlone", "RefreshPrivateAlone"]


@makes_calls_fail
@pytest.mark.parametrize("scenario", REMAPPED)
def test_remap_fails(victim: Victim, scenario: str) -> None:
    """If mremap fails, a new map replaces the old one, without an error: S2."""
    lines, error, after = victim.run_traced(
        scenario, "-e", "trace=mremap", "-e", "inject=mremap:error=ENOMEM"
    )
    assert "(INJECTED)" in "".join(lines)
    assert (None, FINE) == (error, after)


@makes_calls_fail
@pytest.mark.parametrize("scenario", REMAPPED)
def test_no_map_after_that(victim: Victim, scenario: str) -> None:
    """If mremap and mmap fail, there is an error and nothing has changed: S4."""
    inject = "-e", "inject=mremap:error=ENOMEM", "-e", "inject=mmap:error=ENOMEM"
    lines, error, after = victim.run_traced(scenario, "-e", "trace=mremap,mmap", *inject)
    assert 2 == "".join(lines).count("(INJECTED)")
    assert errno.ENOMEM == error["errno"]
    assert FINE == after


@makes_calls_fail
@pytest.mark.parametrize("scenario", ["GrowAlone", "GrowWithView"])
def test_old_map_stays(victim: Victim, scenario: str) -> None:
    """If the replaced map cannot be unmapped, there is an OSError, and the size has changed:
    L10."""
    inject = "-e", "inject=mremap:error=ENOMEM", "-e", "inject=munmap:error=ENOMEM:when=1"
    _, error, after = victim.run_traced(scenario, "-e", "trace=mremap,munmap", *inject)
    assert errno.ENOMEM == error["errno"]
    assert after["mapped"] > 0


@makes_calls_fail
@pytest.mark.parametrize("scenario", ["Grow", "GrowWithBuffer", "GrowPastReserve"])
def test_no_way_back(victim: Victim, scenario: str) -> None:
    """If the larger file can neither be mapped nor truncated, the growth is kept, and the next use
    maps the file: S4."""
    inject = "-e", "inject=mmap:error=ENOMEM:when=1", "-e", "inject=ftruncate:error=EIO:when=1"
    lines, error, after = victim.run_traced(scenario, "-e", "trace=mmap,ftruncate", *inject)
    assert 2 == "".join(lines).count("(INJECTED)")
    assert (None, FINE) == (error, after)


@makes_calls_fail
@pytest.mark.parametrize(
    ("scenario", "call"),
    [
        ("Scenario", "openat"),
        ("Create", "fallocate"),
        ("CreateSparse", "ftruncate"),
        ("FlushFile", "fsync"),
        ("FlushView", "msync"),
        ("FlushFileLazily", "sync_file_range"),
        ("Grow", "pwrite64"),
        ("Grow", "fallocate"),
        ("GrowSparse", "ftruncate"),
        ("Shrink", "ftruncate"),
        ("Scenario", "close"),
    ],
)
def test_interrupted(victim: Victim, scenario: str, call: str) -> None:
    """An interrupted call is repeated or was complete, without an error (PEP 475)."""
    number = next(number for each, number, ours in victim.calls(scenario) if ours and each == call)
    inject = f"inject={call}:error=EINTR:when={number}"
    lines, error, after = victim.run_traced(scenario, "-e", f"trace={call}", "-e", inject)
    assert "(INJECTED)" in "".join(lines)
    assert (None, []) == (error, after["found"])


@makes_calls_fail
@pytest.mark.parametrize("scenario", ["Create", "Empty", "Grow", "GrowAlone"])
@pytest.mark.parametrize("code", ["EOPNOTSUPP", "ENOSYS"])
def test_cannot_allocate(victim: Victim, scenario: str, code: str) -> None:
    """If blocks cannot be reserved, zeros are written, without an error: S5."""
    lines, error, after = victim.run_traced(
        scenario, "-e", "trace=fallocate", "-e", f"inject=fallocate:error={code}"
    )
    assert "(INJECTED)" in "".join(lines)
    assert (None, FINE) == (error, after)


@makes_calls_fail
@pytest.mark.parametrize("scenario", ["Create", "Grow"])
def test_writing_fails_after_that(victim: Victim, scenario: str) -> None:
    """If writing the zeros fails too, there is an error and the file has not changed: S4, S5."""
    for number in range(1, 6):
        inject = (
            "-e",
            "inject=fallocate:error=EOPNOTSUPP",
            "-e",
            f"inject=pwrite64:error=ENOSPC:when={number}",
        )
        lines, error, after = victim.run_traced(scenario, "-e", "trace=fallocate,pwrite64", *inject)
        if not any("pwrite64" in line and "(INJECTED)" in line for line in lines):
            break
        assert errno.ENOSPC == error["errno"]
        assert FINE == after
    assert number > 1


@makes_calls_fail
def test_rollback_fails(victim: Victim) -> None:
    """If undoing a failed growth fails too, the first error is raised: S4."""
    inject = "-e", "inject=fallocate:error=ENOSPC", "-e", "inject=ftruncate:error=EIO"
    _, error, _ = victim.run_traced("Grow", "-e", "trace=fallocate,ftruncate", *inject)
    # The file keeps the zeros that fill its last page.
    assert errno.ENOSPC == error["errno"]


# Limits


START = """
import errno, gc, os, resource, sys
from mappedfile import PAGE_SIZE, MappedFile
from mappedfile.contract._probe import address_of, file_maps, handles

path = sys.argv[1]
content = bytes(range(256)) * (4 * PAGE_SIZE // 256)
with open(path, "wb") as file:
    file.write(content)

def refused(call, code, name=path, says=None):
    try:
        call()
    except OSError as error:
        assert (code, name) == (error.errno, error.filename), repr(error)
        assert says in error.strerror if says else os.strerror(code) == error.strerror, repr(error)
    else:
        sys.exit("no error")

def limit(kind, soft):
    resource.setrlimit(kind, (soft, resource.getrlimit(kind)[1]))

with MappedFile(path, "r+") as file, file.view() as view:  # imports what the tests need
    view[0], file[0]
    file.flush()
before = handles(), file_maps()
"""


def in_a_process(program: str, path: Path) -> None:
    """Run a program that reaches a limit of the process."""
    text = START + textwrap.dedent(program)
    run_python(*code(text), path, flags=("-W", "error"), quiet=True)


@reaches_limits
def test_no_descriptors_left(path: Path) -> None:
    """Without free descriptors, opening raises EMFILE, views of an open file work, and no new file
    is created: I2."""
    in_a_process(
        """
        with MappedFile(path, "r+") as file, open(path, "r+b") as theirs:
            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            limit(resource.RLIMIT_NOFILE, max(map(int, os.listdir("/proc/self/fd"))) + 1)
            fill = []
            try:
                while True: fill.append(os.dup(0))
            except OSError: pass
            for mode in ("r", "r+", "c"):
                refused(lambda: MappedFile(path, mode), errno.EMFILE)
            refused(lambda: MappedFile(path + "-new", "x+", size=10), errno.EMFILE, path + "-new")
            refused(lambda: MappedFile(theirs, "r+"), errno.EMFILE)
            with file.view(5, 5) as view:
                assert view[:] == content[5:10] == file[5:10]
                view.flush()
            file.resize(5 * PAGE_SIZE)
            file.resize(4 * PAGE_SIZE)
            for each in fill: os.close(each)
            limit(resource.RLIMIT_NOFILE, soft)
            assert not os.path.exists(path + "-new")
            MappedFile(path).close()
        assert before == (handles(), file_maps())
        """,
        path,
    )


@reaches_limits
def test_no_address_space_left(path: Path) -> None:
    """A map that does not fit raises ENOMEM; smaller maps still work: L10, S4.

    The file can be opened, and a part of it can be mapped.
    """
    in_a_process(
        """
        os.truncate(path, 2**32)
        small = MappedFile(path + "-small", "x+", size=PAGE_SIZE, sparse=True)
        small[0] = 1
        data = small.data
        reserved = MappedFile(path + "-reserved", "x+", size=5, sparse=True, reserve=2**26)
        reserved[0] = 1
        with open("/proc/self/statm") as statm: pages = int(statm.read().split()[0])
        limit(resource.RLIMIT_AS, pages * PAGE_SIZE + 2**25)
        held = handles(), file_maps()
        for mode in ("r", "r+", "c"):
            with MappedFile(path, mode) as file:
                for call in (lambda: file[0], lambda: file[0:10], lambda: file.find(b"x"),
                             lambda: file.data, lambda: file.view()):
                    refused(call, errno.ENOMEM)
                assert not file.mapped
                with file.view(5, 5) as view:
                    assert view[:] == content[5:10]
                if mode == "r+":
                    file.flush()
                assert len(file) == 2**32
        assert held == (handles(), file_maps())
        for kept in (True, False):
            if not kept: del data
            refused(lambda: small.resize(2**32), errno.ENOMEM, path + "-small")
            assert len(small) == PAGE_SIZE == os.path.getsize(path + "-small")
            assert small[0] == 1
        reserved.resize(2**26)  # the reserved address space is there
        reserved[2**26 - 1] = 1
        refused(lambda: reserved.resize(2**32), errno.ENOMEM, path + "-reserved")
        assert len(reserved) == 2**26 == os.path.getsize(path + "-reserved")
        reserved.close()
        small.resize(2 * PAGE_SIZE)
        assert small[:2] == b"\\1\\0"
        small.close()
        with MappedFile(path + "-small", "r+", reserve=2**40) as file:
            refused(lambda: file[0], errno.ENOMEM, path + "-small")
        gc.collect()
        assert before == (handles(), file_maps())
        """,
        path,
    )


@reaches_limits
def test_no_memory_for_a_copy(path: Path) -> None:
    """A copy that does not fit into memory raises MemoryError, and the positions do not change:
    L10."""
    in_a_process(
        """
        from mappedfile import mmap
        os.truncate(path, 2**30)
        with (MappedFile(path, "r+") as file, file.stream() as stream,
              mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as made):
            file[0]
            with open("/proc/self/statm") as statm: pages = int(statm.read().split()[0])
            limit(resource.RLIMIT_AS, pages * PAGE_SIZE + 2**25)
            for call in (lambda: file[:], lambda: file[::2], stream.read, made.read,
                         lambda: file.__setitem__(slice(None, None, -1), memoryview(file))):
                try:
                    call()
                except MemoryError:
                    continue
                sys.exit("no error")
            assert (0, 0, content[:9]) == (stream.tell(), made.tell(), file[:9])
        gc.collect()
        assert before == (handles(), file_maps())
        """,
        path,
    )


@reaches_limits
def test_no_room_in_files(path: Path) -> None:
    """Past RLIMIT_FSIZE, creation and growth raise EFBIG, no file is left, and nothing has changed:
    S4."""
    in_a_process(
        """
        limit(resource.RLIMIT_FSIZE, 6 * PAGE_SIZE)
        for sparse in (False, True):
            with MappedFile(path, "r+", sparse=sparse) as file, file.view(5) as view:
                for size in (6 * PAGE_SIZE + 1, 100 * PAGE_SIZE, 2**40):
                    refused(lambda: file.resize(size), errno.EFBIG)
                    assert (len(file), os.path.getsize(path)) == (len(content), len(content))
                    assert (file[:], view[:]) == (content, content[5:])
                file.resize(6 * PAGE_SIZE)
                view.close()
                file.resize(len(content))
            new = path + "-new"
            make = lambda: MappedFile(new, "x+", size=7 * PAGE_SIZE, sparse=sparse)
            refused(make, errno.EFBIG, new)
            assert not os.path.exists(path + "-new")
        gc.collect()
        assert before == (handles(), file_maps())
        """,
        path,
    )


@reaches_limits
def test_no_maps_left(path: Path) -> None:
    """At the system's limit of maps, views and growth raise ENOMEM. The existing views work and can
    be closed. Then everything works again: L7, L10, S4."""
    most = Path("/proc/sys/vm/max_map_count")
    only(most.exists() and int(most.read_text()) <= 300_000, "the limit of maps is too far away")
    in_a_process(
        """
        file = MappedFile(path, "r+")
        file[0]
        data = file.data
        address = address_of(data)
        reserved = MappedFile(path + "-reserved", "x+", size=5, reserve=2**20)
        reserved[0] = 1
        gc.disable()
        # At the limit Python's heap cannot grow either. It gets memory that is freed there. Some of
        # it stays in use, so that the allocators do not give the maps of the rest back.
        large = [bytes(20_000) for _ in range(100)]
        small = [bytes(400) for _ in range(20_000)]
        views = []
        try:
            # Views of the same pages: the system cannot merge them into one map.
            while True: views.append(file.view(0, 5))
        except MemoryError:  # the heap was first
            pass
        except OSError as error:
            assert (errno.ENOMEM, path) == (error.errno, error.filename), repr(error)
        for number in range(99): large[number] = None
        for number in range(20_000):
            if number % 1000: small[number] = None
        assert len(views) > 10_000
        refused(lambda: file.view(), errno.ENOMEM, says="vm.max_map_count")
        refused(lambda: file.resize(10 * PAGE_SIZE), errno.ENOMEM, says="vm.max_map_count")
        assert len(file) == len(content) == os.path.getsize(path)
        assert (file[:], address_of(data)) == (content, address)
        reserved.resize(2**20)  # needs no new map
        reserved[2**20 - 1] = 1
        views[0][0] = 7
        assert views[-1][0] == 7 == file[0]
        another = MappedFile(path)
        refused(lambda: another[0], errno.ENOMEM, says="vm.max_map_count")
        for view in views: view.close()
        assert another[0] == 7
        file.resize(10 * PAGE_SIZE)
        another.close()
        reserved.close()
        del data
        file.close()
        gc.collect()
        assert before == (handles(), file_maps())
        """,
        path,
    )


# Windows


@pytest.mark.skipif(not kernel32_calls, reason="Windows only: makes its calls fail")
@pytest.mark.parametrize("name", failing.SCENARIOS)
def test_windows_calls_fail(folder: Path, name: str) -> None:
    """A failing call on Windows is an OSError with its number and the file's name: I2, L10, S4.

    Opened files are closed, created files are removed, and the process goes on.
    """
    reserve = getattr(failing.SCENARIOS[name], "reserve", 0)
    only(capabilities().reserve or not reserve, "no address space can be reserved here")

    def play(*failure: Any) -> tuple[list[str], Any]:
        """Run the scenario. FAILURE is the name of the failing call, and its number among the calls
        of that name."""
        scenario = failing.SCENARIOS[name](folder / "-".join(map(str, ("file", *failure))))
        scenario.prepare()
        error = None
        with kernel32_calls.watched() as calls:
            calls.failing = {failure: 1234} if failure else {}
            try:
                scenario.run()
            except OSError as caught:
                error = caught  # its traceback keeps no map or handle alive
        assert bool(failure) == bool(calls.failed)
        calls.settle()
        # Old maps and handles are released after the resize: if that fails, the file is resized.
        resized = (
            scenario.file is not None
            and not scenario.file.closed
            and len(scenario.file) != failing.SIZE
        )
        scenario.look(
            error is not None and not (resized and failure[0] in kernel32_calls.RELEASING)
        )
        scenario.clean()
        return calls.names(), error and error.with_traceback(None)

    play()
    held = handles(), file_maps()
    calls, error = play()
    assert error is None
    number: Counter[str] = Counter()
    for place, call in enumerate(calls):
        number[call] += 1
        if call == "GetProcAddress":
            continue
        _, error = play(call, number[call])
        where = f"{call} {number[call]} of {calls}: {error!r}"
        if error is None:
            # No error: a grown file cannot be truncated while it is mapped. The growth is kept, and
            # the next use maps the file. With reserved address space, few calls come after the
            # growth.
            assert "Grow" in name, where
            assert "CreateFileMappingW" in calls[:place], where
            assert call in (
                ("MapViewOfFile3", "VirtualFree") if capabilities().reserve else ("MapViewOfFile",)
            ), where
        else:
            assert (1234, True) == (error.winerror, "file" in str(error.filename)), where
        assert held == (handles(), file_maps()), where
