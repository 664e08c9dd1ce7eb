"""Other handlers of SIGBUS. tests/test_guard.py compares the outcomes with and without the guard.

    python -m children.guard_signals with|without HELPER FOLDER

Each scenario runs in a fork. The program prints their exit statuses and outputs as JSON. HELPER is
tests/sigbus.c, compiled. A scenario has three parts: the handler, the time of its installation, and
the cause of the signal.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import json
import mmap
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mappedfile
from children.sigbus import Helper, Ours
from mappedfile import PAGE_SIZE, MappedFile
from mappedfile.contract._probe import address_of

SECONDS = 20  # the limit of a scenario
PLAIN, WITH_INFO, CHAINING, _, DEFAULT, IGNORED = range(6)


# Handlers


def default(helper: Helper) -> None:
    """Leave the default action."""


def ignore(helper: Helper) -> None:
    signal.signal(signal.SIGBUS, signal.SIG_IGN)


def python(helper: Helper) -> None:
    signal.signal(signal.SIGBUS, lambda *_: print("Python's handler", flush=True))


def trace(helper: Helper) -> None:
    faulthandler.enable()


def trace_and_python(helper: Helper) -> None:
    python(helper)
    faulthandler.enable()


def library(kind: int, *flags: str) -> Callable[[Helper], None]:
    def take(helper: Helper) -> None:
        assert helper.take(kind, sum(helper.flags[flag] for flag in flags)) == 0

    return take


# Times of installation


def before(take: Callable[[Helper], None], helper: Helper, folder: Path, guarded: bool) -> None:
    """Install the handler before the first map."""
    take(helper)
    ours = Ours(folder / "ours")
    if guarded:
        ours.lose()


def after(take: Callable[[Helper], None], helper: Helper, folder: Path, guarded: bool) -> None:
    """Install the handler after the last map."""
    Ours(folder / "ours")
    take(helper)


def between(take: Callable[[Helper], None], helper: Helper, folder: Path, guarded: bool) -> None:
    """Install the handler between two maps."""
    first = Ours(folder / "first")
    take(helper)
    second = Ours(folder / "second")
    if guarded:
        assert mappedfile.fault_guard()
        first.lose()
        second.lose()


def twice(take: Callable[[Helper], None], helper: Helper, folder: Path, guarded: bool) -> None:
    """Install the handler before and between maps."""
    take(helper)
    between(take, helper, folder, guarded)
    ours = Ours(folder / "ours")
    if guarded:
        ours.lose()


# Causes of the signal


def fault(helper: Helper, folder: Path) -> None:
    """Touch a missing page of another library's map."""
    print("errno", helper.touch(helper.map(folder / "foreign")))


def faults(helper: Helper, folder: Path) -> None:
    """Touch two missing pages, one after the other."""
    fault(helper, folder)
    (folder / "foreign").unlink()
    print("seen", helper.seen(), "blocked", helper.blocked(), flush=True)
    fault(helper, folder)


def fault_in_thread(helper: Helper, folder: Path) -> None:
    """Touch a missing page in a thread that has SIGUSR2 blocked."""

    def work() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        fault(helper, folder)
        print("blocked", helper.blocked())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def fault_of_mmap(helper: Helper, folder: Path) -> None:
    """Touch a missing page in a map of the standard library's mmap."""
    (folder / "mmap").write_bytes(b"m" * 2 * PAGE_SIZE)
    with (folder / "mmap").open("r+b") as file, mmap.mmap(file.fileno(), 0) as map:
        os.truncate(folder / "mmap", PAGE_SIZE)
        print(map[PAGE_SIZE])


def misaligned(helper: Helper, folder: Path) -> None:
    """Access a misaligned address."""
    buffer = ctypes.create_string_buffer(64)
    print("read it" if helper.misalign(ctypes.addressof(buffer) + 1) else "not available")


def misaligned_in_ours(helper: Helper, folder: Path) -> None:
    """Access a misaligned address in a map of the library.

    The guard must not replace the page.
    """
    data = MappedFile(folder / "last").data
    print("read it" if helper.misalign(address_of(data) + 1) else "not available")


