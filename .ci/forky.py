"""Newer Pythons than this system may have: those of Debian's next release.

    python .ci/forky.py VERSION [ARGUMENT...]

installs tox's wheel on that Python, with what the tests need, and runs pytest there with these
arguments. TOX_PACKAGE names the wheel. The release is in a folder of the cache. What it has when
the folder is made stays there until PACKAGES changes, or the folder is removed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import debian
from common import CACHE, HUNG, PROJECT, SECONDS, call, pip, reported, without_report

SUITE = "forky"
PACKAGES = (
    *("python3.14", "python3.14-dev", "python3.14-venv", "libpython3.14-testsuite"),
    *("python3.15", "python3.15-dev", "python3.15-venv", "libpython3.15-testsuite"),
    # What the tests use: .ci/apt.
    *("gcc", "libc6-dev", "strace", "e2fsprogs", "mount", "vmtouch", "util-linux-extra"),
)


def main(version: str, *arguments: str) -> int:
    """Do what the command line says; return the exit status."""
    wheel = os.environ.get("TOX_PACKAGE")
    if not wheel:
        raise SystemExit("TOX_PACKAGE names no wheel: tox -e forky314 has it")
    within = debian.inside(debian.root(CACHE, SUITE, PACKAGES), CACHE, PROJECT)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        # This system's pip knows where packages are to be had.
        target = ["--only-binary", ":all:", "--python-version", version]
        pip(
            "download",
            *target,
            "--dest",
            folder,
            f"{wheel}[cli,plot]",
            "-r",
            PROJECT / "tests" / "requirements.txt",
        )
        call([*within, f"python{version}", "-m", "venv", f"{folder}/venv"], env=environment())
        python = [*within, f"{folder}/venv/bin/python"]
        wheels = Path(folder).glob("*.whl")
        call(
            [*python, "-m", "pip", "install", "--no-index", "--no-deps", *wheels], env=environment()
        )
        told = subprocess.run(
            [*python, "--version"], env=environment(), stdout=subprocess.PIPE, text=True, check=True
        )
        print(f"=== {told.stdout.strip()} of Debian {SUITE}", flush=True)
        report, rest = without_report(arguments)
        with reported(report, version, Path(folder)) as option:
            return run([*python, "-m", "pytest", *option, *rest])


def run(command: list[str]) -> int:
    """Run it, but not for ever; what it starts does not outlive it. Return its exit status."""
    process = subprocess.Popen(
        command, env=environment(), stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        return process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        print(f"\nit did not end within {SECONDS} seconds")
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
