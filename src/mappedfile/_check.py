"""Runs the contract in a folder: every clause, in every mode it speaks of.

The checks run in a process of their own, which may crash or hang.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import mappedfile
from mappedfile.contract import CLAUSES, NATIVE, Clause, NotHere

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from multiprocessing.connection import Connection

Result: TypeAlias = Literal["holds", "fails", "not_here"]

#: Of the JSON report. It changes when a field goes away or changes its meaning, not when one is added.
SCHEMA = 1


class Outcome(NamedTuple):
    """How one clause fared in one mode."""

    mode: str
    result: Result
    message: str
    seconds: float


@dataclass(frozen=True)
class Row:
    """How one clause fared, all modes together."""

    clause: Clause
    outcomes: tuple[Outcome, ...]

    @property
    def result(self) -> Result:
        """It fails if it fails in one mode, and holds if it holds in one and fails in none."""
        results = {outcome.result for outcome in self.outcomes}
        return "fails" if "fails" in results else "holds" if "holds" in results else "not_here"

    def reasons(self) -> list[tuple[str, Result, str]]:
        """Why it does not hold, or not everywhere: the modes that say the same, their result, what they say."""
        said: dict[tuple[Result, str], list[str]] = {}
        for outcome in self.outcomes:
            if outcome.result != "holds":
                said.setdefault((outcome.result, outcome.message), []).append(outcome.mode)
        return [(", ".join(modes), result, message) for (result, message), modes in said.items()]


@dataclass(frozen=True)
class Plan:
    """What is to be run: clauses and, for each, the modes."""

    steps: tuple[tuple[Clause, tuple[str, ...]], ...]
    timeout: float

    @classmethod
    def of(cls, clauses: Collection[str] = (), modes: Collection[str] = (), timeout: float = 60) -> Plan:
        """Choose the clauses, by id or letter, and the modes; none chosen means all.

        Raises ``ValueError`` when there is nothing to run.
        """
        known = {*CLAUSES, *(id[0] for id in CLAUSES)}
        if unknown := [name for name in clauses if name not in known]:
            raise ValueError(f"no such clause: {', '.join(unknown)}; there are {', '.join(CLAUSES)}")
        steps = []
        for clause in CLAUSES.values():
            if not clauses or clause.id in clauses or clause.id[0] in clauses:
                chosen = tuple(mode for mode in clause.modes if not modes or mode in modes)
                if chosen:
                    steps.append((clause, chosen))
        if not steps:
            raise ValueError(f"the clauses chosen do not speak of mode {' or '.join(modes)}")
        return cls(tuple(steps), timeout)

    def __len__(self) -> int:
        return sum(len(modes) for _, modes in self.steps)

    def run(self, folder: Path, on_start: Callable[[str], None] = lambda _: None) -> list[Row]:
        """Run it in *folder*; before each step *on_start* gets its name.

        Raises ``OSError`` if the folder cannot be used.
        """
        rows = []
        with scratch(folder) as room, closing(Worker(self.timeout)) as worker:
            for clause, modes in self.steps:
                outcomes = []
                for mode in modes:
                    on_start(f"{clause.id} {mode}")
                    outcomes.append(worker.run(clause.id, mode, room / f"{clause.id}-{mode.replace('+', 'plus')}"))
                rows.append(Row(clause, tuple(outcomes)))
        return rows


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Make a fresh folder in *folder*, and remove it whatever happens."""
    room = Path(tempfile.mkdtemp(prefix="mappedfile-check-", dir=folder))
    try:
        yield room
    finally:
        # A program just killed may hold its files a moment longer, and open files cannot be deleted everywhere.
        for pause in (0, 0.1, 0.3, 1, 3):
            time.sleep(pause)
            shutil.rmtree(room, ignore_errors=True)
            if not room.exists():
                break
        else:
            print(f"mappedfile check: could not remove {room}", file=sys.stderr)


