"""The guard's list of maps: many maps, grown maps, and interrupts while the list changes.

For tests/test_guard.py.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import warnings
from pathlib import Path

from children.guard_common import CONTENT, PAGES, faults, filled
from children.tasks import Tasks
from mappedfile import PAGE_SIZE, MappedFile
from mappedfile.contract import _probe

task = Tasks()


@task
def many_maps(folder: str, number: str) -> None:
    """Meet faults in some of many maps. The guard finds each one."""
    os.chdir(folder)
    count = int(number)
    Path("file").touch()
    os.truncate("file", count * PAGE_SIZE)
    os.truncate(filled(Path("other")), PAGE_SIZE)
    file = MappedFile("file", "r+")
    # The views are made from last to first: each is put below the one before, so the system merges
    # them into one map.
    views = [file.view(page * PAGE_SIZE, PAGE_SIZE) for page in reversed(range(count))]
    os.truncate("file", 0)
    chosen = {0, count - 1, *random.Random(1).sample(range(count), 200)}
    for place in chosen:
        with faults(f"in view {place}"):
            views[place][5]
    assert {place for place, view in enumerate(views) if view.faulted} == chosen
    for view in views[::2]:
        view.close()
    for place in (1, count - 1, count // 2 | 1):
        with faults():
            views[place][5]
    for view in views:
        view.close()
    file.close()
    print(len(chosen))


@task
def grown(folder: str, reserve: str) -> None:
    """Grow a map, cut the file, and meet faults."""
    os.chdir(folder)
    path = filled(Path("file"), CONTENT[: 3 * PAGE_SIZE])
    with MappedFile(path, "r+", reserve=int(reserve)) as file:
        assert file[:] == CONTENT[: 3 * PAGE_SIZE]
        file.resize(len(CONTENT))
        os.truncate("file", PAGE_SIZE)
        for page in (1, 2, 3, PAGES - 1):
            with faults(f"on page {page}"):
                file[page * PAGE_SIZE]
        assert file[:PAGE_SIZE] == CONTENT[:PAGE_SIZE]
    print("done")


@task
def interrupts(folder: str, times: str) -> None:
    """A signal handler raises an exception during mapping and unmapping.

    No map leaks, and the guard's list stays correct.
    """
    os.chdir(folder)
    sys.unraisablehook = lambda _: None  # gets exceptions in destructors
    warnings.simplefilter("ignore")
    armed = False
    chance = random.Random(1)

    class Interruption(Exception):  # noqa: N818
        pass

    def interrupt(*_: object) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise Interruption

    def view() -> None:
        with file.view(PAGE_SIZE, PAGE_SIZE) as view:
            view[0]

    def views() -> None:
        for each in [file.view(page * PAGE_SIZE, 10) for page in range(5)]:
            each.close()

    def another() -> None:
        with MappedFile("other", "r+") as other:
            other[0]
            other.resize(len(other) + 3 * PAGE_SIZE)
            other[-1]

    signal.signal(signal.SIGALRM, interrupt)
    filled(Path("other"))
    file = MappedFile(filled(Path("file")), "r+")
    assert file[:] == CONTENT
    another()
    before = _probe.file_maps()
    interrupted = 0
    while interrupted < int(times):
        what, length = chance.choice(((view, 40e-6), (views, 150e-6), (another, 200e-6)))
        os.truncate("other", PAGE_SIZE)
        try:
            armed = True
            signal.setitimer(signal.ITIMER_REAL, chance.random() * length + 1e-6)
            what()
            armed = False
        except Interruption:
            interrupted += 1
        armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
    gc.collect()
    after = _probe.file_maps()
    assert before == after, f"leaked: {before} {after}"
    # These objects overwrite freed memory, which the guard's list must not point to.
    rubbish = [bytes([255]) * size for size in range(40, 400) for _ in range(200)]
    os.truncate("file", PAGE_SIZE)
    for page in range(1, 50):
        with faults():
            file[page * PAGE_SIZE]
        with MappedFile("other") as other, other.view(0, 10) as part:
            assert other[0] == part[0] == CONTENT[0]
    file.close()
    del rubbish
    print("done")


if __name__ == "__main__":
    task.main()
