"""Checks that type checkers find no error in right.py, and one error in each marked line of
wrong.py.

python tests/types/check.py
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def mypy(path: Path) -> set[int]:
    """Return the lines in which mypy sees an error."""
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--follow-imports=silent",
    ]
    done = subprocess.run(
        [*command, "--disable-error-code", "type-arg", path],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode > 1 or done.stderr:
        raise SystemExit(f"mypy failed:\n{done.stdout}{done.stderr}")
    return {int(line) for line in re.findall(rf"{re.escape(path.name)}:(\d+): error", done.stdout)}


def pyright(path: Path) -> set[int]:
    """Return the lines in which pyright sees an error. Pylance uses pyright."""
    done = subprocess.run(
        ["pyright", "--outputjson", path], capture_output=True, text=True, check=False
    )
    said = json.loads(done.stdout)["generalDiagnostics"]
    return {one["range"]["start"]["line"] + 1 for one in said if one["severity"] == "error"}


def main() -> int:
    """Compare the errors, and print the differences."""
    wrong = 0
    for path in (HERE / "right.py", HERE / "wrong.py"):
        lines = path.read_text("utf-8").splitlines()
        expected = {number for number, line in enumerate(lines, 1) if line.endswith("# error")}
        for checker in (mypy, pyright):
            found = checker(path)
            for number in sorted(expected ^ found):
                wrong += 1
                what = "sees an error in" if number in found else "sees no error in"
                print(
                    f"{checker.__name__} {what} {path.name}:{number}: {lines[number - 1].strip()}"
                )
            print(f"{checker.__name__}, {path.name}: {len(found)} errors, {len(expected)} expected")
    return wrong != 0


if __name__ == "__main__":
    sys.exit(main())
