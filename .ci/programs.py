"""Tests of programs that use mmap, run on mappedfile.mmap.

    python .ci/programs.py [ARGUMENT...]

This downloads their sources, and runs pytest on tests/programs.py with these arguments. The Python
that runs it needs the library and the packages of .ci/programs-requirements.txt. If TOX_PACKAGE
names a wheel, .ci/pythons.py does the same on a newer Python.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from common import reported, without_report

PROJECT = Path(__file__).parents[1]
NEWER = "3.14"
SOURCES = {
    "maxminddb": (
        "maxminddb==3.2.0 "
        "--hash=sha256:d28e0073fd1dd637c8b95947bc864b5625eca9f8f2db1538145e33b2a1cd4b92"
    ),
    "smmap": (
        "smmap==5.0.3 "
        "--hash=sha256:4d9debb8b99007ae47165abc08670bd74cb74b5227dda7f643eccc4e9eb5642c"
    ),
}


def main(arguments: list[str]) -> int:
    """Download and test; return the exit status."""
    with tempfile.TemporaryDirectory() as folder:
        for name, pin in SOURCES.items():
            fetch(name, pin, Path(folder))
        environment = os.environ | {"MAPPEDFILE_PROGRAMS": folder}
        report, rest = without_report(arguments)
        tests = PROJECT / "tests" / "programs.py"
        with reported(report, "here", Path(folder)) as option:
            command = [
                sys.executable,
                "-m",
                "pytest",
                "-s",
                "-p",
                "no:cacheprovider",
                *option,
                *rest,
            ]
            status = subprocess.run([*command, tests], env=environment, check=False).returncode
        if status == 0 and "TOX_PACKAGE" in os.environ:
            command = [
                sys.executable,
                str(PROJECT / ".ci" / "pythons.py"),
                NEWER,
                "-s",
                *arguments,
                str(tests),
            ]
            status = subprocess.run(command, env=environment, check=False).returncode
        return status


def fetch(name: str, pin: str, folder: Path) -> None:
    """Download a program's sources, and unpack them in a folder of its name. Nothing is built."""
    requirement = folder / "requirement.txt"
    requirement.write_text(pin, "utf-8")
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "download",
        "--no-deps",
        "--no-binary",
        ":all:",
    ]
    command += ["--require-hashes", "-r", str(requirement), "-d", str(folder)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{name} could not be downloaded")
    (sdist,) = folder.glob(f"{name}-*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    sdist.unlink()
    (unpacked,) = folder.glob(f"{name}-*")
    unpacked.rename(folder / name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
