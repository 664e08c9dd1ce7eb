"""Helpers of several tests: probes of this system, small file systems, children under strace."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from children import code, run_python

from mappedfile._native import ffi, lib

LINUX = sys.platform == "linux"
#: With MAPPEDFILE_STRICT=1, a test fails if something that it needs is missing. CI sets it.
STRICT = LINUX and bool(os.environ.get("MAPPEDFILE_STRICT"))


def need(condition: object, reason: str) -> None:
    """Skip the test if the condition is false. With MAPPEDFILE_STRICT, fail it."""
    if not condition:
        (pytest.fail if STRICT else pytest.skip)(f"needs {reason}")


def needs(condition: object, reason: str) -> pytest.MarkDecorator:
    """Do the same as need(), as a mark.

    conftest.py reports one skip for the mark, not one for each parameter.
    """
    return pytest.mark.skipif(not condition and not STRICT, reason=f"needs {reason}")


def only(condition: object, reason: str) -> None:
    """Skip the test on a system where it makes no sense."""
    if not condition:
        pytest.skip(reason)


# Small file systems


@cache
def mounts() -> bool:
    """Tell whether this process may mount a file system.

    In a container, root may not be allowed to.
    """
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("mount"):
        return False
    with tempfile.TemporaryDirectory() as place:
        if subprocess.run(
            ["mount", "-t", "tmpfs", "tmpfs", place], capture_output=True, check=False
        ).returncode:
            return False
        unmount(Path(place))
    return True


@contextmanager
def small_file_system(folder: Path, kind: str, size: int) -> Iterator[Path]:
    """Mount a file system of *size* bytes for the time of the block.

    KIND is tmpfs, overlay, or a type that mkfs makes on a loop device.
    """
    need(mounts(), "to mount file systems")
    place = folder / f"mnt-{kind}"
    place.mkdir()
    if kind == "tmpfs":
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "tmpfs", place]
    elif kind == "overlay":
        for layer in ("lower", "upper", "work"):
            (folder / layer).mkdir()
        layers = (
            f"lowerdir={folder / 'lower'},upperdir={folder / 'upper'},workdir={folder / 'work'}"
        )
        mount = ["mount", "-t", "overlay", "-o", layers, "overlay", place]
    else:
        image = folder / f"{kind}.image"
        make_image(image, kind, size)
        mount = ["mount", "-o", "loop,nodev", image, place]
    done = subprocess.run(mount, capture_output=True, check=False, text=True)
    need(done.returncode == 0, f"to mount a {kind}: {done.stderr.strip()}")
    try:
        yield place
    finally:
        unmount(place)


def make_image(image: Path, kind: str, size: int) -> None:
    """Make a file with a file system in it."""
    make = shutil.which(f"mkfs.{kind}", path=f"{os.environ.get('PATH')}:/usr/sbin:/sbin")
    need(make, f"mkfs.{kind}")
    with open(image, "wb") as file:
        file.truncate(size)
    # Without a journal and background initialization, the amount of free space does not change.
    options = (
        ["-q", "-F", "-O", "^has_journal", "-m", "0", "-E", "lazy_itable_init=0"]
        if kind == "ext4"
        else []
    )
    done = subprocess.run([make, *options, image], capture_output=True, check=False, text=True)
    need(done.returncode == 0, f"to make a {kind}: {done.stderr.strip()}")


def unmount(place: Path) -> None:
    """Unmount, even if a process still uses the file system."""
    for _ in range(20):
        if subprocess.run(["umount", place], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.05)
    subprocess.run(["umount", "-l", place], capture_output=True, check=True)


# strace


@cache
def strace() -> str:
    """Return the path of a strace that works, or "".

    An installed strace may lack the permission to trace.
    """
    found = shutil.which("strace")
    works = (
        found
        and subprocess.run(
            [found, "-qq", "-e", "trace=none", "true"], capture_output=True, check=False
        ).returncode
        == 0
    )
    return found if works else ""


def traced(program: str, *arguments: object, calls: str, folder: Path) -> list[str]:
    """Run a Python program under strace.

    Return strace's lines for these system calls, in order.
    """
    need(strace(), "strace, and permission to trace")
    log = folder / "strace.log"
    log.unlink(missing_ok=True)
    under = [strace(), "-f", "-y", "-qq", "-e", "signal=none", "-e", f"trace={calls}", "-o", log]
    run_python(*code(program), *arguments, under=under, quiet=True)
    return [re.sub(r"^\d+ +", "", line) for line in log.read_text().splitlines()]


@contextmanager
def strace_attached(pid: int, *arguments: object, log: Path) -> Iterator[None]:
    """Attach strace to a process for the time of the block."""
    log.unlink(missing_ok=True)
    command = [strace(), "-f", "-y", "-o", log, *arguments, "-p", str(pid)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        first = process.stderr.readline()
        try:
            assert "attached" in first, first
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.stderr.read()


def import_on(backend: object, *modules: str) -> Any:
    """Import a second copy of the package, on another backend, and these modules of it."""
    ours = {
        name: module
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "mappedfile"
    }
    for name in ours:
        del sys.modules[name]
    native = ModuleType("mappedfile._native")
    native.ffi, native.lib = ffi, backend  # type: ignore[attr-defined]
    sys.modules["mappedfile._native"] = native
    try:
        package = importlib.import_module("mappedfile")
        for name in modules:
            importlib.import_module(f"mappedfile.{name}")
        return package
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "mappedfile"]:
            del sys.modules[name]
        sys.modules.update(ours)


def import_with(**calls: object) -> Any:
    """Import a second copy of the package, with these calls in place of the backend's."""

    class Backend:
        def __getattr__(self, name: str) -> object:
            return getattr(lib, name)

        def mf_fill_table(self, table: Any) -> None:
            lib.mf_fill_table(table)
            for name, call in calls.items():
                setattr(table, name, call)

    return import_on(Backend())
