"""Write the generated lists and tables into docs/contract.md, between their marker comments.

With ``--check`` it writes nothing, and the exit status is 1 if a part is not what it would write.
"""

import json
import sys
import textwrap
from pathlib import Path

from mappedfile.contract import CLAUSES
from mappedfile.contract._oracle import ORACLE_BREAKS

ROOT = Path(__file__).parent.parent
FILE = ROOT / "docs" / "contract.md"

#: The reports in docs/results, in the order of the table.
SYSTEMS = {
    "ext4": "ext4",
    "xfs": "xfs",
    "btrfs": "btrfs",
    "tmpfs": "tmpfs",
    "overlay": "overlay on ext4",
    "bindfs": "FUSE: bindfs on ext4",
    "bindfs-direct": "FUSE: bindfs with `direct_io`",
    "ntfs-3g": "FUSE: ntfs-3g",
    "wine": "Wine 8, drive C: on ext4",
}

#: Clauses that fail on a file system in a case that their check does not cover.
BEYOND = {"overlay": "C1 to C3 in one case: see [Limits](../README.md#limits)"}


def item(id, text):
    """Build a list item of Markdown, wrapped at 100 columns."""
    text = " ".join(text.replace("``", "`").split())
    return textwrap.fill(
        f"- **{id}** {text}",
        100,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def clauses_list():
    """Build the list of all clauses, with a heading for each module."""
    lines = []
    heading = ""
    for clause in CLAUSES.values():
        title = sys.modules[clause.check.__module__].__doc__.partition("\n")[0].rstrip(".")
        if title != heading:
            heading = title
            lines += [*([""] if lines else []), "### " + title.replace("``", "`"), ""]
        lines.append(item(clause.id, clause.says))
    return "\n".join(lines)


def mmap_list():
    """Build the list of clauses that the standard library's mmap breaks."""
    return "\n".join(item(id, ORACLE_BREAKS[id]) for id in CLAUSES if id in ORACLE_BREAKS)


def table(head, rows):
    """Build a table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def file_systems_table():
    """Build the table of file systems, from the reports in docs/results."""
    rows = []
    for name, title in SYSTEMS.items():
        path = ROOT / "docs" / "results" / f"{name}.json"
        if not path.exists():
            continue
        told = json.loads(path.read_text("utf-8"))
        ids = {"holds": [], "fails": [], "not_here": []}
        for row in told["clauses"]:
            ids[row["result"]].append(row["id"])
        where = told["system"].split(" ")
        fails = [*ids["fails"], *([BEYOND[name]] if name in BEYOND else [])]
        rows.append(
            [
                title,
                f"{where[0]} {where[1]}",
                str(len(ids["holds"])),
                ", ".join(fails) or "none",
                ", ".join(ids["not_here"]) or "none",
            ]
        )
    return table(
        ["file system", "system", "clauses that hold", "that fail", "that cannot be shown"], rows
    )


PARTS = {"clauses": clauses_list, "mmap": mmap_list, "file systems": file_systems_table}


def fill(text):
    """Put every part between its markers."""
    for name, make in PARTS.items():
        start, stop = f"<!-- {name}: made by docs/tables.py -->\n", f"<!-- end of {name} -->"
        before, has_start, rest = text.partition(start)
        _, has_stop, after = rest.partition(stop)
        if not (has_start and has_stop):
            raise SystemExit(f"no place for the part {name!r} in {FILE.name}")
        text = f"{before}{start}\n{make()}\n\n{stop}{after}"
    return text


def main():
    old = FILE.read_text("utf-8")
    new = fill(old)
    if "--check" in sys.argv[1:]:
        if old != new:
            print(f"{FILE.name} is stale: run docs/tables.py", file=sys.stderr)
        return int(old != new)
    FILE.write_text(new, "utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
