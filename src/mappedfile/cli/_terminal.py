"""The output of a command: lines, colours and progress, on a terminal or to a pipe.

A terminal gets colours and a bar from ``rich``, if that is installed. Everything else gets plain
lines, each as soon as it is known.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from contextlib import contextmanager, suppress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TextIO, TypeAlias

    #: A piece of a line, with or without a style.
    Piece: TypeAlias = str | tuple[str, str]

# Exit statuses. 141 is the status that a shell gives to a program that SIGPIPE ended, such as cat.
DONE, FAILED, UNUSABLE, STOPPED, UNREAD = 0, 1, 2, 130, 141

#: The errors for a pipe without a reader: EPIPE; EINVAL in the C runtime of Windows.
UNREAD_ERRORS = (errno.EPIPE, errno.EINVAL) if sys.platform == "win32" else (errno.EPIPE,)

#: The cells of a bar, from no page in memory to all pages.
BLOCKS = "\N{LIGHT SHADE}\N{MEDIUM SHADE}\N{DARK SHADE}\N{FULL BLOCK}"
#: Replacements for characters that the encoding of the stream lacks.
PLAIN = str.maketrans(BLOCKS + "\N{MIDDLE DOT}\N{HORIZONTAL ELLIPSIS}", ".-+#" + "-~")


class CannotWriteError(Exception):
    """The standard output cannot be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or str(error))
        #: Whether the program that read the output has ended. That needs no message.
        self.unread = error.errno in UNREAD_ERRORS


def nowhere() -> TextIO:
    """Return a stream that discards what is written. It stays open until the process ends."""
    return open(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8", closefd=False)


class Terminal:
    """The standard streams of a command."""

    def __init__(self) -> None:
        if sys.stdout is None:  # closed, as in: mappedfile check >&-
            sys.stdout = nowhere()
        if sys.stderr is None:
            sys.stderr = nowhere()
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        #: Whether the standard output is a terminal.
        self.interactive: bool = sys.stdout.isatty()
        self._console: Any = None
        self._looked = False
        self._drawn = False

    @property
    def console(self) -> Any:
        """The ``rich`` console of the standard output; None without a terminal or without rich."""
        if not self._looked:
            self._looked = True
            self._console = rich_console(sys.stdout)
        return self._console

    @property
    def width(self) -> int:
        """The width of a line, in columns."""
        if self.console is not None:
            return int(self.console.width)
        from shutil import get_terminal_size

        return get_terminal_size().columns

    def say(self, *pieces: Piece, style: str = "") -> None:
        """Print a line, and flush it: a program behind a pipe may wait for it."""
        pairs = [(piece, style) if isinstance(piece, str) else piece for piece in pieces]
        pairs = [(plain(text, sys.stdout), style) for text, style in pairs]
        self._clear()
        try:
            if self.console is None:
                print("".join(text for text, _ in pairs), flush=True)
            else:
                from rich.text import Text

                self.console.print(Text.assemble(*pairs), soft_wrap=True)
        except OSError as error:
            self._give_up(error)

    def complain(self, text: str) -> None:
        """Print a line on the standard error stream."""
        self._clear()
        with suppress(OSError):  # no stream is left for a message
            print(plain(text, sys.stderr), file=sys.stderr, flush=True)

    def flush(self) -> None:
        """Flush the standard output."""
        try:
            sys.stdout.flush()
        except OSError as error:
            self._give_up(error)

    @contextmanager
    def progress(
        self, total: int, says: Callable[[Progress], str], *, wanted: bool = True
    ) -> Iterator[Progress]:
        """Show the progress of a block on a terminal: a bar, and the text that *says* returns."""
        progress = Progress(total)
        console = (self.console or rich_console(sys.stderr)) if wanted else None
        if console is not None:
            from rich import progress as bars

            columns = bars.BarColumn(), bars.TextColumn("{task.description}", markup=False)
            # rich must not redirect the standard streams to the console.
            streams: Any = {"redirect_stdout": False, "redirect_stderr": sys.stderr.isatty()}
            with bars.Progress(*columns, console=console, transient=True, **streams) as bar:
                task = bar.add_task("")
                progress.show = lambda: bar.update(
                    task,
                    description=plain(says(progress), console.file),
                    completed=progress.done,
                    total=progress.total,
                )
                yield progress
        elif wanted and sys.stderr.isatty():
            progress.show = lambda: self._draw(says(progress))
            try:
                yield progress
            finally:
                self._clear()
        else:
            yield progress

    def _draw(self, text: str) -> None:
        """Show a temporary line."""
        self._clear()
        room = max(self.width - 1, 1)
        with suppress(OSError):
            print("\r" + plain(text, sys.stderr)[:room], end="", file=sys.stderr, flush=True)
        self._drawn = True

    def _clear(self) -> None:
        if self._drawn:
            self._drawn = False
            with suppress(OSError):
                print("\r" + " " * (self.width - 1) + "\r", end="", file=sys.stderr, flush=True)

    def _give_up(self, error: OSError) -> None:
        """Discard all further output, also at interpreter shutdown."""
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise CannotWriteError(error) from None


class Progress:
    """The progress of a command: done and total."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        #: The name of the present step.
        self.name = ""
        self.show: Callable[[], None] = lambda: None
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """The time so far, in seconds."""
        return time.perf_counter() - self._started

    def update(self, name: str | None = None, *, done: int = 0, skipped: int = 0) -> None:
        """Update the name of the step, add to what is done, and take off what is skipped."""
        self.name = self.name if name is None else name
        self.done += done
        self.total -= skipped
        self.show()


def rich_console(stream: Any) -> Any:
    """Return a ``rich`` console for a stream; None if it is no terminal or rich is missing."""
    if not stream.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=stream, highlight=False)


def plain(text: str, stream: Any) -> str:
    """Return a text with ASCII replacements for characters that the stream cannot encode."""
    try:
        text.encode(stream.encoding or "ascii")
    except UnicodeEncodeError:
        return text.translate(PLAIN)
    return text


def printable(name: str) -> str:
    """Return a file name that is safe for a terminal: unprintable characters are escaped."""
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in name)
