"""Tests of other programs that use mmap, run on mappedfile.mmap. They must have the same results as
on mmap.

Run it with tox -e programs, or with python -m pytest tests/programs.py. MAPPEDFILE_PROGRAMS is the
folder of their sources.
"""

import importlib.util
import json
import os
import time
from contextlib import suppress
from pathlib import Path

import pytest
from children import run_python
from support import need

HERE = Path(__file__).parent
SOURCES = os.environ.get("MAPPEDFILE_PROGRAMS", "")

#: For each program: the folder to run in, and pytest's arguments.
PROGRAMS = {
    "maxminddb": (
        Path(SOURCES, "maxminddb"),
        ["tests/decoder_test.py", "tests/reader_test.py", "tests/threading_test.py"],
    ),
    "multiprocessing": (
        HERE,
        [
            "multiprocessing_of_cpython.py",
            "-k",
            "Heap or SharedMem or SharedCTypes or Array or Value",
        ],
    ),
    "numpy": (
        HERE,
        [
            "--pyargs",
            "numpy._core.tests.test_memmap",
            "numpy._core.tests.test_multiarray::TestFromBuffer",
            "numpy.lib.tests.test_format",
        ],
    ),
    "smmap": (Path(SOURCES, "smmap"), ["smmap/test"]),
}

#: How many tests must pass on mmap. With fewer, something is missing.
AT_LEAST = {"maxminddb": 290, "multiprocessing": 20, "numpy": 60, "smmap": 9}

#: The tests that cannot pass on mappedfile.mmap, and why.
CANNOT = {
    "numpy": {
        "TestMemmap::test_empty_array": (
            "S1: an empty file is mapped, and is empty; the test expects that numpy.memmap fails"
        ),
        "TestFromBuffer::test_mmap_close": (
            "L4: close() works while an array is alive; the test expects a BufferError"
        ),
    }
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_program(program, tmp_path):
    """Each test of a program has the same result on mappedfile.mmap as on mmap, except those in
    CANNOT."""
    if program == "multiprocessing":
        need(has_tests_of_cpython(), "CPython's own tests: Debian has them in libpython3-testsuite")
    expected, before = outcomes(program, "mmap", tmp_path)
    actual, after = outcomes(program, "mappedfile.mmap", tmp_path)
    known = CANNOT.get(program, {})
    cannot = {name for name in expected if any(name.endswith(each) for each in known)}

    passed = sum(outcome == "passed" for outcome in expected.values())
    assert passed >= AT_LEAST[program]
    assert len(known) == len(cannot)
    assert expected | dict.fromkeys(cannot, "failed") == actual
    print(
        f"\n{program}: {passed} passed on mmap,"
        f" {passed - len(cannot)} on mappedfile.mmap, {len(cannot)} cannot;"
        f" {before:.1f} s and {after:.1f} s"
    )


def has_tests_of_cpython():
    """Whether this Python has CPython's own tests."""
    with suppress(ModuleNotFoundError):
        return importlib.util.find_spec("test._test_multiprocessing") is not None
    return False


def outcomes(program, module, folder):
    """Return the outcome of each test on a module, and how many seconds they took."""
    place, tests = PROGRAMS[program]
    report = folder / f"{module}.json"
    pytest_ = ("-m", "pytest", "-q", "-p", "children.stand_in", "-p", "no:cacheprovider")
    environment = {
        "MAPPEDFILE_STAND_IN": module,
        "MAPPEDFILE_OUTCOMES": str(report),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    start = time.perf_counter()
    done = run_python(
        *pytest_, "-o", "addopts=", *tests, check=False, cwd=place, env=environment, timeout=300
    )
    taken = time.perf_counter() - start
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return json.loads(report.read_text("utf-8")), taken
