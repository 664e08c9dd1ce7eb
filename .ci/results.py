"""Tell what the environments of a tox run came to, from the JSON document that tox wrote.

    python .ci/results.py FILE STATUS

Prints the end of what each environment wrote, and closes with how many tests passed, failed and were skipped in all.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

# What pytest closes with. An environment may have several.
CLOSING = re.compile(r"^(?:=+ )?((?:\d+ [a-z]+(?:, )?)+) in [\d.]+s\b.*$", re.MULTILINE)
SUMMARY = re.compile(r"^=+ short test summary info =+$", re.MULTILINE)
KINDS = {
    "passed": "passed",
    "failed": "failed",
    "error": "failed",
    "errors": "failed",
    "skipped": "skipped",
}


def main(path: Path, status: int) -> None:
    """Print it, for a tox that ended with this status."""
    total = dict.fromkeys(KINDS.values(), 0)
    environments = json.loads(path.read_text("utf-8"))["testenvs"] if path.exists() else {}
    environments = {
        name: one
        for name, one in environments.items()
        if "result" in one and not name.startswith(".pkg")
    }
    for name, environment in environments.items():
        output = "".join(command["output"] for command in environment.get("test", ())).replace(
            "\r\n", "\n"
        )
        counts = count(output)
        if not environment["result"]["success"] and not counts["failed"]:
            counts["failed"] = 1  # a build, a type or a style
        for kind, number in counts.items():
            total[kind] += number
        print(f"\n=== {name}: {'ok' if environment['result']['success'] else 'FAILED'}", end="")
        print(f", {environment['result']['duration']:.0f} s")
        print("\n".join(told(output)))
    if status and not total["failed"]:
        total["failed"] = 1  # tox itself
    print("\n" + ", ".join(f"{number} {kind}" for kind, number in total.items()))


def count(output: str) -> dict[str, int]:
    """Add up pytest's closing lines."""
    counts = dict.fromkeys(KINDS.values(), 0)
    for line in CLOSING.findall(output):
        for number, kind in re.findall(r"(\d+) ([a-z]+)", line):
            if kind in KINDS:
                counts[KINDS[kind]] += int(number)
    return counts


def told(output: str) -> list[str]:
    """Pick what is worth telling of an environment: what was skipped or went wrong, and what it closed with."""
    lines: list[str] = []
    for part in re.split(r"^(?==== )", output, flags=re.MULTILINE):
        summary = SUMMARY.search(part)
        if not summary:
            continue
        lines += [line for line in part.splitlines()[:1] if line.startswith("=== ")]
        lines += part[summary.end() :].strip().splitlines()
    return lines or output.strip().splitlines()[-3:]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
