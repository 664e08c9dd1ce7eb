"""Clauses, and the functions by which a check reports its result."""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mappedfile.contract._subjects import Subject

Check = Callable[["Subject", Path], None]

ALL = ("r", "r+", "w+", "x+", "c")
WRITABLE = ("r+", "w+", "x+", "c")
SHARED_WRITABLE = ("r+", "w+", "x+")


class Broken(AssertionError):
    """The clause does not hold."""


class NotHere(Exception):
    """The clause cannot be shown here; the message says why."""


class Clause(NamedTuple):
    """One clause: its id, its text, the modes that it applies to, and its check."""

    id: str
    says: str
    modes: tuple[str, ...]
    check: Check
    #: Whether it and other checks would disturb one another.
    alone: bool = False


#: Every clause by its id, in the order of the contract.
CLAUSES: dict[str, Clause] = {}


def clause(
    id: str, *, modes: tuple[str, ...] = ALL, alone: bool = False
) -> Callable[[Check], Check]:
    """Make a function the check of clause *id*. Its docstring is the text of the clause.

    While a check that is *alone* runs, no other check runs.
    """

    def register(check: Check) -> Check:
        @wraps(check)
        def tidy(subject: Subject, folder: Path) -> None:
            # Garbage of earlier checks must not be freed, or counted, during this check.
            gc.collect()
            check(subject, folder)

        CLAUSES[id] = Clause(id, " ".join((check.__doc__ or "").split()), modes, tidy, alone)
        return check

    return register


# Not assert statements: python -O would remove them.


def equal(expected: object, actual: object, what: str) -> None:
    """Break the clause unless both are equal."""
    if expected != actual:
        raise Broken(f"{what}: expected {expected!r}, got {actual!r}")


def true(condition: object, what: str) -> None:
    """Break the clause unless the condition is true; *what* describes the condition."""
    if not condition:
        raise Broken(f"expected: {what}")


@contextmanager
def raises(
    kinds: type[BaseException] | tuple[type[BaseException], ...], what: str, *, says: str = ""
) -> Iterator[Any]:
    """Break the clause unless the block raises one of *kinds*, with *says* in its message.

    The context manager's object has the error as ``.error``.
    """
    caught = Caught()
    try:
        yield caught
    except kinds as error:
        caught.error = error
        if says not in str(error):
            raise Broken(f"{what}: the message {str(error)!r} does not say {says!r}") from error
        error.__traceback__ = None  # its frames would keep buffers alive
    except Broken:
        raise
    except Exception as error:
        raise Broken(f"{what}: expected {kinds}, got {error!r}") from error
    else:
        raise Broken(f"{what}: expected {kinds}, got no error")


class Caught:
    """The error that ``raises`` caught."""

    error: Any = None
