"""A process that truncates files. For guard_rounds.py."""

from __future__ import annotations

import os
import select
import struct
import time
from pathlib import Path

from mappedfile import PAGE_SIZE


def spin(microseconds: int) -> None:
    until = time.perf_counter() + microseconds / 1e6
    while time.perf_counter() < until:
        pass


class Cutter:
    """A child process that truncates a file on request, after a pause."""

    def __init__(self) -> None:
        commands, self._tell = os.pipe()
        self._hear, answers = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._tell)
            try:
                while line := os.read(commands, 16):
                    self._cut(*struct.unpack("<IIII", line))
                    os.write(answers, b".")
            finally:
                os._exit(0)
        os.close(commands)
        os.close(answers)
        self.path = Path()

    @staticmethod
    def _cut(name: int, pause: int, pages: int, restore: int) -> None:
        path = f"round{name}"
        size = os.stat(path).st_size
        spin(pause)
        os.truncate(path, pages * PAGE_SIZE)
        if restore:
            spin(pause // 4)
            os.truncate(path, size)

    def tell(self, name: int, pause: int, pages: int, restore: bool) -> None:
        os.write(self._tell, struct.pack("<IIII", name, pause, pages, restore))
        self.cut = False

    def done(self) -> bool:
        """Whether the last request is finished."""
        if not self.cut:
            self.cut = bool(select.select([self._hear], [], [], 0)[0])
            if self.cut:
                os.read(self._hear, 1)
        return self.cut

    def close(self) -> None:
        os.close(self._tell)
        os.waitpid(self._pid, 0)
        os.close(self._hear)
