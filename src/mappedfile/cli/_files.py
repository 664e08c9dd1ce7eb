"""The base of the commands that process each of several files."""

from __future__ import annotations

import argparse
import os
import stat
from contextlib import contextmanager

from mappedfile import PAGE_SIZE, MappedFile
from mappedfile.cli._numbers import amount, count, range_of
from mappedfile.cli._terminal import DONE, FAILED, UNUSABLE, Progress, Terminal, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, TypeAlias

    #: The facts about one file, ready for JSON.
    Facts: TypeAlias = dict[str, Any]

#: The version of the JSON documents. It changes when a field is removed or gets another meaning.
SCHEMA = 1

EPILOG = """\
exit status:
  0    success
  1    a file had an error; the other files were processed
  2    an invalid argument, or an output that cannot be used
  130  interrupted
  141  the output was closed early
"""

DIRECTORIES = """
A directory stands for the regular files in it, at any depth. Symbolic links in it are not followed,
and a file with several names counts once.
"""


class Found:
    """A file to process, or the error of looking it up."""

    def __init__(
        self,
        name: str,
        status: os.stat_result | None = None,
        *,
        error: OSError | None = None,
        repeated: bool = False,
    ) -> None:
        self.name = name
        self.status = status
        self.error = error
        #: The user named this file, but it was already found under another name.
        self.repeated = repeated

    def expected(self, wanted: tuple[int, int | None]) -> int:
        """Estimate how many bytes of a range must be read: holes have no blocks."""
        if self.status is None or self.repeated:
            return 0
        length = part(wanted, self.status.st_size)[1]
        blocks = getattr(self.status, "st_blocks", None)
        return length if blocks is None else min(length, blocks * 512)


