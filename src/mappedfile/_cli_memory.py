"""The commands that see and steer what of files is in memory: ``residency``, ``warm``, ``evict`` and ``info``."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager, suppress

from mappedfile import PAGE_SIZE, MappedFile, _advice

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from typing import Any

    from mappedfile import Residency

DONE, FAILED, UNUSABLE = 0, 1, 2

#: Of the JSON documents. It changes when a field goes away or changes its meaning, not when one is added.
SCHEMA = 1
#: Bytes that are read between two looks at the clock.
STEP = 1 << 25

# A cell of a bar: what part of its pages is in memory, from none to all.
BLOCKS = "\N{LIGHT SHADE}\N{MEDIUM SHADE}\N{DARK SHADE}\N{FULL BLOCK}"
PLAIN_BLOCKS = ".-+#"
STYLES = ("bright_black", "yellow", "yellow", "green")


class FilesCommand:
    """A command that does the same with each of its files."""

    name: str
    help: str
    description: str
    epilog = (
        "Exit status: 0 if all went well, 1 if it did not for some file, 2 if it cannot be done, 130 if interrupted."
    )
    #: Why this system cannot do it, if it cannot.
    impossible = ""

    @classmethod
    def add(cls, commands: Any) -> None:
        parser = commands.add_parser(cls.name, help=cls.help, description=cls.description, epilog=cls.epilog)
        parser.add_argument("files", metavar="FILE", nargs="+")
        cls.add_options(parser)
        parser.set_defaults(run=cls.run, parser=parser)

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        pass

    @classmethod
    def run(cls, given: argparse.Namespace) -> int:
        """Do it with every file; tell what went wrong with one, and go on."""
        if cls.impossible:
            return cls.refuse(cls.impossible)
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")  # names may have characters that a pipe does not know
        results = []
        status = DONE
        for name in given.files:
            try:
                results.append(cls.look(name))
            except OSError as error:
                cls.complain(f"{name}: {error.strerror or error}")
                results.append({"file": name, "error": error.strerror or str(error)})
                status = FAILED
            else:
                cls.show(results[-1], given)
        return max(status, cls.finish(results, given))

    @classmethod
    def look(cls, name: str) -> dict[str, Any]:
        """Do it with one file; return what there is to show."""
        raise NotImplementedError

    @classmethod
    def show(cls, result: dict[str, Any], given: argparse.Namespace) -> None:
        """Show it."""

    @classmethod
    def finish(cls, results: list[dict[str, Any]], given: argparse.Namespace) -> int:
        """Show what there is to show of all files together; return an exit status."""
        return DONE

    @classmethod
    def complain(cls, what: str) -> None:
        """Write to standard error."""
        print(f"mappedfile {cls.name}: {what}", file=sys.stderr)

    @classmethod
    def refuse(cls, what: str) -> int:
        """Say why it cannot be done at all."""
        cls.complain(what)
        return UNUSABLE


class ResidencyCommand(FilesCommand):
    """``mappedfile residency``: show which pages of files are in memory."""

    name = "residency"
    help = "show which pages of files are in memory"
    description = "Show which pages of files are in memory, as a bar from the beginning of the file to its end."
    if not _advice.FILE_RESIDENCY:
        impossible = (
            "this system tells what a process has mapped, not what of a file is in memory"
            " (capabilities().file_residency is false)"
        )

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print a JSON document instead of bars")
        parser.add_argument("--png", metavar="OUT", help="draw a picture into this file too; needs matplotlib")

    @classmethod
    def run(cls, given: argparse.Namespace) -> int:
        if given.png is not None:
            from importlib.util import find_spec

            if find_spec("matplotlib") is None:
                return cls.refuse("--png needs matplotlib: pip install 'mappedfile[plot]'")
        return super().run(given)

    @classmethod
    def look(cls, name: str) -> dict[str, Any]:
        with MappedFile(name) as file:
            found = file.residency()
            return {
                "file": name,
                "size": len(file),
                "pages": found.pages,
                "resident": found.resident,
                "fraction": found.fraction,
                "found": found,
            }

    @classmethod
    def show(cls, result: dict[str, Any], given: argparse.Namespace) -> None:
        if not given.json:
            print_bar(result)
        if not (given.json or given.png):
            del result["found"]

    @classmethod
    def finish(cls, results: list[dict[str, Any]], given: argparse.Namespace) -> int:
        seen = [result for result in results if "error" not in result]
        if given.png is not None and seen:
            from mappedfile._picture import draw

            try:
                draw(seen, given.png)
            except (OSError, ValueError) as error:  # ValueError: matplotlib knows no such format
                return cls.refuse(f"{given.png}: {getattr(error, 'strerror', None) or error}")
        if given.json:
            for result in seen:
                result["runs"] = runs(result.pop("found"))
            print_json({"files": results})
        elif len(seen) > 1:
            print(
                f"{len(seen)} files: {share(*(sum(result[key] for result in seen) for key in ('resident', 'pages')))}"
            )
        return DONE


class WarmCommand(FilesCommand):
    """``mappedfile warm``: read files into memory."""

    name = "warm"
    help = "read files into memory"
    description = "Read files into memory, all of them, so that the next to use them need not wait for the disk."

    @classmethod
    def look(cls, name: str) -> dict[str, Any]:
        with MappedFile(name) as file:
            size = len(file)
            started = time.perf_counter()
            with reading(name, size) as advance:
                for place in range(0, size, STEP):
                    with file.view(place, min(STEP, size - place)) as view:  # with the tables for so many pages alone
                        view.advise("sequential")
                        view.advise("populate_read")
                        advance(len(view))
            seconds = time.perf_counter() - started
            return {"file": name, "size": size, "seconds": seconds, "pages": pages(size), "resident": resident(file)}

    @classmethod
    def show(cls, result: dict[str, Any], given: argparse.Namespace) -> None:
        size, seconds, count = result["size"], result["seconds"], result["resident"]
        rate = f", {amount(size / seconds)}/s" if seconds and size else ""
        there = "" if count in (None, result["pages"]) else f"; {count} of {result['pages']} pages are in memory now"
        print(f"{result['file']}: {amount(size)} in {seconds:.2f} s{rate}{there}")


class EvictCommand(FilesCommand):
    """``mappedfile evict``: have the system forget what it has of files in memory."""

    name = "evict"
    help = "have the system forget what it has of files in memory"
    description = (
        "Write files back to their disks, and have the system forget what it has of them in memory. Pages that somebody"
        " has mapped stay; nothing is lost."
    )
    if not _advice.EVICT:
        impossible = "this system has no way to evict the pages of a file (capabilities().evict is false)"

    @classmethod
    def look(cls, name: str) -> dict[str, Any]:
        with MappedFile(name) as file:
            before = resident(file)
            _advice.evict(file)
            return {"file": name, "before": before, "after": resident(file)}

    @classmethod
    def show(cls, result: dict[str, Any], given: argparse.Namespace) -> None:
        before, after = result["before"], result["after"]
        if before is None or after is None:
            print(
                f"{result['file']}: evicted; what stays is told only to the owner of the file, and to who may write it"
            )
            return
        stay = f"; {after} stay: they are mapped, or the file system is memory itself" if after else ""
        print(f"{result['file']}: {max(before - after, 0)} of {before} pages evicted{stay}")


class InfoCommand(FilesCommand):
    """``mappedfile info``: tell what there is to know about mapping a file."""

    name = "info"
    help = "tell what there is to know about mapping a file"
    description = "Tell size, modes, maps, granularity and huge pages of a file, and what of it is in memory."

    @classmethod
    def add_options(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print a JSON document instead of lines")

    @classmethod
    def look(cls, name: str) -> dict[str, Any]:
        from mappedfile._info import facts

        return facts(name)

    @classmethod
    def show(cls, result: dict[str, Any], given: argparse.Namespace) -> None:
        if not given.json:
            from mappedfile._info import lines

            print("\n".join(lines(result)))

    @classmethod
    def finish(cls, results: list[dict[str, Any]], given: argparse.Namespace) -> int:
        if given.json:
            print_json({"files": results})
        return DONE


# Showing things


def print_bar(result: dict[str, Any]) -> None:
    """Print what of a file is in memory, as a bar that is as wide as the terminal."""
    from itertools import groupby
    from shutil import get_terminal_size

    from mappedfile._cli import rich_console

    found = result["found"]
    print(f"{result['file']}: {amount(result['size'])}, {share(found.resident, found.pages)}")
    if not found:
        return
    console = rich_console(sys.stdout)
    width = min(get_terminal_size().columns, 120) if console is None else console.width
    levels = [level(part) for part in parts(found, width)]
    if console is None:
        try:
            BLOCKS.encode(sys.stdout.encoding or "ascii")
        except UnicodeEncodeError:
            blocks = PLAIN_BLOCKS
        else:
            blocks = BLOCKS
        print("".join(blocks[each] for each in levels))
    else:
        from rich.text import Text

        console.print(Text.assemble(*((BLOCKS[each] * len([*same]), STYLES[each]) for each, same in groupby(levels))))


def level(part: float) -> int:
    """Return how dark the block is for a cell of which this part is in memory: some is never none, nor all."""
    return 0 if not part else 3 if part == 1 else 1 if part < 0.5 else 2


def share(some: int, of: int) -> str:
    """Say how many of the pages are in memory, and what part that is: all and none only when it is all or none."""
    part = 100 * some / of if of else 0
    if 0 < some < of:
        part = min(max(part, 0.1), 99.9)
    return f"{some} of {of} pages in memory" + (f" ({part:.1f} %)" if of else "")


def print_json(content: dict[str, Any]) -> None:
    """Print a JSON document."""
    import json

    print(json.dumps({"schema": SCHEMA, "page_size": PAGE_SIZE, **content}))


@contextmanager
def reading(name: str, size: int) -> Iterator[Callable[[int], None]]:
    """Show how far it is, if the standard error stream is a terminal. Gives a function to call for bytes read."""
    from mappedfile._cli import rich_console

    console = rich_console(sys.stderr)
    if console is not None:
        from rich.markup import escape
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(True), TransferSpeedColumn()
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(escape(name), total=size)
            yield lambda count: bar.update(task, advance=count)
    elif sys.stderr.isatty():
        done, started = 0, time.perf_counter()

        def advance(count: int) -> None:
            nonlocal done
            done += count
            rate = done / (time.perf_counter() - started)
            print(f"\r{done / size:4.0%} {amount(rate)}/s ", end="", file=sys.stderr, flush=True)

        try:
            yield advance
        finally:
            print("\r" + " " * 24 + "\r", end="", file=sys.stderr, flush=True)
    else:
        yield lambda _: None


# Counting


def pages(size: int) -> int:
    """Return how many pages have bytes of a file of this size."""
    return -(-size // PAGE_SIZE)


def resident(file: MappedFile) -> int | None:
    """Count the pages of a file that are in memory; None where that is not told."""
    if _advice.FILE_RESIDENCY:
        with suppress(PermissionError):
            return file.residency().resident
    return None


def parts(found: Residency, cells: int) -> list[float]:
    """Divide pages, one or more, among cells, which may share some; return which part of each cell is in memory."""
    first = [len(found) * cell // cells for cell in range(cells)]
    last = [max(-(-len(found) * (cell + 1) // cells), 1) for cell in range(cells)]
    return [found.count(1, start, stop) / (stop - start) for start, stop in zip(first, last, strict=True)]


def runs(found: Residency) -> list[tuple[int, int]]:
    """Return where pages are in memory: the first of each run, and how many there are."""
    all_runs = []
    start = found.find(1)
    while start >= 0:
        stop = found.find(0, start)
        stop = len(found) if stop < 0 else stop
        all_runs.append((start, stop - start))
        start = found.find(1, stop)
    return all_runs


def amount(size: float) -> str:
    """Write bytes so that they can be read: 1.5 GiB."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1024 or unit == "PiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
