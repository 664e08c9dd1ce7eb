"""Runs the contract in a folder: every clause, in every mode that it applies to.

The checks run in worker processes, since they may crash or hang. Several run at the same time,
since most checks wait for a clock or for programs to start.
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

#: The number of workers. Two are faster than one, even on a single processor.
WORKERS = min(max(os.cpu_count() or 1, 2), 4)
#: The time limit for the start of a process, in seconds.
START = 60


class Outcome(NamedTuple):
    """The result of one clause in one mode."""

    mode: str
    result: Result
    message: str
    seconds: float


@dataclass(frozen=True)
class Row:
    """The result of one clause in all modes."""

    clause: Clause
    outcomes: tuple[Outcome, ...]

    @property
    def result(self) -> Result:
        """Return "fails" if any mode fails, else "holds" if any mode holds, else "not_here"."""
        results = {outcome.result for outcome in self.outcomes}
        return "fails" if "fails" in results else "holds" if "holds" in results else "not_here"

    def reasons(self) -> list[tuple[str, Result, str]]:
        """Return the reasons why it does not hold: modes with the same reason, result, reason."""
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
    """The clauses to run and, for each, the modes."""

    steps: tuple[tuple[Clause, tuple[str, ...]], ...]
    timeout: float

    @classmethod
    def of(
        cls,
        clauses: Collection[str] = (),
        modes: Collection[str] = (),
        timeout: float = 60,
    ) -> Plan:
        """Choose clauses, by id or letter, and modes; an empty choice means all.

        Raises ``ValueError`` if there is nothing to run.
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
            raise ValueError(f"none of the chosen clauses applies to mode {' or '.join(modes)}")
        return cls(tuple(steps), timeout)

    def __len__(self) -> int:
        return sum(len(modes) for _, modes in self.steps)

    def jobs(self) -> Iterator[Job]:
        """List the jobs, in order."""
        for clause, modes in self.steps:
            for mode in modes:
                yield Job(clause, mode)

    @contextmanager
    def running(
        self,
        folder: Path,
        on_start: Callable[[str], None] = lambda _: None,
    ) -> Iterator[Iterator[Row]]:
        """Run the plan in *folder*. Gives the rows in order, each as early as possible.

        *on_start* gets the name of each check at its start. Raises ``OSError`` if the folder cannot
        be used.
        """
        with scratch(folder) as working, ExitStack() as stack:
            workers = []
            for _ in range(min(WORKERS, len(self))):
                workers.append(Worker(working, self.timeout))
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
        """Give the jobs to workers, and yield the outcomes as they come."""
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
            # A child of a check may keep the pipe open for ever, so the processes are checked too.
            wait([worker.pipe for worker in busy], 0.2)
            for worker in busy:
                if (ended := worker.look()) is not None:
                    yield ended


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Make a new folder in *folder*, and remove it at the end, also after errors."""
    working = Path(tempfile.mkdtemp(prefix="mappedfile-check-", dir=folder))
    try:
        yield working
    finally:
        # A program that was just killed may have its files open a moment longer. Windows deletes no
        # open file.
        for pause in (0, 0.1, 0.3, 1, 3):
            time.sleep(pause)
            shutil.rmtree(working, ignore_errors=True)
            if not working.exists():
                break
        else:
            print(f"mappedfile check: could not remove {working}", file=sys.stderr)


class Worker:
    """A process that runs one check at a time, until a check fails."""

    def __init__(self, working: Path, timeout: float) -> None:
        self.working = working
        self.timeout = timeout
        #: The present job, or None.
        self.job: Job | None = None
        self.process: Any = None
        self.pipe: Any = None
        self._sent = False
        self._began = 0.0

    def begin(self, job: Job) -> None:
        """Start a check in the worker."""
        self.job = job
        self._sent = False
        self._began = time.monotonic()
        if self.process is None:
            self._start()
        else:
            self._send()

    def _start(self) -> None:
        """Start the process. It is spawned on every system: a fork would copy locks of threads."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs,), name="mappedfile check")
        with no_interrupt():  # the process reads it after its start
            self.process.start()
        theirs.close()

    def _send(self) -> None:
        assert self.job is not None
        self._sent = True
        self._began = time.monotonic()
        with suppress(OSError):  # the process has ended, which look() detects
            self.pipe.send((self.job.clause.id, self.job.mode, self._folder()))

    def _folder(self) -> Path:
        assert self.job is not None
        return self.working / f"{self.job.clause.id}-{self.job.mode.replace('+', 'plus')}"

    def look(self) -> tuple[Job, Outcome] | None:
        """Return the outcome of the check, or None while it runs."""
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
                self._send()  # it is ready: the time of the check begins
                return None
            if self.process.exitcode is None or self.pipe.poll():
                limit = self.timeout if self._sent else START
                if time.monotonic() - self._began <= limit:
                    return None
                return "fails", f"did not end within {limit:g} seconds"
        self.process.join(5)
        if self.process.exitcode == -signal.SIGINT:
            raise KeyboardInterrupt
        return "fails", f"the process crashed: {how_it_ended(self.process.exitcode)}"

    def close(self) -> None:
        """End the process and its children."""
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
    """Block Ctrl-C in the block, also in processes that are started in it."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def how_it_ended(code: int | None) -> str:
    """Describe an exit code."""
    if code is None or code >= 0:
        # Windows: an NTSTATUS, such as 0xC0000005 for an access violation
        return f"exit status {code:#x}" if code and code > 255 else f"exit status {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def work(pipe: Connection) -> None:
    """Run the checks that the pipe requests: the main function of a worker."""
    if sys.platform == "win32":
        import msvcrt

        from mappedfile.contract._kernel32 import take_children_along

        # A crash ends the process without a dialog.
        msvcrt.SetErrorMode(msvcrt.SEM_FAILCRITICALERRORS | msvcrt.SEM_NOGPFAULTERRORBOX)
        take_children_along()
    else:
        os.setpgid(0, 0)  # the end of the worker ends its children
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
            id, mode, working = pipe.recv()
            answer = run_one(CLAUSES[id], subjects[mode], working)
            shutil.rmtree(working, ignore_errors=True)
            pipe.send(answer)


def run_one(clause: Clause, subject: Any, working: Path) -> tuple[Result, str]:
    """Run one check in this process."""
    try:
        working.mkdir()
        clause.check(subject, working)
    except NotHere as why:
        return "not_here", str(why)
    except AssertionError as why:
        return "fails", str(why)
    except Exception as error:
        return "fails", f"{type(error).__name__}: {error}"
    return "holds", ""
