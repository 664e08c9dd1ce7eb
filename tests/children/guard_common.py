"""Shared by the programs guard_*.py: the content of files, and a context manager for expected
faults."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mappedfile import PAGE_SIZE, MappingFault

# NumPy has threads, so fork() gives a DeprecationWarning. If warnings are errors, fork() of Python
# 3.15 raises it after it has forked.
warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)

PAGES = 64
#: Random bytes without zeros, so that a lost or misplaced page is noticed.
CONTENT = np.random.default_rng(4).integers(1, 256, PAGES * PAGE_SIZE, "u1").tobytes()


@contextmanager
def faults(what: str = "") -> Iterator[None]:
    """Fail unless the block raises MappingFault."""
    try:
        yield
    except MappingFault:
        return
    raise AssertionError(f"no MappingFault {what}")


def filled(path: Path, content: bytes = CONTENT) -> Path:
    path.write_bytes(content)
    return path
