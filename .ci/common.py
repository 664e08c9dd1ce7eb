"""What the programs here share: the folders, running others, and where pytest reports."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "mappedfile")
REPORT = "--junitxml="
SECONDS = 2400  # for one run of Python, on a slow machine; a hang must not take all of CI's time
HUNG = 124  # the exit status then


def call(command: Sequence[str | Path], **options: Any) -> None:
    """Run a command, with its output only if it fails."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options
    )
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(map(str, command))}\n{done.stdout}")


def pip(*arguments: object) -> None:
    """Run pip."""
    call([sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)])


def made(folder: Path) -> Path:
    """Return a folder that exists."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def copied(folder: Path) -> Path:
    """Return a copy of the project: a build leaves files there, and others may be looking."""
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "*.so")
    return shutil.copytree(PROJECT, folder / "project", ignore=ignored)


def without_report(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Take the path of pytest's report out of its arguments.

    A run of several has a report of each.
    """
    paths = [Path(word.removeprefix(REPORT)) for word in arguments if word.startswith(REPORT)]
    return paths[-1] if paths else None, [word for word in arguments if not word.startswith(REPORT)]


@contextmanager
def reported(path: Path | None, name: str, place: Path) -> Iterator[list[str]]:
    """Give the option that has pytest report; the report is named after PATH and NAME.

    It is written to a file of PLACE, a folder that pytest can see, and taken from there. It is
    there from the beginning, without content: .ci/results.py tells when pytest has not come to its
    end.
    """
    if path is None:
        yield []
        return
    target = made(path.parent) / f"{path.stem}-{name}.xml"
    target.touch()
    written = place / target.name
    yield [f"{REPORT}{written}"]
    if written.exists():
        shutil.copyfile(written, target)
