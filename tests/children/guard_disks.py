"""Full disks, and devices that fail. For tests/test_guard.py."""

from __future__ import annotations

import errno
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from children import fuse
from children.guard_common import CONTENT, faults
from children.tasks import Tasks
from mappedfile import PAGE_SIZE, MappedFile, MappingFault

task = Tasks()


@task
def fills_the_disk(folder: str) -> None:
    """Write into a hole on a full disk: MappingFault, and the other pages are not affected."""
    os.chdir(folder)
    with MappedFile("file", "w+", size=64 << 20, sparse=True) as file:
        file[:3] = b"yes"
        met = None
        for place in range(PAGE_SIZE, len(file), PAGE_SIZE):
            try:
                file[place] = 7
            except MappingFault as fault:
                met = fault
                break
        assert met is not None
        assert (met.errno, met.filename, met.offset) == (errno.ENOSPC, "file", place)
        assert "the disk is full" in str(met)
        assert file.faulted
        assert file[:3] == b"yes"
        assert file[place - PAGE_SIZE] == 7
        with faults():
            file[place]
        # Bytes written through a buffer do not reach the file.
        data = file.data
        data[place] = 9
        assert (data[place], data[place + 1]) == (9, 0)
        with faults():
            file.flush()
        del data
        os.unlink("filler")
        file.refresh()
        assert not file.faulted
        file[place] = 8
        file.flush()
        assert (file[place], file[:3]) == (8, b"yes")
        with open("file", "rb") as other:
            other.seek(place)
            assert other.read(1) == b"\x08"
    print("done")


@task
def few_blocks_are_free(folder: str) -> None:
    """Print the errors of a missing page in a hole, with 0, 1, ... free blocks, up to a page.

    The missing page is made by truncation: a real write would use up the free blocks.
    """
    os.chdir(folder)
    block = os.statvfs(".").f_frsize
    assert block < PAGE_SIZE
    with open("hole", "wb") as hole:
        hole.truncate(2 * PAGE_SIZE)
    reasons = []
    with open("filler", "ab", 0) as filler, MappedFile("hole") as file:
        os.truncate("hole", PAGE_SIZE)
        with faults():
            file[PAGE_SIZE]
        os.truncate("hole", 2 * PAGE_SIZE)
        for free in reversed(range(PAGE_SIZE // block + 1)):
            while (left := os.statvfs(".").f_bavail) > free:
                filler.write(bytes(block * max(1, left - 64)))
                os.fsync(filler.fileno())
            assert left == free
            try:
                file[PAGE_SIZE]
            except MappingFault as fault:
                reasons.insert(0, errno.errorcode[fault.errno or 0])
    print(PAGE_SIZE // block, *reasons)


@task
def fills_the_disk_inside(folder: str) -> None:
    """Write into a hole in a page with some data, on a full disk.

    The data of the page must stay readable.
    """
    os.chdir(folder)
    block = os.statvfs(".").f_frsize
    if block >= PAGE_SIZE:
        raise SystemExit("the test needs blocks smaller than pages")
    with open("file", "wb") as file:
        for page in range(3):
            file.seek(page * PAGE_SIZE)
            file.write(CONTENT[page * PAGE_SIZE :][:block])
        file.truncate(3 * PAGE_SIZE)
        os.fsync(file.fileno())
    with suppress(OSError), open("filler", "wb", 0) as file:
        while True:
            file.write(bytes(block))
    expected = bytearray(Path("file").read_bytes())
    for mode in ("r+", "c"):
        with MappedFile("file", mode) as file:
            data = file.data
            assert data == expected
            if mode == "c":  # needs no blocks
                data[PAGE_SIZE + block] = 9
                assert not file.faulted
                continue
            data[PAGE_SIZE + block] = 9
            expected[PAGE_SIZE + block] = 9
            assert file.faulted
            assert data == expected
            assert (file[0], file[2 * PAGE_SIZE]) == (expected[0], expected[2 * PAGE_SIZE])
            with faults():
                file[PAGE_SIZE]
            expected[PAGE_SIZE + block] = 0
            assert Path("file").read_bytes() == expected
    print("done")


@task
def device_fails(path: str, control: str, mode: str) -> None:
    """Read a file with pages that the device cannot read: fuse.py."""
    failing = Path(control)
    pages = os.stat(path).st_size // PAGE_SIZE

    def expect(window: Any, number: int) -> None:
        assert window[number * PAGE_SIZE :][:PAGE_SIZE] == fuse.page(number)

    failing.write_text("3 6")
    with MappedFile(path, mode) as file:
        for number in (3, 6):
            with faults(f"on page {number}"):
                file[number * PAGE_SIZE + 1]
        for number in {*range(pages)} - {3, 4, 5, 6}:
            assert file[number * PAGE_SIZE : (number + 1) * PAGE_SIZE] == fuse.page(number)
        with file.view(100) as view:  # begins within a page
            with faults("in a view"):
                view[3 * PAGE_SIZE]
            assert view[3 * PAGE_SIZE - 101] == fuse.page(2)[-1]
            assert view[4 * PAGE_SIZE - 100] == fuse.page(4)[0]
        # The mark is the range from the first failed page to the last. Good pages between them are
        # refused too, and a view can read them.
        for number in (4, 5):
            with faults(f"on page {number}"):
                file[number * PAGE_SIZE]
            with file.view(number * PAGE_SIZE, PAGE_SIZE) as view:
                assert view[:] == fuse.page(number)
                assert not view.faulted
        expected = b"".join(
            bytes(PAGE_SIZE) if number in (3, 6) else fuse.page(number) for number in range(pages)
        )
        assert np.frombuffer(file.data, "u1").tobytes() == expected
        failing.write_text("")
        file.refresh()
        assert not file.faulted
        assert file[:] == b"".join(map(fuse.page, range(pages)))
    print("done")


@task
def disk_goes(path: str, image: str) -> None:
    """The disk loses its second half. Pages there raise MappingFault, and others are right."""
    size = os.stat(path).st_size
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    with MappedFile(path) as mapped:
        os.truncate(image, os.stat(image).st_size // 2)
        gone = right = 0
        for place in range(0, size, PAGE_SIZE):
            try:
                assert mapped[place : place + 8] == struct.pack("<Q", place)
                right += 1
            except MappingFault as fault:
                assert fault.filename == path
                gone += 1
        print(right, gone, mapped.faulted)


if __name__ == "__main__":
    task.main()
