"""The guard in child processes. For tests/test_guard.py."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import mappedfile
from children import code, run_python
from children.crew import Crew
from children.guard_common import CONTENT, faults, filled
from children.tasks import Tasks
from mappedfile import PAGE_SIZE, MappedFile

task = Tasks()


@task
def fork(folder: str) -> None:
    """Parent and child both meet missing pages, and each gets MappingFault."""
    os.chdir(folder)
    for first in ("parent", "child"):
        file = MappedFile(filled(Path(first)), "r+")
        view = file.view(PAGE_SIZE, PAGE_SIZE)
        assert (file[:], view[0]) == (CONTENT, CONTENT[PAGE_SIZE])
        os.truncate(first, PAGE_SIZE)
        if first == "parent":
            with faults():
                view[0]
        pid = os.fork()
        if pid == 0:
            os._exit(run_child(file, view, first == "parent"))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert (first == "parent") == view.faulted == file.faulted
        assert file[0] == CONTENT[0]
        for window in (file, view):
            with faults():
                window[-1]
            assert window.faulted
        filled(Path(first))
        file.refresh()
        assert file[:] == CONTENT
        view.close()
        file.close()
    print("done")


def run_child(file: MappedFile, view: Any, met: bool) -> int:
    try:
        assert met == view.faulted == file.faulted
        assert file[0] == CONTENT[0]
        for window in (file, view):
            with faults():
                window[-1]
            assert window.faulted
        with MappedFile(filled(Path("child's"))) as another:
            os.truncate("child's", 0)
            with faults():
                another[:]
        view.close()
        file.close()
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        return 1
    return 0


@task
def fork_storm(folder: str, times: str, guard: str) -> None:
    """Fork children while threads map, unmap and meet faults. Each child can do the same."""
    os.chdir(folder)
    if guard == "without":
        mappedfile.fault_guard(False)
    file = MappedFile(filled(Path("file")))
    assert file[0] == CONTENT[0]

    def open_and_close() -> None:
        while not crew.stopped.is_set():
            views = [file.view(page * PAGE_SIZE, 100) for page in range(20)]
            for view in views:
                view.close()

    def meet(name: str) -> None:
        while not crew.stopped.is_set():
            with MappedFile(filled(Path(name))) as mine:
                os.truncate(name, 0)
                with faults():
                    mine.count(7)

    with Crew() as crew:
        for _ in range(2):
            crew.start(open_and_close)
        if guard == "with":
            crew.start(meet, "cut")
        for born in range(int(times)):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)  # ends a child that hangs
                with file.view(PAGE_SIZE, 10) as view:
                    right = view[:] == CONTENT[PAGE_SIZE : PAGE_SIZE + 10]
                if guard == "with":
                    with MappedFile(filled(Path("child's"))) as mine:
                        os.truncate("child's", 0)
                        with faults():
                            mine.count(7)
                os._exit(0 if right else 1)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if status:
                raise SystemExit(f"child {born} ended with {status}")
        crew.stop()
    file.close()
    print("done")


@task
def inherits(folder: str) -> None:
    """Print the action of SIGBUS in a child program: exec restores the default action."""
    os.chdir(folder)
    with MappedFile(filled(Path("file"))) as file:
        file[0]
        program = "import signal; print(int(signal.getsignal(signal.SIGBUS)))"
        print(run_python(*code(program)).stdout)


if __name__ == "__main__":
    task.main()
