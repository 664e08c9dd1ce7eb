"""The fault guard: T1.

A process survives a missing page of a map, and other code gets SIGBUS as without the guard.
test_guard_windows.py has the tests for Windows. These tests also show the limits of the guard,
which docs/guard.md lists.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from children import child, run_command, run_python, start_python
from children import guard_signals as guarding
from conftest import STRESS
from support import LINUX, mounts, need, only, small_file_system, unmount

import mappedfile
from mappedfile import PAGE_SIZE
from mappedfile.contract import CLAUSES, STDLIB, Broken

pytestmark = pytest.mark.skipif(
    not mappedfile.capabilities().guard_buffers, reason="no SIGBUS: test_guard_windows.py"
)

HERE = Path(__file__).parent
MAX_MAPS = Path("/proc/sys/vm/max_map_count")


def run(
    program: str, task: str, *arguments: object, timeout: float = 60, check: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a task of a program in tests/children/, and return how it ended."""
    what = (*child(program), task, *arguments)
    environment = {"PYTHONFAULTHANDLER": None}
    return run_python(*what, flags=("-W", "error"), env=environment, timeout=timeout, check=check)


def said(program: str, task: str, *arguments: object, timeout: float = 60) -> str:
    """Run a task that must succeed, and return its output."""
    return run(program, task, *arguments, timeout=timeout, check=True).stdout.strip()


def dies(
    program: str, task: str, *arguments: object, by: int = getattr(signal, "SIGBUS", 0)
) -> str:
    """Run a task that a signal must end, and return its output."""
    done = run(program, task, *arguments)
    assert (-by, "") == (done.returncode, done.stderr)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def helper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile tests/sigbus.c, which stands for another library."""
    library = tmp_path_factory.mktemp("helper") / "sigbus.so"
    subprocess.run(
        [compiler(), "-O1", "-shared", "-fPIC", "-o", library, HERE / "sigbus.c", "-lpthread"],
        check=True,
    )
    return library


def compiler() -> str:
    """Return the name of a C compiler."""
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    need(found, "a C compiler")
    return str(found)


# Faults at any moment


def test_rounds(folder: Path) -> None:
    """Another process cuts the file at any moment during reads, writes, searches, sums of arrays,
    flushes, resizes, opening and closing. Each operation has its right result or raises
    MappingFault, and nothing leaks."""
    number = 1000 if STRESS else 30
    seed = os.environ.get("MAPPEDFILE_SEED", time.time_ns())
    met = int(said("guard_rounds", "rounds", folder, seed, number, timeout=600 if STRESS else 60))
    assert met > number // 10, f"only {met} rounds met a fault, with seed {seed}"


@pytest.mark.parametrize("subject", STDLIB, ids=str)
def test_oracle_dies(subject: object, folder: Path) -> None:
    """mmap: the first access to a missing page ends the process with SIGBUS, in every mode."""
    with pytest.raises(Broken, match=rf"status -{signal.SIGBUS:d}: Fatal Python error: Bus error"):
        CLAUSES["T1"].check(subject, folder)


def test_threads(folder: Path) -> None:
    """Several threads meet missing pages at the same time, in separate maps and in a shared one,
    while others open and close maps. Each gets its faults and its right data."""
    assert int(said("guard_threads", "storm", folder, 1000 if STRESS else 20, timeout=600)) > 0


def test_many_maps(folder: Path) -> None:
    """With a hundred thousand maps, the guard finds each one, and marks only those with a fault.
    Closing maps in any order does not affect the others."""
    assert "202" == said("guard_maps", "many_maps", folder, 100_000, timeout=300)


@pytest.mark.parametrize("reserve", [0, 64 * PAGE_SIZE], ids=["moved", "in its room"])
def test_grown(folder: Path, reserve: int) -> None:
    """A map that was grown, in place or moved, is guarded as a whole."""
    assert "done" == said("guard_maps", "grown", folder, reserve)


def test_interrupts(folder: Path) -> None:
    """An exception from a signal handler, such as KeyboardInterrupt, comes during mapping and
    unmapping. No map leaks, and the guard's list has no map that does not exist."""
    assert "done" == said(
        "guard_maps", "interrupts", folder, 100_000 if STRESS else 3000, timeout=600
    )


# fork and sub-interpreters


def test_fork(folder: Path) -> None:
    """A child has the guard, maps and marks of its parent. Later faults in one process do not
    affect the other."""
    assert "done" == said("guard_forks", "fork", folder)


@pytest.mark.parametrize("guard", ["with", "without"])
def test_fork_while_others_map(folder: Path, guard: str) -> None:
    """A child forked while threads map, unmap and meet faults can do the same, with the guard and
    without."""
    assert "done" == said(
        "guard_forks",
        "fork_storm",
        folder,
        3000 if STRESS else 200,
        guard,
        timeout=600 if STRESS else 120,
    )


