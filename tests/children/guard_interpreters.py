"""The guard in sub-interpreters. For tests/test_guard.py."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from children.guard_common import CONTENT, faults, filled
from children.tasks import Tasks
from mappedfile import PAGE_SIZE, MappedFile

task = Tasks()


def sub_interpreter(own_gil: bool, program: str) -> Any:
    """Run a program in a sub-interpreter; return its error, or None."""
    try:
        import _interpreters as interpreters  # type: ignore[import-not-found]
    except ImportError:
        import _xxsubinterpreters as interpreters  # type: ignore[import-not-found]

        one = interpreters.create(isolated=own_gil)
    else:
        one = interpreters.create("isolated" if own_gil else "legacy")
    try:
        return interpreters.run_string(one, f"import sys; sys.path[:] = {[*sys.path]!r}\n{program}")
    except interpreters.RunFailedError as error:
        return error
    finally:
        interpreters.destroy(one)


@task
def interpreters(folder: str) -> None:
    """Use the guard in sub-interpreters that share the GIL.

    Each imports the library separately. The process has one guard.
    """
    os.chdir(folder)
    program = """
import os
import mappedfile
before = mappedfile.fault_guard()
with open("theirs", "wb") as file:
    file.write(b"t" * 3 * mappedfile.PAGE_SIZE)
with mappedfile.MappedFile("theirs") as file:
    first, after = file[0], mappedfile.fault_guard()
    os.truncate("theirs", 1)
    try:
        result = file[mappedfile.PAGE_SIZE]
    except mappedfile.MappingFault:
        result = "MappingFault"
    try:
        mappedfile.fault_guard(False)
    except RuntimeError:
        stays = True
os.write(1, f"{before} {first} {after} {result} {stays}\\n".encode())
"""
    with MappedFile(filled(Path("ours"))) as file:
        for number in range(3):
            failed = sub_interpreter(False, program)
            assert failed is None, failed
            if number == 1:
                assert file[0] == CONTENT[0]
        os.truncate("ours", PAGE_SIZE)
        with faults():
            file[PAGE_SIZE]


@task
def interpreter_with_gil(folder: str) -> None:
    """Import the library in a sub-interpreter with its own GIL, which cffi's modules do not
    support."""
    print(sub_interpreter(True, "import mappedfile"))


if __name__ == "__main__":
    task.main()
