"""mappedfile.mmap against the standard library's mmap: CPython's own tests, and more."""

import copy
import errno
import io
import json
import mmap
import os
import pickle
import sys
import weakref
from collections import abc
from contextlib import suppress
from pathlib import Path

import pytest
from children import child, run_python
from support import LINUX, need, only

from mappedfile import MappingFault, capabilities
from mappedfile import mmap as layer
from mappedfile.contract._oracle import LAYER_BREAKS

WINDOWS = sys.platform == "win32"

#: The tests of CPython that cannot pass, whether this system has them, and why. docs/mmap.md has
#: the clauses.
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
    """Each of CPython's tests has the same result on mappedfile.mmap as on mmap, except those in
    CANNOT."""
    where = path_of_test(file)
    (only if "/" in file else need)(
        where, f"CPython's {file}: Debian has it in libpython3-testsuite"
    )
    expected, actual = (
        outcomes("mmap", where, tmp_path),
        outcomes("mappedfile.mmap", where, tmp_path),
    )
    known = {name for name, (here, _) in CANNOT.items() if here and name in expected}
    different = {
        name: how
        for name, how in actual.items()
        if how[0] not in (expected[name][0], "passed")
        and name not in known  # mappedfile may pass where mmap fails
    }

    assert {} == different
    assert list(expected) == list(actual)
    assert len(expected) > 5
    assert dict.fromkeys(known, "failed") == {name: actual[name][0] for name in known}
    print(
        f"{file}: {count(expected)} pass on mmap, {count(actual)} on mappedfile.mmap,"
        f" {len(known)} cannot"
    )


def path_of_test(file):
    """Return the path of a file of this Python's own tests, or None."""
    with suppress(ModuleNotFoundError):
        import test

        path = Path(test.__path__[0], file)
        return path if path.exists() else None


def count(outcomes):
    """Return how many tests passed."""
    return sum(how == "passed" for how, _ in outcomes.values())


def outcomes(module, tests, folder):
    """Return the outcome of each test on a module."""
    done = run_python(*child("stdlib_tests"), module, tests, cwd=folder, timeout=300)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def map(tmp_path):
    """Yield a map of a small file."""
    (tmp_path / "file").write_bytes(b"0123456789")
    with open(tmp_path / "file", "r+b") as file, layer.mmap(file.fileno(), 0) as made:
        yield made


def test_has_the_names_of_mmap():
    """The module has exactly the names of the newest mmap: programs check for names."""
    newest = {"seekable", "set_name", "madvise"}
    ours = {"faulted", "_mapped"}
    names = set(dir(layer.mmap))

    assert set(dir(mmap.mmap)) <= names
    assert set() == names - set(dir(mmap.mmap)) - newest - ours - {"__contains__", "__getstate__"}
    assert (layer.mmap, object) == layer.mmap.__mro__
    assert "mmap.mmap" in repr(layer.mmap)
    with pytest.raises(TypeError, match="immutable"):
        layer.mmap.find = None


def test_is_no_sequence(map):
    """collections.abc classifies both modules' maps in the same way."""
    theirs = mmap.mmap(-1, 1)

    for kind in (
        abc.Sequence,
        abc.Iterable,
        abc.Collection,
        abc.Reversible,
        abc.Sized,
        abc.Hashable,
        io.IOBase,
    ):
        assert isinstance(theirs, kind) == isinstance(map, kind)
    assert [b"0", b"1"] == list(map)[:2]
    assert b"9" == next(reversed(map))


class Made(layer.mmap):
    """A subclass with a constructor of its own."""

    def __new__(cls, descriptor, *, name):
        made = super().__new__(cls, descriptor, 0)
        made.name = name
        return made


def test_subclass(map, tmp_path):
    """A subclass can have other arguments, attributes and weak references."""
    with open(tmp_path / "file", "r+b") as file:
        made = Made(file.fileno(), name="notes")
    assert ("notes", 10, made) == (made.name, len(made), weakref.ref(made)())
    assert "Made" in repr(made)
    made.close()
    for arguments in ((1,), (), (1, 2)):
        with pytest.raises(TypeError):
            Made(*arguments)
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            copied(map)


def test_edges(map):
    """Edge cases follow mmap where the library's other classes differ."""
    assert (-1, -1, -1, 10) == (
        map.find(b"", 11),
        map.rfind(b"", 11),
        map.find(b"", 5, 4),
        map.find(b"", 10),
    )
    for value, kind in ((256, ValueError), (-1, ValueError), (2**70, TypeError), (b"a", TypeError)):
        with pytest.raises(kind):
            map[0] = value
    assert 4 == map.write(memoryview(b"a-b-c-d-")[::2])
    assert (2, b"abcd") == (map.find(memoryview(b"c-d-")[::2], 0), map[:4])


@pytest.mark.skipif(WINDOWS, reason="a tagname names memory on Windows")
def test_tagname_of_a_file(tmp_path):
    """A tagname has no effect on a map of a file."""
    (tmp_path / "file").write_bytes(b"0123456789")
    with open(tmp_path / "file", "r+b") as file:
        for made in (
            layer.mmap(file.fileno(), 0, "tag"),
            layer.mmap(file.fileno(), 5, tagname="tag"),
        ):
            assert b"01234" == made[:5]
            made.close()


@pytest.mark.skipif(not LINUX, reason="needs /proc")
def test_what_cannot_be_mapped(tmp_path):
    """The error is an OSError and a ValueError: mmap raises one of them, depending on the file."""
    os.mkfifo(tmp_path / "fifo")
    for path, flags in (
        ("/proc/self/status", os.O_RDONLY),
        (tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK),
    ):
        descriptor = os.open(path, flags)
        for length in (0, 10):
            with pytest.raises(OSError) as caught:
                layer.mmap(descriptor, length, access=layer.ACCESS_READ)
            assert (errno.ENODEV, True) == (
                caught.value.errno,
                isinstance(caught.value, ValueError),
            )
        os.close(descriptor)


@pytest.mark.skipif(not capabilities().truncate_mapped, reason="maps prevent truncation here")
def test_a_fault_says_what_to_do(map, tmp_path):
    """The message of a fault says to map the file again, since mmap has no refresh()."""
    os.truncate(tmp_path / "file", 0)
    for use in (
        map.read,
        map.read_byte,
        map.readline,
        lambda: map[0],
        lambda: map.resize(20),
        lambda: map.write(b"a"),
    ):
        with pytest.raises(MappingFault, match="map the file again"):
            use()
    assert map.faulted


def test_the_page_tells_it():
    """docs/mmap.md lists every test that cannot pass, and every clause that the layer breaks."""
    text = (Path(__file__).parents[1] / "docs" / "mmap.md").read_text("utf-8")

    assert [] == [name for name, (_, why) in CANNOT.items() if f"| `{name}` | {why} |" not in text]
    assert [] == [id for id, why in LAYER_BREAKS.items() if f"| {id} | {why} |" not in text]
