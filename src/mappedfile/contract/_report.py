"""The report of a run of the contract, ready for JSON."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mappedfile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mappedfile.contract._run import Row

#: The version of the report. It changes when a field is removed or gets another meaning, not when
#: one is added.
SCHEMA = 1


def place(folder: Path) -> dict[str, Any]:
    """Describe a folder and this system."""
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
    }


def report(facts: dict[str, Any], rows: Sequence[Row], seconds: float) -> dict[str, Any]:
    """Build the whole report of a run, with the description *facts* of ``place()``."""
    return {
        **facts,
        "seconds": round(seconds, 1),
        "summary": summary(rows),
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


def summary(rows: Sequence[Row]) -> dict[str, int]:
    """Count the clauses that hold, that fail, and that cannot be shown."""
    results = ("holds", "fails", "not_here")
    return {result: sum(row.result == result for row in rows) for result in results}


def file_system(folder: Path) -> str | None:
    """Return the type of a folder's file system; None if it is unknown."""
    with suppress(OSError, subprocess.SubprocessError):
        path = os.path.realpath(folder)
        if sys.platform == "win32":
            return _volume_type(path)
        if sys.platform == "linux":
            text = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
            mounts = _linux_mounts(text)
        else:
            done = subprocess.run(["mount"], capture_output=True, text=True, timeout=5, check=True)
            mounts = _bsd_mounts(done.stdout)
        # Of equal mount points, the last is mounted over the others.
        inside = [mount for mount in mounts if _is_inside(path, mount[0])]
        return max(reversed(inside), key=lambda mount: len(mount[0]))[1] if inside else None
    return None


def _is_inside(path: str, point: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")


def _linux_mounts(text: str) -> Iterator[tuple[str, str]]:
    """Read mount points and types from /proc/self/mountinfo: proc_pid_mountinfo(5)."""
    for line in text.splitlines():
        ours, _, theirs = line.partition(" - ")
        point = ours.split(" ")[4]
        for character in " \t\n\\":
            point = point.replace(f"\\{ord(character):03o}", character)
        yield point, theirs.split(" ")[0]


def _bsd_mounts(text: str) -> Iterator[tuple[str, str]]:
    """Read mount points and types from mount(8): ``/dev/disk1 on /place (apfs, local)``."""
    for line in text.splitlines():
        before, _, options = line.rpartition(" (")
        if options:
            yield before.partition(" on ")[2], options.rstrip(")").split(",")[0]


if sys.platform == "win32":

    def _volume_type(path: str) -> str | None:
        import ctypes

        name = ctypes.create_unicode_buffer(64)
        root = os.path.splitdrive(path)[0] + "\\"
        ask = ctypes.windll.kernel32.GetVolumeInformationW
        known = ask(root, None, 0, None, None, None, name, len(name))
        return name.value if known else None
