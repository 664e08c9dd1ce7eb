"""The fault guard on Windows. The library's own copies stop with an error at a missing page.
Buffers are not guarded: T1.

Windows does not cut a mapped file (T2), but volumes can fail. On Wine the tests cut the file from
the Unix side. There an access violation takes the place of EXCEPTION_IN_PAGE_ERROR.
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from children import code, run_python
from children.crew import at_once
from support import need

import mappedfile
from mappedfile import GRANULARITY, PAGE_SIZE, MappedFile, MappingFault

pytest.importorskip("msvcrt", reason="no Windows: test_guard.py")

CONTENT = bytes(range(1, 256)) * (3 * GRANULARITY // 255)
SHORT = PAGE_SIZE + 50
GONE = 2 * PAGE_SIZE
ABSENT = b"\0absent"
STATUS_ACCESS_VIOLATION, STATUS_IN_PAGE_ERROR = 0xC0000005, 0xC0000006


def unix_name(path: Path) -> bytes:
    """Return the Unix name of a file; only Wine has one."""
    function = getattr(ctypes.WinDLL("kernel32"), "wine_get_unix_file_name", None)
    if function is None:
        pytest.skip(
            "Windows does not cut a mapped file, and no volume fails here:"
            " needs the Unix side of Wine"
        )
    function.restype = ctypes.c_char_p
    function.argtypes = [ctypes.c_wchar_p]
    return function(str(path))


def cut(path: Path, size: int) -> None:
    """Set the size of a file from the Unix side, which ignores maps."""
    done = path.with_name("done")
    # On Wine 10, start may return before the program ends. The size changes before the pages are
    # removed.
    script = 'truncate -s "$0" "$1" && touch "$2"'
    names = [os.fsdecode(unix_name(each)) for each in (path, done)]
    subprocess.run(
        ["start", "/wait", "/unix", "/bin/sh", "-c", script, str(size), *names], check=False
    )
    until = time.monotonic() + 20
    while not done.exists():
        need(time.monotonic() < until, "start /unix, sh, truncate and touch, on the Unix side")
    done.unlink()
    assert path.stat().st_size == size


@pytest.fixture
def path(path: Path) -> Path:
    unix_name(path)
    path.write_bytes(CONTENT)
    return path


READING: dict[str, Callable[[Any], object]] = {
    "index": lambda window: window[GONE],
    "slice": lambda window: window[GONE - 5 : GONE + 5],
    "slice with a step": lambda window: window[GONE - 30 : GONE + 30 : 7],
    "slice backwards": lambda window: window[GONE + 5 : GONE - 5 : -1],
    "iteration": list,
    "iteration from the end": lambda window: list(reversed(window)),
    "find": lambda window: window.find(ABSENT),
    "find of a byte": lambda window: window.find(b"\0", GONE),
    "rfind": lambda window: window.rfind(ABSENT),
    "count": lambda window: window.count(ABSENT),
    "in": lambda window: ABSENT in window,
}
WRITING: dict[str, Callable[[Any], object]] = {
    "assignment": lambda window: window.__setitem__(GONE, 7),
    "assignment of a slice": lambda window: window.__setitem__(slice(GONE, GONE + 3), b"new"),
    "assignment with a step": lambda window: window.__setitem__(slice(GONE, GONE + 20, 10), b".."),
}


@pytest.mark.parametrize("whose", ["file", "view"])
@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_access(path: Path, mode: Any, whose: str) -> None:
    """Every access through the library raises MappingFault where bytes are missing. Other bytes,
    views and files are not affected. When the file is whole again, refresh() makes it usable."""
    other_path = path.with_name("other")
    other_path.write_bytes(CONTENT)
    with ExitStack() as stack:
        other = stack.enter_context(MappedFile(other_path))
        assert CONTENT == other[:]
        cases = []
        for name, access in (READING if mode == "r" else READING | WRITING).items():
            file = stack.enter_context(MappedFile(path, mode))
            view, elsewhere = (
                stack.enter_context(file.view()),
                stack.enter_context(file.view(0, PAGE_SIZE)),
            )
            assert CONTENT == file[:] == view[:]
            cases.append((name, access, file, view, elsewhere))
        cut(path, SHORT)
        for name, access, file, view, elsewhere in cases:
            window = file if whose == "file" else view
            for _ in range(2):
                with pytest.raises(MappingFault) as caught:
                    access(window)
                assert (errno.EIO, str(path)) == (caught.value.errno, str(caught.value.filename)), (
                    name
                )
                # The offset of the first missing byte that was met. Operations from the end meet
                # the last one.
                end = len(CONTENT) if name in ("rfind", "iteration from the end") else GONE + 10
                assert GONE <= caught.value.offset <= end, name
            assert (True, whose == "view") == (file.faulted, view.faulted), name
            assert CONTENT[:SHORT] == window[:SHORT] == file[:SHORT], name
            assert bytes(GONE - SHORT) == window[SHORT:GONE], name
            assert (False, CONTENT[:PAGE_SIZE]) == (elsewhere.faulted, elsewhere[:]), name
            assert (False, CONTENT) == (other.faulted, other[:]), name
            if mode == "r+":
                with pytest.raises(MappingFault):
                    file.flush()
                with pytest.raises(MappingFault):
                    file.resize(len(CONTENT) + 1)
        cut(path, len(CONTENT))
        for name, _, file, view, _ in cases:
            with pytest.raises(MappingFault):  # faults continue until refresh()
                READING.get(name, READING["index"])(file if whose == "file" else view)
            file.refresh()
            assert (False, len(CONTENT)) == (file.faulted, len(file)), name
            assert CONTENT[:SHORT].ljust(len(CONTENT), b"\0") == file[:], name
            if mode == "r+":
                file[GONE:] = CONTENT[GONE:]
                file.flush()
                assert CONTENT[GONE:] == path.read_bytes()[GONE:], name
                file[GONE:] = bytes(len(CONTENT) - GONE)


def test_shorter(path: Path) -> None:
    """refresh() accepts the shorter file, with or without a fault before."""
    for met in (True, False):
        with MappedFile(path, "r+") as file:
            assert CONTENT == file[:]
            cut(path, SHORT)
            if met:
                with pytest.raises(MappingFault):
                    file[GONE]
            file.refresh()
            assert (False, CONTENT[:SHORT]) == (file.faulted, file[:])
            file.resize(len(CONTENT))
            file[:] = CONTENT
        assert CONTENT == path.read_bytes()


@pytest.mark.skipif(
    not mappedfile.capabilities().reserve, reason="no address space can be reserved here"
)
def test_reserved(path: Path) -> None:
    """A map grown in its reserved address space has several views: all of them are guarded."""
    size = len(CONTENT)
    with MappedFile(path, "r+", reserve=4 * size) as file:
        assert CONTENT == file[:]
        file.resize(2 * size + 100)
        file[size:-100] = CONTENT
        cut(path, SHORT)
        for place in (GONE, size - 1, size + GONE, 2 * size + 99):
            with pytest.raises(MappingFault):
                file[place]
        with pytest.raises(MappingFault):
            file.find(ABSENT)
        assert CONTENT[:SHORT] == file[:SHORT]
        file.refresh()
        assert CONTENT[:SHORT] == file[:]


def test_threads(path: Path) -> None:
    """Threads that meet missing pages at the same time each get MappingFault, and other threads do
    not."""
    paths = [path.with_name(f"file{number}") for number in range(4)]
    for each in paths:
        each.write_bytes(CONTENT)
    files = [MappedFile(each) for each in paths]
    for file in files:
        assert CONTENT == file[:]
    for each in paths[:3]:
        cut(each, SHORT)
    outcomes: dict[int, set[object]] = {number: set() for number in range(4)}

    def search(number: int) -> None:
        for _ in range(50):
            try:
                outcomes[number].add(files[number].find(ABSENT))
            except MappingFault as fault:
                outcomes[number].add(fault.offset)

    raised = at_once(*(partial(search, number % 4) for number in range(8)))
    assert [None] * 8 == raised
    assert {0: {GONE}, 1: {GONE}, 2: {GONE}, 3: {-1}} == outcomes
    for file in files:
        file.close()


# In child processes, which may die

PROGRAM = """
import os, sys
import mappedfile, test_guard_windows as here
from mappedfile import MappedFile
from pathlib import Path
path = Path(sys.argv[1])
"""
MAP = """
file = MappedFile(path)
assert file[:] == here.CONTENT
here.cut(path, here.SHORT)
print("cut", flush=True)
"""


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    what = (*code(PROGRAM + program), *arguments)
    return run_python(*what, flags=("-W", "ignore"), check=False, timeout=60)


@pytest.mark.parametrize(
    "what", ["file.data[here.GONE]", "bytes(file.data)", "file.view().data[here.GONE:].tobytes()"]
)
def test_buffers(path: Path, what: str) -> None:
    """Buffers are not guarded: reading a missing page ends the process, as
    capabilities().guard_buffers says."""
    assert not mappedfile.capabilities().guard_buffers
    done = run(f"{MAP}{what}\nprint('lived')", path)
    assert "cut" == done.stdout.strip(), done.stderr
    assert done.returncode in (STATUS_ACCESS_VIOLATION, STATUS_IN_PAGE_ERROR), done.stderr


def test_fault_guard(path: Path) -> None:
    """fault_guard() is false before the first map, true after it, and cannot be switched off."""
    program = """
