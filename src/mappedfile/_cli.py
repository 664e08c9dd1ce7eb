"""The command line. Every sub-command is a class with ``add``, which says what it takes, and ``run``, which does it.

What only one of them needs it imports when it runs: a command is to start as quickly as Python lets it.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
import time
from contextlib import contextmanager

import mappedfile
from mappedfile._cli_memory import EvictCommand, InfoCommand, ResidencyCommand, WarmCommand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from mappedfile._check import Row

DONE, FAILED, UNUSABLE, INTERRUPTED = 0, 1, 2, 130

#: Windows' C runtime has the latter for a pipe that nobody reads any more.
NOBODY_READS = errno.EPIPE, errno.EINVAL

WORDS = {"holds": "holds", "fails": "FAILS", "not_here": "not here"}
STYLES = {"holds": "green", "fails": "bold red", "not_here": "yellow"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(prog="mappedfile", description="Memory-mapped files, the same on every system.")
    parser.add_argument("--version", action="version", version=f"mappedfile {mappedfile.__version__}")
    # The prog is the one that it would find out itself, for which it imports what takes a while.
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, prog="mappedfile")
    for command in COMMANDS:
        command.add(commands)
    given = parser.parse_args(arguments)
    if sys.stdout is None:  # closed, as in: mappedfile check >&-
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (to the end of the process)
    try:
        status = int(given.run(given))
        print(end="", flush=True)  # what is still in a buffer may find nobody to read it
        return status
    except KeyboardInterrupt:
        print("\nmappedfile: interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno not in NOBODY_READS:  # as in: mappedfile check | head
            print(f"mappedfile: {error}", file=sys.stderr)
        return FAILED


def seconds(text: str) -> float:
    """Return a time that a user gave, or raise ``ValueError``."""
    number = float(text)
    if not number > 0:
        raise ValueError
    return number


class CheckCommand:
    """``mappedfile check``: run the contract in a folder."""

    @classmethod
    def add(cls, commands: Any) -> None:
        parser = commands.add_parser(
            "check",
            help="tell what of the contract holds in a folder",
            description="Run every clause of the contract in a folder, whatever file system it is on; tell which hold.",
            epilog="Exit status: 0 if no clause fails, 1 if one does, 2 if it cannot be tried, 130 if interrupted.",
        )
        parser.add_argument("folder", metavar="DIR", nargs="?", help="where (default: a temporary folder)")
        parser.add_argument("--json", action="store_true", help="print a JSON document instead of a table")
        parser.add_argument(
            "--clause",
            metavar="ID",
            action="append",
            default=[],
            help="only this clause (L7), or all of this letter (L); can be repeated",
        )
        parser.add_argument(
            "--mode",
            action="append",
            default=[],
            choices=["r", "r+", "w+", "x+", "c"],
            help="only files opened in this mode; can be repeated",
        )
        parser.add_argument(
            "--timeout",
            metavar="SECONDS",
            type=seconds,
            default=60,
            help="what one clause may take in one mode (default: %(default)s)",
        )
        parser.set_defaults(run=cls.run, parser=parser)

    @staticmethod
    def run(given: argparse.Namespace) -> int:
        import json
        import tempfile
        from pathlib import Path

        from mappedfile._check import Plan, report

        try:
            plan = Plan.of(given.clause, given.mode, given.timeout)
        except ValueError as error:
            given.parser.error(str(error))
        folder = Path(given.folder or tempfile.gettempdir())
        started = time.perf_counter()
        try:
            with progress(len(plan)) as on_start:
                rows = plan.run(folder, on_start)
        except OSError as error:
            print(f"mappedfile check: cannot use {str(folder)!r}: {error.strerror or error}", file=sys.stderr)
            return UNUSABLE
        told = report(rows, folder, time.perf_counter() - started)
        if given.json:
            print(json.dumps(told, indent=1))
        else:
            print_table(rows)
            print_facts(told)
        return FAILED if told["summary"]["fails"] else DONE


COMMANDS = (CheckCommand, ResidencyCommand, WarmCommand, EvictCommand, InfoCommand)


# Showing things. A terminal gets rich, if it is there.


def rich_console(stream: Any) -> Any:
    """Return a ``rich`` console on a terminal; None when it is none, or rich is not installed."""
    if not stream.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream, highlight=False)


@contextmanager
def progress(steps: int) -> Iterator[Callable[[str], None]]:
    """Show how far it is, if the standard error stream is a terminal. Gives a function to call before each step."""
    console = rich_console(sys.stderr)
    if console is not None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = TextColumn("{task.description:6}"), BarColumn(), MofNCompleteColumn()
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=steps)
            yield lambda name: bar.update(task, description=name, advance=1)
    elif sys.stderr.isatty():
        done = 0

        def on_start(name: str) -> None:
            nonlocal done
            done += 1
            print(f"\r{done}/{steps} {name:8}", end="", file=sys.stderr, flush=True)

        try:
            yield on_start
        finally:
            print("\r" + " " * 24 + "\r", end="", file=sys.stderr, flush=True)
    else:
        yield lambda _: None


def print_table(rows: Sequence[Row]) -> None:
    """Print the clauses: what each says, whether it holds and, if not, why."""
    import shutil
    import textwrap

    console = rich_console(sys.stdout)
    if console is not None:
        print_rich_table(rows, console)
        return
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a pipe on Windows may know few characters
    width = min(shutil.get_terminal_size().columns, 100) - 16
    for heading, group in groups(rows):
        print(f"\n{heading}\n")
        for row in group:
            said, *reasons = describe(row)
            lines = textwrap.wrap(said, width)
            for reason in reasons:
                lines += textwrap.wrap(reason, width, initial_indent="- ", subsequent_indent="  ")
            start = f"  {row.clause.id:4}{WORDS[row.result]:10}"
            print(start + f"\n{' ' * len(start)}".join(lines))
    print()


def print_rich_table(rows: Sequence[Row], console: Any) -> None:
    """The same on a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("Clause", no_wrap=True)
    table.add_column("Result", no_wrap=True)
    table.add_column("What it says", max_width=90)
    for heading, group in groups(rows):
        table.add_section()
        table.add_row("", "", Text(heading, "bold"))
        for row in group:
            said, *reasons = describe(row)
            text = Text(said)
            for reason in reasons:
                text.append(f"\n- {reason}", STYLES["fails" if row.result == "fails" else "not_here"])
            table.add_row(row.clause.id, Text(WORDS[row.result], STYLES[row.result]), text)
    console.print(table)