def raised(helper: Helper, folder: Path) -> None:
    """Raise the signal in the process itself."""
    signal.raise_signal(signal.SIGBUS)
    print("lived")


def killed(helper: Helper, folder: Path) -> None:
    """Get the signal from another process during a system call."""
    data, write = os.pipe()
    wait, done = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.close(done)
        while True:
            state = Path(f"/proc/{parent}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "S":
                break
        os.kill(parent, signal.SIGBUS)
        import select

        if not select.select([wait], [], [], 0.3)[0]:
            os.write(write, b"late")
        os._exit(0)
    buffer = ctypes.create_string_buffer(10)
    found = helper.read_once(data, buffer, 10)
    os.close(done)
    os.waitpid(child, 0)
    print("read", found, buffer.value)


TAKERS: dict[str, Callable[[Helper], None]] = {
    "default": default,
    "SIG_IGN": ignore,
    "SIG_DFL, info": library(DEFAULT, "info"),  # a flag without effect, since there is no handler
    "SIG_IGN, info": library(IGNORED, "info"),
    "Python": python,
    "faulthandler": trace,
    "faulthandler on Python": trace_and_python,
    "plain": library(PLAIN),
    "plain, restarts": library(PLAIN, "restarts"),
    "plain, once": library(PLAIN, "once"),
    "plain, nests": library(PLAIN, "nests"),
    "plain, once and nests": library(PLAIN, "once", "nests"),
    "info": library(WITH_INFO),
    "info, restarts": library(WITH_INFO, "restarts", "on_stack"),
    "info, once": library(WITH_INFO, "once"),
    "info, nests": library(WITH_INFO, "nests"),
    "info, once and nests": library(WITH_INFO, "once", "nests"),
    "chaining": library(CHAINING),
}
TIMES = {each.__name__: each for each in (before, after, between, twice)}
EVENTS = {
    each.__name__: each
    for each in (
        fault,
        faults,
        fault_in_thread,
        fault_of_mmap,
        misaligned,
        misaligned_in_ours,
        raised,
        killed,
    )
}


def hangs(taker: str, event: str) -> bool:
    """Whether the signal comes without end, with the guard and without.

    It does if a handler returns without repairing the page.
    """
    if (
        event in ("misaligned", "misaligned_in_ours", "raised", "killed")
        or "once" in taker
        or taker.startswith("SIG_")
        or taker in ("default", "faulthandler")
    ):
        return False
    return taker.endswith("Python") or (event == "fault_of_mmap" and taker != "chaining")


SCENARIOS = [
    f"{taker}: {time}: {event}"
    for taker in TAKERS
    for time in TIMES
    for event in EVENTS
    # "chaining" twice would call itself.
    if not hangs(taker, event) and (taker, time) != ("chaining", "twice")
]


def run(name: str, helper: Helper, folder: Path, guarded: bool) -> None:
    taker, time, event = name.split(": ")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    if not guarded:
        mappedfile.fault_guard(False)
    TIMES[time](TAKERS[taker], helper, folder, guarded)
    (folder / "last").write_bytes(b"l" * PAGE_SIZE)
    print("begin", flush=True)
    EVENTS[event](helper, folder)
    print("seen", helper.seen(), "blocked", helper.blocked())


def outcome(name: str, helper: Helper, folder: Path, guarded: bool) -> tuple[int, str]:
    """Run a scenario in a fork; return its exit status and its output."""
    folder.mkdir()
    pid = os.fork()
    if pid == 0:
        said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 1)
        os.dup2(said, 2)
        signal.alarm(SECONDS)
        status = 1
        try:
            run(name, helper, folder, guarded)
            status = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}")
        finally:
            sys.stdout.flush()
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return status, (folder / "said").read_text().replace(str(folder), "FOLDER")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("guard", choices=["with", "without"])
    parser.add_argument("helper")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    helper = Helper(options.helper)
    outcomes: dict[str, Any] = {}
    for number, name in enumerate(SCENARIOS):
        status, said = outcome(name, helper, options.folder / str(number), options.guard == "with")
        if status == -signal.SIGALRM:
            raise SystemExit(f"{name}: hangs {options.guard} the guard")
        outcomes[name] = {"status": status, "said": said}
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main()
