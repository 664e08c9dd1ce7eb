"""Threads that do two things with one object at the same time, in every mode: L3, L6, S4.

The programs are in tests/children/storming.py. The runs are short; with MAPPEDFILE_STRESS=1 (tox -e
stress) each takes ten minutes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from children import storming
from conftest import STRESS

from mappedfile.contract._probe import file_maps, handles

LONG = 600  # seconds


@pytest.mark.parametrize("first", storming.ACTIONS)
@pytest.mark.parametrize("mode", storming.MODES)
def test_pairs(folder: Path, mode: str, first: str) -> None:
    """Two threads run any two actions at the same time. Each has its right result or an allowed
    error, and nothing leaks."""
    if not storming.possible(first, mode):
        return
    done = 0
    names = list(storming.ACTIONS)
    for number, second in enumerate(names[names.index(first) :]):
        if storming.possible(second, mode):
            done += storming.storm(folder, (first, second), 4, mode, seed=100 * number)[0]
    assert done, "every action was refused"


def test_many_threads(folder: Path) -> None:
    """The same with threads for many actions at the same time."""
    names = [
        "close",
        "grow",
        "shrink",
        "refresh",
        "view",
        "data",
        "find",
        "get",
        "put",
        "flush",
        "lock",
    ]
    storming.storm(folder, names, 20)


def test_resize_and_close(folder: Path) -> None:
    """After one thread resizes a file and another closes it, the file is closed, in either
    order."""
    storming.resize_and_close(folder, rounds=5)
    before = handles(), file_maps()
    seen = (
        storming.resize_and_close(folder, LONG)
        if STRESS
        else storming.resize_and_close(folder, rounds=100)
    )
    assert before == storming.left(before)
    print(seen)
    assert seen["closed before"], "close() never came before the end of a resize"


@pytest.mark.skipif(not STRESS, reason="a long run: MAPPEDFILE_STRESS=1")
def test_pairs_for_long(folder: Path) -> None:
    """All pairs, for a long time."""
    print(storming.storm_for(folder, LONG), "rounds")
