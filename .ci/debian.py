"""A newer Debian than this system may be, in a folder: its programs, run on this system's files."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SUITE = "trixie"
PACKAGES = ("wine", "wine64")

# A mount namespace of its own: nobody else sees these mounts, and they go with the last program in it, however it ends.
UNSHARED = ["unshare", "--mount", "sh", "-e", "-c"]
MAKE = 'debootstrap --variant=minbase "$@"; rm "$3"/var/cache/apt/archives/*.deb'
ENTER = """
root=$0
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --bind "$1" "$root$1"
    shift
done
shift
exec chroot "$root" env --chdir="$PWD" "$@"
"""


def make(root: Path) -> None:
    """Install it in a folder that does not exist yet: a minute, 1.4 GB."""
    if os.geteuid() != 0:
        raise SystemExit("root is needed, to make a Debian in a folder and to run its programs")
    if shutil.which("debootstrap", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        raise SystemExit("debootstrap is missing: run .ci/apt")
    command = [*UNSHARED, MAKE, "sh", f"--include={','.join(PACKAGES)}", SUITE, str(root), *mirror()]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout}\ndebootstrap failed")


def mirror() -> list[str]:
    """Return where this system's own apt has Debian from; nothing where that is not known, for debootstrap's own."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    wanted = ["Created-By: Packages", "Origin: Debian", "Component: main"]
    try:
        found = subprocess.run([*command, *wanted], capture_output=True, text=True, check=True).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return []
    return [uri for uri in found if "security" not in uri][:1]


def inside(root: Path, *folders: Path) -> list[str]:
    """Return what makes a command run in it, when put before; it sees these folders of ours, and /tmp."""
    return [*UNSHARED, ENTER, str(root), "/tmp", *map(str, folders), "--"]