def groups(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Put the rows under the headings of the contract, which are the docstrings of its modules."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        heading = (sys.modules[row.clause.check.__module__].__doc__ or "").partition("\n")[0].rstrip(".")
        found.setdefault(heading, []).append(row)
    return list(found.items())


def describe(row: Row) -> list[str]:
    """What a clause says, in short if it holds; then the reasons why it does not, or not in every mode."""
    says = row.clause.says.replace("``", "")
    if row.result == "holds":
        says = re.split(r"(?<=[.])\s(?=[A-Z])", says)[0]
    told = [says]
    for modes, result, message in row.reasons():
        everywhere = modes.count(",") + 1 == len(row.outcomes)
        where = "" if everywhere else f"mode {modes}: "
        told.append(f"{where}{'not here: ' if result != row.result else ''}{message}")
    return told


def print_facts(told: dict[str, Any]) -> None:
    """Print the counts, and what kind of place this is."""
    import textwrap
    from dataclasses import fields

    summary = told["summary"]
    counts = f"{summary['holds']} hold, {summary['fails']} fail, {summary['not_here']} cannot be shown here."
    facts = {
        "folder": f"{told['folder']} ({told['file_system'] or 'file system not known'})",
        "backend": told["backend"],
        "page size": told["page_size"],
        "granularity": told["granularity"],
        "system": f"{told['system']}, {told['python']}, mappedfile {told['mappedfile']}",
    }
    lines = [f"{name:13}{value}" for name, value in facts.items()]
    says = {field.name: field.metadata["says"] for field in fields(mappedfile.capabilities())}
    for name, able in told["capabilities"].items():
        lines.append(f"{'can' if able else 'cannot':13}{name}: {says[name]}")
    console = rich_console(sys.stdout)
    width = 80 if console is None else console.width
    lines = [line for long in lines for line in textwrap.wrap(long, width, subsequent_indent=" " * 13)]
    if console is None:
        print(counts, f"It took {told['seconds']} s.\n")
        print("\n".join(lines))
    else:
        style = STYLES["fails" if summary["fails"] else "holds"]
        console.print(f"[{style}]{counts}[/] It took {told['seconds']} s.\n")
        console.print("\n".join(lines), markup=False)
