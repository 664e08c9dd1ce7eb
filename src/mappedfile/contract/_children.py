"""Child processes for checks that may crash, or that need another process."""

from __future__ import annotations

import importlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mappedfile.contract._clauses import Broken, NotHere

if TYPE_CHECKING:
    from mappedfile.contract._subjects import Subject

Part = Callable[["Subject", Path], None]

#: The time, in seconds, after which a child counts as hanging.
SECONDS = 60

#: A child imports one module of clauses. Importing all of them takes longer than most parts.
_START = """
import sys, types
package = sys.modules["mappedfile.contract"] = types.ModuleType("mappedfile.contract")
package.__path__ = [sys.argv.pop(1)]
from mappedfile.contract._children import main
main()
"""


class Child:
    """A Python process that runs ``function(subject, folder)`` as a part of a check."""

    def __init__(self, function: Part, subject: Subject, folder: Path) -> None:
        # Show every warning, and the traceback of a crash.
        command = [sys.executable, "-W", "always", "-X", "faulthandler", "-c", _START]
        command += [os.path.dirname(__file__), function.__module__, function.__name__]
        command += [str(subject), os.fspath(folder)]
        environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._errors: list[bytes] = []
        self._readers = [
            threading.Thread(target=run, daemon=True)
            for run in (self._read_lines, self._read_errors)
        ]
        for reader in self._readers:
            reader.start()

    def _read_lines(self) -> None:
        for line in self._process.stdout or ():
            self._lines.put(line.decode("utf-8", "replace").rstrip("\r\n"))
        self._lines.put(None)

    def _read_errors(self) -> None:
        for line in self._process.stderr or ():
            self._errors.append(line)

    def say(self, word: str = "go on") -> None:
        """Send the child a line, which its ``hear`` returns."""
        stdin: Any = self._process.stdin
        try:
            stdin.write(f"{word}\n".encode())
            stdin.flush()
        except OSError:
            self._judge()
            raise

    def hear(self) -> str:
        """Return the next line of the child; raise an error if the child has ended."""
        try:
            line = self._lines.get(timeout=SECONDS)
        except queue.Empty:
            raise Broken(
                f"a child process said nothing for {SECONDS} seconds: {self.errors}"
            ) from None
        if line is None or line.startswith("{"):
            self._judge(line)
            raise Broken(f"a child process ended before its time: {self.errors}")
        return line

    @property
    def errors(self) -> str:
        """Return the standard error output of the child so far."""
        return b"".join(self._errors).decode("utf-8", "replace")

    def end(self) -> str:
        """Wait for the end of the child; raise its error; return its standard error output."""
        self._judge()
        return self.errors

    def _judge(self, last: str | None = None) -> None:
        try:
            status = self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            raise Broken(
                f"a child process did not end within {SECONDS} seconds: {self.errors}"
            ) from None
        for reader in self._readers:
            reader.join(5)
        while last is None and not self._lines.empty():
            line = self._lines.get()
            last = line if line is not None and line.startswith("{") else None
        outcome = json.loads(last) if last else {}
        if "not here" in outcome:
            raise NotHere(outcome["not here"])
        if "broken" in outcome:
            raise Broken(outcome["broken"])
        if status or not outcome:
            # Windows: an NTSTATUS, such as 0xC0000005 for an access violation
            code = hex(status) if status > 255 else status
            raise Broken(f"a child process ended with status {code}: {self.errors}")

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the child if it still runs. Lines that it sent before can still be read."""
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join(5)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            try:
                if stream is not None:
                    stream.close()
            except OSError:
                pass  # lines that were not sent are no longer needed


def in_child(function: Part, subject: Subject, folder: Path) -> str:
    """Run a part of a check in a child; raise its error; return its standard error output."""
    with Child(function, subject, folder) as child:
        return child.end()


# In the child


def say(word: str) -> None:
    """Send the parent a line, which ``Child.hear`` returns."""
    print(word, flush=True)


def hear() -> str:
    """Wait for a line of the parent's ``say``."""
    line = sys.stdin.readline()
    if not line:
        raise SystemExit("the parent is gone")
    return line.rstrip("\r\n")


def main() -> None:
    """Run the function that the command line names."""
    from mappedfile.contract._subjects import LAYER, NATIVE, STDLIB

    module, name, wanted, folder = sys.argv[1:]
    (subject,) = (subject for subject in (*NATIVE, *STDLIB, *LAYER) if str(subject) == wanted)
    try:
        getattr(importlib.import_module(module), name)(subject, Path(folder))
    except NotHere as why:
        outcome = {"not here": str(why)}
    except Broken as why:
        outcome = {"broken": str(why)}
    except Exception as error:
        outcome = {"broken": f"{type(error).__name__}: {error}"}
    else:
        outcome = {"holds": ""}
    say(json.dumps(outcome))
