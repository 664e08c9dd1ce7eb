"""The programs that tests run in processes of their own, and the one way to run a process.

    run_python(*child("guard_forks"), "fork", folder)      a program of this folder
    run_python(*code(TEXT), path, flags=("-W", "error"))   a program that is text
    run_python(script, "--check")                          a file
    run_command(["sh", "-c", "..."], check=False)          what is no Python
    with start_python(*code(TEXT)) as other:               one that converses
        other.say("go")
        assert other.hear() == "ready"

A child finds the modules of tests/. Its standard input is empty. It has a limit of time: nothing
can hang. tasks.py has how a program of this folder is told which of its tasks to do.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]
#: How many seconds a child may take, unless a test says otherwise.
LIMIT = 120
#: How much of what a child has said is told when it fails.
TOLD = 4000


def child(name: str) -> tuple[str, str]:
    """Name a program of this folder to run_python."""
    return "-m", f"children.{name}"


def code(text: str) -> tuple[str, str]:
    """Give a program to run_python, as text. It may be indented."""
    return "-c", textwrap.dedent(text)


def run_python(
    *what: object, flags: Sequence[object] = (), under: Sequence[object] = (), **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a Python program, as run_command() does.

    FLAGS are Python's own, and UNDER is a command that runs it, as strace does.
    """
    return run_command([*under, sys.executable, *flags, *what], **options)


def run_command(
    command: Sequence[object],
    *,
    check: bool = True,
    quiet: bool = False,
    timeout: float = LIMIT,
    env: Mapping[str, str | None] | None = None,
    cwd: Path | None = None,
    stdout: int = subprocess.PIPE,
    encoding: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, and return how it ended and what it said.

    It must end well, unless CHECK is false; QUIET ones must leave standard error empty, too. ENV is
    added to the environment: None removes a variable.
    """
    words = [str(word) for word in command]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": subprocess.PIPE}
    with started(words, env=env, cwd=cwd, encoding=encoding, **pipes) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            kill(process)
            said = "".join(map(tail, process.communicate(timeout=20)))
            raise AssertionError(
                f"{shown(words)} did not end within {timeout} seconds\n{said}"
            ) from None
    return ended(process, words, out, err, check=check, quiet=quiet)


def ended(
    process: subprocess.Popen[str],
    words: Sequence[str],
    out: str,
    err: str,
    *,
    check: bool,
    quiet: bool,
) -> subprocess.CompletedProcess[str]:
    """Return how a process ended, and what it said; fail if it is not as it must be."""
    status, said = process.returncode, tail(out) + tail(err)
    assert status == 0 or not check, f"{shown(words)} ended with {status}\n{said}"
    assert not quiet or err == "", f"{shown(words)} said on standard error\n{said}"
    return subprocess.CompletedProcess(process.args, status, out, err)


class Talk:
    """A child that hears lines and says lines."""

    def __init__(self, process: subprocess.Popen[str], words: Sequence[str], limit: float) -> None:
        self.process, self.words, self.limit = process, words, limit
        self.pid = process.pid
        self.late = False

    def say(self, line: str) -> None:
        """Send it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        """Return the next line that it says.

        Fail if it ends first, or says none within the limit.
        """
        assert self.process.stdout is not None
        with self.limited():
            line = self.process.stdout.readline()
        assert line, f"{shown(self.words)} said no more{self.why()}\n{self.last_words()}"
        return line.rstrip("\r\n")

    def last_words(self) -> str:
        """End it, and return what it wrote to standard error."""
        assert self.process.stderr is not None
        kill(self.process)
        with self.limited():
            return tail(self.process.stderr.read())

    def end(self, *, check: bool = True, quiet: bool = False) -> subprocess.CompletedProcess[str]:
        """Close its standard input, and wait for its end.

        Return how it ended, and what it has said since it was last heard.
        """
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        with self.limited():
            process.stdin.close()
            stdout = "" if process.stdout.closed else process.stdout.read()
            stderr = process.stderr.read()
            process.wait()
        said = tail(stdout) + tail(stderr)
        assert not self.late, f"{shown(self.words)} did not end{self.why()}\n{said}"
        return ended(process, self.words, stdout, stderr, check=check, quiet=quiet)

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Kill it after the limit. Then whoever reads what it says comes to the end."""

        def end() -> None:
            self.late = True
            kill(self.process)

        watch = threading.Timer(self.limit, end)
        watch.daemon = True
        watch.start()
        try:
            yield
        finally:
            watch.cancel()
            watch.join()

    def why(self) -> str:
        """Return what is to be said of one that was killed."""
        return f" within {self.limit} seconds" if self.late else ""


@contextmanager
def start_python(*what: object, flags: Sequence[object] = (), **options: Any) -> Iterator[Talk]:
    """Start a Python program, as start_command() does."""
    with start_command([sys.executable, *flags, *what], **options) as talk:
        yield talk


@contextmanager
def start_command(
    command: Sequence[object],
    *,
    limit: float = LIMIT,
    env: Mapping[str, str | None] | None = None,
    encoding: str | None = None,
) -> Iterator[Talk]:
    """Start a command that converses. It is gone afterwards, whatever happens.

    LIMIT is for each answer, in seconds, and for the end.
    """
    words = [str(word) for word in command]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with started(words, env=env, encoding=encoding, **pipes) as process:
        try:
            yield Talk(process, words, limit)
        finally:
            kill(process)
            for pipe in (process.stdin, process.stdout, process.stderr):
                with suppress(OSError):  # what was left to be written has no reader
                    pipe.close()


@contextmanager
def started(
    words: Sequence[str], *, env: Mapping[str, str | None] | None, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Start a process. It has ended afterwards.

    So have those that it started, if it had to be killed.
    """
    if os.name == "posix":
        options["process_group"] = 0
    with subprocess.Popen(words, text=True, env=environment(env), **options) as process:
        try:
            yield process
        except BaseException:
            kill(process)
            raise


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process, and those that it started: strace's would go on without it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()


def environment(more: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Return the environment of a child: ours, with tests/ among the places of modules."""
    ours = {**os.environ, **(more or {})}
    places = [str(TESTS), *filter(None, [ours.get("PYTHONPATH")])]
    ours["PYTHONPATH"] = os.pathsep.join(places)
    return {name: value for name, value in ours.items() if value is not None}


def shown(words: Sequence[str]) -> str:
    """Return a command as a failure names it: programs that are text are long."""
    return " ".join(word if "\n" not in word else "..." for word in words)


def tail(text: str | None) -> str:
    """Return the end of what a child has said."""
    return (text or "")[-TOLD:]
