"""A process whose system calls tests/test_failures.py makes fail.

    python -m children.failing FOLDER

The process prints its id. Then it reads the name of a scenario, prepares it, and prints "ready". It
reads "go", runs the scenario, and prints the error or null. It reads "look", checks the state,
cleans up, and prints what is wrong. All output is JSON.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from children import failing_uses
from children.failing_opens import SCENARIOS, SIZE
from mappedfile.contract._probe import file_maps, handles

__all__ = ["SCENARIOS", "SIZE"]

assert failing_uses  # registers scenarios


def say(word: object) -> None:
    print(json.dumps(word), flush=True)


def main(folder: Path) -> None:
    """Run the scenarios that standard input names."""
    complaints: list[str] = []
    sys.unraisablehook = lambda one: complaints.append(f"{one.exc_value!r}")
    warnings.simplefilter("error")
    # The first run of each scenario imports and allocates, before calls fail.
    for name, scenario in SCENARIOS.items():
        warm = scenario(folder / "warm")
        warm.prepare()
        warm.run()
        warm.look(False)
        warm.clean()
        outcome(ValueError(name))
    gc.collect()
    gc.disable()
    complaints.clear()
    say(os.getpid())
    for number, line in enumerate(sys.stdin):
        name = line.strip()
        if name not in SCENARIOS:
            raise SystemExit(f"no such scenario: {name!r}; there are {', '.join(SCENARIOS)}")
        before = handles(), file_maps()[1]
        scenario = SCENARIOS[name](folder / f"{name}{number}")
        scenario.prepare()
        error = kept = None
        say("ready")
        sys.stdin.readline()
        try:
            scenario.run()
        except BaseException as caught:
            error = outcome(caught)
            kept = caught  # its traceback keeps no map or descriptor
        say(error)
        sys.stdin.readline()
        found = []
        try:
            scenario.look(error is not None)
        except BaseException as caught:
            found.append(f"{type(caught).__name__} {caught} in line {line_of(caught)}")
            del caught
        try:
            scenario.clean()
        except BaseException as caught:
            found.append(f"clean-up: {type(caught).__name__} {caught}")
            del caught
        del scenario
        gc.collect()
        after = handles(), file_maps()[1]
        del kept
        found += complaints
        complaints.clear()
        (folder / f"{name}{number}").unlink(missing_ok=True)
        say({"found": found, "handles": after[0] - before[0], "mapped": after[1] - before[1]})


def outcome(error: BaseException) -> dict[str, Any]:
    name = getattr(error, "filename", None)
    return {
        "type": type(error).__name__,
        "errno": getattr(error, "errno", None),
        "filename": None if name is None else str(name),
        "text": str(error),
    }


def line_of(error: BaseException) -> int:
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return place.tb_lineno if place is not None else 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
