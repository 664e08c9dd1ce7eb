"""``mappedfile info``: facts about a file and its maps."""

from __future__ import annotations

import os
import re
import stat
import sys
from contextlib import suppress

from mappedfile import GRANULARITY, PAGE_SIZE, MappedFile
from mappedfile._native import ffi
from mappedfile.cli._files import FilesCommand, pages_of, resident
from mappedfile.cli._numbers import amount, count, share
from mappedfile.cli._terminal import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any, Literal

    from mappedfile import View
    from mappedfile.cli._files import Facts, Found
    from mappedfile.cli._terminal import Progress

MODES: tuple[Literal["r", "r+", "c"], ...] = ("r", "r+", "c")
HUGE = "/sys/kernel/mm/transparent_hugepage"


class InfoCommand(FilesCommand):
    """Shows facts about a file and its maps."""

    name = "info"
    help = "show facts about a file and its maps"
    description = (
        "Show size, modes, maps, granularity and huge pages of a file, and its pages in memory."
    )
    takes_directories = False

    def process(self, file: Found, given: argparse.Namespace, progress: Progress) -> Facts:
        return facts(file.name)

    def show(self, result: Facts) -> None:
        for line in lines(result):
            self.terminal.say(line)


def facts(name: str) -> Facts:
    """Collect the facts about a file. A fact that the system does not tell is None."""
    with MappedFile(name) as file:
        status = os.stat(name)
        blocks = getattr(status, "st_blocks", None)
        return {
            "file": name,
            "size": len(file),
            "allocated": None if blocks is None else blocks * 512,
            "permissions": stat.filemode(status.st_mode),
            "modes": [mode for mode in MODES if opens(name, mode)],
            "maps": maps_of(file),
            "page_size": PAGE_SIZE,
            "granularity": GRANULARITY,
            "huge_pages": huge_pages(file),
            "pages": pages_of(0, len(file)),
            "resident": resident(file),
        }


def lines(facts: Facts) -> list[str]:
    """Describe the facts, one line each."""
    allocated, maps, huge = facts["allocated"], facts["maps"], facts["huge_pages"]
    said = {
        "size": f"{count(facts['size'])} bytes",
        "on disk": "unknown" if allocated is None else amount(allocated),
        "mode": f"{facts['permissions']}; opens in {', '.join(map(repr, facts['modes']))}",
        "maps": "unknown",
        "page size": f"{count(facts['page_size'])} bytes",
        "granularity": f"{count(facts['granularity'])} bytes",
        "huge pages": "unknown",
        "in memory": "unknown",
    }
    if facts["size"] >= 1024:
        said["size"] += f" ({amount(facts['size'])})"
    if maps is not None:
        processes = ", ".join(f"{printable(each['command'])} ({each['process']})" for each in maps)
        number = sum(each["maps"] for each in maps)
        said["maps"] = f"{count(number)}, of {processes}" if maps else "none that this user may see"
    if huge is not None:
        can = {True: "yes", False: "no", None: "unknown"}[huge["eligible"]]
        policy = f"{amount(huge['size'])}, policy {huge['policy']!r}"
        said["huge pages"] = f"{policy}; in maps of this file: {can}"
    if facts["resident"] is not None:
        said["in memory"] = share(facts["resident"], facts["pages"]).replace(" in memory", "")
    return [printable(facts["file"]), *(f"  {what:13}{text}" for what, text in said.items())]


def opens(name: str, mode: Literal["r", "r+", "c"]) -> bool:
    """Whether a file can be opened in a mode."""
    try:
        MappedFile(name, mode).close()
    except OSError:
        return False
    return True


def maps_of(file: MappedFile) -> list[dict[str, Any]] | None:
    """List the other processes that have the file mapped, and how often: proc_pid_maps(5)."""
    if sys.platform != "linux":
        return None
    if not len(file):
        return []
    # Device and inode as /proc/PID/maps has them: on btrfs and overlayfs stat differs.
    address, ours = address_of(file), os.getpid()
    (place,) = (line.split()[3:5] for line in maps(ours) if address in span(line))
    found = []
    for process in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdecimal()):
        with suppress(OSError):  # the process has ended, or belongs to another user
            number = sum(line.split()[3:5] == place for line in maps(process))
            if number and process != ours:
                command = text_of(f"/proc/{process}/comm").strip()
                found.append({"process": process, "command": command, "maps": number})
    return found


def maps(process: int) -> list[str]:
    """Return the lines of /proc/PID/maps."""
    return text_of(f"/proc/{process}/maps").splitlines()


def text_of(path: str) -> str:
    """Return the text of a file of the system."""
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def span(line: str) -> range:
    """Return the address range of a line of /proc/PID/maps."""
    start, stop = line.split()[0].split("-")
    return range(int(start, 16), int(stop, 16))


def address_of(window: View | MappedFile) -> int:
    """Return the address of a window."""
    return int(ffi.cast("uintptr_t", ffi.from_buffer(window.data)))


def huge_pages(file: MappedFile) -> dict[str, Any] | None:
    """Return the size of huge pages, the policy, and whether maps of the file can have them."""
    if sys.platform != "linux":
        return None
    try:
        size = int(text_of(f"{HUGE}/hpage_pmd_size"))
        policy = re.findall(r"\[(\w+)\]", text_of(f"{HUGE}/enabled"))[0]
    except (OSError, IndexError, ValueError):
        return None
    return {"size": size, "policy": policy, "eligible": eligible(file, size)}


def eligible(file: MappedFile, size: int) -> bool | None:
    """Whether a map of the file can have huge pages, if advised: proc_pid_smaps(5)."""
    if len(file) < size:
        return False
    with file.view(0, size) as view, suppress(OSError):
        view.advise("hugepage")
        address = address_of(view)
        inside = False
        for line in text_of("/proc/self/smaps").splitlines():
            word, _, rest = line.partition(" ")
            if not word.endswith(":"):
                inside = address in span(line)
            elif inside and word == "THPeligible:":
                return rest.strip() == "1"
    return None
