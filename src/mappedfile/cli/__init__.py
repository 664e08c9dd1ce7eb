"""The command line: one module for each command, and ``_terminal`` for the output.

Modules that few commands need are imported when such a command runs, so that the start is fast.
"""

from __future__ import annotations

import argparse
import sys

import mappedfile
from mappedfile.cli import _check, _evict, _info, _residency, _warm
from mappedfile.cli._terminal import DONE, STOPPED, UNREAD, UNUSABLE, CannotWriteError, Terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = (
    _check.CheckCommand,
    _residency.ResidencyCommand,
    _warm.WarmCommand,
    _evict.EvictCommand,
    _info.InfoCommand,
)

EPILOG = """\
exit status:
  0    success
  1    a clause fails, or a file had an error
  2    an invalid argument, or a folder or an output that cannot be used
  130  interrupted
  141  the output was closed early, as in: mappedfile check | head

`mappedfile COMMAND --help` explains a command.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    terminal = Terminal()
    try:
        try:
            status = run(arguments, terminal)
        except SystemExit as end:  # from argparse: the help, or an invalid argument
            status = end.code if isinstance(end.code, int) else UNUSABLE
        except KeyboardInterrupt:
            status = STOPPED
            terminal.complain("\nmappedfile: interrupted")
        terminal.flush()  # the reader may have ended before the buffer is written
    except CannotWriteError as error:
        if error.unread:
            status = UNREAD
        else:
            status = UNUSABLE
            terminal.complain(f"mappedfile: cannot write the output: {error}")
    return status


def run(arguments: Sequence[str] | None, terminal: Terminal) -> int:
    """Parse the arguments and run the command."""
    parser = argparse.ArgumentParser(
        prog="mappedfile",
        description="Memory-mapped files, the same on every system.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-V", "--version", action="version", version=f"mappedfile {mappedfile.__version__}"
    )
    # Without prog, argparse would compute the same value, with slow imports.
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", prog="mappedfile")
    for command in COMMANDS:
        command(terminal).add(commands)
    try:
        given = parser.parse_args(joined(arguments))
    except OSError as error:  # the reader of the help has ended
        raise CannotWriteError(error) from None
    if not hasattr(given, "run"):
        terminal.say(parser.format_help().rstrip())
        return DONE
    return int(given.run(given))


def joined(arguments: Sequence[str] | None) -> list[str]:
    """Join ``--range -1G`` to ``--range=-1G``, since argparse takes ``-1G`` for an option."""
    every = list(sys.argv[1:] if arguments is None else arguments)
    last = every.index("--") if "--" in every else len(every)
    for place in range(last - 2, -1, -1):
        if every[place] == "--range" and every[place + 1][:1] == "-":
            every[place : place + 2] = [f"--range={every[place + 1]}"]
    return every
