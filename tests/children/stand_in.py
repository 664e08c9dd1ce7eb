"""A plugin of pytest that replaces mmap by another module, and writes the outcome of each test to a
file.

MAPPEDFILE_STAND_IN=mappedfile.mmap MAPPEDFILE_OUTCOMES=file python -m pytest -p children.stand_in
"""

import importlib
import json
import os
import sys

OUTCOMES = {}

sys.modules["mmap"] = importlib.import_module(os.environ["MAPPEDFILE_STAND_IN"])


def pytest_runtest_logreport(report):
    """Record an outcome. A failure is never replaced."""
    name = f"{report.nodeid} {getattr(report, 'context', '') or ''}".rstrip()
    counts = report.outcome != "passed" or report.when == "call"
    if counts and OUTCOMES.get(name) != "failed":
        OUTCOMES[name] = report.outcome


def pytest_sessionfinish():
    """Write the outcomes."""
    with open(os.environ["MAPPEDFILE_OUTCOMES"], "w", encoding="utf-8") as file:
        json.dump(OUTCOMES, file)
