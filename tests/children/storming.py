"""Threads that do different actions on one mapped file at the same time, in many rounds.

    storm(folder, ("close", "find"), rounds=100)             one thread for each action
    python -m children.storming FOLDER SECONDS [ACTION...]   these actions, or every pair
    python -m children.storming FOLDER SECONDS resize-and-close
        one thread resizes, another closes

storm_actions.py has the actions. Each round opens a file and closes it at the end. No handle, map
or address space may leak.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from children.crew import Crew, taking_turns
from children.storm_actions import ACTIONS, CHANGES, MODES, OTHERS, OURS, Round, allowed
from mappedfile import PAGE_SIZE, MappedFile
from mappedfile.contract._probe import file_maps, handles

PAIRS = tuple(itertools.combinations_with_replacement(ACTIONS, 2))


def possible(name: str, mode: str) -> bool:
    """Whether an action is possible in a mode."""
    return not (name in CHANGES and mode in ("r", "c")) and not (name == "put" and mode == "r")


class Player:
    """Does one action repeatedly, for a round."""

    def __init__(
        self, now: Round, names: Sequence[str], number: int, steps: int, seed: int
    ) -> None:
        self.now, self.names, self.name = now, names, names[number]
        self.steps = 1 if self.name == "close" else steps
        self.dice = random.Random(f"{seed} {number}")
        self.done = self.refused = 0

    def play(self, begin: Any) -> None:
        """Run the action in a thread."""
        begin.wait()
        for _ in range(self.dice.randrange(50) if self.steps == 1 else 0):
            time.sleep(0)
        for _ in range(self.steps):
            try:
                ACTIONS[self.name](self.now, self.dice)
                self.done += 1
            except BaseException as error:
                if not allowed(error, self.names):
                    raise
                self.refused += 1


def play(folder: Path, mode: str, names: Sequence[str], steps: int, seed: int) -> list[Player]:
    """One round."""
    now = Round(folder, mode, random.Random(seed))
    players = [Player(now, names, number, steps, seed) for number in range(len(names))]
    try:
        with Crew() as crew:
            begin = crew.barrier(len(players))
            for player in players:
                crew.start(player.play, begin)
    except BaseException as error:
        error.add_note(f"{names} in mode {mode}, seed {seed}")
        raise
    now.end()
    return players


def prepare(folder: Path) -> None:
    """Create the other file."""
    with open(folder / "other", "wb") as file:
        for _ in range(18):
            file.write(OTHERS * (1 << 20))


def memory() -> int:
    """Return the bytes of address space of the process, or 0 if unknown."""
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
    """Play rounds. Return how often the actions had their result, and how often they were
    refused."""
    if not (folder / "other").exists():
        prepare(folder)
        play(folder, mode, ("tell", "again"), steps, seed)  # the first round imports modules
    done = refused = 0
    with taking_turns():
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
    return done, refused


def storm_for(folder: Path, seconds: float, names: Sequence[str] = ()) -> int:
    """Play rounds in all modes for some time, with these actions or every pair of them.

    Return the number of rounds.
    """
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
    """Return the handles and maps when they equal BEFORE, or after ten seconds.

    Windows closes the handles of a thread some time after it was joined.
    """
    for _ in range(1000):
        now = handles(), file_maps()
        if sys.platform == "win32" and now[1] == before[1] and abs(now[0] - before[0]) < 10:
            # Windows keeps events for locks that threads wait for: fewer than rounds.
            return before
        if now == before:
            break
        time.sleep(0.01)
        gc.collect()
    return now


def resize_and_close(folder: Path, seconds: float = 1e9, rounds: int = 10**9) -> dict[str, int]:
    """Resize a file in one thread, and close it in another. Return how often each event came."""
    until = time.monotonic() + seconds
    seen = {"rounds": 0, "closed before": 0, "steps": 0}

    def resize(file: MappedFile) -> None:
        try:
            for _ in range(50):
                file.resize(len(file) + 100_000)
                seen["steps"] += 1
        except ValueError as error:
            assert "is closed" in str(error)
            seen["closed before"] += 1

    while time.monotonic() < until and seen["rounds"] < rounds:
        file = MappedFile(folder / "file", "w+", size=100_000, sparse=True)
        file[0] = OURS[0]
        with Crew() as crew:
            crew.start(resize, file)
            time.sleep(random.Random(seen["rounds"]).random() * 0.002)
            file.close()
        assert not file.mapped
        for use in (lambda f: f[0], lambda f: f.__setitem__(0, 1), lambda f: f.find(b"absent")):
            try:
                use(file)
            except ValueError:
                continue
            raise AssertionError("a closed file can be used")
        seen["rounds"] += 1
    return seen


def main() -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("seconds", type=float)
    parser.add_argument("actions", nargs="*", metavar="ACTION")
    options = parser.parse_args()
    if unknown := [*{*options.actions} - {*ACTIONS, "resize-and-close"}]:
        known = ", ".join((*ACTIONS, "resize-and-close"))
        parser.error(f"no such action: {', '.join(unknown)}; there are {known}")
    faulthandler.enable()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        scratch = Path(name)
        if options.actions != ["resize-and-close"]:
            print(f"{storm_for(scratch, options.seconds, options.actions)} rounds")
            return
        resize_and_close(scratch, rounds=20)
        before = handles(), file_maps(), memory()
        seen = resize_and_close(scratch, options.seconds)
        gc.collect()
        after = handles(), file_maps(), memory()
        assert before[:2] == after[:2], f"{before} became {after}"
        assert after[2] < before[2] + (64 << 20), f"{before} became {after}"
        print(f"{seen}")


if __name__ == "__main__":
    main()
