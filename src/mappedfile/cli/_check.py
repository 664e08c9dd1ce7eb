"""``mappedfile check``: run the contract in a folder."""

from __future__ import annotations

import argparse
import re
import sys
import time
from contextlib import ExitStack

from mappedfile.cli._terminal import DONE, FAILED, UNUSABLE, Progress, Terminal, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any, TypeAlias

    from mappedfile.contract._run import Plan, Row

    #: The facts about a folder.
    Facts: TypeAlias = dict[str, Any]

WORDS = {"holds": "holds", "fails": "FAILS", "not_here": "not here"}
STYLES = {"holds": "green", "fails": "bold red", "not_here": "yellow"}
#: The column where the text of a clause begins, and the maximum width of lines.
INDENT, WIDEST = 16, 100
FIRST_SENTENCE = re.compile(r"(?<=[.])\s(?=[A-Z])")

DESCRIPTION = """\
Run every clause of the contract in a folder, to see what holds on its file system. The check
creates a new folder in it and removes that at the end. Clauses that fail are shown again at
the end, with the verdict.
"""

EPILOG = """\
exit status:
  0    no clause fails
  1    a clause fails
  2    an invalid argument, or a folder that cannot be used
  130  interrupted
  141  the output was closed early, and not every clause was tried
"""


