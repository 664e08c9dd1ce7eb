"""T · Truncation by others, and device errors."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import mappedfile
from mappedfile import GRANULARITY, PAGE_SIZE
from mappedfile.contract._children import in_child
from mappedfile.contract._clauses import NotHere, clause, equal, raises, true
from mappedfile.contract._lifetime import pattern

if TYPE_CHECKING:
    from mappedfile.contract._subjects import Subject

CONTENT = pattern(GRANULARITY + PAGE_SIZE + 100)


@clause("T2")
def T2(subject: Subject, folder: Path) -> None:
    """Where the system refuses to cut a mapped file short (Windows), the other side gets its error and the
    mapping is whole."""
    if mappedfile.capabilities().truncate_mapped:
        raise NotHere("this system lets others cut a mapped file short")
    path = folder / "file"
    for closed in (False, True):
        file = subject.create(path, CONTENT)
        view = file.view(GRANULARITY, PAGE_SIZE + 50)
        buffer = view.data[1:]
        equal(CONTENT, file[:], "the bytes of the file")
        if closed:
            file.close()
        cut_short(subject, folder)
        in_child(cut_short, subject, folder)
        equal(CONTENT, path.read_bytes(), "the bytes of the file after others tried to cut it short")
        equal(CONTENT[GRANULARITY:][1 : PAGE_SIZE + 50], buffer.tobytes(), "the bytes of a buffer")
        if not closed:
            equal(CONTENT, file[:], "the bytes of the mapped file")
            equal(CONTENT[GRANULARITY:][: PAGE_SIZE + 50], view[:], "the bytes of a view")
            with path.open("ab") as other:  # growing is another thing
                other.write(b"more")
            equal((len(CONTENT), CONTENT), (len(file), file[:]), "the mapped file after others let the file grow")
        buffer.release()
        view.close()
        file.close()
        os.truncate(path, 10)
        equal(CONTENT[:10], path.read_bytes(), "the file, cut short when nothing is mapped any more")
        os.unlink(path)


def cut_short(_: Subject, folder: Path) -> None:
    """T2: try every way to cut the file short."""
    path = folder / "file"
    size = path.stat().st_size
    for wanted in (0, 10, GRANULARITY, size - 1):
        with suppress(OSError):  # CPython's os.truncate drops what Windows says
            os.truncate(path, wanted)
        equal(size, path.stat().st_size, f"the size after os.truncate() of a mapped file to {wanted} bytes")
    with open(path, "r+b") as file, raises(OSError, "truncate() of a file that is mapped"):
        file.truncate(5)
    with raises(OSError, "opening a mapped file in mode 'wb'"):
        path.open("wb").close()
    true(path.stat().st_size == size, "the size of the file is what it was")
