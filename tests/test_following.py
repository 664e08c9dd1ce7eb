"""docs/following.md: a ``tail -f`` that continues after growth, truncation and rotation of a
log."""

from __future__ import annotations

import os
import re
import sys
import threading
from pathlib import Path
from typing import Any

from children import code, start_python
from children.crew import Crew

PAGE = Path(__file__).parent.parent / "docs" / "following.md"

# Writes lines to a log. Each line of its input is a command that changes the file.
WRITER = """
import os, sys
path = sys.argv[1]
number = 0
def lines(count, mode="ab"):
    global number
    with open(path, mode) as log:
        for _ in range(count):
            log.write(b"line %d\\n" % number)
            number += 1
for command in sys.stdin:
    match command.split():
        case ["append", count]:
            lines(int(count))
        case ["rotate"]:
            os.rename(path, path + ".1")
            lines(3, "xb")
        case ["replace"]:
            before, path = path, path + ".new"
            lines(3, "xb")
            os.replace(path, before)
            path = before
        case ["cut"]:
            try:
                os.truncate(path, 0)
            except OSError:  # Windows: it is mapped
                os.rename(path, path + ".cut")
                open(path, "xb").close()
            lines(2)
    print(number, flush=True)
"""


def test_follow(tmp_path: Path) -> None:
    """Every line arrives once and in order, after every change of the log."""
    fences = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    (example,) = fences.findall(PAGE.read_text("utf-8"))
    names: dict[str, Any] = {}
    exec(compile(example, PAGE, "exec"), names)
    path = tmp_path / "log"
    path.write_bytes(b"")
    expected, got = 0, bytearray()
    seen = threading.Condition()

    def read() -> None:
        for new in names["follow"](path, crew.stopped.is_set, 0.001):
            with seen:
                got.extend(new)
                seen.notify_all()

    with Crew() as crew, start_python(*code(WRITER), path) as writer:
        crew.start(read)
        for command in (
            "append 5",
            "append 20000",
            "rotate",
            "append 3",
            "cut",
            "append 30000",
            "replace",
            "cut",
            "append 1",
        ):
            if command == "replace" and sys.platform == "win32":
                continue  # Windows does not replace a mapped file
            writer.say(command)
            expected = int(writer.hear())
            with seen:  # a line truncated before it was read is lost: the writer waits
                assert seen.wait_for(lambda expected=expected: got.count(b"\n") >= expected, 60), (
                    command,
                    bytes(got[-100:]),
                )
        writer.end()
        crew.stop()
    assert b"".join(b"line %d\n" % number for number in range(expected)) == got
    assert os.path.getsize(path) > 0
