"""What the programs here share: the folders, and running others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "mappedfile")
SECONDS = 900  # for one run of Python; a hang must not take all of CI's time
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
