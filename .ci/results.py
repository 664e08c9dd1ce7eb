"""Tell what the environments of a tox run came to.

    python .ci/results.py FILE STATUS

FILE is the JSON document that tox wrote, and STATUS its exit status. A command of tox.ini that has
``--junitxml=PATH`` runs pytest, whose reports are PATH and those that are named after it. Prints
what failed, and why tests were skipped; and closes with how many tests passed, failed and were
skipped in all. A build, a type or a style that is wrong counts as a test that failed, and so does a
report that is missing.
"""

from __future__ import annotations

import ast
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from common import REPORT

#: How many of the last lines of an environment are told, when it went well and when it did not.
LINES = {True: 3, False: 30}


@dataclass
class Outcome:
    """What an environment came to."""

    passed: int = 0
    failures: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    #: Whether every report is there, and one at least.
    complete: bool = True

    def read(self, report: Path) -> None:
        """Add what a report of pytest's says."""
        try:
            cases = [*ElementTree.parse(report).iter("testcase")]
        except (OSError, ElementTree.ParseError):
            self.complete = False
            self.failures.append(f"FAILED {report.stem}: pytest has not written its report")
            return
        label = report.stem.partition("-")[2]
        for case in cases:
            self.add(case, f" ({label})" if label else "")

    def add(self, case: ElementTree.Element, label: str) -> None:
        """Add a test. One that is expected to fail, and does, counts nowhere, as pytest has it.

        An environment that runs several Pythons has a report of each. LABEL says which it was.
        """
        name = ".".join(filter(None, (case.get("classname"), case.get("name"))))
        for wrong in (*case.iter("failure"), *case.iter("error")):
            kind = "FAILED" if wrong.tag == "failure" else "ERROR"
            self.failures.append(f"{kind} {name}{label} - {reason(wrong)}")
        if case.find("failure") is not None or case.find("error") is not None:
            return
        skip = case.find("skipped")
        if skip is None:
            self.passed += 1
        elif skip.get("type") != "pytest.xfail":
            self.skipped[f"{name.partition('[')[0]}: {reason(skip)}"] += 1


def main(path: Path, status: int) -> int:
    """Print it, for a tox that ended with this status. Return how many failed."""
    total = Counter(passed=0, failed=0, skipped=0)
    environments = json.loads(path.read_text("utf-8"))["testenvs"] if path.exists() else {}
    for name, environment in environments.items():
        if "result" not in environment or name.startswith(".pkg"):
            continue
        well = environment["result"]["success"]
        outcome = outcome_of(environment)
        failed = len(outcome.failures) or int(not well)
        total.update(passed=outcome.passed, failed=failed, skipped=outcome.skipped.total())
        print(f"\n=== {name}: {'FAILED' if failed else 'ok'}", end="")
        print(f", {environment['result']['duration']:.0f} s")
        print("\n".join(told(environment, outcome, well)))
    if status and not total["failed"]:
        total["failed"] = 1  # tox itself
    print("\n" + ", ".join(f"{number} {kind}" for kind, number in total.items()))
    return total["failed"]


def outcome_of(environment: dict[str, Any]) -> Outcome:
    """Read the reports that an environment should have."""
    outcome = Outcome()
    for path in reports_of(environment):
        for report in sorted(path.parent.glob(f"{path.stem}*.xml")) or [path]:
            outcome.read(report)
    return outcome


def reports_of(environment: dict[str, Any]) -> Iterator[Path]:
    """Give the path that each of its commands names."""
    for command in environment.get("test", ()):
        for word in command["command"]:
            if word.startswith(REPORT):
                yield Path(word.removeprefix(REPORT))


def told(environment: dict[str, Any], outcome: Outcome, well: bool) -> list[str]:
    """Pick what is worth telling of an environment.

    This is what failed and what was skipped. If no report tells, it is what it wrote at last.
    """
    lines = outcome.failures.copy()
    lines += [f"SKIPPED [{number}] {why}" for why, number in outcome.skipped.items()]
    if outcome.passed or lines:
        lines.append(
            f"{outcome.passed} passed, {len(outcome.failures)} failed,"
            f" {outcome.skipped.total()} skipped"
        )
    if (not well and not outcome.failures) or not outcome.complete or not lines:
        commands = environment.get("test", ())
        written = "".join(command["output"] + command.get("err", "") for command in commands)
        lines += written.replace("\r\n", "\n").strip().splitlines()[-LINES[well] :]
    return lines


def reason(element: ElementTree.Element) -> str:
    """Return why, in one line: the message, or what was raised when a file was looked through."""
    message, text = element.get("message", ""), (element.text or "").strip()
    if message == "collection skipped":  # then it is the place, and why
        message = str(ast.literal_eval(text)[-1]).removeprefix("Skipped: ")
    elif message == "collection failure":
        message = text.splitlines()[-1]
    return " ".join(message.split("\n")[0].split())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])) > 0)
