"""Threads that do different things with one mapped file at the same time, round after round. Not a test.

    storm(folder, ("close", "find"), rounds=100)            one thread for each action
    python storming.py FOLDER SECONDS [ACTION...]           for so long: these actions, or every pair in turn
    python storming.py FOLDER SECONDS find-1                one thread resizes, and another closes

Each round opens a file anew and lets go of it at its end. An action may have its right result, or be refused with what is in REFUSALS.
A byte of the file is OURS, or zero where it has grown. Whoever closes it maps OTHERS at once, a file that may come to lie where it was:
nobody may ever read that, or write there. Nothing may be left behind: handles, maps, address space.
"""

from __future__ import annotations

import faulthandler
import gc
import itertools
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mappedfile import PAGE_SIZE, MappedFile, MappingFault, _limits, capabilities
from mappedfile.contract._probe import file_maps, handles

assert _limits  # and what it loads: a call that did would leave maps

OURS, OTHERS = b"A", b"\xee"
RIGHT = (bytes(1), OURS)
#: Bytes: a search of so many lets other threads run; to unmap so many, too; and two small ones.
SIZES = (100_000, 17 << 20, 5, 3 * PAGE_SIZE)
MODES = ("r", "r+", "w+", "x+", "c")
#: How long a thread may take for one round, at most.
SECONDS = 120


class Round:
    """What the threads of a round share."""

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
        self.kept: list[Any] = []  # until the end of the round

    def end(self) -> None:
        """Look at the file once more, and let go of everything."""
        for one in self.kept:
            one.release() if isinstance(one, memoryview) else one.close()
        if not self.file.closed:
            self.file.unlock()
            self.file.refresh()
            assert len(self.file) == self.path.stat().st_size
            right(self.file[:70_000], self.file[-70_000:])
            if self.mode not in ("r", "c"):
                self.file.resize(1)  # nothing is counted that is gone
                self.file.resize(2)
            self.file.close(strict=True)
        assert not self.file.mapped
        try:
            self.file[0]
        except ValueError:
            return
        raise AssertionError("a closed file can be read")


def right(*read: bytes) -> None:
    """Fail if bytes are of some other map."""
    for each in read:
        strange = each.translate(None, b"\0" + OURS)
        assert not strange, f"{len(strange)} bytes of {len(each)} are strange: {strange[:20]!r}"


# Actions


def close(now: Round, dice: random.Random) -> None:
    strict = dice.random() < 0.2
    size = len(now.file)
    now.file.close(strict=strict)
    # In its place, perhaps. It is held by a map of the round's, which nobody writes to.
    if size:
        with MappedFile(now.other) as other:
            now.kept.append(other.view(0, min(max(size, 1), len(other))))


def grow(now: Round, dice: random.Random) -> None:
    now.file.resize(len(now.file) + dice.choice([1, PAGE_SIZE, 100_000]))


def shrink(now: Round, dice: random.Random) -> None:
    now.file.resize(max(len(now.file) - dice.choice([1, PAGE_SIZE, 100_000]), 0))


def refresh(now: Round, dice: random.Random) -> None:
    """After others made it longer."""
    with open(now.path, "ab") as file:
        file.write(OURS * dice.choice([1, 100, PAGE_SIZE]))
    now.file.refresh()


def cut(now: Round, dice: random.Random) -> None:
    """The same after they cut it short."""
    with suppress(PermissionError):  # Windows, while it is mapped
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
    """A view that is alive when the round ends."""
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
    """What goes through cffi, and what tells about the object."""
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
    """It cannot be opened again."""
    try:
        MappedFile.__init__(now.file, now.other)
    except ValueError as error:
        assert "has opened" in str(error)
    else:
        raise AssertionError("it was opened twice")


Action = Callable[[Round, random.Random], None]
ACTIONS: dict[str, Action] = {
    each.__name__: each
    for each in (close, grow, shrink, refresh, cut, view, keep_view, data, find, count, get, put, flush, lock, tell,
                 iterate, again)
}  # fmt: skip
CHANGES = {"grow", "shrink"}
PAIRS = tuple(itertools.combinations_with_replacement(ACTIONS, 2))

#: The ways to be refused: the error, and a part of what it says.
REFUSALS: tuple[tuple[type[BaseException], str], ...] = (
    (ValueError, "is closed"),
    (BufferError, "alive"),
    (BufferError, "another thread is using"),
    # Somebody else has made it shorter since it was looked at.
    (IndexError, "out of range"),
    (ValueError, "past the end"),
    (ValueError, "cannot be set to"),
    (ValueError, "refresh() first"),
)


def allowed(error: BaseException, names: Iterable[str], mode: str) -> bool:
    """Whether a thread may be refused like this."""
    if isinstance(error, MappingFault):
        return "cut" in names
    return any(isinstance(error, kind) and part in str(error) for kind, part in REFUSALS)


def possible(name: str, mode: str) -> bool:
    """Whether a mode has it."""
    return not (name in CHANGES and mode in ("r", "c")) and not (name == "put" and mode == "r")


# Rounds


class Player(threading.Thread):
    """Does one thing over and over, for a round."""

    def __init__(
        self,
        now: Round,
        names: Sequence[str],
        number: int,
        steps: int,
        start: threading.Barrier,
        seed: int,
    ) -> None:
        super().__init__(daemon=True)
        self.now, self.names, self.action = now, names, ACTIONS[names[number]]
        self.steps, self.begin, self.dice = steps, start, random.Random(f"{seed} {number}")
        self.done = self.refused = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        self.begin.wait()
        steps = 1 if self.action is close else self.steps
        for _ in range(self.dice.randrange(50) if steps == 1 else 0):
            time.sleep(0)
        for _ in range(steps):
            try:
                self.action(self.now, self.dice)
                self.done += 1
            except BaseException as error:
                if not allowed(error, self.names, self.now.mode):
                    self.error = error
                    return
                self.refused += 1


