"""Growing while mapped, against mmap.resize."""

from __future__ import annotations

import mmap
import statistics
from typing import TYPE_CHECKING, Any

import numpy as np

from mappedfile import MappedFile

from .harness import Samples, Setting, row, steps, stopwatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .harness import Steps

MIB = 1 << 20
GIB = 1 << 30
CHUNK = b"\xa5" * MIB

# Appending: the file grows by 1 MiB, and 1 MiB is written at its end


def _append_mmap(path: Path, total: int) -> None:
    with open(path, "w+b") as f:
        f.truncate(MIB)
        with mmap.mmap(f.fileno(), MIB) as m:
            m[:] = CHUNK
            for size in range(MIB, total, MIB):
                m.resize(size + MIB)
                m[size : size + MIB] = CHUNK


def _append(path: Path, total: int, array: str = "", **options: Any) -> None:
    with MappedFile(path, "w+", size=MIB, **options) as w:
        w[:] = CHUNK
        alive = np.frombuffer(w.data, "u1") if array else None
        for size in range(MIB, total, MIB):
            w.resize(size + MIB)
            w[size : size + MIB] = CHUNK
            if array == "newest":
                alive = np.frombuffer(w.data, "u1")
        del alive


def _appending(at: Setting, peer: Callable[..., None], ours: Callable[..., None]) -> Samples:
    total = at.pick(GIB, 128 * MIB)
    path = at.folder / "grown"

    def once(side: Callable[..., None]) -> float:
        taken: float = stopwatch(side, path, total) / (total // MIB)
        path.unlink()
        return taken

    once(peer), once(ours)
    samples = at.alternate(lambda: once(peer), lambda: once(ours), at.pick(9, 5))
    samples.remark = f"per MiB; {total // MIB} MiB in all"
    return samples


def _sparse(path: Path, total: int) -> None:
    _append(path, total, sparse=True)


@row(
    "append",
    "append 1 GiB in 1 MiB steps, blocks allocated",
    "mmap.resize, which leaves holes",
    1.0,
)
def append(at: Setting) -> Samples:
    return _appending(at, _append_mmap, _append)


@row("append-sparse", "the same with sparse=True", "mmap.resize", 1.0)
def append_sparse(at: Setting) -> Samples:
    return _appending(at, _append_mmap, _sparse)


@row("append-array", "append with an array of the first MiB alive", "our own without", 1.2)
def append_array(at: Setting) -> Samples:
    return _appending(at, _append, lambda path, total: _append(path, total, "first"))


@row("append-arrays", "append with an array of the newest map alive", "our own without", 1.2)
def append_arrays(at: Setting) -> Samples:
    return _appending(at, _append, lambda path, total: _append(path, total, "newest"))


@append.profile
@append_sparse.profile
@append_array.profile
@append_arrays.profile
def _(at: Setting) -> Steps:
    total = at.pick(GIB, 128 * MIB)
    path = at.folder / "grown"
    yield f"-- per step of 1 MiB, median of {total // MIB}", 0.0
    with open(path, "w+b") as f:
        f.truncate(MIB)
        m = mmap.mmap(f.fileno(), MIB)
        m[:] = CHUNK
        yield from _steps_of("peer", total, m.resize, m)
        m.close()
    for label, options in (("ours", {}), ("ours, sparse", {"sparse": True})):
        with MappedFile(path, "w+", size=MIB, **options) as w:
            w[:] = CHUNK
            yield from _steps_of(label, total, w.resize, w)
    with MappedFile(path, "w+", size=MIB) as w:
        alive = np.frombuffer(w.data, "u1")
        yield from _steps_of("ours, array alive", total, w.resize, w)
        del alive
    with open(path, "w+b") as f:
        names = {"f": f, "chunk": CHUNK}
        yield from steps(
            at, names, ("write() of 1 MiB over itself", "f.seek(0); f.write(chunk); f.flush()")
        )


def _steps_of(label: str, total: int, resize: Callable[[int], None], target: Any) -> Steps:
    taken: dict[str, list[float]] = {"resize": [], "first byte": [], "write": []}
    for size in range(MIB, total, MIB):
        taken["resize"].append(stopwatch(resize, size + MIB))
        taken["first byte"].append(stopwatch(target.__getitem__, size))
        taken["write"].append(stopwatch(target.__setitem__, slice(size, size + MIB), CHUNK))
    for step, times in taken.items():
        tenth = max(1, len(times) // 10)
        yield f"{label}: {step}", statistics.median(times)
        yield f"{label}: {step}, first tenth", statistics.median(times[:tenth])
        yield f"{label}: {step}, last tenth", statistics.median(times[-tenth:])


# Only resize(), of a mapped file whose bytes are not touched


def _resizes(at: Setting, ours: Callable[[Path], MappedFile]) -> Samples:
    path, step, number = at.folder / "resized", 4096, at.pick(2000, 200)

    def through(resize: Callable[[int], None]) -> float:
        def all_of_them() -> None:
            for size in range(2 * step, (number + 2) * step, step):
                resize(size)

        return stopwatch(all_of_them) / number

    def peer() -> float:
        with open(path, "w+b") as f:
            f.truncate(step)
            with mmap.mmap(f.fileno(), step) as m:
                m[0] = 1
                return through(m.resize)

    def our_own() -> float:
        with ours(path) as w:
            w[0] = 1
            return through(w.resize)

    peer(), our_own()
    return at.alternate(peer, our_own, at.pick(25, 5))


@row(
    "resize",
    "resize() by a page, of a mapped file, blocks allocated",
    "mmap.resize, which leaves holes",
    None,
)
def resize(at: Setting) -> Samples:
    return _resizes(at, lambda path: MappedFile(path, "w+", size=4096))


@row("resize-sparse", "the same with sparse=True", "mmap.resize", 1.5)
def resize_sparse(at: Setting) -> Samples:
    return _resizes(at, lambda path: MappedFile(path, "w+", size=4096, sparse=True))


@row("resize-reserve", "the same with sparse=True, inside reserve=1 GiB", "mmap.resize", 0.7)
def resize_reserve(at: Setting) -> Samples:
    return _resizes(at, lambda path: MappedFile(path, "w+", size=4096, sparse=True, reserve=GIB))


# One step, on files of many sizes

SIZES = (MIB, GIB, 64 * GIB)


def _grow(w: MappedFile, size: int) -> None:
    w.resize(size)
    w[size - 1] = 1


def _step_costs(at: Setting) -> list[list[float]]:
    """Return the costs of a step (grow by 1 MiB, write a byte at the new end), by size and turn."""
    costs: list[list[float]] = [[] for _ in SIZES]
    for turn in range(-1, at.pick(40, 8)):
        for which in range(len(SIZES)) if turn % 2 else reversed(range(len(SIZES))):
            size = SIZES[which]
            path = at.folder / "stepped"
            with MappedFile(path, "w+", size=size, sparse=True) as w:
                w[size - 1] = 1
                times = [
                    stopwatch(_grow, w, end) for end in range(size + MIB, size + 21 * MIB, MIB)
                ]
            path.unlink()
            if turn >= 0:  # the first turn warms up
                costs[which].append(statistics.median(times))
    return costs


@row("step", "one growth step at 1 MiB, 1 GiB, 64 GiB: the slowest", "the fastest", 1.5)
def step(at: Setting) -> Samples:
    costs = _step_costs(at)
    # Compare shares of each turn: medians of costs would compare slow turns with fast turns.
    shares = [
        statistics.median(
            one / sum(turn) for one, turn in zip(cost, zip(*costs, strict=True), strict=True)
        )
        for cost in costs
    ]
    cheapest, dearest = shares.index(min(shares)), shares.index(max(shares))
    samples = Samples(costs[cheapest], costs[dearest])
    samples.remark = ", ".join(
        f"{size // MIB} MiB: {statistics.median(cost) / 1000:.1f} us ({share / min(shares):.2f})"
        for size, cost, share in zip(SIZES, costs, shares, strict=True)
    )
    return samples


@step.profile
def _(at: Setting) -> Steps:
    path = at.folder / "stepped"
    for size in SIZES:
        with MappedFile(path, "w+", size=size, sparse=True) as w:
            w[size - 1] = 1
            resized, touched = [], []
            for end in range(size + MIB, size + 101 * MIB, MIB):
                resized.append(stopwatch(w.resize, end))
                touched.append(stopwatch(w.__setitem__, end - 1, 1))
            yield f"resize from {size // MIB} MiB on", statistics.median(resized)
            yield (
                f"first byte written past {size // MIB} MiB: the map, the fault, the block",
                statistics.median(touched),
            )
        path.unlink()
