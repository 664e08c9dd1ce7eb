"""Runs a file of CPython's tests on a replacement for mmap.

    python -m children.stdlib_tests mappedfile.mmap .../test/test_mmap.py

This prints the outcome of each test as JSON.
"""

import gc
import importlib.util
import json
import sys
import traceback
import unittest


class Outcomes(unittest.TestResult):
    """Records the outcome of each test."""

    def __init__(self):
        super().__init__()
        self.outcomes = {}

    def tell(self, test, outcome, more=""):
        """Record an outcome. Only "passed" can be replaced."""
        name = test.id().removeprefix(f"{type(test).__module__}.")
        if self.outcomes.get(name, ("",))[0] in ("", "passed"):
            self.outcomes[name] = (outcome, more)

    def addSuccess(self, test):
        self.tell(test, "passed")

    def addSkip(self, test, reason):
        self.tell(test, "skipped", reason)

    def addFailure(self, test, error):
        self.tell(test, "failed", self._exc_info_to_string(error, test))
        traceback.clear_frames(error[2])

    def addError(self, test, error):
        self.addFailure(test, error)

    def stopTest(self, test):
        """Collect garbage of a failed test: on Windows its open file would disturb the next
        test."""
        super().stopTest(test)
        gc.collect()

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self.tell(test, "failed", self._exc_info_to_string(error, test))


def main(stand_in, tests):
    """Run the tests in the current folder."""
    sys.modules["mmap"] = importlib.import_module(stand_in)
    spec = importlib.util.spec_from_file_location("tests_of_mmap", tests)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    suite = unittest.defaultTestLoader.loadTestsFromModule(module)
    result = Outcomes()
    suite.run(result)
    print(json.dumps(result.outcomes))


if __name__ == "__main__":
    main(*sys.argv[1:])
