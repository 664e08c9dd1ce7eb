"""Measure two ways to do the same thing side by side, and profile them.

The two sides take turns (A B, B A, A B, ...) of a few milliseconds. The result is the median of the
ratios of all turns, since a busy machine slows down both sides. Each row runs in its own process.
"""

from __future__ import annotations

import gc
import inspect
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from timeit import Timer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Clock = Callable[[], float]
    Steps = Iterator[tuple[str, float]]
    Explain = Callable[["Setting"], Steps]

CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
TURN = 0.004  # seconds


class NotHere(Exception):
    """The row cannot be measured here; the message says why."""


@dataclass
class Samples:
    """The times of both sides, in nanoseconds for one operation, turn by turn."""

    peer: list[float]
    ours: list[float]
    loop: float = 0.0  # nanoseconds of the loop around the operation, to be subtracted
    remark: str = ""
    further: dict[str, float] = field(default_factory=dict)  # other interesting ratios

    def ratios(self, loop: float = 0.0) -> list[float]:
        return [
            (ours - loop) / (peer - loop) for peer, ours in zip(self.peer, self.ours, strict=True)
        ]


@dataclass(frozen=True)
class Result:
    """One row of the table. Times are medians in nanoseconds, including the loop."""

    row: str
    what: str
    against: str
    peer: float
    ours: float
    loop: float
    ratio: float  # without the loop
    low: float  # quartiles of the ratio
    high: float
    unadjusted_ratio: float  # with the loop
    turns: int
    bar: float | None
    ok: bool | None
    unsure: bool  # the quartiles lie on both sides of the bar
    #: The ratio of the medians differs: the speed of the machine changed between turns.
    unsteady: bool
    remark: str
    further: dict[str, float]


