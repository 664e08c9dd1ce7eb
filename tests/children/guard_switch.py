"""Switching the guard on and off: fault_guard(). For tests/test_guard.py."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np

import mappedfile
from children.guard_common import CONTENT, faults, filled
from children.tasks import Tasks
from mappedfile import PAGE_SIZE, MappedFile

task = Tasks()


@task
def states(folder: str) -> None:
    """Print fault_guard() before and after the first map."""
    os.chdir(folder)
    guard = mappedfile.fault_guard
    states = [guard()]
    file = MappedFile(filled(Path("file")))
    states.append(guard())  # opened, but not mapped
    file[0]
    states += [guard(), guard(True)]
    for wanted in (0, 1, "no", b"", np.False_):
        try:
            guard(wanted)  # type: ignore[arg-type]
        except TypeError as error:
            assert repr(wanted) in str(error)
        else:
            raise AssertionError(f"no TypeError for {wanted!r}")
    for _ in range(2):
        try:
            guard(False)
        except RuntimeError as error:
            assert "before the first map" in str(error)
        else:
            raise AssertionError("no RuntimeError")
        # Switching off is refused also after another handler was set.
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
    states.append(guard())
    file.close()
    print(*states)


@task
def switched_off(folder: str) -> None:
    """With fault_guard(False), the process ends by SIGBUS, as without the library."""
    os.chdir(folder)
    print(mappedfile.fault_guard(False), mappedfile.fault_guard(False), end=" ")
    file = MappedFile(filled(Path("file")))
    view = file.view(PAGE_SIZE)
    print(file[0] == CONTENT[0], mappedfile.fault_guard(), flush=True)
    os.truncate("file", PAGE_SIZE)
    view[0]


@task
def switched_on_late(folder: str) -> None:
    """fault_guard(True) after fault_guard(False) also covers maps that were made before it, and the
    next map installs the guard again."""
    os.chdir(folder)
    mappedfile.fault_guard(False)
    file = MappedFile(filled(Path("file")))
    view = file.view(PAGE_SIZE)
    assert file[0] == CONTENT[0]
    print(mappedfile.fault_guard(), mappedfile.fault_guard(True), end=" ")
    os.truncate("file", PAGE_SIZE)
    for window in (file, view):
        with faults():
            window[-1]
        window.close()
    signal.signal(signal.SIGBUS, signal.SIG_DFL)
    with MappedFile("file") as file:
        file[0]
        print(mappedfile.fault_guard())


@task
def first_view(folder: str) -> None:
    """A view can be the first map."""
    os.chdir(folder)
    file = MappedFile(filled(Path("file")))
    view = file.view(PAGE_SIZE)
    print(mappedfile.fault_guard())
    os.truncate("file", PAGE_SIZE)
    with faults():
        view[0]
    view.close()
    file.close()


if __name__ == "__main__":
    task.main()
