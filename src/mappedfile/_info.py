"""What there is to know about mapping a file, for ``mappedfile info``. What the system does not tell is None."""

from __future__ import annotations

import os
import re
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mappedfile import GRANULARITY, PAGE_SIZE, MappedFile
from mappedfile._cli_memory import amount, pages, resident, share
from mappedfile._native import ffi

if TYPE_CHECKING:
    from typing import Literal

    from mappedfile._window import Window

_MODES: tuple[Literal["r", "r+", "c"], ...] = ("r", "r+", "c")
_HUGE = Path("/sys/kernel/mm/transparent_hugepage")


def facts(name: str) -> dict[str, Any]:
    """Look at a file from all sides."""
    with MappedFile(name) as file:
        status = os.stat(name)
        return {
            "file": name,
            "size": len(file),
            "allocated": blocks * 512 if (blocks := getattr(status, "st_blocks", None)) is not None else None,
            "permissions": stat.filemode(status.st_mode),
            "modes": [mode for mode in _MODES if opens(name, mode)],
            "maps": maps_of(file),
            "page_size": PAGE_SIZE,
            "granularity": GRANULARITY,
            "huge_pages": huge_pages(file),
            "pages": pages(len(file)),
            "resident": resident(file),
        }


def lines(told: dict[str, Any]) -> list[str]:
    """Put the facts into words."""
    allocated, maps, huge = told["allocated"], told["maps"], told["huge_pages"]
    said = {
        "size": f"{told['size']} bytes" + (f" ({amount(told['size'])})" if told["size"] >= 1024 else ""),
        "on disk": "not told here" if allocated is None else amount(allocated),
        "mode": f"{told['permissions']}; opens in {', '.join(map(repr, told['modes']))}",
        "maps": "not told here",
        "page size": f"{told['page_size']} bytes",
        "granularity": f"{told['granularity']} bytes",
        "huge pages": "not told here",
        "in memory": "not told here",
    }
    if maps is not None:
        processes = ", ".join(f"{each['command']} ({each['process']})" for each in maps)
        number = sum(each["maps"] for each in maps)
        said["maps"] = f"{number}, of {processes}" if maps else "none that this user may see"
    if huge is not None:
        can = {True: "yes", False: "no", None: "not told"}[huge["eligible"]]
        said["huge pages"] = f"{amount(huge['size'])}, policy {huge['policy']!r}; in maps of this file: {can}"
    if told["resident"] is not None:
        said["in memory"] = share(told["resident"], told["pages"]).replace(" in memory", "")
    return [told["file"], *(f"  {what:13}{text}" for what, text in said.items())]


def opens(name: str, mode: Literal["r", "r+", "c"]) -> bool:
    """Whether a file can be opened in a mode."""
    try:
        MappedFile(name, mode).close()
    except OSError:
        return False
    return True


def maps_of(file: MappedFile) -> list[dict[str, Any]] | None:
    """List the other processes that have the file mapped, and how often: Linux' proc_pid_maps(5)."""
    if sys.platform != "linux":
        return None
    if not len(file):
        return []
    # Device and inode as maps have them: stat tells others on btrfs and overlay.
    address, ours = address_of(file), os.getpid()
    (place,) = (line.split()[3:5] for line in maps(ours) if address in span(line))
    found = []
    for process in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdecimal()):
        with suppress(OSError):  # it has ended, or is somebody else's
            number = sum(line.split()[3:5] == place for line in maps(process))
            if number and process != ours:
                command = Path(f"/proc/{process}/comm").read_text("utf-8", "surrogateescape").strip()
                found.append({"process": process, "command": command, "maps": number})
    return found


def maps(process: int) -> list[str]:
    """Return the lines of a process's maps."""
    return Path(f"/proc/{process}/maps").read_text("utf-8", "surrogateescape").splitlines()


def span(line: str) -> range:
    """Return the addresses of a map."""
    start, stop = line.split()[0].split("-")
    return range(int(start, 16), int(stop, 16))


def address_of(window: Window) -> int:
    """Return where in memory a window is."""
    return int(ffi.cast("uintptr_t", ffi.from_buffer(window.data)))


def huge_pages(file: MappedFile) -> dict[str, Any] | None:
    """Tell how large huge pages are, what the policy is, and whether maps of the file can have them."""
    if sys.platform != "linux":
        return None
    try:
        size = int((_HUGE / "hpage_pmd_size").read_text("ascii"))
        policy = re.findall(r"\[(\w+)\]", (_HUGE / "enabled").read_text("ascii"))[0]
    except (OSError, IndexError, ValueError):
        return None
    return {"size": size, "policy": policy, "eligible": eligible(file, size)}


def eligible(file: MappedFile, size: int) -> bool | None:
    """Whether a map of the file that wants huge pages can have them: Linux' proc_pid_smaps(5)."""
    if len(file) < size:
        return False
    with file.view(0, size) as view, suppress(OSError):
        view.advise("hugepage")
        address = address_of(view)
        inside = False
        for line in Path("/proc/self/smaps").read_text("utf-8", "surrogateescape").splitlines():
            word, _, rest = line.partition(" ")
            if not word.endswith(":"):
                inside = address in span(line)
            elif inside and word == "THPeligible:":
                return rest.strip() == "1"
    return None