class FilesCommand:
    """A command that processes each of its files."""

    name: str
    help: str
    description: str
    #: Whether the command takes directories, and ranges of files.
    takes_directories = True

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal

    def add(self, commands: Any) -> None:
        """Add the command and its arguments to the parser."""
        parser = commands.add_parser(
            self.name,
            help=self.help,
            description=self.description + (DIRECTORIES if self.takes_directories else ""),
            epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if self.takes_directories:
            parser.add_argument("files", metavar="FILE", nargs="+", help="a file, or a directory")
            parser.add_argument(
                "--range",
                metavar="START-END",
                type=range_argument,
                default=(0, None),
                help="only this range of each file, in bytes: 0-1G, 1G- or -1G; K, M, G and T are"
                " powers of 1024, and END is the first byte after the range",
            )
            parser.add_argument(
                "-s", "--summary", action="store_true", help="show only the totals, not each file"
            )
        else:
            parser.add_argument("files", metavar="FILE", nargs="+")
        parser.add_argument(
            "--json", action="store_true", help="print a JSON document instead of lines"
        )
        self.add_options(parser)
        parser.set_defaults(run=self.run)

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        """Add further arguments to the parser."""

    def impossible(self, given: argparse.Namespace) -> str:
        """Return the reason why the command cannot run here; or an empty string."""
        return ""

    def run(self, given: argparse.Namespace) -> int:
        """Process every file, and report errors of single files; return the exit status."""
        why = self.impossible(given)
        if why:
            return self.refuse(why)
        every = found(given.files) if self.takes_directories else map(Found, given.files)
        results: list[Facts] = []
        status = DONE
        with self.prepare(every, given) as (turns, progress):
            for file in turns:
                try:
                    if file.repeated:
                        self.complain(f"{printable(file.name)}: counted once, under another name")
                        continue
                    if file.error is not None:
                        raise file.error
                    result = self.process(file, given, progress)
                except OSError as error:
                    why = error.strerror or str(error)
                    self.complain(f"{printable(file.name)}: {why}")
                    results.append({"file": file.name, "error": why})
                    status = FAILED
                    continue
                results.append(result)
                if not (given.json or (self.takes_directories and given.summary)):
                    self.show(result)
        seen = [result for result in results if "error" not in result]
        status = max(status, self.finish(seen, given))
        if given.json:
            self.say_json(results)
        elif self.takes_directories and self.wants_sum(given):
            self.show_sum(seen)
        return status

    @contextmanager
    def prepare(
        self, every: Iterator[Found], given: argparse.Namespace
    ) -> Iterator[tuple[Iterator[Found], Progress]]:
        """Prepare for the files: a context manager that gives the files and the progress."""
        yield every, Progress(0)

    def process(self, file: Found, given: argparse.Namespace, progress: Progress) -> Facts:
        """Process one file; return the facts about it."""
        raise NotImplementedError

    def show(self, result: Facts) -> None:
        """Show the facts about a file."""
        raise NotImplementedError

    def finish(self, seen: list[Facts], given: argparse.Namespace) -> int:
        """Do what concerns all files together; return an exit status."""
        return DONE

    def show_sum(self, seen: list[Facts]) -> None:
        """Show the totals."""

    @staticmethod
    def wants_sum(given: argparse.Namespace) -> bool:
        """Whether there may be more than one file."""
        return given.summary or len(given.files) > 1 or any(map(os.path.isdir, given.files))

    def say_json(self, results: list[Facts]) -> None:
        """Print the JSON document."""
        import json

        self.terminal.say(json.dumps({"schema": SCHEMA, "page_size": PAGE_SIZE, "files": results}))

    def complain(self, what: str) -> None:
        """Write to the standard error stream."""
        self.terminal.complain(f"mappedfile {self.name}: {what}")

    def refuse(self, what: str) -> int:
        """Report why the command cannot run; return the exit status."""
        self.complain(what)
        return UNUSABLE


class SummedCommand(FilesCommand):
    """A command that shows one line for each file, and one for the totals."""

    #: The facts that are added up for the totals.
    summed: tuple[str, ...] = ()

    def describe(self, result: Facts) -> str:
        """Describe what was done, with one file or with all of them."""
        raise NotImplementedError

    def show(self, result: Facts) -> None:
        self.terminal.say(f"{printable(result['file'])}: {self.describe(result)}")

    def show_sum(self, seen: list[Facts]) -> None:
        every = {key: sum(result[key] or 0 for result in seen) for key in self.summed}
        self.terminal.say(f"{files(seen)}: {self.describe(every)}")


# Files


def found(names: Sequence[str]) -> Iterator[Found]:
    """List the named files, and the files in the named directories; each file once."""
    seen: set[tuple[int, int]] = set()
    for name in names:
        try:
            status = os.stat(name)
        except OSError as error:
            yield Found(name, error=error)
            continue
        if stat.S_ISDIR(status.st_mode):
            yield from inside(name, seen)
        else:
            repeated = not is_new(status, seen)
            yield Found(name, status, repeated=repeated)


def inside(folder: str, seen: set[tuple[int, int]]) -> Iterator[Found]:
    """List the regular files in a directory, at any depth, sorted by name."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        yield Found(folder, error=error)
        return
    for name in names:
        path = os.path.join(folder, name)
        try:
            status = os.lstat(path)
        except OSError as error:
            yield Found(path, error=error)
            continue
        if stat.S_ISDIR(status.st_mode):
            yield from inside(path, seen)
        elif stat.S_ISREG(status.st_mode) and is_new(status, seen):
            yield Found(path, status)


def is_new(status: os.stat_result, seen: set[tuple[int, int]]) -> bool:
    """Whether a file is new: it was not seen before, not even under another name."""
    key = (status.st_dev, status.st_ino)
    if key in seen:
        return False
    seen.add(key)
    return True


def files(seen: Sequence[object]) -> str:
    """Describe the number of files."""
    return "1 file" if len(seen) == 1 else f"{count(len(seen))} files"


# Ranges


def range_argument(text: str) -> tuple[int, int | None]:
    """Convert the argument of --range."""
    try:
        return range_of(text)
    except ValueError as why:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a range ({why}): expected START-END, in bytes or with K, M, G or T,"
            " such as 0-1G, 1G- or -1G"
        ) from None


def part(wanted: tuple[int, int | None], size: int) -> tuple[int, int]:
    """Return the offset and length of the part of a range that lies in a file of *size* bytes."""
    start, stop = wanted
    offset = min(start, size)
    return offset, (size if stop is None else min(stop, size)) - offset


def pages_of(offset: int, length: int) -> int:
    """Return the number of pages that have bytes of a range."""
    return -(-(offset + length) // PAGE_SIZE) - offset // PAGE_SIZE if length else 0


def place(result: Facts) -> str:
    """Describe the part of a file that a result is about: all of it, or a range."""
    offset, length, size = result["offset"], result["length"], result["size"]
    if length == size:
        return amount(size)
    return f"{amount(offset)} to {amount(offset + length)} of {amount(size)}"


def resident(file: MappedFile, offset: int = 0, length: int | None = None) -> int | None:
    """Count the pages of a range that are in memory; None if the system does not tell."""
    from mappedfile import capabilities

    if not capabilities().file_residency:
        return None
    try:
        return file.residency(offset, length).resident
    except PermissionError:
        return None