def play(folder: Path, mode: str, names: Sequence[str], steps: int, seed: int) -> list[Player]:
    """One round."""
    now = Round(folder, mode, random.Random(seed))
    start = threading.Barrier(len(names))
    players = [Player(now, names, number, steps, start, seed) for number in range(len(names))]
    for player in players:
        player.start()
    for player in players:
        player.join(SECONDS)
        if player.is_alive():
            faulthandler.dump_traceback(all_threads=True)
            raise AssertionError(f"{names} in mode {mode}, seed {seed}: hangs")
    for player in players:
        if player.error is not None:
            player.error.add_note(f"{names} in mode {mode}, seed {seed}")
            raise player.error
    now.end()
    return players


def prepare(folder: Path) -> None:
    """Make the other file."""
    with open(folder / "other", "wb") as file:
        for _ in range(18):
            file.write(OTHERS * (1 << 20))


def memory() -> int:
    """Bytes of address space that the process has taken; 0 where nobody tells."""
    if sys.platform == "win32":
        from mappedfile.contract import _kernel32

        return _kernel32.address_space_taken()
    try:
        with open("/proc/self/statm", encoding="ascii") as statm:
            return int(statm.read().split()[0]) * PAGE_SIZE
    except OSError:
        return 0


def storm(
    folder: Path, names: Sequence[str], rounds: int, mode: str = "r+", steps: int = 5, seed: int = 0
) -> tuple[int, int]:
    """Play so many rounds; return how often the actions had their result, and how often they were refused."""
    if not (folder / "other").exists():
        prepare(folder)
        play(folder, mode, ("tell", "again"), steps, seed)  # loads what it needs
    interval = sys.getswitchinterval()
    done = refused = 0
    sys.setswitchinterval(1e-6)
    try:
        gc.collect()
        before = handles(), file_maps()
        for number in range(rounds):
            for player in play(folder, mode, names, steps, seed + number):
                done += player.done
                refused += player.refused
            del player
        gc.collect()
        after = left(before)
        assert before == after, f"{names} in mode {mode}: {before} became {after}"
    finally:
        sys.setswitchinterval(interval)
    return done, refused


def storm_for(folder: Path, seconds: float, names: Sequence[str] = ()) -> int:
    """The same for so long, in all modes, with these actions or every pair of them; return how many rounds there were."""
    until = time.monotonic() + seconds
    rounds = seed = 0
    marks = []
    while time.monotonic() < until:
        for each in [names] if names else random.Random(seed).sample(PAIRS, len(PAIRS)):
            for mode in MODES:
                if all(possible(name, mode) for name in each) and time.monotonic() < until:
                    storm(folder, each, 10, mode, seed=seed)
                    rounds += 10
        seed += 1000
        marks.append(memory())
    assert marks[-1] < marks[len(marks) // 4] + (64 << 20), f"address space: {marks}"
    return rounds


def left(before: Any) -> Any:
    """What handles and maps there are, once they are as before; or after ten seconds: Windows takes a thread's handles back some time
    after it was joined."""
    for _ in range(1000):
        now = handles(), file_maps()
        if sys.platform == "win32" and now[1] == before[1] and abs(now[0] - before[0]) < 10:
            return before  # it makes events for locks that threads wait for, and keeps them: fewer than there were rounds
        if now == before:
            break
        time.sleep(0.01)
        gc.collect()
    return now


def find_1(folder: Path, seconds: float = 1e9, rounds: int = 10**9) -> dict[str, int]:
    """Find 1 as it was reported: one thread resizes, and another closes. Return what happened how often."""
    until = time.monotonic() + seconds
    seen = {"rounds": 0, "closed before": 0, "steps": 0}
    while time.monotonic() < until and seen["rounds"] < rounds:
        file = MappedFile(folder / "file", "w+", size=100_000, sparse=True)
        file[0] = OURS[0]
        errors: list[BaseException] = []

        def resize(file: MappedFile = file, errors: list[BaseException] = errors) -> None:
            try:
                for _ in range(50):
                    file.resize(len(file) + 100_000)
                    seen["steps"] += 1
            except BaseException as met:
                errors.append(met)

        thread = threading.Thread(target=resize)
        thread.start()
        time.sleep(random.Random(seen["rounds"]).random() * 0.002)
        file.close()
        thread.join()
        assert all(
            isinstance(error, ValueError) and "is closed" in str(error) for error in errors
        ), errors
        seen["closed before"] += len(errors)
        assert not file.mapped
        for use in (lambda f: f[0], lambda f: f.__setitem__(0, 1), lambda f: f.find(b"absent")):
            try:
                use(file)
            except ValueError:
                continue
            raise AssertionError("a closed file can be used")
        seen["rounds"] += 1
    return seen


def main(folder: str, seconds: str, *names: str) -> None:
    """See above."""
    faulthandler.enable()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        if names == ("find-1",):
            find_1(Path(scratch), rounds=20)
            before = handles(), file_maps(), memory()
            seen = find_1(Path(scratch), float(seconds))
            gc.collect()
            after = handles(), file_maps(), memory()
            assert before[:2] == after[:2], f"{before} became {after}"
            assert after[2] < before[2] + (64 << 20), f"{before} became {after}"
            print(f"find 1: {seen}")
        else:
            print(f"{storm_for(Path(scratch), float(seconds), names)} rounds")


if __name__ == "__main__":
    main(*sys.argv[1:])
