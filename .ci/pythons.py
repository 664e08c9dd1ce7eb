"""Runs the tests on the Pythons of newer Debian releases.

    python .ci/pythons.py VERSION [ARGUMENT...]

This installs the library and the requirements of the tests on that Python, and runs pytest with
these arguments. 3.14 and 3.15 use the wheel that TOX_PACKAGE names. The others compile the library.

3.13d is a debug build. The extension of tox's wheel counts the references of immortal objects, and
a debug build reports that when it ends.

3.15t is 3.15 with a GIL, but with the extension for Pythons without a GIL (abi3t). Debian has no
such Python.

Each release is in a folder of the cache. Its packages stay as they are until the list here changes,
or the folder is removed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import debian
from common import CACHE, HUNG, PROJECT, SECONDS, call, copied, pip, reported, without_report

SUITES = {"3.13d": "trixie", "3.14": "forky", "3.15": "forky", "3.15t": "forky"}
#: Packages that the tests use, as in .ci/apt.
TOOLS = (
    "gcc",
    "libc6-dev",
    "strace",
    "e2fsprogs",
    "mount",
    "bindfs",
    "vmtouch",
    "util-linux-extra",
)
PACKAGES = {
    "trixie": (
        *("python3.13-dbg", "python3.13-dev", "python3.13-venv", "libpython3.13-testsuite"),
        *TOOLS,
    ),
    "forky": (
        *("python3.14", "python3.14-dev", "python3.14-venv", "libpython3.14-testsuite"),
        *("python3.15", "python3.15-dev", "python3.15-venv", "libpython3.15-testsuite"),
        *TOOLS,
    ),
}

#: A program that fails if the extension is not one for abi3t.
HAS_ABI3T = (
    "import ctypes, mappedfile._memory as built; ctypes.CDLL(built.__file__).PyModExport__memory"
)
#: Requirements of the build and of the extras.
BUILDS = ("cffi>=1.17", "setuptools>=77", "rich>=13", "matplotlib>=3.8")


def main(version: str, *arguments: str) -> int:
    """Install the Python and the library, and run pytest; return the exit status."""
    suite = SUITES[version]
    number = version.rstrip("dt")
    wheel = os.environ.get("TOX_PACKAGE") if number == version else None
    if not wheel and number == version:
        raise SystemExit("TOX_PACKAGE names no wheel: use tox -e forky314")
    within = debian.inside(debian.root(CACHE, suite, PACKAGES[suite]), CACHE, PROJECT)
    with tempfile.TemporaryDirectory(dir=CACHE) as place:
        folder = Path(place)
        download(number, [f"{wheel}[cli,plot]"] if wheel else BUILDS, folder)
        name = version.removesuffix("t")
        call([*within, f"python{name}", "-m", "venv", f"{folder}/venv"], env=environment())
        python = [*within, f"{folder}/venv/bin/python"]
        install = [*python, "-m", "pip", "install", "--no-index", "--no-deps"]
        call([*install, *folder.glob("*.whl")], env=environment())
        if not wheel:
            build = environment() | ({"MAPPEDFILE_ABI3T": "1"} if version.endswith("t") else {})
            call([*install, "--no-build-isolation", copied(folder)], env=build)
        if version.endswith("t"):
            call([*python, "-c", HAS_ABI3T], env=environment())
        done = subprocess.run(
            [*python, "--version"], env=environment(), stdout=subprocess.PIPE, text=True, check=True
        )
        print(f"=== {done.stdout.strip()} of Debian {suite}", flush=True)
        report, rest = without_report(arguments)
        with reported(report, version, folder) as option:
            # Only pytest gets -X dev. In child programs it would install faulthandler's handlers.
            mode = ["-X", "dev"] if version.endswith("d") else []
            pytest = [*python, *mode, "-m", "pytest", *option, *rest]
            return run(pytest, SECONDS * (1 if wheel else 2))


def download(version: str, packages: Sequence[str], folder: Path) -> None:
    """Download wheels for a Python of this version, with this system's pip."""
    for_it = ["--only-binary", ":all:", "--python-version", version, "--dest", folder]
    pip("download", *for_it, *packages, "-r", PROJECT / "tests" / "requirements.txt")


def run(command: list[str], seconds: float) -> int:
    """Run a command, but not for ever; return its exit status.

    Its child processes are killed when it ends.
    """
    process = subprocess.Popen(
        command, env=environment(), stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        print(f"\nthe tests did not end within {seconds} seconds")
        return HUNG
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def environment() -> dict[str, str]:
    """Return the environment, without variables for this system's Python and pip."""
    other = ("PIP", "PYTHON", "TOX", "VIRTUAL_ENV")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(other)}
    return ours | {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(*sys.argv[1:]))
