"""Write the generated tables into README.md, between their marker comments.

With ``--check`` it writes nothing, and the exit status is 1 if a table is not what it would write.
"""

import json
import sys
from pathlib import Path

from mappedfile.contract import CLAUSES
from mappedfile.contract._oracle import ORACLE_BREAKS

ROOT = Path(__file__).parent.parent
FILE = ROOT / "README.md"

#: What is in docs/results, in the order of the table.
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


#: What a file system breaks in a case that the clause's check does not make.
BEYOND = {
    "overlay": "C1 to C3, where a file of the lower layer is changed after it was mapped: see Limits"
}


def cell(text):
    """Put a text into a cell of a Markdown table."""
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())


def table(head, rows):
    """Build a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def mmap_table():
    """The clauses that the standard library's mmap breaks, from the tests' own list."""
    reasons = {}
    for key, reason in ORACLE_BREAKS.items():
        reasons.setdefault(key if isinstance(key, str) else key[0], []).append(reason)
    rows = [[id, cell("; ".join(dict.fromkeys(reasons[id])))] for id in CLAUSES if id in reasons]
    return table(["clause", "what `mmap` does"], rows)


def file_systems_table():
    """What holds where, from the reports in docs/results."""
    rows = []
    for name, title in SYSTEMS.items():
        path = ROOT / "docs" / "results" / f"{name}.json"
        if not path.exists():
            continue
        told = json.loads(path.read_text("utf-8"))
        found = {"holds": [], "fails": [], "not_here": []}
        for row in told["clauses"]:
            found[row["result"]].append(row["id"])
        where = told["system"].split(" ")
        rows.append(
            [
                title,
                f"{where[0]} {where[1]}",
                str(len(found["holds"])),
                ", ".join([*found["fails"], *([BEYOND[name]] if name in BEYOND else [])]) or "none",
                ", ".join(found["not_here"]) or "none",
            ]
        )
    return table(
        ["file system", "system", "clauses that hold", "that fail", "that cannot be shown"], rows
    )


TABLES = {"mmap": mmap_table, "file systems": file_systems_table}


def fill(text):
    """Put every table between its markers."""
    for name, make in TABLES.items():
        start, stop = f"<!-- {name}: made by docs/tables.py -->\n", f"<!-- end of {name} -->"
        before, found, rest = text.partition(start)
        _, found_stop, after = rest.partition(stop)
        if not (found and found_stop):
            raise SystemExit(f"no place for the table {name!r} in {FILE.name}")
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