states = [mappedfile.fault_guard()]
with MappedFile(path) as file:
    states.append(mappedfile.fault_guard())
    file[0]
    states.append(mappedfile.fault_guard())
    try:
        mappedfile.fault_guard(False)
    except RuntimeError:
        states.append("stays")
print(*states)
"""
    done = run(program, path)
    assert (0, "False False True stays") == (done.returncode, done.stdout.strip()), done.stderr


def test_fault_guard_never(path: Path) -> None:
    """With fault_guard(False), a fault ends the process."""
    for way in ("file[here.GONE]", "file.find(here.ABSENT)"):
        path.write_bytes(CONTENT)
        done = run(f"mappedfile.fault_guard(False)\n{MAP}{way}\nprint('lived')", path)
        assert "cut" == done.stdout.strip(), done.stderr
        assert done.returncode in (STATUS_ACCESS_VIOLATION, STATUS_IN_PAGE_ERROR), done.stderr


def test_fault_guard_late(path: Path) -> None:
    """fault_guard(True) after fault_guard(False) also guards the maps made before it."""
    program = f"""
mappedfile.fault_guard(False)
{MAP}
print(mappedfile.fault_guard(), mappedfile.fault_guard(True), flush=True)
for way in ("file[here.GONE]", "file[here.GONE:]", "file.find(here.ABSENT)"):
    try:
        eval(way)
    except mappedfile.MappingFault:
        print("fault", flush=True)
