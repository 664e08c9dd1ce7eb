"""Checks that need a process of their own: one that may crash, or another's eyes on a file."""

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

#: After which a child is taken to hang.
SECONDS = 60

#: A child imports one module of clauses. To import the package, with all of them, takes longer than
#: most parts do.
_START = """
import sys, types
package = sys.modules["mappedfile.contract"] = types.ModuleType("mappedfile.contract")
package.__path__ = [sys.argv.pop(1)]
from mappedfile.contract._children import main
main()
"""


class Child:
    """A Python of its own that runs ``function(subject, folder)``, a function of a module, as a
    part of a check."""

    def __init__(self, function: Part, subject: Subject, folder: Path) -> None:
        # Every warning is shown, and a crash says where.
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
        """Send the child a line: what its ``hear`` returns."""
        stdin: Any = self._process.stdin
        try:
            stdin.write(f"{word}\n".encode())
            stdin.flush()
        except OSError:
            self._judge()
            raise

    def hear(self) -> str:
        """Return the next line that the child said; raise what became of it, if that was its
        end."""
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
        """What it wrote to standard error, all of it once it has ended."""
        return b"".join(self._errors).decode("utf-8", "replace")

    def end(self) -> str:
        """Wait for its end; raise what it raised; return what it wrote to standard error."""
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
            # Windows: an NTSTATUS, as 0xC0000005 for an access violation
            code = hex(status) if status > 255 else status
            raise Broken(f"a child process ended with status {code}: {self.errors}")

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        """Kill it, if it still runs. What it had said can still be heard."""
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join(5)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            try:
                if stream is not None:
                    stream.close()
            except OSError:
                pass  # what it was not sent is of no use any more


def in_child(function: Part, subject: Subject, folder: Path) -> str:
    """Run a part of a check in a process of its own; raise what it raises; return what it wrote to
    standard error."""
    with Child(function, subject, folder) as child:
        return child.end()


# In the child


def say(word: str) -> None:
    """Tell the parent: what its ``Child.hear`` returns."""
    print(word, flush=True)


def hear() -> str:
    """Wait for what the parent has to ``say``."""
    line = sys.stdin.readline()
    if not line:
        raise SystemExit("the parent is gone")
    return line.rstrip("\r\n")


def main() -> None:
    """Run what the command line names."""
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
