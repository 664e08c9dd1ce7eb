"""Programs that tests run in child processes, and the functions that run them.

    run_python(*child("guard_forks"), "fork", folder)      a program of this folder
    run_python(*code(TEXT), path, flags=("-W", "error"))   a program that is text
    run_python(script, "--check")                          a file
    run_command(["sh", "-c", "..."], check=False)          a command that is not Python
    with start_python(*code(TEXT)) as other:               one that exchanges lines
        other.say("go")
        assert other.hear() == "ready"

A child can import the modules of tests/. Its standard input is empty. It is killed at its time
limit. tasks.py explains how the command line names a task of a program.
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
#: How many seconds a child may take by default.
LIMIT = 120
#: How many characters of a child's output a failure shows.
TAIL_LENGTH = 4000


def child(name: str) -> tuple[str, str]:
    """Return the arguments that run a program of this folder."""
    return "-m", f"children.{name}"


def code(text: str) -> tuple[str, str]:
    """Return the arguments that run a program given as text. The text may be indented."""
    return "-c", textwrap.dedent(text)


def run_python(
    *what: object, flags: Sequence[object] = (), under: Sequence[object] = (), **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a Python program, as run_command() does.

    FLAGS are options of Python. UNDER is a command that runs Python, such as strace.
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
    """Run a command until it ends; return its exit status and output.

    With CHECK, fail if the exit status is not 0. With QUIET, fail if there is output on standard
    error. ENV is added to the environment; None removes a variable.
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
    """Return the exit status and output of a process. Fail if CHECK or QUIET does not hold."""
    status, said = process.returncode, tail(out) + tail(err)
    assert status == 0 or not check, f"{shown(words)} ended with {status}\n{said}"
    assert not quiet or err == "", f"{shown(words)} said on standard error\n{said}"
    return subprocess.CompletedProcess(process.args, status, out, err)


class Talk:
    """A child that exchanges lines with the test."""

    def __init__(self, process: subprocess.Popen[str], words: Sequence[str], limit: float) -> None:
        self.process, self.words, self.limit = process, words, limit
        self.pid = process.pid
        self.late = False

    def say(self, line: str) -> None:
        """Send a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        """Return the next line of its output.

        Fail if it ends first, or if the limit is over.
        """
        assert self.process.stdout is not None
        with self.limited():
            line = self.process.stdout.readline()
        assert line, f"{shown(self.words)} said no more{self.why()}\n{self.last_words()}"
        return line.rstrip("\r\n")

    def last_words(self) -> str:
        """Kill it, and return its standard error."""
        assert self.process.stderr is not None
        kill(self.process)
        with self.limited():
            return tail(self.process.stderr.read())

    def end(self, *, check: bool = True, quiet: bool = False) -> subprocess.CompletedProcess[str]:
        """Close its standard input, and wait until it ends.

        Return its exit status, and the output that was not read yet.
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
        """Kill it after the limit. Then reading its output ends."""

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
        """Return the words that a failure adds for a process that was killed."""
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
    """Start a command that exchanges lines with the test. Kill it after the block.

    LIMIT is in seconds. It holds for each line, and for the end.
    """
    words = [str(word) for word in command]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with started(words, env=env, encoding=encoding, **pipes) as process:
        try:
            yield Talk(process, words, limit)
        finally:
            kill(process)
            for pipe in (process.stdin, process.stdout, process.stderr):
                with suppress(OSError):  # unwritten data has no reader
                    pipe.close()


@contextmanager
def started(
    words: Sequence[str], *, env: Mapping[str, str | None] | None, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Start a process. After the block it has ended.

    If the block raises, the process and its children are killed.
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
    """Kill a process and its children. A child of strace would go on without it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL) if os.name == "posix" else process.kill()


def environment(more: Mapping[str, str | None] | None = None) -> dict[str, str]:
    """Return the environment of a child: this process's, with tests/ in PYTHONPATH."""
    ours = {**os.environ, **(more or {})}
    places = [str(TESTS), *filter(None, [ours.get("PYTHONPATH")])]
    ours["PYTHONPATH"] = os.pathsep.join(places)
    return {name: value for name, value in ours.items() if value is not None}


def shown(words: Sequence[str]) -> str:
    """Return a command as a failure shows it. Programs given as text are left out."""
    return " ".join(word if "\n" not in word else "..." for word in words)


def tail(text: str | None) -> str:
    """Return the last TAIL_LENGTH characters of a child's output."""
    return (text or "")[-TAIL_LENGTH:]
