"""Threads that share an object, with a GIL and without."""

from __future__ import annotations

import sysconfig
from collections import Counter
from functools import partial
from itertools import chain
from pathlib import Path

import pytest
from children import code, run_python
from children.crew import at_once

from mappedfile import MappedFile

WITHOUT_GIL = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
THREADS = 4


@pytest.mark.skipif(not WITHOUT_GIL, reason="this Python has a GIL")
def test_the_gil_stays_off() -> None:
    program = "import sys, mappedfile; assert not sys._is_gil_enabled()"
    run_python(*code(program), flags=("-W", "error"))


def test_one_iterator(tmp_path: Path) -> None:
    """Threads that share an iterator get each byte once."""
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 16)
    for _ in range(20):
        parts: list[list[int]] = [[] for _ in range(THREADS)]
        with MappedFile(path) as file:
            raised = at_once(
                *(partial(part.extend, shared) for shared in [iter(file)] for part in parts)
            )
        assert raised == [None] * THREADS
        assert Counter(chain.from_iterable(parts)) == dict.fromkeys(range(256), 16)


def test_one_object_is_opened_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    for _ in range(50):
        file = MappedFile.__new__(MappedFile)
        raised = at_once(*[partial(MappedFile.__init__, file, path)] * THREADS)
        assert raised.count(None) == 1
        assert {type(error) for error in raised} == {type(None), ValueError}
        assert file[0] == ord("x")
        file.close()


def test_close_and_export(tmp_path: Path) -> None:
    """A strict close and a new buffer at the same time: the first succeeds, and the other raises an
    error."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5000)
    for _ in range(100):
        kept: list[memoryview] = []
        with MappedFile(path, "r+") as file:
            closing, exporting = at_once(
                partial(file.close, strict=True), partial(keep_buffer, file, kept)
            )
            assert (type(closing), type(exporting)) in (
                (BufferError, type(None)),
                (type(None), ValueError),
            )
            assert file.closed == (closing is None)
        assert [buffer[4999] for buffer in kept] == [ord("x")] * len(kept)
        kept.clear()


def keep_buffer(file: MappedFile, kept: list[memoryview]) -> None:
    kept.append(file.data)
