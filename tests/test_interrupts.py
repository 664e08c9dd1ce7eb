"""Interrupts and signal handlers at any moment of any call: S4, L7. See
tests/children/interrupting.py."""

from __future__ import annotations

import gc
import random
import re
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from children import child, code, interrupted, interrupting, run_python
from conftest import STRESS
from support import LINUX, need, only, strace

from mappedfile import MappedFile

# Objects that are open during an interrupt are not closed.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.mark.parametrize("what", interrupted.CALLS)
@pytest.mark.parametrize("event", ["line", "opcode"])
def test_at_every_place(folder: Path, what: str, event: str) -> None:
    """Ctrl-C comes at each line and each instruction of the library. The call has no effect or its
    full effect, and nothing leaks."""
    call = interrupted.CALLS[what]
    with interrupted.given(folder) as given:
        interrupted.once(call, *given)  # the first run imports modules
    for number in range(10_000):
        with interrupted.given(folder) as given:
            came = interrupting.interrupted_at(number, event, call, *given)
            del given
            gc.collect(0)
        if not came:
            break
    else:
        pytest.fail("the call has too many lines or instructions")


# By timers

ROUNDS = 100_000 if STRESS else 1000
timers = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="this system has no interval timers"
)


@pytest.fixture
def timer() -> Iterator[Callable[..., interrupting.Timer]]:
    """Return a function that makes timers. They end with the test."""
    made = []

    def make(*arguments: Any) -> interrupting.Timer:
        made.append(interrupting.Timer(*arguments))
        return made[-1]

    yield make
    for one in reversed(made):
        one.close()


