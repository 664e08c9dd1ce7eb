"""Scenarios of failing.py: a file is opened, or made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mappedfile import PAGE_SIZE, MappedFile

CONTENT = bytes(range(256)) * (3 * PAGE_SIZE // 256) + b"the end"
SIZE = len(CONTENT)


#: Every scenario, by its name.
SCENARIOS: dict[str, type[Scenario]] = {}


def scenario(kind: type[Scenario]) -> type[Scenario]:
    """Have failing.py know a scenario."""
    SCENARIOS[kind.__name__] = kind
    return kind


@scenario
class Scenario:
    """Opens a file, reads a byte, closes it."""

    mode = "r+"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file: Any = None
        self.kept: list[Any] = []

    def prepare(self) -> None:
        self.path.write_bytes(CONTENT)

    def run(self) -> None:
        self.file = MappedFile(self.path, self.mode)
        self.file[0]
        self.file.close()

    def look(self, failed: bool) -> None:
        """After a failure or none: is what is there whole?"""
        assert self.file is None or self.file.closed or self.file[:] == CONTENT
        assert self.path.read_bytes() == CONTENT

    def clean(self) -> None:
        self.kept.clear()
        file, self.file = self.file, None
        if file is not None:
            file.close()


@scenario
class Read(Scenario):
    """The same, to read only."""

    mode = "r"


@scenario
class Private(Scenario):
    """The same, privately."""

    mode = "c"


@scenario
class Adopt(Scenario):
    """The same, from a descriptor."""

    def prepare(self) -> None:
        super().prepare()
        self.kept.append(open(self.path, "r+b"))  # noqa: SIM115

    def run(self) -> None:
        self.file = MappedFile(self.kept[0], self.mode)
        self.file[0]
        self.file.close()

    def look(self, failed: bool) -> None:
        super().look(failed)
        self.kept[0].seek(0)
        assert self.kept[0].read() == CONTENT
        self.kept[0].close()


@scenario
class Create(Scenario):
    """Creates a file, which is not there when that fails."""

    mode = "x+"
    sparse = False

    def prepare(self) -> None:
        self.path.unlink(missing_ok=True)

    def run(self) -> None:
        self.file = MappedFile(self.path, self.mode, size=SIZE, sparse=self.sparse)

    def look(self, failed: bool) -> None:
        if failed:
            assert self.file is None
            assert not self.path.exists(), "what could not be created was left behind"
        else:
            assert self.file[:] == bytes(SIZE) == self.path.read_bytes()


@scenario
class CreateSparse(Create):
    """The same, with holes."""

    sparse = True


@scenario
class Empty(Create):
    """Creates a file where one was."""

    mode = "w+"

    def prepare(self) -> None:
        self.path.write_bytes(CONTENT)

    def look(self, failed: bool) -> None:
        if failed:
            assert self.file is None
            assert self.path.read_bytes() in (b"", CONTENT)
        else:
            assert self.file[:] == bytes(SIZE) == self.path.read_bytes()
