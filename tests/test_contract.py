"""The contract, checked on the library in each of its modes, and on mmap as the oracle."""

import sys
from pathlib import Path

import pytest

from mappedfile.contract import CLAUSES, LAYER, NATIVE, STDLIB, NotHere, Subject
from mappedfile.contract._oracle import (
    HOLDS_IN,
    LAYER_BREAKS,
    LAYER_HOLDS_IN,
    ORACLE_BREAKS,
    reason,
)


def cases(subjects: tuple[Subject, ...]) -> list[pytest.param]:
    """Return each clause with each subject whose mode it covers."""
    every = []
    for clause in CLAUSES.values():
        for subject in subjects:
            if subject.mode in clause.modes:
                why = None
                if subject in STDLIB:
                    why = reason(clause.id, subject.mode, windows=sys.platform == "win32")
                elif subject in LAYER and subject.mode not in LAYER_HOLDS_IN.get(clause.id, ()):
                    why = LAYER_BREAKS.get(clause.id)
                marks = [pytest.mark.xfail(strict=True, reason=why)] if why else []
                every.append(
                    pytest.param(clause.id, subject, id=f"{clause.id}-{subject}", marks=marks)
                )
    return every


def run(id: str, subject: Subject, folder: Path) -> None:
    """Run one check."""
    try:
        CLAUSES[id].check(subject, folder)
    except NotHere as why:
        pytest.skip(str(why))


@pytest.mark.parametrize(("id", "subject"), cases(NATIVE))
def test_library(id: str, subject: Subject, folder: Path) -> None:
    """The library keeps its contract, in every mode."""
    run(id, subject, folder)


# Checks that fail leave open objects behind, which warn when they are deallocated.
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize(("id", "subject"), cases(STDLIB))
def test_oracle(id: str, subject: Subject, folder: Path) -> None:
    """The oracle table has exactly the clauses that mmap breaks."""
    run(id, subject, folder)


# Clauses of letter P are about the layer. test_library checks them.
@pytest.mark.skipif(
    sys.platform == "win32", reason="mmap has no flags on Windows, so other clauses fail"
)
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize(
    ("id", "subject"), [case for case in cases(LAYER) if not case.id.startswith("P")]
)
def test_layer(id: str, subject: Subject, folder: Path) -> None:
    """The layer table has exactly the clauses that mappedfile.mmap breaks, as mmap does."""
    run(id, subject, folder)


def test_ids() -> None:
    """Every clause has its check, in the order of the contract, and each text ends with a
    period."""
    numbers = {
        "L": 11, "C": 5, "F": 8, "S": 8, "T": 2, "M": 9, "N": 3, "I": 4, "B": 6, "A": 3, "P": 6,
    }  # fmt: skip
    expected = [
        f"{letter}{number}" for letter, last in numbers.items() for number in range(1, last + 1)
    ]
    assert expected == list(CLAUSES)
    assert [] == [clause.id for clause in CLAUSES.values() if not clause.says.endswith(".")]


def test_oracle_table() -> None:
    """The tables name only existing clauses, in the order of the contract."""
    assert list(ORACLE_BREAKS) == [id for id in CLAUSES if id in ORACLE_BREAKS]
    assert set(HOLDS_IN) <= set(ORACLE_BREAKS)
    assert list(LAYER_BREAKS) == [id for id in CLAUSES if id in LAYER_BREAKS]
    assert set(LAYER_HOLDS_IN) <= set(LAYER_BREAKS)
