"""Other handlers of SIGBUS, installed before the guard or after it. For tests/test_guard.py.

HELPER is tests/sigbus.c, compiled. It stands for another library.
"""

from __future__ import annotations

import errno
import faulthandler
import itertools
import mmap
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mappedfile
from children import sigbus
from children.guard_common import CONTENT, faults, filled
from children.tasks import Tasks
from mappedfile import PAGE_SIZE, MappedFile
from mappedfile.contract import _probe

task = Tasks()


@task
def taken(folder: str) -> None:
    """Install handlers after the guard. They come first until a whole file is mapped.

    Mapping a view does not change the handler.
    """
    os.chdir(folder)
    file = MappedFile(filled(Path("file")))
    states = []
    for handler in (signal.SIG_DFL, signal.SIG_IGN, lambda *_: None):
        file[0]
        signal.signal(signal.SIGBUS, handler)
        states.append(mappedfile.fault_guard())
        file.view(PAGE_SIZE, 10).close()
        states.append(mappedfile.fault_guard())
        with MappedFile("file") as another:
            another[0]
        states.append(mappedfile.fault_guard())
    file.close()
    print(*states)


@task
def taken_by_many(folder: str, helper: str) -> None:
    """The guard installs itself over four different handlers. Over a fifth it does not, and
    fault_guard() returns false."""
    os.chdir(folder)
    library = sigbus.load(helper)
    filled(Path("file"))
    takers: list[Callable[[], object]] = [
        lambda: None,
        lambda: signal.signal(signal.SIGBUS, signal.SIG_IGN),
        lambda: signal.signal(signal.SIGBUS, lambda *_: None),
        faulthandler.enable,
        lambda: library.take(0, 0),
        lambda: signal.signal(signal.SIGBUS, signal.SIG_IGN),  # not a new handler
    ]
    states = []
    for take in takers:
        take()
        with MappedFile("file") as file:
            file[0]
            states.append(mappedfile.fault_guard())
    try:
        library.take(1, 0)
        mappedfile.fault_guard(True)
    except OSError as error:
        states.append(error.errno == errno.EAGAIN)
    print(*states)


@task
def jumps(folder: str, helper: str) -> None:
    """A handler installed before the guard jumps back to the code that met the fault."""
    os.chdir(folder)
    library = sigbus.load(helper)
    library.take(3, 0)
    with open(filled(Path("theirs")), "r+b") as theirs, MappedFile(filled(Path("file"))) as file:
        foreign = library.map_file(theirs.fileno(), 2 * PAGE_SIZE)
        assert file[:] == CONTENT
        os.truncate("theirs", PAGE_SIZE)
        os.truncate("file", PAGE_SIZE)
        for place in range(PAGE_SIZE, 5 * PAGE_SIZE, PAGE_SIZE):
            assert library.try_touch(foreign + PAGE_SIZE) == 1
            assert library.try_touch(foreign) == 0
            with faults():
                file[place]
        with file.view(0, 10) as view:  # unmapping waits for running handlers
            assert view[:] == CONTENT[:10]
        print(library.blocked() == 0)


@task
def chained(folder: str, helper: str) -> None:
    """A handler installed after the guard passes on the signals of other maps."""
    os.chdir(folder)
    library = sigbus.load(helper)
    with open(filled(Path("theirs")), "r+b") as theirs, MappedFile(filled(Path("file"))) as file:
        assert file[:] == CONTENT
        library.take(2, 0)
        foreign = library.map_file(theirs.fileno(), 2 * PAGE_SIZE)
        os.truncate("theirs", PAGE_SIZE)
        os.truncate("file", PAGE_SIZE)
        for place in range(PAGE_SIZE, 3 * PAGE_SIZE, PAGE_SIZE):
            with faults():
                file[place]
            library.touch(foreign + PAGE_SIZE)
        print(sigbus.seen(library)["calls"] == 1, end=" ")
        library.give_back()
        with faults():
            file[4 * PAGE_SIZE]
        print(mappedfile.fault_guard())


