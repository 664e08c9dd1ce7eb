"""Runs the contract in a folder: every clause, in every mode it speaks of.

The checks run in processes of their own, which may crash or hang. Some are at work at the same
time, since most checks wait for a clock or for programs that start.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from mappedfile.contract import CLAUSES, NATIVE, Clause, NotHere

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from multiprocessing.connection import Connection

Result: TypeAlias = Literal["holds", "fails", "not_here"]

#: So many processes have checks to run. Two do better than one even where they share a processor.
WORKERS = min(max(os.cpu_count() or 1, 2), 4)
#: A process has so many seconds to start.
START = 60


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
        """Say why it does not hold: the modes with the same reason, their result, the reason."""
        said: dict[tuple[Result, str], list[str]] = {}
        for outcome in self.outcomes:
            if outcome.result != "holds":
                said.setdefault((outcome.result, outcome.message), []).append(outcome.mode)
        return [(", ".join(modes), result, message) for (result, message), modes in said.items()]


class Job(NamedTuple):
    """One clause in one mode."""

    clause: Clause
    mode: str

    def __str__(self) -> str:
        return f"{self.clause.id} {self.mode}"


@dataclass(frozen=True)
class Plan:
    """What is to be run: clauses and, for each, the modes."""

    steps: tuple[tuple[Clause, tuple[str, ...]], ...]
    timeout: float

    @classmethod
    def of(
        cls,
        clauses: Collection[str] = (),
        modes: Collection[str] = (),
        timeout: float = 60,
    ) -> Plan:
        """Choose the clauses, by id or letter, and the modes; none chosen means all.

        Raises ``ValueError`` when there is nothing to run.
        """
        known = {*CLAUSES, *(id[0] for id in CLAUSES)}
        if unknown := [name for name in clauses if name not in known]:
            there_are = ", ".join(CLAUSES)
            raise ValueError(f"no such clause: {', '.join(unknown)}; there are {there_are}")
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

    def jobs(self) -> Iterator[Job]:
        """List what is to be done, in order."""
        for clause, modes in self.steps:
            for mode in modes:
                yield Job(clause, mode)

    @contextmanager
    def running(
        self,
        folder: Path,
        on_start: Callable[[str], None] = lambda _: None,
    ) -> Iterator[Iterator[Row]]:
        """Run it in *folder*. Gives the rows in order, each as soon as all before it are there.

        *on_start* gets the name of each check that starts. Raises ``OSError`` if the folder cannot
        be used.
        """
        with scratch(folder) as room, ExitStack() as stack:
            workers = []
            for _ in range(min(WORKERS, len(self))):
                workers.append(Worker(room, self.timeout))
                stack.callback(workers[-1].close)
            yield self._rows(workers, on_start)

    def _rows(self, workers: list[Worker], on_start: Callable[[str], None]) -> Iterator[Row]:
        outcomes = self._outcomes(workers, on_start)
        done: dict[Job, Outcome] = {}
        for clause, modes in self.steps:
            jobs = [Job(clause, mode) for mode in modes]
            while not all(job in done for job in jobs):
                job, outcome = next(outcomes)
                done[job] = outcome
            yield Row(clause, tuple(done.pop(job) for job in jobs))

    def _outcomes(
        self,
        workers: list[Worker],
        on_start: Callable[[str], None],
    ) -> Iterator[tuple[Job, Outcome]]:
        """Give the jobs to workers, and their outcomes to the caller, as they come."""
        jobs = list(self.jobs())[::-1]
        while True:
            for worker in workers:
                others = [each.job for each in workers if each.job is not None]
                if not jobs or worker.job is not None:
                    continue
                if others and (jobs[-1].clause.alone or others[0].clause.alone):
                    break
                job = jobs.pop()
                on_start(str(job))
                worker.begin(job)
            busy = [worker for worker in workers if worker.job is not None]
            if not busy:
                return
            # A child of a check may hold the pipe open for ever: processes are looked at, too.
            wait([worker.pipe for worker in busy], 0.2)
            for worker in busy:
                if (ended := worker.look()) is not None:
                    yield ended


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Make a fresh folder in *folder*, and remove it whatever happens."""
    room = Path(tempfile.mkdtemp(prefix="mappedfile-check-", dir=folder))
    try:
        yield room
    finally:
        # A program just killed may hold its files a moment longer. Windows deletes no open file.
        for pause in (0, 0.1, 0.3, 1, 3):
            time.sleep(pause)
            shutil.rmtree(room, ignore_errors=True)
            if not room.exists():
                break
        else:
            print(f"mappedfile check: could not remove {room}", file=sys.stderr)


class Worker:
    """A process that runs one check at a time. A check that failed is its last."""

    def __init__(self, room: Path, timeout: float) -> None:
        self.room = room
        self.timeout = timeout
        #: What it does now; None when it has nothing to do.
        self.job: Job | None = None
        self.process: Any = None
        self.pipe: Any = None
        self._sent = False
        self._began = 0.0

    def begin(self, job: Job) -> None:
        """Have a check run."""
        self.job = job
        self._sent = False
        self._began = time.monotonic()
        if self.process is None:
            self._start()
        else:
            self._send()

    def _start(self) -> None:
        """Start the process. Spawned on every system: a fork would take locks and threads along."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs,), name="mappedfile check")
        with no_interrupt():  # the process hears of it when it has made itself ready
            self.process.start()
        theirs.close()

    def _send(self) -> None:
        assert self.job is not None
        self._sent = True
        self._began = time.monotonic()
        with suppress(OSError):  # it has ended: look() sees that
            self.pipe.send((self.job.clause.id, self.job.mode, self._folder()))

    def _folder(self) -> Path:
        assert self.job is not None
        return self.room / f"{self.job.clause.id}-{self.job.mode.replace('+', 'plus')}"

    def look(self) -> tuple[Job, Outcome] | None:
        """Return what has come of the check, if it has come to an end."""
        answer = self._answer()
        if answer is None or self.job is None:
            return None
        result, message = answer
        job, seconds = self.job, time.monotonic() - self._began
        if result == "fails":
            self.close()
            shutil.rmtree(self._folder(), ignore_errors=True)
        self.job = None
        return job, Outcome(job.mode, result, message, round(seconds, 3))

    def _answer(self) -> tuple[Result, str] | None:
        with suppress(EOFError, OSError):
            if self.pipe.poll():
                answer: tuple[Result, str] = self.pipe.recv()
                if self._sent:
                    return answer
                self._send()  # it is ready: the check's own time begins
                return None
            if self.process.exitcode is None or self.pipe.poll():
                limit = self.timeout if self._sent else START
                if time.monotonic() - self._began <= limit:
                    return None
                return "fails", f"did not come to an end in {limit:g} seconds"
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
    """Keep Ctrl-C waiting for a while, here and in processes that are started meanwhile."""
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