@pytest.fixture
def shared_memory() -> Iterator[Path]:
    """Yield a folder in a tmpfs, where allocating blocks takes long."""
    only(Path("/dev/shm").is_dir(), "no tmpfs at /dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="mappedfile-", dir="/dev/shm"))
    yield folder
    shutil.rmtree(folder)


@timers
def test_at_any_time(folder: Path, timer: Callable[..., interrupting.Timer]) -> None:
    """Ctrl-C comes thousands of times, at any time in any call. No descriptor, map or count leaks,
    and the objects stay usable."""
    interrupt = timer()
    dice = random.Random(1)
    names = sorted(interrupted.CALLS)
    came = 0
    for what in names:
        with interrupted.given(folder) as given:
            interrupted.once(interrupted.CALLS[what], *given)  # the first run imports modules
    for _ in range(ROUNDS):
        call = interrupted.CALLS[dice.choice(names)]
        with interrupted.given(folder) as given:
            came += interrupt(dice.choice([1, 50, 100, 300]) * 1e-6, call, *given)
            del given
    print(came, "interrupts in", ROUNDS, "calls")
    assert came > ROUNDS // 20


@timers
def test_in_long_calls(shared_memory: Path, timer: Callable[..., interrupting.Timer]) -> None:
    """Ctrl-C comes during long system calls: many MiB to allocate, search and release."""
    interrupt = timer()
    dice = random.Random(2)
    large = 64 << 20
    calls: dict[str, interrupted.Call] = {
        "open": lambda file, path: MappedFile(path, "w+", size=large),
        "resize up": lambda file, path: file.resize(large),
        "resize down": lambda file, path: (file.resize(large), file.resize(5)),
        "populate": lambda file, path: MappedFile(path, "w+", size=large, populate=True),
        "find": lambda file, path: (file.resize(large), file.find(b"absent")),
    }
    came = 0
    for number in range(2000 if STRESS else 20):
        call = list(calls.values())[number % len(calls)]
        with interrupted.given(shared_memory) as given:
            came += interrupt(dice.choice([0.0003, 0.002, 0.01, 0.02]), call, *given)
            del given
    print(came, "interrupts")
    assert came > 3


@timers
@pytest.mark.parametrize("name", interrupting.HANDLERS)
def test_handlers_that_use_it(
    shared_memory: Path, timer: Callable[..., interrupting.Timer], name: str
) -> None:
    """A signal handler uses the object while the same thread is in a call. It succeeds, or gets an
    error that the object is in use."""
    large = 48 << 20
    calls: dict[str, interrupted.Call] = {
        "resize up": lambda file, path: file.resize(large),
        "resize down": lambda file, path: (file.resize(large), file.resize(500)),
        "find": lambda file, path: (file.resize(large), file.count(b"absent")),
        "flush": lambda file, path: file.flush(),
        "lock": lambda file, path: (file.lock(), file.unlock()),
        "advise": lambda file, path: file.advise("populate_read"),
    }
    nested = interrupting.Nested(name, 1000)
    beat = timer(nested)
    refused = 0
    for what, call in calls.items():
        with interrupted.given(shared_memory) as (file, path):
            nested.file = file
            try:
                beat(0.001, call, file, path, 0.003)
            except (BufferError, ValueError) as error:
                # The only errors are that the handler closed the file, or uses it.
                refused += 1
                allowed = (
                    "is closed|never opened"
                    if name == "close"
                    else "is using its memory|refresh\\(\\) first|alive"
                )
                assert re.search(allowed, str(error)), (what, error)
            nested.file = None
            nested.settle(what)
            del file
    print(name, nested.done, nested.refused, refused)
    assert nested.done + nested.refused > 0 or name == "close"


# System calls that fail with EINTR and a signal, the first two times


@pytest.mark.skipif(not LINUX, reason="strace is on Linux only")
@pytest.mark.parametrize("how", ["use", "raise"])
@pytest.mark.parametrize(
    "system_call", ["openat", "fallocate", "ftruncate", "msync,fsync,fdatasync,sync_file_range"]
)
def test_every_system_call(folder: Path, system_call: str, how: str) -> None:
    """A system call that a signal interrupts is repeated after the handler. The handler may use the
    file, or raise."""
    need(strace(), "strace, and permission to trace")
    inject = f"inject={system_call}:error=EINTR:signal=SIGUSR1:when=1+2"
    # The last path is that of a new file without a name.
    paths = ["-P", folder / "file", "-P", folder / "free", "-P", f"{folder}/."]
    watch = [strace(), "-f", "--quiet=all", "-o", folder / "log", "-e", f"trace={system_call}"]
    done = run_python(
        *child("interrupting"),
        folder,
        how,
        flags=("-W", "ignore::ResourceWarning"),
        under=[*watch, "-e", inject, *paths],
        quiet=True,
        timeout=300,
    )
    print(done.stdout, (folder / "log").read_text().count("INJECTED"))
    came = eval(done.stdout)
    assert came["called"] > 10
    assert came["done"] > 5
    assert (how == "raise") == (came["raised"] > 0)


LOCKS = """
import sys
from mappedfile import PAGE_SIZE, MappedFile
from mappedfile.contract._probe import file_maps, handles
path = sys.argv[1]
failed = 0
for number, mapped in enumerate((False, True, False, True)):
    before = handles(), file_maps()
    file = MappedFile(path, "w+", size=3 * PAGE_SIZE)
    for _ in range(5):
        if mapped:
            file[0]
        grow = lambda: file.resize(len(file) + PAGE_SIZE)
        shrink = lambda: file.resize(len(file) - 1)
        for call in (file.lock, grow, shrink, file.refresh):
            try:
                call()
            except OSError:
                failed += 1
        if file.mapped:
            file[0]
        file.unlock()
        file.resize(2 * PAGE_SIZE)  # works: nothing uses the memory
        file.resize(3 * PAGE_SIZE)
    file.close(strict=True)
    assert not file.mapped
    assert before == (handles(), file_maps()) or number < 2  # errors import modules
print(failed)
"""


@pytest.mark.skipif(not LINUX, reason="strace is on Linux only")
@pytest.mark.parametrize("when", ["1+", "1+2", "2+2", "2+3", "3+4"])
def test_locks_that_fail(folder: Path, when: str) -> None:
    """A lock that fails unmaps the maps that it made.

    The counts of other maps do not change.
    """
    need(strace(), "strace, and permission to trace")
    inject = f"inject=mlock,mlock2:error=ENOMEM:when={when}"
    watch = [strace(), "-f", "-qq", "-o", folder / "log", "-e", "trace=mlock,mlock2"]
    under = [*watch, "-e", inject]
    done = run_python(*code(LOCKS), folder / "file", under=under, quiet=True, timeout=300)
    assert int(done.stdout) > 3


# During a call of the backend

WAITING = """
import os, signal, sys, threading
from mappedfile._native import ffi, lib
from support import import_with

class Interrupted(Exception): pass

def handler(number, frame):
    # Raise only in C code, not in the functions below. The timer repeats.
    if armed and frame.f_code not in ours:
        armed.clear()
        raise Interrupted

armed = set()

@ffi.callback("int(mf_file *, mf_growth *, mf_section *)")
def grow(*arguments):
    begun.set()
    ended.wait()
    return lib.mf_grow(*arguments)

def process():
    if threading.current_thread() is threading.main_thread():
        armed.add(1)
    return lib.mf_process()

def lock(*arguments):
    armed.add(1)
    return interrupted

ours = process.__code__, lock.__code__
process = ffi.callback("int()", process)
lock = ffi.callback("int(char *, size_t)", lock)

replaced = {"lock": lock} if sys.argv[2] == "lock" else {"grow": grow, "process": process}
package = import_with(**replaced)
interrupted = package._system.INTERRUPTED
begun, ended = threading.Event(), threading.Event()
file = package.MappedFile(sys.argv[1], "r+")
stream = file.stream(grow=True)
stream.seek(0, 2)
thread = threading.Thread(target=file.resize, args=(len(file) + 5,))
if sys.argv[2] != "lock":
    thread.start()
    begun.wait()
calls = {"resize": lambda: file.resize(9), "refresh": lambda: file.refresh(),
         "write": lambda: stream.write(b"abc"), "lock": lambda: file.lock()}
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
try:
    calls[sys.argv[2]]()
except Interrupted:
    pass
else:
    sys.exit("it was not interrupted")
signal.setitimer(signal.ITIMER_REAL, 0)
ended.set()
if sys.argv[2] != "lock":
    thread.join()
    assert len(file) == 105 == os.path.getsize(sys.argv[1]), len(file)
    file.refresh()
stream.close()
file.close(strict=True)
"""


@timers
@pytest.mark.parametrize("call", ["resize", "refresh", "write", "lock"])
def test_while_it_waits(path: Path, call: str) -> None:
    """A handler raises while a call waits for another thread's change of the size, or while the
    system locks pages. The call ends without an effect, and the file stays usable."""
    path.write_bytes(bytes(100))
    run_python(*code(WAITING), path, call, quiet=True, timeout=20)


@timers
@pytest.mark.parametrize("action", ["seek", "close"])
def test_a_handler_uses_the_stream(path: Path, action: str) -> None:
    """A handler moves or closes a stream that searches for the end of a line. The search starts
    again from the new position, or raises ValueError."""
    size = 1 << 28
    with open(path, "wb") as made:
        made.truncate(size)
    file = MappedFile(path)
    stream = file.stream()
    came = []

    def handler(number: int, frame: object) -> None:
        if not came:
            came.append(number)
            stream.seek(10) if action == "seek" else (stream.close(), file.close())

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        try:
            line = stream.readline()
        except ValueError:
            assert action == "close"
        else:
            assert len(line) in (size, size - 10)
        while not came:
            signal.pause()
    finally:
        signal.signal(signal.SIGALRM, before)
        file.close()
        stream.close()
