"""Pages in memory as bars, runs and levels."""

from __future__ import annotations

from mappedfile import PAGE_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mappedfile import Residency


def parts(found: Residency, cells: int) -> list[float]:
    """Divide pages, one or more, among cells; return which part of each cell is in memory.

    Where there are more cells than pages, a page has several.
    """
    first = [len(found) * cell // cells for cell in range(cells)]
    last = [max(-(-len(found) * (cell + 1) // cells), 1) for cell in range(cells)]
    every = zip(first, last, strict=True)
    return [found.count(1, start, stop) / (stop - start) for start, stop in every]


def runs(found: Residency, offset: int = 0) -> list[tuple[int, int]]:
    """Return the runs of pages in memory: the first page's number in the file, and how many."""
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
    """Return the number of the block for a cell. 0 stands for no page in memory, 3 for all."""
    return 0 if not part else 3 if part == 1 else 1 if part < 0.5 else 2
