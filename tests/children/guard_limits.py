"""Limits of the guard. For tests/test_guard.py."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import signal
from contextlib import suppress
from pathlib import Path

from children.guard_common import CONTENT, filled
from children.tasks import Tasks
from mappedfile import PAGE_SIZE, MappedFile
from mappedfile.contract import _probe

task = Tasks()


@task
def reads_only(folder: str) -> None:
    """Write to the zeros in a read-only map, which fails."""
    os.chdir(folder)
    file = MappedFile(filled(Path("file"), CONTENT[: 3 * PAGE_SIZE]))
    data = file.data
    assert data[PAGE_SIZE] == CONTENT[PAGE_SIZE]
    os.truncate("file", 0)
    assert data[PAGE_SIZE] == 0
    address = _probe.address_of(data) + PAGE_SIZE
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, stop = (int(number, 16) for number in line.split()[0].split("-"))
        if start <= address < stop:
            print(line.split()[1], flush=True)
    ctypes.memset(address, 1, 1)


@task
def blocked(folder: str) -> None:
    """Meet a fault in a thread that has blocked SIGBUS, which ends the process."""
    os.chdir(folder)
    file = MappedFile(filled(Path("file")))
    assert file[0] == CONTENT[0]
    os.truncate("file", PAGE_SIZE)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGBUS})
    print("blocked", flush=True)
    file[PAGE_SIZE]


@task
def system_calls(folder: str) -> None:
    """Pass a buffer with missing pages to system calls: EFAULT, and no mark.

    After the page is replaced, the calls read zeros.
    """
    os.chdir(folder)
    file = MappedFile(filled(Path("file")), "r+")
    data = file.data[PAGE_SIZE : 2 * PAGE_SIZE]
    os.truncate("file", PAGE_SIZE)
    read, write = os.pipe()
    os.write(write, b"full")
    for call in (lambda: os.write(write, data), lambda: os.readv(read, [data])):
        try:
            call()
        except OSError as error:
            print(error.errno == errno.EFAULT, file.faulted, end=" ")
    data[0]
    print(file.faulted, os.write(write, data[:10]), end=" ")
    os.read(read, 10)
    print(os.readv(read, [data]))
    file.close()


@task
def lost_silently(folder: str) -> None:
    """Lose bytes of a private map without a fault.

    This happens if the file was cut and is whole again before the next access.
    """
    os.chdir(folder)
    file = MappedFile(filled(Path("file")), "c")
    file[0], file[5 * PAGE_SIZE] = 1, 2
    os.truncate("file", PAGE_SIZE)
    filled(Path("again"))
    with open("file", "r+b") as other:
        other.write(CONTENT)
    print(file[0], file[5 * PAGE_SIZE] == CONTENT[5 * PAGE_SIZE], file.faulted)
    file.close()


@task
def too_many_maps(folder: str) -> None:
    """Meet a fault at the system's limit of maps, where the page of zeros cannot be mapped."""
    os.chdir(folder)
    file = MappedFile(filled(Path("file")))
    data = file.data
    assert data[0] == CONTENT[0]
    os.truncate("file", 0)
    assert data[-1] == 0
    fill = []
    with suppress(OSError):
        while True:  # two kinds in turn: the system would merge equal ones
            prot = (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE)[len(fill) % 2]
            fill.append(mmap.mmap(-1, PAGE_SIZE, prot=prot))
    os.write(1, b"full\n")
    data[PAGE_SIZE * 5]


if __name__ == "__main__":
    task.main()
