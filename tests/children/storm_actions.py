"""Actions of threads on one mapped file at the same time, for storming.py.

An action has its right result, or an error of REFUSALS. A byte of the file is OURS, or zero after
growth. The thread that closes the file at once maps another file, which may get the same address.
Its bytes are OTHERS: no action may read or change them.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mappedfile import PAGE_SIZE, MappedFile, MappingFault, _limits, capabilities

assert _limits  # imported early: importing it in an action would add maps

OURS, OTHERS = b"A", b"\xee"
#: Sizes of files: long searches, which release the GIL; long unmapping; and two small sizes.
SIZES = (100_000, 17 << 20, 5, 3 * PAGE_SIZE)
MODES = ("r", "r+", "w+", "x+", "c")


class Round:
    """The file and the other state that the threads of a round share."""

    def __init__(self, folder: Path, mode: str, dice: random.Random) -> None:
        self.path, self.other = folder / "file", folder / "other"
        self.size = dice.choice(SIZES) + dice.randrange(3)
        self.path.unlink(missing_ok=True)
        if mode not in ("w+", "x+"):
            with open(self.path, "wb") as file:
                file.write(OURS * min(self.size, 2 * PAGE_SIZE))
                file.truncate(self.size)
        options: dict[str, Any] = (
            {"size": self.size, "sparse": True} if mode in ("w+", "x+") else {}
        )
        if dice.random() < 0.3 and capabilities().reserve:
            options["reserve"] = self.size + 300_000
        self.file = MappedFile(self.path, mode, **options)  # type: ignore[call-overload]
        self.writable, self.mode = mode != "r", mode
        if dice.random() < 0.8:
            self.file[0]
        if dice.random() < 0.1 and self.size < 10 * PAGE_SIZE:
            self.file.lock()
        # Views and buffers of the file, and views of the other file, which live until the end of
        # the round.
        self.kept: list[Any] = []
        self.others: list[Any] = []

    def end(self) -> None:
        """Check the file, and release everything."""
        for one in self.kept + self.others:
            one.release() if isinstance(one, memoryview) else one.close()
        if not self.file.closed:
            self.file.unlock()
            self.file.refresh()
            assert len(self.file) == self.path.stat().st_size
            right(self.file[:70_000], self.file[-70_000:])
            if self.mode not in ("r", "c"):
                self.file.resize(1)  # works: no view or buffer is counted
                self.file.resize(2)
            self.file.close(strict=True)
        assert not self.file.mapped
        try:
            self.file[0]
        except ValueError:
            return
        raise AssertionError("a closed file can be read")


def right(*read: bytes) -> None:
    """Fail if bytes belong to another map."""
    for each in read:
        strange = each.translate(None, b"\0" + OURS)
        assert not strange, f"{len(strange)} of {len(each)} bytes are wrong: {strange[:20]!r}"


# Actions


def close(now: Round, dice: random.Random) -> None:
    strict = dice.random() < 0.2
    size = len(now.file)
    now.file.close(strict=strict)
    # The other file may get the same address. A view of it is kept, which no thread writes to.
    if size:
        with MappedFile(now.other) as other:
            now.others.append(other.view(0, min(max(size, 1), len(other))))


def grow(now: Round, dice: random.Random) -> None:
    now.file.resize(len(now.file) + dice.choice([1, PAGE_SIZE, 100_000]))


def shrink(now: Round, dice: random.Random) -> None:
    now.file.resize(max(len(now.file) - dice.choice([1, PAGE_SIZE, 100_000]), 0))


def refresh(now: Round, dice: random.Random) -> None:
    """Call refresh() after the file was made longer."""
    with open(now.path, "ab") as file:
        file.write(OURS * dice.choice([1, 100, PAGE_SIZE]))
    now.file.refresh()


def cut(now: Round, dice: random.Random) -> None:
    """Call refresh() after the file was truncated."""
    with suppress(PermissionError):  # on Windows: it is mapped
        os.truncate(
            now.path, max(os.path.getsize(now.path) - dice.choice([1, PAGE_SIZE, 100_000]), 0)
        )
    now.file.refresh()


def view(now: Round, dice: random.Random) -> None:
    first = dice.randrange(len(now.file) + 1)
    with now.file.view(first) as one:
        right(one[:100], one[-100:])
        with one.data as data:
            right(data[:100].tobytes())
        one.find(b"absent")


def keep_view(now: Round, dice: random.Random) -> None:
    """Make a view that stays alive until the end of the round."""
    if len(now.kept) < 3:
        now.kept.append(now.file.view(0, min(len(now.file), 100)))
    right(now.kept[-1][:])


def data(now: Round, dice: random.Random) -> None:
    with now.file.data as one:
        right(one[:100].tobytes(), one[-100:].tobytes())
        if now.writable and len(one):
            one[dice.randrange(len(one))] = OURS[0]


def find(now: Round, dice: random.Random) -> None:
    assert now.file.find(b"absent") == -1
    assert OTHERS not in now.file
    assert now.file.rfind(OTHERS, -100_000) == -1


def count(now: Round, dice: random.Random) -> None:
    assert now.file.count(OTHERS) == 0


def get(now: Round, dice: random.Random) -> None:
    for place in (0, -1, dice.randrange(len(now.file) + 1)):
        right(bytes([now.file[place]]))
    right(now.file[-5000:], now.file[1:3000:7])


def put(now: Round, dice: random.Random) -> None:
    now.file[dice.randrange(len(now.file) + 1)] = OURS[0]
    now.file[:3] = OURS * 3
    now.file[-10::2] = OURS * 5


def flush(now: Round, dice: random.Random) -> None:
    size = len(now.file)
    now.file.flush(durable=False)
    now.file.flush(size // 2, durable=dice.random() < 0.1)


def lock(now: Round, dice: random.Random) -> None:
    if len(now.file) < 10 * PAGE_SIZE:
        now.file.lock()
    now.file.unlock()


def tell(now: Round, dice: random.Random) -> None:
    """Call cffi functions, and read properties of the object."""
    now.file.advise("willneed")
    now.file.residency(0, min(len(now.file), 100))
    assert repr(now.file)
    assert now.file.mapped in (True, False)
    assert now.file.faulted in (True, False)
    now.file.fileno()


def iterate(now: Round, dice: random.Random) -> None:
    for byte in itertools.islice(now.file, 200):
        right(bytes([byte]))


def again(now: Round, dice: random.Random) -> None:
    """Opening the object again raises ValueError."""
    try:
        MappedFile.__init__(now.file, now.other)
    except ValueError as error:
        assert "has opened" in str(error)
    else:
        raise AssertionError("it was opened twice")


Action = Callable[[Round, random.Random], None]
ACTIONS: dict[str, Action] = {
    each.__name__: each
    for each in (
        close,
        grow,
        shrink,
        refresh,
        cut,
        view,
        keep_view,
        data,
        find,
        count,
        get,
        put,
        flush,
        lock,
        tell,
        iterate,
        again,
    )
}
CHANGES = {"grow", "shrink"}

#: Allowed errors, and a part of their messages.
REFUSALS: tuple[tuple[type[BaseException], str], ...] = (
    (ValueError, "is closed"),
    (BufferError, "alive"),
    (BufferError, "another thread is using"),
    # Another thread has shrunk the file.
    (IndexError, "out of range"),
    (ValueError, "past the end"),
    (ValueError, "cannot be set to"),
    (ValueError, "refresh() first"),
)


def allowed(error: BaseException, names: Iterable[str]) -> bool:
    """Whether a thread may get this error."""
    if isinstance(error, MappingFault):
        return "cut" in names
    return any(isinstance(error, kind) and part in str(error) for kind, part in REFUSALS)