class Worker:
    """A child process that runs one check at a time. One that failed is the last: nothing leaks into the next."""

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self.process: Any = None
        self.pipe: Any = None

    def run(self, id: str, mode: str, room: Path) -> Outcome:
        """Run one check, and live to tell."""
        if self.process is None:
            self.start()
        started = time.perf_counter()
        result, message = self.ask(id, mode, room)
        if result == "fails":
            self.close()
            shutil.rmtree(room, ignore_errors=True)
        return Outcome(mode, result, message, round(time.perf_counter() - started, 3))

    def start(self) -> None:
        """Start the process. Spawned on every system: a fork would take locks and threads of its caller's along."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs,), name="mappedfile check")
        with no_interrupt():  # the process hears of it when it has made itself ready
            self.process.start()
        theirs.close()
        with suppress(EOFError, OSError):
            if self.pipe.poll(60):  # before the check's own time begins
                self.pipe.recv()

    def ask(self, *job: Any) -> tuple[Result, str]:
        """Send the job, and wait for what came of it."""
        until = time.monotonic() + self.timeout
        with suppress(EOFError, OSError):
            self.pipe.send(job)
            # A child of the check's may hold the pipe's other end open, so that it never closes: look at the process.
            while not self.pipe.poll(0.2):
                if self.process.exitcode is not None and not self.pipe.poll():
                    break
                if time.monotonic() > until:
                    return "fails", f"did not come to an end in {self.timeout:g} seconds"
            else:
                result, message = self.pipe.recv()
                return result, message
        self.process.join(5)
        if self.process.exitcode == -signal.SIGINT:
            raise KeyboardInterrupt
        return "fails", f"the process crashed: {how_it_ended(self.process.exitcode)}"

    def close(self) -> None:
        """End the process, and the processes it started."""
        process, self.process = self.process, None
        if process is None:
            return
        if sys.platform != "win32":
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.join()
        self.pipe.close()


@contextmanager
def no_interrupt() -> Iterator[None]:
    """Keep Ctrl-C waiting for a while, here and in processes that are started now, where the system can."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def how_it_ended(code: int | None) -> str:
    """Say what an exit code means."""
    if code is None or code >= 0:
        # Windows: an NTSTATUS, as 0xC0000005 for an access violation
        return f"exit status {code:#x}" if code and code > 255 else f"exit status {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def work(pipe: Connection) -> None:
    """Run the checks that the pipe asks for; the worker's main function."""
    if sys.platform == "win32":
        import msvcrt

        from mappedfile.contract._kernel32 import take_children_along

        # A crash ends the process, without a dialog.
        msvcrt.SetErrorMode(msvcrt.SEM_FAILCRITICALERRORS | msvcrt.SEM_NOGPFAULTERRORBOX)
        take_children_along()
    else:
        os.setpgid(0, 0)  # whoever stops the worker stops its children
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
    subjects = {subject.mode: subject for subject in NATIVE}
    with suppress(EOFError, OSError):
        pipe.send("ready")
        while True:
            id, mode, room = pipe.recv()
            answer = run_one(CLAUSES[id], subjects[mode], room)
            shutil.rmtree(room, ignore_errors=True)
            pipe.send(answer)


def run_one(clause: Clause, subject: Any, room: Path) -> tuple[Result, str]:
    """Run one check here and now."""
    try:
        room.mkdir()
        clause.check(subject, room)
    except NotHere as why:
        return "not_here", str(why)
    except AssertionError as why:
        return "fails", str(why)
    except Exception as error:
        return "fails", f"{type(error).__name__}: {error}"
    return "holds", ""


# The report


def report(rows: Sequence[Row], folder: Path, seconds: float) -> dict[str, Any]:
    """Everything there is to tell, ready for JSON."""
    able = mappedfile.capabilities()
    return {
        "schema": SCHEMA,
        "mappedfile": mappedfile.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "backend": "windows" if sys.platform == "win32" else "posix",
        "folder": str(folder),
        "file_system": file_system(folder),
        "page_size": mappedfile.PAGE_SIZE,
        "granularity": mappedfile.GRANULARITY,
        "capabilities": {field.name: getattr(able, field.name) for field in fields(able)},
        "seconds": round(seconds, 1),
        "summary": {result: sum(row.result == result for row in rows) for result in ("holds", "fails", "not_here")},
        "clauses": [
            {
                "id": row.clause.id,
                "says": row.clause.says,
                "result": row.result,
                "modes": [outcome._asdict() for outcome in row.outcomes],
            }
            for row in rows
        ],
    }


def file_system(folder: Path) -> str | None:
    """Name the type of the file system that a folder is on, where that is cheap to find out."""
    with suppress(OSError, subprocess.SubprocessError):
        path = os.path.realpath(folder)
        if sys.platform == "win32":
            return _volume_type(path)
        if sys.platform == "linux":
            mounts = _linux_mounts(Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape"))
        else:
            listing = subprocess.run(["mount"], capture_output=True, text=True, timeout=5, check=True).stdout
            mounts = _bsd_mounts(listing)
        inside = [(len(point), place, kind) for place, (point, kind) in enumerate(mounts) if _is_inside(path, point)]
        return max(inside)[2] if inside else None
    return None


def _is_inside(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def _linux_mounts(text: str) -> Iterator[tuple[str, str]]:
    """Take mount points and types from /proc/self/mountinfo: proc_pid_mountinfo(5)."""
    for line in text.splitlines():
        ours, _, theirs = line.partition(" - ")
        point = ours.split(" ")[4]
        for character in " \t\n\\":
            point = point.replace(f"\\{ord(character):03o}", character)
        yield point, theirs.split(" ")[0]


def _bsd_mounts(text: str) -> Iterator[tuple[str, str]]:
    """Take them from the lines of mount(8): ``/dev/disk1 on /place (apfs, local)``."""
    for line in text.splitlines():
        before, _, options = line.rpartition(" (")
        if options:
            yield before.partition(" on ")[2], options.rstrip(")").split(",")[0]


if sys.platform == "win32":

    def _volume_type(path: str) -> str | None:
        import ctypes

        name = ctypes.create_unicode_buffer(64)
        root = os.path.splitdrive(path)[0] + "\\"
        known = ctypes.windll.kernel32.GetVolumeInformationW(root, None, 0, None, None, None, name, len(name))
        return name.value if known else None