@task
def on_the_stack(folder: str, helper: str) -> None:
    """Print whether the handlers run on the thread's alternate stack. The first handler was
    installed without SA_ONSTACK."""
    os.chdir(folder)
    library = sigbus.load(helper)
    library.take(1, 0)
    library.use_stack()
    with open(filled(Path("theirs")), "r+b") as theirs:
        foreign = library.map_file(theirs.fileno(), 3 * PAGE_SIZE)
    os.truncate("theirs", 0)
    library.touch(foreign)
    print(sigbus.seen(library)["stack"], end=" ")
    with MappedFile(filled(Path("file"))) as file:
        file[0]
        library.touch(foreign + PAGE_SIZE)
        print(sigbus.seen(library)["stack"])


@task
def unseen(folder: str) -> None:
    """Print the handler that signal.getsignal() shows."""
    os.chdir(folder)
    with MappedFile(filled(Path("file"))) as file:
        file[0]
        print(mappedfile.fault_guard(), int(signal.getsignal(signal.SIGBUS)))


@task
def later(folder: str, who: str) -> None:
    """Install a handler that does not pass on the signal, after the last file was mapped."""
    os.chdir(folder)
    file = MappedFile(filled(Path("file")))
    assert file[0] == CONTENT[0]
    if who == "faulthandler":
        faulthandler.enable()
    else:
        signal.signal(signal.SIGBUS, lambda *_: None)
        signal.alarm(2)  # the handler would be called for ever
    os.truncate("file", 0)
    print(mappedfile.fault_guard(), flush=True)
    file[0]


@task
def toggles(folder: str) -> None:
    """Enable faulthandler, disable it, and map files, in every order of five steps.

    Each order runs in a fork.
    """
    os.chdir(folder)
    Path("theirs").write_bytes(CONTENT)
    with open("theirs", "rb") as theirs:
        foreign = mmap.mmap(theirs.fileno(), 0, access=mmap.ACCESS_READ)
    os.truncate("theirs", PAGE_SIZE)
    tried = 0
    for steps in itertools.product(("enable", "disable", "map"), repeat=5):
        tried += 1
        pid = os.fork()
        if pid == 0:
            report = os.open("report", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            os.dup2(report, 2)
            signal.alarm(20)
            try:
                for number, step in enumerate(steps):
                    if step == "map":
                        with MappedFile(filled(Path("file"), CONTENT[: 3 * PAGE_SIZE])) as file:
                            assert file[0] == CONTENT[0]
                            assert mappedfile.fault_guard()
                            os.truncate("file", 0)
                            with faults(f"in step {number}"):
                                file[0]
                    else:
                        getattr(faulthandler, step)()
                enabled = faulthandler.is_enabled()
                os.write(report, b"enabled\n" if enabled else b"disabled\n")
                foreign[PAGE_SIZE]
            except BaseException as error:
                print(f"{error!r}", file=sys.stderr)
            os._exit(1)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        text = Path("report").read_text()
        assert status == -signal.SIGBUS, (steps, status, text)
        assert text.startswith("enabled\nFatal Python error: Bus error") or text == "disabled\n", (
            steps,
            text,
        )
        assert text.count("Fatal") <= 1, (steps, text)
    print(tried)


@task
def blocks(folder: str, helper: str) -> None:
    """Print the signals that the guard's handler blocks."""
    os.chdir(folder)
    with MappedFile(filled(Path("file"))) as file:
        file[0]
        print(sigbus.load(helper).blocks())


@task
def keeps_errno(folder: str, helper: str, mode: Any) -> None:
    """Print whether errno is unchanged after a fault."""
    os.chdir(folder)
    library = sigbus.load(helper)
    file = MappedFile(filled(Path("file")), mode)
    data = file.data
    os.truncate("file", PAGE_SIZE)
    print(library.touch(_probe.address_of(data) + PAGE_SIZE) == errno.ERANGE, file.faulted)
    file.close()


if __name__ == "__main__":
    task.main()
