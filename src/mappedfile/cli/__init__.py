"""The command line: one file a command, ``_terminal`` for what is shown.

Files that few commands need are imported when such a command runs: it is to start quickly.
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
  0    all went well
  1    a clause fails, or something went wrong with a file
  2    it cannot be done: a wrong argument, a folder or an output that cannot be used
  130  interrupted
  141  nobody reads the output any more, as in: mappedfile check | head

`mappedfile COMMAND --help` tells more of a command.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    terminal = Terminal()
    try:
        try:
            status = run(arguments, terminal)
        except SystemExit as end:  # argparse's: the help, or a wrong argument
            status = end.code if isinstance(end.code, int) else UNUSABLE
        except KeyboardInterrupt:
            status = STOPPED
            terminal.complain("\nmappedfile: interrupted")
        terminal.flush()  # nobody may read what is still in a buffer
    except CannotWriteError as error:
        if error.unread:
            status = UNREAD
        else:
            status = UNUSABLE
            terminal.complain(f"mappedfile: cannot write the output: {error}")
    return status


def run(arguments: Sequence[str] | None, terminal: Terminal) -> int:
    """Do what the arguments say."""
    parser = argparse.ArgumentParser(
        prog="mappedfile",
        description="Memory-mapped files, the same on every system.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-V", "--version", action="version", version=f"mappedfile {mappedfile.__version__}"
    )
    # argparse finds out the same prog, with imports that take a while.
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", prog="mappedfile")
    for command in COMMANDS:
        command(terminal).add(commands)
    try:
        given = parser.parse_args(joined(arguments))
    except OSError as error:  # Python 3.10: nobody reads the help
        raise CannotWriteError(error) from None
    if not hasattr(given, "run"):
        terminal.say(parser.format_help().rstrip())
        return DONE
    return int(given.run(given))


def joined(arguments: Sequence[str] | None) -> list[str]:
    """Join ``--range -1G`` to ``--range=-1G``: to argparse, ``-1G`` is an option."""
    every = list(sys.argv[1:] if arguments is None else arguments)
    last = every.index("--") if "--" in every else len(every)
    for place in range(last - 2, -1, -1):
        if every[place] == "--range" and every[place + 1][:1] == "-":
            every[place : place + 2] = [f"--range={every[place + 1]}"]
    return every
