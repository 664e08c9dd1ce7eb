"""``mappedfile residency``: which pages of files are in memory."""

from __future__ import annotations

from itertools import groupby

from mappedfile import MappedFile
from mappedfile.cli._bars import level, parts, runs
from mappedfile.cli._files import FilesCommand, files, part, place
from mappedfile.cli._numbers import share
from mappedfile.cli._terminal import BLOCKS, DONE, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from mappedfile.cli._files import Facts, Found
    from mappedfile.cli._terminal import Progress

#: The colours of the blocks.
STYLES = ("bright_black", "yellow", "yellow", "green")
#: About the width of a picture, in pixels.
PICTURE_CELLS = 1200


class ResidencyCommand(FilesCommand):
    """Shows which pages of files are in memory."""

    name = "residency"
    help = "show which pages of files are in memory"
    description = (
        "Show which pages of files are in memory: a bar for each file, from beginning to end."
    )

    #: The shares of the picture's cells that are in memory, a list for each file.
    strips: list[list[float]]
    #: The levels of the bar of the last file.
    levels: list[int]

    def add_options(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--png", metavar="OUT", help="also draw a picture into this file; needs matplotlib"
        )

    def impossible(self, given: argparse.Namespace) -> str:
        from mappedfile import capabilities

        self.strips = []
        if not capabilities().file_residency:
            return (
                "this system only tells which pages a process has mapped, not which pages of a file"
                " are in memory (capabilities().file_residency is false)"
            )
        if given.png is not None:
            from importlib.util import find_spec

            if find_spec("matplotlib") is None:
                return "--png needs matplotlib: pip install 'mappedfile[plot]'"
        return ""

    def process(self, file: Found, given: argparse.Namespace, progress: Progress) -> Facts:
        with MappedFile(file.name) as mapped:
            offset, length = part(given.range, len(mapped))
            found = mapped.residency(offset, length)
            result: Facts = {
                "file": file.name,
                "size": len(mapped),
                "offset": offset,
                "length": length,
                "pages": found.pages,
                "resident": found.resident,
                "fraction": found.fraction,
            }
        if given.json:
            result["runs"] = runs(found, offset)
        if given.png is not None:
            self.strips.append(parts(found, PICTURE_CELLS) if found else [])
        width = min(self.terminal.width, 120)
        self.levels = [level(each) for each in parts(found, width)] if found else []
        return result

    def show(self, result: Facts) -> None:
        said = share(result["resident"], result["pages"])
        self.terminal.say(f"{printable(result['file'])}: {place(result)}, {said}")
        if self.levels:
            blocks = ((which, len([*same])) for which, same in groupby(self.levels))
            self.terminal.say(
                *((BLOCKS[which] * number, STYLES[which]) for which, number in blocks)
            )

    def show_sum(self, seen: list[Facts]) -> None:
        resident, pages = (sum(result[key] for result in seen) for key in ("resident", "pages"))
        self.terminal.say(f"{files(seen)}: {share(resident, pages)}")

    def finish(self, seen: list[Facts], given: argparse.Namespace) -> int:
        if given.png is None or not seen:
            return DONE
        from mappedfile.cli._picture import draw

        try:
            draw(seen, self.strips, given.png)
        except (OSError, ValueError) as error:  # ValueError: matplotlib does not know the format
            return self.refuse(f"{given.png}: {getattr(error, 'strerror', None) or error}")
        return DONE
