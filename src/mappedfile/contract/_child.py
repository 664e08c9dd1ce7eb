"""Other processes, which checks start: functions of theirs, run in a new Python with the same subject."""

from __future__ import annotations

import importlib
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from mappedfile.contract._clauses import Broken, NotHere

if TYPE_CHECKING:
    from collections.abc import Callable

    from mappedfile.contract._subjects import Subject

_BROKEN, _NOT_HERE = 78, 77
_START = "import sys; from mappedfile.contract import _child; _child.main(*sys.argv[1:])"


def start(function: Callable[..., Any], subject: Subject, *arguments: object) -> subprocess.Popen[bytes]:
    """Start ``function(subject, *arguments)`` in another process; the arguments become strings."""
    command = [sys.executable, "-c", _START, function.__module__, function.__name__, subject.name, subject.mode]
    return subprocess.Popen(
        [*command, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def run(function: Callable[..., Any], subject: Subject, *arguments: object, timeout: float = 30) -> str:
    """Run it to its end and return what it printed. What breaks the clause there breaks it here."""
    with start(function, subject, *arguments) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Broken(f"{function.__name__} in another process: no end after {timeout:g} seconds") from None
    said = (err.decode("utf-8", "replace").strip().splitlines() or [f"exit status {process.returncode}"])[-1]
    if process.returncode == _NOT_HERE:
        raise NotHere(said)
    if process.returncode == _BROKEN:
        raise Broken(said)
    if process.returncode != 0:
        raise Broken(f"{function.__name__} in another process: {said}")
    return out.decode("utf-8", "replace")


def main(module: str, function: str, name: str, mode: str, *arguments: str) -> None:
    """Be that other process."""
    from mappedfile.contract._subjects import NATIVE, STDLIB

    subject = next(one for one in (*NATIVE, *STDLIB) if (one.name, one.mode) == (name, mode))
    try:
        getattr(importlib.import_module(module), function)(subject, *arguments)
        sys.stdout.flush()
    except Broken as why:
        print(why, file=sys.stderr)
        sys.exit(_BROKEN)
    except NotHere as why:
        print(why, file=sys.stderr)
        sys.exit(_NOT_HERE)
