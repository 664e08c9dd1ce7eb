"""Threads that meet missing pages at the same time. For tests/test_guard.py."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from children.crew import Crew
from children.guard_common import CONTENT, faults, filled
from children.tasks import Tasks
from mappedfile import PAGE_SIZE, MappedFile

ABSENT = bytes(4)

task = Tasks()


@task
def storm(folder: str, times: str) -> None:
    """Threads meet missing pages at the same time, in separate maps and in a shared one.

    Other threads open and close maps all the time.
    """
    os.chdir(folder)
    workers = 4
    files = [MappedFile(filled(Path(f"own{number}")), "r+") for number in range(workers)]
    shared = MappedFile(filled(Path("shared")), "r+")
    left = CONTENT[:PAGE_SIZE].ljust(len(CONTENT), b"\0")
    opened = 0

    def work(number: int) -> None:
        own = files[number]
        while True:
            start.wait()
            # These calls release the GIL.
            with faults("in a thread's own file"):
                own.count(number)
            assert zlib.crc32(shared.data) == zlib.crc32(left), "wrong bytes in the shared file"
            assert shared.faulted
            with faults("in the shared file"):
                shared.find(ABSENT, number * 100)
            assert zlib.crc32(own.data) == zlib.crc32(left), "wrong bytes in a thread's own file"
            with faults("at an index"):
                shared[PAGE_SIZE * (number + 1)]
            end.wait()

    def open_and_close(number: int) -> None:
        nonlocal opened
        path = filled(Path(f"other{number}"))
        while not crew.stopped.is_set():
            with MappedFile(path, "r+") as file:
                views = [file.view(page * PAGE_SIZE, 100) for page in range(20)]
                for page, view in enumerate(views):
                    expected = CONTENT[page * PAGE_SIZE :][:100]
                    assert view[:] == expected, "wrong bytes in a whole file"
                    view.close()
                assert file[-10:] == CONTENT[-10:]
                assert not file.faulted
            opened += 1

    with Crew() as crew:
        start, end = crew.barrier(workers + 1), crew.barrier(workers + 1)
        for number in range(workers):
            crew.start(work, number)
        for number in range(2):
            crew.start(open_and_close, number)
        for _ in range(int(times)):
            for file in (*files, shared):
                os.truncate(file.name, PAGE_SIZE)
            start.wait()
            end.wait()
            for file in (*files, shared):
                filled(Path(str(file.name)))
                file.refresh()
                assert file[:] == CONTENT
        crew.stop()
    for file in (*files, shared):
        file.close()
    print(opened)


if __name__ == "__main__":
    task.main()
