"""``mappedfile warm``: read files into memory."""

from __future__ import annotations

import errno
import os
import time
from contextlib import contextmanager

from mappedfile import PAGE_SIZE, MappedFile
from mappedfile.cli._files import SummedCommand, pages_of, part, resident
from mappedfile.cli._numbers import amount, count, figure, span, unit_for
from mappedfile.cli._terminal import Progress, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from mappedfile import View
    from mappedfile.cli._files import Facts, Found

#: The positions of holes in a file. Windows does not have them.
SEEK_DATA, SEEK_HOLE = getattr(os, "SEEK_DATA", None), getattr(os, "SEEK_HOLE", None)
#: Bytes to read between two updates of the progress.
STEP = 1 << 25
#: The default read-ahead window of Linux, in bytes.
AHEAD = 1 << 17
#: The maximum length of a file's name in the progress line.
NAME = 24


class WarmCommand(SummedCommand):
    """Reads files into memory."""

    name = "warm"
    summed = ("length", "data", "missing", "seconds")
    help = "read files into memory"
    description = (
        "Read files into memory, so that the next program that reads them need not wait for the\n"
        "disk. Holes are left out."
    )

    @contextmanager
    def prepare(
        self, every: Iterator[Found], given: argparse.Namespace
    ) -> Iterator[tuple[Iterator[Found], Progress]]:
        turns = list(every)
        total = sum(file.expected(given.range) for file in turns)
        with self.terminal.progress(total, how_far) as progress:
            yield iter(turns), progress

    def process(self, file: Found, given: argparse.Namespace, progress: Progress) -> Facts:
        left = file.expected(given.range)
        progress.update(shortened(printable(os.path.basename(file.name))))
        try:
            with MappedFile(file.name) as mapped:
                size = len(mapped)
                offset, length = part(given.range, size)
                started = time.perf_counter()
                data = data_in(mapped, offset, length)
                read = sum(step for _, step in data)
                progress.update(skipped=left - read)
                left = read
                for start, step in steps(data, STEP):
                    # One view at a time, so that page tables are small.
                    with mapped.view(start, step) as view:
                        bring_in(view, exactly=read < size)
                    progress.update(done=step)
                    left -= step
                seconds = time.perf_counter() - started
                there = resident(mapped, offset, length)
                missing = None
                if there is not None:
                    missing = sum(absent(mapped, *piece) for piece in data)
        finally:
            progress.update(skipped=left)
        return {
            "file": file.name,
            "size": size,
            "offset": offset,
            "length": length,
            "pages": pages_of(offset, length),
            "resident": there,
            "data": read,
            "missing": missing,
            "seconds": seconds,
        }

    def describe(self, result: Facts) -> str:
        return describe(result)


def describe(result: Facts) -> str:
    """Describe how much was read, and how fast."""
    length, data, seconds = result["length"], result["data"], result["seconds"]
    unit = unit_of(data)
    said = f"{amount(data, unit)} in {seconds:,.2f} s"
    if seconds and data:
        said += f", {amount(data / seconds, unit)}/s"
    if data < length:
        said += f"; {amount(length - data)} of holes left out"
    if result["missing"]:
        said += f"; {count(result['missing'])} pages are not in memory any more"
    return said


def unit_of(size: int) -> str:
    """Return the unit for a size and a rate. A rate in GiB/s would have too few digits."""
    return unit_for(min(size, 1 << 20))


def how_far(progress: Progress) -> str:
    """Describe the progress in one unit, with the remaining time."""
    unit = unit_of(progress.total)
    said = f"{figure(progress.done, unit)} of {amount(progress.total, unit)}"
    if progress.done and progress.seconds:
        rate = progress.done / progress.seconds
        left = span(max(progress.total - progress.done, 0) / rate)
        said += f", {amount(rate, unit)}/s, {left} left"
    return f"{said}  {progress.name}"


def shortened(name: str) -> str:
    """Return a name that leaves room for the numbers of a progress line."""
    return name if len(name) <= NAME else f"{name[: NAME - 1]}\N{HORIZONTAL ELLIPSIS}"


def bring_in(view: View, *, exactly: bool) -> None:
    """Read all pages of a view into memory; if *exactly*, without read-ahead behind it."""
    if exactly:
        # The read-ahead of the system would go on into holes, and past the end of the range.
        view.advise("random")
        for start, length in steps([(0, len(view))], AHEAD):
            view.advise("willneed", start, length)
    else:
        view.advise("sequential")
    view.advise("populate_read")


def steps(data: list[tuple[int, int]], step: int) -> Iterator[tuple[int, int]]:
    """Divide ranges into pieces of at most *step* bytes."""
    for start, length in data:
        for at in range(start, start + length, step):
            yield at, min(step, start + length - at)


def absent(mapped: MappedFile, offset: int, length: int) -> int:
    """Count the pages of a range that are not in memory."""
    return pages_of(offset, length) - (resident(mapped, offset, length) or 0)


def data_in(mapped: MappedFile, offset: int, length: int) -> list[tuple[int, int]]:
    """Return the parts of a range that are not holes, in whole pages: lseek(2)."""
    if not length:
        return []
    if SEEK_DATA is None or SEEK_HOLE is None:
        return [(offset, length)]
    end = offset + length
    found: list[tuple[int, int]] = []
    place = offset
    descriptor = mapped.fileno()
    while place < end:
        try:
            start = os.lseek(descriptor, place, SEEK_DATA)
            place = os.lseek(descriptor, start, SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # there is no more data
                break
            return [(offset, length)]  # the file system does not know its holes
        start = max(start - start % PAGE_SIZE, offset)
        stop = min(place + -place % PAGE_SIZE, end)
        if found and found[-1][0] + found[-1][1] >= start:
            start = found.pop()[0]
        if start < stop:
            found.append((start, stop - start))
    return found
