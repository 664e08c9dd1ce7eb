"""Prints the results of a tox run.

    python .ci/results.py FILE STATUS

FILE is the JSON document of tox, and STATUS its exit status. A command of tox.ini with
``--junitxml=PATH`` runs pytest. Its reports are PATH, and files whose names begin with the name of
PATH. The output is the failures, the reasons of skips, and at the end the numbers of tests that
passed, failed and were skipped. A failed build or check counts as a failed test, and so does a
missing report.
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

#: How many of its last lines are shown for an environment that succeeded, or failed.
LINES = {True: 3, False: 30}


@dataclass
class Outcome:
    """The result of an environment."""

    passed: int = 0
    failures: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    #: Whether every report could be read.
    complete: bool = True

    def read(self, report: Path) -> None:
        """Add the tests of a report of pytest."""
        try:
            cases = [*ElementTree.parse(report).iter("testcase")]
        except (OSError, ElementTree.ParseError):
            self.complete = False
            self.failures.append(f"FAILED {report.stem}: pytest did not write its report")
            return
        label = report.stem.partition("-")[2]
        for case in cases:
            self.add(case, f" ({label})" if label else "")

    def add(self, case: ElementTree.Element, label: str) -> None:
        """Add a test. An expected failure counts neither as passed nor as failed, as in pytest.

        LABEL names the Python, if the environment has several.
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
    """Print the results of a tox run that ended with this status. Return how many tests failed."""
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
        print("\n".join(summary(environment, outcome, well)))
    if status and not total["failed"]:
        total["failed"] = 1  # tox itself failed
    print("\n" + ", ".join(f"{number} {kind}" for kind, number in total.items()))
    return total["failed"]


def outcome_of(environment: dict[str, Any]) -> Outcome:
    """Read the reports of an environment."""
    outcome = Outcome()
    for path in reports_of(environment):
        for report in sorted(path.parent.glob(f"{path.stem}*.xml")) or [path]:
            outcome.read(report)
    return outcome


def reports_of(environment: dict[str, Any]) -> Iterator[Path]:
    """Yield the paths of reports that its commands name."""
    for command in environment.get("test", ()):
        for word in command["command"]:
            if word.startswith(REPORT):
                yield Path(word.removeprefix(REPORT))


def summary(environment: dict[str, Any], outcome: Outcome, well: bool) -> list[str]:
    """Return the lines to print for an environment.

    These are the failures and the skips. Without a report, they are the last lines of its output.
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
    """Return why a test failed or was skipped, in one line."""
    message, text = element.get("message", ""), (element.text or "").strip()
    if message == "collection skipped":  # the text is the place and the reason
        message = str(ast.literal_eval(text)[-1]).removeprefix("Skipped: ")
    elif message == "collection failure":
        message = text.splitlines()[-1]
    return " ".join(message.split("\n")[0].split())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])) > 0)
