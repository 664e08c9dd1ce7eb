"""Pages in memory as bars, runs and levels."""

from __future__ import annotations

from mappedfile import PAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mappedfile import Residency


def parts(found: Residency, cells: int) -> list[float]:
    """Divide one or more pages among cells. Return the share of each cell that is in memory.

    With more cells than pages, a page has several cells.
    """
    first = [len(found) * cell // cells for cell in range(cells)]
    last = [max(-(-len(found) * (cell + 1) // cells), 1) for cell in range(cells)]
    every = zip(first, last, strict=True)
    return [found.count(1, start, stop) / (stop - start) for start, stop in every]


def runs(found: Residency, offset: int = 0) -> list[tuple[int, int]]:
    """Return the runs of pages in memory: number of the first page in the file, number of pages."""
    all_runs = []
    begin = offset // PAGE_SIZE
    start = found.find(1)
    while start >= 0:
        stop = found.find(0, start)
        stop = len(found) if stop < 0 else stop
        all_runs.append((begin + start, stop - start))
        start = found.find(1, stop)
    return all_runs


def level(part: float) -> int:
    """Return the level of a cell, from 0 (no page is in memory) to 3 (all pages are)."""
    return 0 if not part else 3 if part == 1 else 1 if part < 0.5 else 2
