"""Threads that do two things with one object at the same time, in every mode: L3, L6, S4. See
tests/children/storming.py.

Short runs here; ten minutes each with MAPPEDFILE_STRESS=1 (tox -e stress).
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
    """Whatever two threads do at once, each has its right result or is refused; nothing is left
    behind."""
    if not storming.possible(first, mode):
        return
    done = 0
    names = list(storming.ACTIONS)
    for number, second in enumerate(names[names.index(first) :]):
        if storming.possible(second, mode):
            done += storming.storm(folder, (first, second), 4, mode, seed=100 * number)[0]
    assert done, "nothing was ever done"


def test_many_threads(folder: Path) -> None:
    """The same with all that there is at once."""
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
    """A file that one thread makes longer and another closes is closed, whoever comes first."""
    storming.find_1(folder, rounds=5)
    before = handles(), file_maps()
    seen = storming.find_1(folder, LONG) if STRESS else storming.find_1(folder, rounds=100)
    assert before == storming.left(before)
    print(seen)
    assert seen["closed before"], "it was never closed before the other thread was through"


@pytest.mark.skipif(not STRESS, reason="a long run: MAPPEDFILE_STRESS=1")
def test_pairs_for_long(folder: Path) -> None:
    """All pairs, again and again."""
    print(storming.storm_for(folder, LONG), "rounds")