class CheckCommand:
    """Runs the contract in a folder, and shows which clauses hold there."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal

    def add(self, commands: Any) -> None:
        """Add the command and its arguments to the parser."""
        parser = commands.add_parser(
            "check",
            help="show which clauses of the contract hold in a folder",
            description=DESCRIPTION,
            epilog=EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument(
            "folder", metavar="DIR", nargs="?", help="the folder (default: that of temporary files)"
        )
        parser.add_argument(
            "--json", action="store_true", help="print a JSON document at the end, instead of lines"
        )
        parser.add_argument(
            "-v",
            "--verbose",
            action="store_true",
            help="show the capabilities of this system, and every clause in full",
        )
        parser.add_argument(
            "--clause",
            metavar="ID",
            action="append",
            default=[],
            help="only this clause (L7), or all clauses of a letter (L); can be repeated",
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
            help="the time limit for one clause in one mode (default: %(default)s)",
        )
        parser.set_defaults(run=self.run, parser=parser)

    def run(self, given: argparse.Namespace) -> int:
        """Run the command; return its exit status."""
        import tempfile
        from pathlib import Path

        from mappedfile.contract._run import Plan

        try:
            plan = Plan.of(given.clause, given.mode, given.timeout)
        except ValueError as error:
            given.parser.error(str(error))
        folder = Path(given.folder or tempfile.gettempdir())
        try:
            return self.carry_out(plan, folder, given)
        except OSError as error:
            where = printable(repr(str(folder)))
            why = error.strerror or error
            self.terminal.complain(f"mappedfile check: cannot use {where}: {why}")
            return UNUSABLE

    def carry_out(self, plan: Plan, folder: Path, given: argparse.Namespace) -> int:
        """Run a plan; raise ``OSError`` if the folder cannot be used."""
        import json

        from mappedfile.contract._report import place, report, summary

        started = time.perf_counter()
        rows: list[Row] = []
        with ExitStack() as stack:
            # A pipe gets each line as soon as a clause is known, so it needs no progress bar.
            wanted = given.json or self.terminal.interactive
            progress = stack.enter_context(
                self.terminal.progress(len(plan), how_far, wanted=wanted)
            )

            def on_start(name: str) -> None:
                progress.update(name, done=1)

            found = stack.enter_context(plan.running(folder, on_start))
            facts = place(folder)
            if not given.json:
                self.show_place(facts, verbose=given.verbose)
            for row in found:
                if not given.json:
                    self.show_row(row, rows[-1] if rows else None, full=given.verbose)
                rows.append(row)
        took = time.perf_counter() - started
        counts = summary(rows)
        if given.json:
            self.terminal.say(json.dumps(report(facts, rows, took), indent=1))
        else:
            self.show_verdict(rows, counts, took)
        return FAILED if counts["fails"] else DONE

    def show_place(self, facts: Facts, *, verbose: bool) -> None:
        """Show the folder and the system and, if *verbose*, its capabilities."""
        kind = facts["file_system"] or "file system not known"
        rows = [
            ("folder", f"{printable(facts['folder'])} ({kind})"),
            ("system", f"{facts['system']}, {facts['python']}, mappedfile {facts['mappedfile']}"),
            ("backend", facts["backend"]),
            ("page size", f"{facts['page_size']:,} bytes"),
            ("granularity", f"{facts['granularity']:,} bytes"),
        ]
        if verbose:
            from dataclasses import fields

            from mappedfile import capabilities

            for field in fields(capabilities()):
                able = facts["capabilities"][field.name]
                text = f"{field.name}: {field.metadata['says']}"
                rows.append(("can" if able else "cannot", text))
        for name, value in rows:
            for line in wrapped(value, self.room - 13, first=f"{name:13}"):
                self.terminal.say(line)

    def show_row(self, row: Row, before: Row | None, *, full: bool) -> None:
        """Show a clause: its text, its result and, if it does not hold, the reason."""
        if before is None or heading(before) != heading(row):
            self.terminal.say(f"\n{heading(row)}\n", style="bold")
        says = row.clause.says.replace("``", "")
        if row.result == "holds" and not full:
            says = FIRST_SENTENCE.split(says)[0]
        start = f"  {row.clause.id:4}{WORDS[row.result]:10}"
        first, *more = wrapped(says, self.room - INDENT, first=start)
        self.terminal.say(start[:6], (start[6:], STYLES[row.result]), first[INDENT:])
        for line in more:
            self.terminal.say(line)
        for modes, result, message in row.reasons():
            everywhere = modes.count(",") + 1 == len(row.outcomes)
            where = "" if everywhere else f"mode {modes}: "
            why = f"- {where}{'not here: ' if result != row.result else ''}{message}"
            style = STYLES["fails" if result == "fails" else "not_here"]
            for line in wrapped(why, self.room - INDENT, first=" " * INDENT, hang=2):
                self.terminal.say(line, style=style)

    def show_verdict(self, rows: list[Row], counts: dict[str, int], took: float) -> None:
        """Show the clauses that fail, and the verdict."""
        failing = [row for row in rows if row.result == "fails"]
        if failing:
            self.terminal.say("\nWhat fails\n", style="bold")
        for row in failing:
            self.show_row(row, row, full=True)
        said = f"{counts['holds']} hold, {counts['fails']} fail, "
        said += f"{counts['not_here']} cannot be shown here."
        verdict = f"The contract does not hold here: {', '.join(row.clause.id for row in failing)}."
        verdict = verdict if failing else "No clause fails here."
        self.terminal.say(f"\n{said} It took {took:.1f} s.")
        for line in wrapped(verdict, self.room):
            self.terminal.say(line, style=STYLES["fails" if failing else "holds"])

    @property
    def room(self) -> int:
        """The width of lines. It leaves some room for words on a narrow terminal."""
        return max(min(self.terminal.width, WIDEST), INDENT + 24)


def seconds(text: str) -> float:
    """Convert the argument of --timeout."""
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not number > 0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time: expected seconds, more than 0, such as 60 or 0.5"
        )
    return number


def how_far(progress: Progress) -> str:
    """Describe the progress."""
    return f"{progress.done}/{progress.total} {progress.name:6}"


def heading(row: Row) -> str:
    """Return the heading of a clause: the first line of its module's docstring."""
    text = sys.modules[row.clause.check.__module__].__doc__ or ""
    return text.partition("\n")[0].rstrip(".")


def wrapped(text: str, width: int, *, first: str = "", hang: int = 0) -> list[str]:
    """Break a text into lines, indented by the length of *first*, which begins the first line."""
    import textwrap

    lines = textwrap.wrap(text, width, subsequent_indent=" " * hang) or [""]
    return [f"{' ' * len(first) if number else first}{line}" for number, line in enumerate(lines)]
