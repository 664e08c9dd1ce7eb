"""A plugin of pytest's: a module stands for mmap, and the outcome of each test is written down.

MAPPEDFILE_STAND_IN=mappedfile.mmap MAPPEDFILE_OUTCOMES=file python -m pytest -p children.stand_in
"""

import importlib
import json
import os
import sys

OUTCOMES = {}

sys.modules["mmap"] = importlib.import_module(os.environ["MAPPEDFILE_STAND_IN"])


def pytest_runtest_logreport(report):
    """Take note; what is worse than what is known already counts."""
    name = f"{report.nodeid} {getattr(report, 'context', '') or ''}".rstrip()
    counts = report.outcome != "passed" or report.when == "call"
    if counts and OUTCOMES.get(name) != "failed":
        OUTCOMES[name] = report.outcome


def pytest_sessionfinish():
    """Write it down."""
    with open(os.environ["MAPPEDFILE_OUTCOMES"], "w", encoding="utf-8") as file:
        json.dump(OUTCOMES, file)
