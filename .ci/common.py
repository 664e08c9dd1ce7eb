"""Functions shared by the programs of this folder."""

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
SECONDS = 2400  # the limit of one run of Python, on a slow machine
HUNG = 124  # the exit status of a run that took longer


def call(command: Sequence[str | Path], **options: Any) -> None:
    """Run a command. Show its output only if it fails."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options
    )
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(map(str, command))}\n{done.stdout}")


def pip(*arguments: object) -> None:
    """Run pip."""
    call([sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)])


def made(folder: Path) -> Path:
    """Create a folder if it is missing; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def copied(folder: Path) -> Path:
    """Copy the project; return the copy. A build in the project would add files that tests see."""
    ignored = shutil.ignore_patterns(".*", "build", "*.egg-info", "*.so")
    return shutil.copytree(PROJECT, folder / "project", ignore=ignored)


def without_report(arguments: Sequence[str]) -> tuple[Path | None, list[str]]:
    """Split pytest's arguments into the path of the report and the others.

    A program that runs pytest several times writes a report for each run.
    """
    paths = [Path(word.removeprefix(REPORT)) for word in arguments if word.startswith(REPORT)]
    return paths[-1] if paths else None, [word for word in arguments if not word.startswith(REPORT)]


@contextmanager
def reported(path: Path | None, name: str, place: Path) -> Iterator[list[str]]:
    """Yield pytest's option for a report named after PATH and NAME.

    pytest writes it in PLACE, a folder that it can see. Afterwards it is copied beside PATH. An
    empty file is there from the start: .ci/results.py reports a file that stays empty as a failure.
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
