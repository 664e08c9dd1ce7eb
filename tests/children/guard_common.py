"""The programs guard_*.py share this: the content of a file, and a fault that is expected."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from mappedfile import PAGE_SIZE, MappingFault

# NumPy has threads, and a process with threads that forks gets a DeprecationWarning. Where warnings
# are errors, fork() of Python 3.15 raises it, having forked.
warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)

PAGES = 64
#: No byte is zero, no page is like another, no bytes are like their neighbours.
CONTENT = np.random.default_rng(4).integers(1, 256, PAGES * PAGE_SIZE, "u1").tobytes()


@contextmanager
def faults(what: str = "") -> Iterator[None]:
    """Expect a MappingFault."""
    try:
        yield
    except MappingFault:
        return
    raise AssertionError(f"no MappingFault {what}")


def filled(path: Path, content: bytes = CONTENT) -> Path:
    path.write_bytes(content)
    return path