"""
    done = run(program, path)
    assert (0, ["cut", "False True", *["fault"] * 3]) == (
        done.returncode,
        done.stdout.splitlines(),
    ), done.stderr


@pytest.mark.parametrize("guard", ["True", "False"])
def test_faults_of_others(path: Path, guard: str) -> None:
    """Access violations of other code have the same effect as without the guard. ctypes' handler
    turns them into errors; without a handler the process ends."""
    program = f"""
import ctypes
mappedfile.fault_guard({guard})
file = MappedFile(path)
assert file[:] == here.CONTENT
for _ in range(3):
    try:
        ctypes.string_at(8, 1)
    except OSError as error:
        print(error)
sys.stdout.flush()
# In a thread of the system, without ctypes' handler.
function = ctypes.CDLL("msvcrt").memcpy
function.restype = None
kernel32 = ctypes.WinDLL("kernel32")
any = ctypes.c_void_p
kernel32.CreateThread.argtypes = [any, ctypes.c_size_t, any, any, ctypes.c_ulong, any]
kernel32.CreateThread.restype = ctypes.c_void_p
strlen = ctypes.cast(ctypes.CDLL("msvcrt").strlen, ctypes.c_void_p)
thread = kernel32.CreateThread(None, 0, strlen, 8, 0, None)
kernel32.WaitForSingleObject.argtypes = [ctypes.c_void_p, ctypes.c_ulong]
kernel32.WaitForSingleObject(thread, 10000)
print("lived")
"""
    done = run(program, path)
    assert 3 == done.stdout.count("exception: access violation reading"), (done.stdout, done.stderr)
    assert "lived" not in done.stdout
    assert STATUS_ACCESS_VIOLATION == done.returncode


@pytest.mark.parametrize("when", ["before", "after"])
def test_faulthandler(path: Path, when: str) -> None:
    """The guard works if faulthandler is enabled before or after it. faulthandler may report a
    fault that the guard repairs."""
    program = f"""
import faulthandler
{when == "before"} and faulthandler.enable()
file = MappedFile(path)
assert file[:] == here.CONTENT
{when == "after"} and faulthandler.enable()
here.cut(path, here.SHORT)
try:
    file[here.GONE]
except mappedfile.MappingFault:
    print("fault")
"""
    done = run(program, path)
    assert (0, "fault") == (done.returncode, done.stdout.strip()), done.stderr
    assert ("Windows fatal exception" in done.stderr) == (when == "after"), done.stderr
