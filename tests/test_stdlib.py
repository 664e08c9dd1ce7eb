"""mappedfile.mmap against the standard library's mmap: CPython's own tests, and what they do not
look at."""

import json
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from children import child, run_python
from support import need, only

from mappedfile.contract._oracle import LAYER_BREAKS

WINDOWS = sys.platform == "win32"

#: The tests of CPython that cannot pass, where they cannot, and why: docs/mmap.md has the clauses.
CANNOT = {
    "MmapTests.test_empty_file": (True, "S1: an empty file is mapped, and is empty"),
    "MmapTests.test_flush_return_value": (
        sys.platform.startswith("linux"),
        "F2: a flush may begin at any byte; "
        "the test wants an error from one that begins within a page",
    ),
    "MmapTests.test_mmap_export_as_memoryview": (
        True,
        "L4: close() works while a memoryview is alive; the test wants a BufferError",
    ),
    "MmapTests.test_access_parameter": (
        WINDOWS,
        "S6: a map that is longer than its file is a ValueError everywhere; "
        "the test wants the file to grow on Windows",
    ),
    "MmapTests.test_no_trackfd_parameter_on_windows": (
        WINDOWS,
        "trackfd is there on Windows too, as it is in Python 3.15; the test wants that it is not",
    ),
}


@pytest.mark.parametrize("file", ["test_mmap.py", "test_free_threading/test_mmap.py"])
def test_of_cpython(file, tmp_path):
    """Each test of this Python's own does on mappedfile.mmap what it does on mmap, but for those
    that are known not to."""
    where = path_of_test(file)
    (only if "/" in file else need)(
        where, f"CPython's {file}: Debian has it in libpython3-testsuite"
    )
    expected, actual = (
        outcomes("mmap", where, tmp_path),
        outcomes("mappedfile.mmap", where, tmp_path),
    )
    known = {name for name, (here, _) in CANNOT.items() if here and name in expected}
    told = {
        name: how
        for name, how in actual.items()
        if how[0] not in (expected[name][0], "passed")
        and name not in known  # what mmap lacks on a system may be there
    }

    assert {} == told
    assert list(expected) == list(actual)
    assert len(expected) > 5
    assert dict.fromkeys(known, "failed") == {name: actual[name][0] for name in known}
    print(
        f"{file}: {count(expected)} pass on mmap, {count(actual)} on mappedfile.mmap,"
        f" {len(known)} cannot"
    )


def path_of_test(file):
    """Where this Python has its own tests; None if it has none."""
    with suppress(ModuleNotFoundError):
        import test

        path = Path(test.__path__[0], file)
        return path if path.exists() else None


def count(outcomes):
    """How many have passed."""
    return sum(how == "passed" for how, _ in outcomes.values())


def outcomes(module, tests, folder):
    """What becomes of these tests on a module."""
    done = run_python(*child("stdlib_tests"), module, tests, cwd=folder, timeout=300)
    return json.loads(done.stdout.splitlines()[-1])


def test_the_page_tells_it():
    """docs/mmap.md has every test that cannot pass, and every clause that the layer does not
    keep."""
    text = (Path(__file__).parents[1] / "docs" / "mmap.md").read_text("utf-8")

    assert [] == [name for name, (_, why) in CANNOT.items() if f"| `{name}` | {why} |" not in text]
    assert [] == [id for id, why in LAYER_BREAKS.items() if f"| {id} | {why} |" not in text]
