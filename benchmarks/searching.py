"""Searching, against StringZilla on the same memory, which runs at memory speed."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from mappedfile import MappedFile

from .harness import NotHere, row
from .mapping import ABSENT_TEXT, ALMOST_ZEROS, MIB, haystack

if TYPE_CHECKING:
    from .harness import Samples, Setting

#: A byte that does not occur in the haystack of random bytes; and a long needle, made of words of
#: the text, that does not occur in the text.
NOWHERE = 0xFF
LONG_TEXT = b"have from with the and to in that of his on be at by had not are but from or"


def measure(fill: str, method: str, needle: bytes, at: Setting) -> Samples:
    """Compare one method of both libraries."""
    try:
        import stringzilla
    except ImportError:
        raise NotHere("stringzilla is not installed") from None
    size = at.pick(256, 64) * MIB
    path = haystack(at, fill, size)
    w = MappedFile(path, "r+")
    if fill == "random":
        for start in range(0, size, 8 * MIB):
            w[start : start + 8 * MIB] = w[start : start + 8 * MIB].replace(b"\xff", b"\xfe")
    s = stringzilla.Str(w.data)
    assert getattr(s, method)(needle) == getattr(w, method)(needle)
    names = {"s": s, "w": w, "needle": needle}
    samples = at.compare(f"s.{method}(needle)", f"w.{method}(needle)", names, turns=at.pick(31, 9))
    samples.remark = f"{size / statistics.median(samples.ours):.2f} GB/s"
    w.close()
    path.unlink()
    return samples


def add(name: str, what: str, fill: str, method: str, needle: bytes) -> None:
    """Make a row."""

    @row(name, what, f"stringzilla.Str.{method}", 1.3)
    def _(at: Setting) -> Samples:
        return measure(fill, method, needle, at)


for method in ("find", "rfind"):
    add(
        f"sz-{method}-text",
        f"{method} of absent words, 256 MiB of text",
        "text",
        method,
        ABSENT_TEXT,
    )
    add(f"sz-{method}-words", "the same, 76 bytes of words", "text", method, LONG_TEXT)
    add(
        f"sz-{method}-prefix",
        "the same in zeros, 15 zeros and a one",
        "zeros",
        method,
        ALMOST_ZEROS,
    )
    for length in (1, 2, 3, 16):
        needle = bytes([*range(200, 199 + length), NOWHERE])
        add(
            f"sz-{method}-{length}",
            f"the same at random, {length} absent bytes",
            "random",
            method,
            needle,
        )
for length in (1, 2, 3, 16):
    add(
        f"sz-count-{length}",
        f"count of {length} bytes, 256 MiB at random",
        "random",
        "count",
        bytes(range(200, 200 + length)),
    )