def test_sub_interpreters(folder: Path) -> None:
    """Sub-interpreters that share the GIL use one guard, whichever was first. Each counts its own
    maps."""
    need_interpreters()
    lines = said("guard_interpreters", "interpreters", folder).splitlines()
    assert ["False 116 True MappingFault True", *["True 116 True MappingFault True"] * 2] == lines


def test_sub_interpreter_with_a_gil(folder: Path) -> None:
    """A sub-interpreter with its own GIL (Python 3.12) gets an ImportError."""
    need_interpreters()
    only(sys.version_info >= (3, 12), "sub-interpreters share the GIL before Python 3.12")
    assert "does not support loading in subinterpreters" in said(
        "guard_interpreters", "interpreter_with_gil", folder
    )


def need_interpreters() -> None:
    only(
        importlib.util.find_spec("_interpreters") or importlib.util.find_spec("_xxsubinterpreters"),
        "no sub-interpreters here",
    )


def test_child_programs(folder: Path) -> None:
    """A child program does not inherit the guard: exec restores the default action."""
    assert signal.SIG_DFL == int(said("guard_forks", "inherits", folder))


# fault_guard()


def test_fault_guard(folder: Path) -> None:
    """fault_guard() is false before the first map and true after it. Then it cannot be switched
    off: RuntimeError.

    After another handler took SIGBUS, it returns false, and still cannot be switched off. Arguments
    other than a bool raise TypeError.
    """
    assert "False False True True False" == said("guard_switch", "states", folder)


def test_fault_guard_with_a_view(folder: Path) -> None:
    """A view can be the first map."""
    assert "True" == said("guard_switch", "first_view", folder)


def test_fault_guard_never(folder: Path) -> None:
    """With fault_guard(False) there is no handler, and a fault ends the process."""
    assert "False False True False" == dies("guard_switch", "switched_off", folder)


def test_fault_guard_late(folder: Path) -> None:
    """fault_guard(True) after fault_guard(False) also guards the maps made before it, and later
    maps install the guard again."""
    assert "False True True" == said("guard_switch", "switched_on_late", folder)


# Other handlers of SIGBUS


@pytest.fixture(scope="module")
def outcomes(
    helper: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, dict[str, object]]]:
    """Return the outcome of each scenario of tests/children/guard_signals.py, with the guard and
    without."""
    with ExitStack() as stack:
        running = {}
        for guard in ("with", "without"):
            what = (*child("guard_signals"), guard, helper, tmp_path_factory.mktemp(guard))
            started = start_python(*what, flags=("-W", "ignore"), limit=300)
            running[guard] = stack.enter_context(started)
        return {guard: json.loads(talk.end(quiet=True).stdout) for guard, talk in running.items()}


def comparable(outcome: dict[str, object]) -> tuple[object, str]:
    """Return the exit status and the output of a scenario, without the parts that always differ.

    These are the addresses of threads, other threads, and the guard's functions in faulthandler's C
    stack (Python 3.14).
    """
    text = re.sub(r"0x[0-9a-f]+", "0x", str(outcome["said"]).partition("\nThread 0x")[0])
    left_out = ("threading.py", "/mappedfile/_native.")
    return outcome["status"], "\n".join(
        line for line in text.splitlines() if not any(map(line.__contains__, left_out))
    )


@pytest.mark.parametrize(
    "name", dict.fromkeys(name.rpartition(": ")[0] for name in guarding.SCENARIOS)
)
def test_signal_of_others(outcomes: dict[str, dict[str, dict[str, object]]], name: str) -> None:
    """A SIGBUS that is not the library's has the same effect as without the guard.

    Its causes are a page of another map, a misaligned address, raise(), and kill() during a system
    call. The process ends in the same way, or the same handler runs. The handler gets the same
    signal, code, address, errno and blocked signals, interrupts the same calls, and runs as often.
    """
    with_guard, without = outcomes["with"], outcomes["without"]
    scenarios = [scenario for scenario in with_guard if scenario.rpartition(": ")[0] == name]
    assert scenarios
    for scenario in scenarios:
        assert "begin" in without[scenario]["said"], (scenario, without[scenario])
        assert comparable(without[scenario]) == comparable(with_guard[scenario]), scenario


def test_signals_of_others_that_hang() -> None:
    """The scenarios left out never end, with the guard or without: a handler that returns without
    repairing the page runs again and again."""
    left_out = {
        f"{taker}: {event}"
        for taker in guarding.TAKERS
        for event in guarding.EVENTS
        if guarding.hangs(taker, event)
    }
    handlers = [
        taker
        for taker in guarding.TAKERS
        if taker.split(",")[0] in ("plain", "info") and "once" not in taker
    ]
    pythons = ("Python", "faulthandler on Python")
    assert left_out == {
        *(
            f"{taker}: {event}"
            for taker in pythons
            for event in ("fault", "faults", "fault_in_thread", "fault_of_mmap")
        ),
        *(f"{taker}: fault_of_mmap" for taker in handlers),
    }


