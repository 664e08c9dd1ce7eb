"""The cost of the fault guard: the library against itself, built without the guard.

Both sides are built from the present sources, into a temporary folder: one as it is, and one
without the guard's code in C (MAPPEDFILE_WITHOUT_GUARD). They run in separate processes, in turns.
Many processes are started, since the placement of a process's memory matters as much as the guard.
If valgrind is installed, it also counts the instructions, which are the same each time. It does not
see those of the system.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .harness import NotHere, Samples, Setting, row

ROOT = Path(__file__).resolve().parent.parent
SIDES = ("without", "with")
WORKER = """
import gc, sys, time
from timeit import Timer
import mappedfile
from mappedfile import MappedFile
assert mappedfile.__file__.startswith(sys.argv[1]), mappedfile.__file__
path, code, side, clock = sys.argv[2:]
file = MappedFile(path, "r+")
file[:]
assert mappedfile.fault_guard() == (side == "with")
clock = {"wall": time.perf_counter, "cpu": time.process_time}[clock]
setup = "_gc.enable(); path, file, MappedFile = _path, _file, _MappedFile; "
setup += "i, a, b, off = 50000, 1000, 1064, 16 * 4096"
names = {"_gc": gc, "_path": path, "_file": file, "_MappedFile": MappedFile}
timers = [Timer(each, setup, clock, names) for each in (code, "pass")]
print("ready", flush=True)
for line in sys.stdin:
    number, which = map(int, line.split())
    print(timers[which].timeit(number) / number * 1e9, flush=True)
"""

ONCE = """
import sys
from mappedfile import MappedFile
path, code, number = sys.argv[2], sys.argv[3], int(sys.argv[5])
file = MappedFile(path, "r+")
file[:]
i, a, b, off = 50000, 1000, 1064, 16 * 4096
head = "def run(number, path, file, MappedFile, i, a, b, off):\\n for _ in range(number):\\n  "
exec(head + code)
run(number, path, file, MappedFile, i, a, b, off)
"""


def build(folder: Path, side: str) -> Path:
    """Build one side; return the folder for its import."""
    if sys.platform == "win32":
        raise NotHere("only compared where the guard is a signal handler")
    place = folder / side
    kept = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
    for name in ("backends", "src"):
        shutil.copytree(ROOT / name, place / name, ignore=kept)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    flags = "-O2"
    if side == "without":
        flags += " -DMAPPEDFILE_WITHOUT_GUARD"
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(
        command,
        cwd=place,
        env={**os.environ, "CFLAGS": flags},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NotHere(f"cannot build the library: {done.stderr.strip()[-300:]}")
    return place / "src"


class Worker:
    """A process that measures one side on request."""

    def __init__(self, source: Path, side: str, path: Path, code: str, clock: str) -> None:
        command = [sys.executable, "-c", WORKER, source, path, code, side, clock]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment(source), **pipes)
        if self.process.stdout.readline() != "ready\n":  # type: ignore[union-attr]
            raise RuntimeError(f"the side {side} the guard did not start")

    def measure(self, number: int, *, loop: bool = False) -> float:
        stdin, stdout = self.process.stdin, self.process.stdout
        stdin.write(f"{number} {int(loop)}\n")  # type: ignore[union-attr]
        stdin.flush()  # type: ignore[union-attr]
        return float(stdout.readline())  # type: ignore[union-attr]


def environment(source: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(source),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "",
    }


@contextmanager
def workers(sources: dict[str, Path], *what: Any) -> Iterator[tuple[Worker, Worker]]:
    pair = [Worker(sources[side], side, *what) for side in SIDES]
    try:
        yield pair[0], pair[1]
    finally:
        for worker in pair:
            worker.process.communicate()


def instructions(source: Path, side: str, path: Path, code: str, number: int) -> int:
    """Count the instructions of a process that runs the code *number* times."""
    command = [
        "valgrind",
        "--tool=cachegrind",
        "--cache-sim=no",
        "--cachegrind-out-file=/dev/null",
        sys.executable,
        "-c",
        ONCE,
    ]
    command += [str(source), str(path), code, side, str(number)]
    done = subprocess.run(
        command, env=environment(source), capture_output=True, text=True, check=True
    )
    found = re.search(r"I +refs: +([\d,]+)", done.stderr)
    assert found, done.stderr
    return int(found[1].replace(",", ""))


def compare(at: Setting, code: str, *, loop: bool = False) -> Samples:
    """Run the code on both sides, in turns."""
    sources = {side: build(at.folder, side) for side in SIDES}
    path = at.file(1 << 20)
    taken: dict[str, list[float]] = {side: [] for side in SIDES}
    loops: list[float] = []
    for _ in range(at.pick(20, 4)):
        with workers(sources, path, code, at.clock) as pair:
            number = 100
            while (once := pair[0].measure(number)) * number < 4e6:  # a turn of 4 ms
                number *= 2
            for turn in range(at.pick(40, 10)):
                for place in (0, 1) if turn % 2 else (1, 0):
                    taken[SIDES[place]].append(pair[place].measure(number))
            if loop:
                loops.append(pair[0].measure(int(4e6 / once), loop=True))
    samples = Samples(
        taken["without"], taken["with"], sorted(loops)[len(loops) // 2] if loop else 0.0
    )
    if shutil.which("valgrind") and not at.quick:
        counts = []
        for side in SIDES:
            few, many = (
                instructions(sources[side], side, path, code, number) for number in (500, 2500)
            )
            counts.append((many - few) / 2000)
        empty = 0.0
        if loop:
            few, many = (
                instructions(sources["with"], "with", path, "pass", number)
                for number in (500, 2500)
            )
            empty = (many - few) / 2000
        samples.further["instructions"] = (counts[1] - empty) / (counts[0] - empty)
        samples.remark = f"{counts[0]:.0f} instructions without, {counts[1]:.0f} with"
    return samples


@row("guard-item", "w[i], with the fault guard", "built without it", 1.02)
def item(at: Setting) -> Samples:
    return compare(at, "file[i]", loop=True)


@row("guard-slice", "w[a:b] of 64 bytes, with the fault guard", "built without it", 1.02)
def slice_64(at: Setting) -> Samples:
    return compare(at, "file[a:b]", loop=True)


@row("guard-view", "view(), first byte, close, with the guard", "built without it", 1.02)
def view(at: Setting) -> Samples:
    return compare(at, "v = file.view(off, 4096); v[0]; v.close()")


@row("guard-open", "MappedFile(), close, with the guard", "built without it", 1.03)
def opening(at: Setting) -> Samples:
    return compare(at, "f = MappedFile(path, 'r+'); f.close()")


@row("guard-open-byte", "MappedFile(), first byte, close, with the guard", "built without it", 1.03)
def opening_and_a_byte(at: Setting) -> Samples:
    return compare(at, "f = MappedFile(path, 'r+'); f[0]; f.close()")