@dataclass
class Setting:
    """The folder and the options for measuring a row."""

    folder: Path
    quick: bool = False
    clock: str = "wall"

    def pick(self, full: Any, quick: Any) -> Any:
        return quick if self.quick else full

    def file(self, size: int, content: bytes = b"\x5a") -> Path:
        """Make a file of *size* bytes, filled with repetitions of *content*."""
        path = self.folder / "data"
        chunk = content * max(1, min(size, 1 << 20) // len(content))
        with open(path, "wb") as file:
            while size > 0:
                size -= file.write(chunk[:size])
        return path

    def sparse(self, size: int, name: str = "data") -> Path:
        path = self.folder / name
        with open(path, "wb") as file:
            file.truncate(size)
        return path

    def timer(self, code: str, names: dict[str, Any]) -> Timer:
        """Time *code* in a loop, with *names* as local variables and the garbage collector on."""
        setup = "; ".join(["_gc.enable()", *(f"{name} = _names['{name}']" for name in names)])
        return Timer(code, setup, CLOCKS[self.clock], {"_names": names, "_gc": gc})

    def cost(self, code: str, names: dict[str, Any], turns: int = 0) -> float:
        """Return the median cost of *code*, in nanoseconds."""
        timer = self.timer(code, names)
        number = enough(timer)
        turns = turns or self.pick(60, 12)
        return statistics.median(timer.timeit(number) / number for _ in range(turns)) * 1e9

    def compare(
        self, peer: str, ours: str, names: dict[str, Any], *, loop: bool = False, turns: int = 0
    ) -> Samples:
        """Time two pieces of code in turns; with *loop*, also time an empty loop."""
        codes = [peer, ours, *(["pass"] if loop else [])]
        timers = [self.timer(code, names) for code in codes]
        numbers = [enough(timer) for timer in timers]
        taken: list[list[float]] = [[] for _ in codes]
        turns = turns or self.pick(500, 40)
        for turn in range(turns):
            sides = range(len(codes))
            for side in sides if turn % 2 else reversed(sides):
                taken[side].append(timers[side].timeit(numbers[side]) / numbers[side] * 1e9)
        return Samples(taken[0], taken[1], statistics.median(taken[2]) if loop else 0.0)

    def alternate(
        self, peer: Callable[[], float], ours: Callable[[], float], turns: int
    ) -> Samples:
        """Do the same with functions that measure themselves and return nanoseconds."""
        sides: list[list[float]] = [[], []]
        for turn in range(turns):
            for side in (0, 1) if turn % 2 else (1, 0):
                sides[side].append((peer, ours)[side]())
        return Samples(sides[0], sides[1])


def enough(timer: Timer) -> int:
    """Return the number of repetitions for one turn."""
    number = 1
    while (taken := timer.timeit(number)) < TURN:
        number = max(number * 2, min(number * 100, int(number * TURN / max(taken, 1e-9))))
    return number


def stopwatch(function: Callable[..., object], *arguments: object) -> float:
    """Return the time of one call, in nanoseconds."""
    start = time.perf_counter_ns()
    function(*arguments)
    return float(time.perf_counter_ns() - start)


def child(code: str, *arguments: object) -> str:
    """Run *code* in a fresh process and return what it prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return run.stdout


# Rows


@dataclass
class Row:
    name: str
    what: str
    against: str
    bar: float | None  # None: for information only
    measure: Callable[[Setting], Samples]
    explain: Explain | None = None

    def run(self, at: Setting) -> Result:
        samples = self.measure(at)
        ratios = samples.ratios(samples.loop)
        low, ratio, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        peer, ours = statistics.median(samples.peer), statistics.median(samples.ours)
        unadjusted_ratio = statistics.median(samples.ratios())
        return Result(
            row=self.name,
            what=self.what,
            against=self.against,
            peer=peer,
            ours=ours,
            loop=samples.loop,
            ratio=ratio,
            low=low,
            high=high,
            unadjusted_ratio=unadjusted_ratio,
            turns=len(ratios),
            bar=self.bar,
            ok=None if self.bar is None else ratio <= self.bar,
            unsure=self.bar is not None and low <= self.bar < high,
            unsteady=not 0.85 <= ours / peer / unadjusted_ratio <= 1.15,
            remark=samples.remark,
            further=samples.further,
        )

    def profile(self, function: Explain) -> Explain:
        """Register the profile of the row: *function* yields steps and their nanoseconds."""
        self.explain = function
        return function


ROWS: dict[str, Row] = {}


def row(
    name: str, what: str, against: str, bar: float | None
) -> Callable[[Callable[[Setting], Samples]], Row]:
    """Make a function that measures something a row of the table."""

    def make(measure: Callable[[Setting], Samples]) -> Row:
        ROWS[name] = Row(name, what, against, bar, measure)
        return ROWS[name]

    return make


# Profiles


def steps(at: Setting, names: dict[str, Any], *codes: tuple[str, str]) -> Steps:
    """Time (label, code) pairs; a step that the library no longer has is a NaN."""
    yield "empty loop", at.cost("pass", names)
    for label, code in codes:
        try:
            yield label, at.cost(code, names)
        except Exception as error:
            yield f"{label}: {error!r}", float("nan")


def frames(operation: Callable[[], object]) -> Steps:
    """Count the calls of one operation: Python functions, and C functions marked as C."""
    calls: Counter[str] = Counter()

    def record(frame: Any, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code is not getattr(operation, "__code__", None):
            calls[f"{Path(frame.f_code.co_filename).name}: {frame.f_code.co_qualname}"] += 1
        elif event == "c_call" and argument is not sys.setprofile:
            calls[f"C {getattr(argument, '__qualname__', argument)}"] += 1

    operation()
    sys.setprofile(record)
    try:
        operation()
    finally:
        sys.setprofile(None)
    for name, count in calls.items():
        yield f"{count} x {name}", 0.0


def has_parameter(function: Callable[..., object], name: str) -> bool:
    return name in inspect.signature(function).parameters
