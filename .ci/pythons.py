"""Pythons that this system may not have: those of newer releases of Debian.

    python .ci/pythons.py VERSION [ARGUMENT...]

installs the library on that Python, with what the tests need, and runs pytest there with these
arguments. 3.14 and 3.15 get tox's wheel, which TOX_PACKAGE names. The others compile the library.

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
#: What the tests use: .ci/apt.
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

#: Fails if the extension is not one for abi3t.
HAS_ABI3T = (
    "import ctypes, mappedfile._memory as built; ctypes.CDLL(built.__file__).PyModExport__memory"
)
#: What the library is compiled with, and what its extras need.
BUILDS = ("cffi>=1.17", "setuptools>=77", "rich>=13", "matplotlib>=3.8")


def main(version: str, *arguments: str) -> int:
    """Do what the command line says; return the exit status."""
    suite = SUITES[version]
    number = version.rstrip("dt")
    wheel = os.environ.get("TOX_PACKAGE") if number == version else None
    if not wheel and number == version:
        raise SystemExit("TOX_PACKAGE names no wheel: tox -e forky314 has it")
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
        told = subprocess.run(
            [*python, "--version"], env=environment(), stdout=subprocess.PIPE, text=True, check=True
        )
        print(f"=== {told.stdout.strip()} of Debian {suite}", flush=True)
        report, rest = without_report(arguments)
        with reported(report, version, folder) as option:
            # -X dev is for pytest alone: children would have faulthandler's signal handlers.
            mode = ["-X", "dev"] if version.endswith("d") else []
            pytest = [*python, *mode, "-m", "pytest", *option, *rest]
            return run(pytest, SECONDS * (1 if wheel else 2))


def download(version: str, packages: Sequence[str], folder: Path) -> None:
    """Fetch wheels for a Python of this version. This system's pip knows where packages are."""
    for_it = ["--only-binary", ":all:", "--python-version", version, "--dest", folder]
    pip("download", *for_it, *packages, "-r", PROJECT / "tests" / "requirements.txt")


def run(command: list[str], seconds: float) -> int:
    """Run it, but not for ever; what it starts does not outlive it. Return its exit status."""
    process = subprocess.Popen(
        command, env=environment(), stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        print(f"\nit did not end within {seconds} seconds")
        return HUNG
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def environment() -> dict[str, str]:
    """Return ours, without what is meant for this system's Python and pip."""
    other = ("PIP", "PYTHON", "TOX", "VIRTUAL_ENV")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(other)}
    return ours | {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(*sys.argv[1:]))
