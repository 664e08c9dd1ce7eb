"""Runs programs of another Debian release in a chroot.

The release is installed in a folder of the cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

# A new mount namespace: no other process sees the mounts, and they end with its last program.
UNSHARED = ["unshare", "--mount", "sh", "-e", "-c"]
MAKE = 'debootstrap --variant=minbase "$@"; rm "$3"/var/cache/apt/archives/*.deb'
# debootstrap uses this script for every release. An old debootstrap does not know new names.
SCRIPT = "/usr/share/debootstrap/scripts/sid"
ENTER = """
root=$0
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
while [ "$1" != -- ]; do
    mkdir -p "$root$1"
    mount --bind "$1" "$root$1"
    shift
done
shift
exec chroot "$root" env --chdir="$PWD" "$@"
"""


def root(cache: Path, suite: str, packages: Sequence[str]) -> Path:
    """Return the folder of a release with these packages.

    If it is missing, it is installed: this takes a minute and up to 1.4 GB. Its packages stay as
    they are until PACKAGES changes.
    """
    pinned = hashlib.sha256("\0".join((suite, *packages, MAKE)).encode()).hexdigest()
    folder = cache / f"debian-{suite}-{pinned[:12]}"
    cache.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second process waits for the first one
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=cache) as scratch:
                make(Path(scratch, "root"), suite, packages)
                Path(scratch, "root").rename(folder)
    return folder


def make(folder: Path, suite: str, packages: Sequence[str]) -> None:
    """Install a release in a folder that does not exist yet."""
    if os.geteuid() != 0:
        raise SystemExit("root is needed to install Debian in a folder and to run its programs")
    if shutil.which("debootstrap", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        raise SystemExit("debootstrap is missing: run .ci/apt")
    command = [
        *UNSHARED,
        MAKE,
        "sh",
        f"--include={','.join(packages)}",
        suite,
        str(folder),
        *source(),
    ]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(
            f"{done.stdout}\ndebootstrap failed: does {suite} still have {', '.join(packages)}?"
        )


def source() -> list[str]:
    """Return the mirror that this system's apt uses, and the script of debootstrap.

    If apt does not name a mirror, return nothing: debootstrap has a default.
    """
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    wanted = ["Created-By: Packages", "Origin: Debian", "Component: main"]
    try:
        found = subprocess.run(
            [*command, *wanted], capture_output=True, text=True, check=True
        ).stdout.split()
    except (OSError, subprocess.CalledProcessError):
        return []
    mirror = next((uri for uri in found if "security" not in uri), None)
    return [mirror, SCRIPT] if mirror else []


def inside(root: Path, *folders: Path) -> list[str]:
    """Return the words to put before a command, so that it runs in the release.

    The command sees these folders of this system, and /tmp.
    """
    return [*UNSHARED, ENTER, str(root), "/tmp", *map(str, folders), "--"]
