"""Run ``mappedfile check`` on many file systems, and store the results for docs/contract.md.

    python docs/filesystems.py [NAME ...] as root, on Linux; installs the tools it needs (Debian)
    mappedfile check --json | python docs/filesystems.py --store NAME

Each file system is made in a file, mounted, checked and removed. "wine" is drive C: of Wine, for
the Windows build. A file system that cannot be mounted here is named, and keeps its old result.
Then run docs/tables.py.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
WINE = Path(__file__).parents[1] / ".ci" / "wine.py"
PACKAGES = {
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "bindfs": "bindfs",
    "ntfs-3g": "ntfs-3g",
}


def run(*command):
    # Not a pipe: ntfs-3g goes on in the background and would keep the pipe open.
    with tempfile.TemporaryFile("w+") as said:
        done = subprocess.run(
            [str(part) for part in command], check=False, stdout=subprocess.DEVNULL, stderr=said
        )
        said.seek(0)
        if done.returncode:
            raise RuntimeError(f"{command[0]}: {said.read().strip() or done.returncode}")


@contextmanager
def mounted(place, *command):
    """Mount something on *place* while the block runs."""
    place.mkdir(exist_ok=True)
    run(*command, place)
    try:
        yield place
    finally:
        run("umount", place)


def disk(room, make, *mount):
    """A file system in a file."""
    image = room / "image"
    with image.open("wb") as file:
        file.truncate(512 << 20)
    run(*make, image)
    return mounted(room / "mnt", *(mount or ("mount", "-o", "loop")), image)


def overlay(room):
    """An upper folder over a lower folder, as in containers."""
    lower, upper, work = (room / name for name in ("lower", "upper", "work"))
    for folder in (lower, upper, work):
        folder.mkdir()
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    return mounted(room / "mnt", "mount", "-t", "overlay", "-o", options, "overlay")


def bindfs(room, *options):
    """A FUSE file system that passes everything on to another folder."""
    (room / "below").mkdir()
    return mounted(room / "mnt", "bindfs", *options, room / "below")


@contextmanager
def wine(room):
    """Drive C: of Wine, for the Windows build."""
    run(sys.executable, WINE, "install")
    yield "C:\\"


KINDS = {
    "ext4": lambda room: disk(room, ("mkfs.ext4", "-q")),
    "xfs": lambda room: disk(room, ("mkfs.xfs", "-q")),
    "btrfs": lambda room: disk(room, ("mkfs.btrfs", "-q")),
    "tmpfs": lambda room: mounted(room / "mnt", "mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs"),
    "overlay": overlay,
    "bindfs": bindfs,
    "bindfs-direct": lambda room: bindfs(room, "-o", "direct_io"),
    "ntfs-3g": lambda room: disk(room, ("mkntfs", "-F", "-Q", "-q"), "ntfs-3g"),
    "wine": wine,
}


def store(name, text):
    """Store a report, without parts that change from run to run or name the machine."""
    told = json.loads(text)
    folder = told.pop("folder")
    del told["seconds"]
    told["system"] = re.sub(r"(\d+\.\d+)\S*", r"\1", told["system"])
    for row in told["clauses"]:
        del row["says"]
        for outcome in row["modes"]:
            del outcome["seconds"]
            outcome["message"] = re.sub(re.escape(folder) + r"[^\s':]*", "DIR", outcome["message"])
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n", "utf-8")
    return told["summary"]


def check(name):
    """Make the file system, check it, and store the result."""
    with ExitStack() as stack:
        room = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mappedfile-")))
        place = stack.enter_context(KINDS[name](room))
        python = [sys.executable, WINE, "run", "3.13"] if name == "wine" else [sys.executable]
        command = [*python, "-m", "mappedfile", "check", "--json", place]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode > 1:
        raise RuntimeError(done.stdout + done.stderr)
    return store(name, done.stdout)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(KINDS))
    parser.add_argument(
        "--store",
        metavar="NAME",
        help="store the report on the standard input, from another system",
    )
    given = parser.parse_args()
    if given.store:
        print(given.store, store(given.store, sys.stdin.read()))
        return 0
    missing = sorted({package for tool, package in PACKAGES.items() if not shutil.which(tool)})
    if missing:
        run("apt-get", "install", "-y", "--no-install-recommends", *missing)
    refused = 0
    # bindfs-direct has no shared maps: README, Limits.
    for name in given.names or [name for name in KINDS if name != "bindfs-direct"]:
        try:
            print(name, check(name), flush=True)
        except (OSError, RuntimeError) as error:
            refused += 1
            print(f"{name}: not checked: {error}", flush=True)
    return 1 if refused else 0


if __name__ == "__main__":
    os.environ["LC_ALL"] = "C.UTF-8"
    sys.exit(main())