def test_what_the_scenarios_are(outcomes: dict[str, dict[str, dict[str, object]]]) -> None:
    """The scenarios have real effects: processes end by SIGBUS, handlers run, and calls are
    interrupted."""
    outcome = outcomes["with"]
    bus = -signal.SIGBUS
    assert (bus, "begin\n") == (
        outcome["default: before: fault"]["status"],
        outcome["default: before: fault"]["said"],
    )
    assert (
        bus
        == outcome["SIG_IGN: between: fault"]["status"]
        == outcome["default: twice: killed"]["status"]
    )
    assert "b'late'" in outcome["SIG_IGN: twice: killed"]["said"]
    for time_ in guarding.TIMES:
        assert "Fatal Python error: Bus error" in outcome[f"faulthandler: {time_}: fault"]["said"]
        assert "Python's handler\nread -4" in outcome[f"Python: {time_}: killed"]["said"]
        assert (
            "'calls': 2, 'number': 7, 'code': 2" in outcome[f"info: {time_}: faults"]["said"]
            or not LINUX
        )
        assert bus == outcome[f"plain, once: {time_}: faults"]["status"]
        for event in ("misaligned", "misaligned_in_ours") if LINUX else ():
            assert bus == outcome[f"SIG_IGN: {time_}: {event}"]["status"]
            assert (
                "read it\nseen {'calls': 3, 'number': 7, 'code': 1"
                in outcome[f"info: {time_}: {event}"]["said"]
            )


def test_handler_that_jumps(helper: Path, folder: Path) -> None:
    """Another handler may jump out of the guard's handler. The next fault is handled, and no signal
    stays blocked."""
    assert "True" == said("guard_others", "jumps", folder, helper)


def test_chain(helper: Path, folder: Path) -> None:
    """A handler installed after the guard passes on the signals of other maps. So the guard gets
    its signals."""
    assert "True True" == said("guard_others", "chained", folder, helper)


def test_faulthandler_on_and_off(folder: Path) -> None:
    """faulthandler is enabled and disabled in every order, with maps between. After a map the guard
    works. A fault of other code ends the process, with faulthandler's report if that is enabled."""
    assert "243" == said("guard_others", "toggles", folder, timeout=180)


def test_taken(folder: Path) -> None:
    """A handler installed after the guard comes first, until a whole file is mapped.

    Then the guard is first again. Mapping a view does not change the handler.
    """
    assert " ".join(["False False True"] * 3) == said("guard_others", "taken", folder)


def test_taken_by_who_does_not_pass_it_on(folder: Path) -> None:
    """A handler installed after the guard that does not pass on the signal gets the library's
    faults.

    faulthandler reports and lets the process end. A Python handler is called again and again.
    """
    done = run("guard_others", "later", folder, "faulthandler")
    assert (-signal.SIGBUS, "False") == (done.returncode, done.stdout.strip())
    assert "Fatal Python error: Bus error" in done.stderr
    assert "False" == dies("guard_others", "later", folder, "Python", by=signal.SIGALRM)


def test_signal_module(folder: Path) -> None:
    """signal.getsignal() does not show the guard: it shows only handlers set from Python."""
    assert f"True {signal.SIG_DFL:d}" == said("guard_others", "unseen", folder)


def test_stack(helper: Path, folder: Path) -> None:
    """The guard's handler and the one before it run on the thread's alternate stack, if the thread
    has one."""
    assert "0 1" == said("guard_others", "on_the_stack", folder, helper)


def test_taken_by_many(helper: Path, folder: Path) -> None:
    """The guard installs itself again over up to four different handlers. Over a fifth it does not,
    and fault_guard() returns false."""
    assert "True True True True False True True" == said(
        "guard_others", "taken_by_many", folder, helper
    )


# Limits of the guard


def test_read_only(folder: Path) -> None:
    """The zeros in a read-only map are read-only too: writing raises SIGSEGV, as in the rest of the
    map."""
    only(Path("/proc/self/maps").exists(), "this system has no /proc/self/maps")
    assert "r--p" == dies("guard_limits", "reads_only", folder, by=signal.SIGSEGV)


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_errno(helper: Path, folder: Path, mode: str) -> None:
    """The guard's handler does not change errno."""
    assert "True True" == said("guard_others", "keeps_errno", folder, helper, mode)


def test_signals_wait(helper: Path, folder: Path) -> None:
    """The guard's handler blocks other signals.

    So the handler of another signal cannot jump out of it.
    """
    assert "15" == said("guard_others", "blocks", folder, helper)


