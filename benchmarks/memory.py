"""Residency, advice and population, against vmtouch, fincore and reading."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from mappedfile import MappedFile

from .harness import NotHere, Samples, Setting, row, steps, stopwatch

if TYPE_CHECKING:
    from pathlib import Path

    from .harness import Steps

MIB = 1 << 20
GIB = 1 << 30


def _tool(name: str) -> str:
    if path := shutil.which(name):
        return path
    raise NotHere(f"{name} is not installed")


def _run(*command: object) -> float:
    """Return the time of a program, from its start to its end, in nanoseconds."""
    return stopwatch(
        lambda: subprocess.run(list(map(str, command)), stdout=subprocess.DEVNULL, check=True)
    )


# Which pages are in memory

MAPPEDFILE = sys.executable, "-m", "mappedfile"


def _look(path: Path) -> None:
    with MappedFile(path) as file:
        file.residency()


def _residency(at: Setting, peer: str) -> Samples:
    program, path = _tool(peer), at.sparse(16 * GIB)
    _look(path), _run(program, path)
    samples = at.alternate(
        lambda: _run(program, path), lambda: stopwatch(_look, path), at.pick(41, 9)
    )
    whole = [_run(*MAPPEDFILE, "residency", path) for _ in range(at.pick(21, 5))]
    samples.further["mappedfile residency, with Python's start"] = statistics.median(
        whole
    ) / statistics.median(samples.peer)
    path.unlink()
    return samples


@row("residency-fincore", "open, residency() of a hole of 16 GiB", "fincore", 1.2)
def residency_fincore(at: Setting) -> Samples:
    return _residency(at, "fincore")


@row("residency-vmtouch", "open, residency() of a hole of 16 GiB", "vmtouch", 1.2)
def residency_vmtouch(at: Setting) -> Samples:
    return _residency(at, "vmtouch")


@row("residency-warm", "the same of 1 GiB in memory", "vmtouch", 1.2)
def residency_warm(at: Setting) -> Samples:
    program, path = _tool("vmtouch"), at.file(at.pick(GIB, 256 * MIB))
    path.read_bytes()
    _look(path), _run(program, path)
    samples = at.alternate(
        lambda: _run(program, path), lambda: stopwatch(_look, path), at.pick(41, 9)
    )
    path.unlink()
    return samples


@residency_fincore.profile
@residency_vmtouch.profile
@residency_warm.profile
def _(at: Setting) -> Steps:
    for label, path in (
        ("16 GiB of hole", at.sparse(16 * GIB, "hole")),
        ("256 MiB in memory", at.file(256 * MIB)),
    ):
        path.open("rb").close()
        with MappedFile(path) as file:
            file.residency()
            yield f"-- {label}", 0.0
            yield from steps(
                at,
                {"file": file},
                ("residency()", "file.residency()"),
                ("of a GiB", "file.residency(0, 1 << 28)"),
            )


# Reading a file into memory


def _cold(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)
    with MappedFile(path) as file:
        if file.residency().resident:
            raise NotHere("this file system does not evict the file")


@row("warm", "mappedfile warm, 1 GiB from a cold cache", "vmtouch -t", 1.1)
def warm(at: Setting) -> Samples:
    if not hasattr(os, "posix_fadvise"):
        raise NotHere("this system cannot evict files")
    size = at.pick(GIB, 256 * MIB)
    program, path = _tool("vmtouch"), at.file(size)
    os.sync()

    def once(*command: object) -> float:
        _cold(path)
        return _run(*command, path)

    once(program, "-q", "-t"), once(*MAPPEDFILE, "warm")
    samples = at.alternate(
        lambda: once(program, "-q", "-t"), lambda: once(*MAPPEDFILE, "warm"), at.pick(31, 5)
    )
    samples.remark = f"{size / statistics.median(samples.ours):.2f} GB/s, with Python's start"
    path.unlink()
    return samples


# A file read once, from beginning to end


def _by_reading(path: Path) -> int:
    buffer = bytearray(MIB)
    array = np.frombuffer(buffer, "u1")
    largest = 0
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            largest = max(largest, int(array[:count].max()))
    return largest


def _by_mapping(path: Path, advice: str | None = None, **options: Any) -> int:
    with MappedFile(path, **options) as file:
        if advice:
            file.advise(advice)  # type: ignore[arg-type]
        return int(np.frombuffer(file.data, "u1").max())


def _scan(at: Setting, **options: Any) -> Samples:
    size = at.pick(GIB, 256 * MIB)
    path = at.file(size)
    assert (
        _by_reading(path) == _by_mapping(path, **options) == 0x5A
    )  # this also reads the file into memory
    samples = at.alternate(
        lambda: stopwatch(_by_reading, path),
        lambda: stopwatch(lambda: _by_mapping(path, **options)),
        at.pick(31, 7),
    )
    samples.remark = f"{size / statistics.median(samples.ours):.2f} GB/s; file in memory, new map"
    samples.further["without either"] = statistics.median(
        stopwatch(_by_mapping, path) for _ in range(at.pick(11, 5))
    ) / statistics.median(samples.peer)
    path.unlink()
    return samples


@row(
    "scan-sequential",
    "open, advise('sequential'), largest byte of 1 GiB",
    "readinto() of 1 MiB",
    0.8,
)
def scan_sequential(at: Setting) -> Samples:
    return _scan(at, advice="sequential")


@row("scan-populate", "open with populate=True, largest byte of 1 GiB", "readinto() of 1 MiB", 0.8)
def scan_populate(at: Setting) -> Samples:
    return _scan(at, populate=True)