@pytest.mark.parametrize("flags", [(), ("-DUNTRUSTED_CODES",)], ids=["", "as on macOS"])
def test_inside(folder: Path, flags: tuple[str, ...]) -> None:
    """tests/posix_inside.c includes posix_guard.c, and tests what depends on exact timing."""
    program = folder / "inside"
    backends = HERE.parent / "backends"
    sources = [HERE / "posix_inside.c", backends / "posix.c", backends / "search.c"]
    subprocess.run(
        [compiler(), "-O1", *flags, "-I", backends, "-o", program, *sources, "-lpthread"],
        check=True,
    )
    assert "all is well\n" == run_command([program, folder / "file"], timeout=60).stdout


def test_blocked(folder: Path) -> None:
    """A thread that has blocked SIGBUS cannot be saved: the system ends the process."""
    assert "blocked" == dies("guard_limits", "blocked", folder)


def test_system_calls(folder: Path) -> None:
    """System calls on a buffer with missing pages fail with EFAULT, and set no mark. After the page
    is replaced, the calls read zeros."""
    assert "True False True False True 10 4" == said("guard_limits", "system_calls", folder)


def test_lost_silently(folder: Path) -> None:
    """A private map can lose written bytes without a fault.

    This happens if the file was cut and is whole again before the next access.
    """
    assert "1 True False" == said("guard_limits", "lost_silently", folder)


def test_no_room_for_zeros(folder: Path) -> None:
    """At the system's limit of maps, the page of zeros cannot be mapped, and the process ends as
    without the guard."""
    only(MAX_MAPS.exists(), "this system has no /proc/sys/vm/max_map_count")
    only(
        int(MAX_MAPS.read_text()) <= 300_000,
        f"{MAX_MAPS} is so large that it takes too long to reach",
    )
    assert "full" == dies("guard_limits", "too_many_maps", folder)


# Disks and devices


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_full_disk(folder: Path, kind: str) -> None:
    """Writing into a hole on a full disk raises MappingFault, and other pages are not affected.
    When there is room again, refresh() makes the page usable."""
    with small_file_system(folder, kind, 8 << 20) as place:
        (place / "filler").write_bytes(bytes(4 << 20))
        assert "done" == said("guard_disks", "fills_the_disk", place)


def test_full_disk_with_a_few_blocks(folder: Path) -> None:
    """If the disk has less free space than a page needs, the message says that the disk is full."""
    with small_file_system(folder, "ext4", 8 << 20) as place:
        blocks, *reasons = said("guard_disks", "few_blocks_are_free", place).split()
        assert [*["ENOSPC"] * int(blocks), "EIO"] == reasons
        assert int(blocks) > 1


def test_full_disk_inside_a_page(folder: Path) -> None:
    """Writing into the hole of a page with some data raises MappingFault on a full disk. Buffers
    keep the data and show the written bytes, but these do not reach the file."""
    with small_file_system(folder, "ext4", 8 << 20) as place:
        assert "done" == said("guard_disks", "fills_the_disk_inside", place)


def test_disk_that_is_cut(folder: Path) -> None:
    """If the backing file of a loop device loses its second half, readable pages are right, and
    others raise MappingFault."""
    with small_file_system(folder, "ext4", 16 << 20) as place:
        path = place / "file"
        path.write_bytes(
            b"".join(
                number.to_bytes(8, "little") * (PAGE_SIZE // 8)
                for number in range(0, 12 << 20, PAGE_SIZE)
            )
        )
        os.sync()
        right, gone, faulted = said("guard_disks", "disk_goes", path, folder / "ext4.image").split()
        assert "True" == faulted
        assert int(right) + int(gone) == (12 << 20) // PAGE_SIZE
        assert int(right) > 100
        assert int(gone) > 100


@contextmanager
def failing_file_system(folder: Path, pages: int) -> Iterator[tuple[Path, Path]]:
    """Mount tests/children/fuse.py. Yield its file, and the file that lists the failing pages."""
    need(mounts() and Path("/dev/fuse").exists(), "/dev/fuse, and to mount file systems")
    place, control = folder / "mnt", folder / "control"
    place.mkdir()
    control.touch()
    with start_python(*child("fuse"), place, pages, control, limit=300) as server:
        try:
            said = server.hear()
            need(said == "ready", f"to mount a FUSE file system: {said}")
            yield place / "file", control
        finally:
            if os.path.ismount(place):
                unmount(place)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_device_that_fails(folder: Path, mode: str) -> None:
    """Pages that a device cannot read raise MappingFault with their offsets, and arrays show zeros
    there. When the device works again, refresh() makes them usable.

    The mark is one range: good pages between two failed ones are refused too. A view can read them.
    """
    with failing_file_system(folder, 9) as (path, control):
        assert "done" == said("guard_disks", "device_fails", path, control, mode)
