"""Scenarios of failing.py that open or create a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mappedfile import PAGE_SIZE, MappedFile

CONTENT = bytes(range(256)) * (3 * PAGE_SIZE // 256) + b"the end"
SIZE = len(CONTENT)


#: Every scenario, by its name.
SCENARIOS: dict[str, type[Scenario]] = {}


def scenario(kind: type[Scenario]) -> type[Scenario]:
    """Register a scenario by its name."""
    SCENARIOS[kind.__name__] = kind
    return kind


@scenario
class Scenario:
    """Opens a file, reads a byte, and closes the file."""

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
        """Check the file and the object. FAILED says whether run() failed."""
        assert self.file is None or self.file.closed or self.file[:] == CONTENT
        assert self.path.read_bytes() == CONTENT

    def clean(self) -> None:
        self.kept.clear()
        file, self.file = self.file, None
        if file is not None:
            file.close()


@scenario
class Read(Scenario):
    """Opens a file in mode "r", reads a byte, and closes the file."""

    mode = "r"


@scenario
class Private(Scenario):
    """Opens a file in mode "c", reads a byte, and closes the file."""

    mode = "c"


@scenario
class Adopt(Scenario):
    """Opens a file object, reads a byte, and closes the mapped file."""

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
    """Creates a file. After a failure the file must not exist."""

    mode = "x+"
    sparse = False

    def prepare(self) -> None:
        self.path.unlink(missing_ok=True)

    def run(self) -> None:
        self.file = MappedFile(self.path, self.mode, size=SIZE, sparse=self.sparse)

    def look(self, failed: bool) -> None:
        if failed:
            assert self.file is None
            assert not self.path.exists(), "a file was left after a failure"
        else:
            assert self.file[:] == bytes(SIZE) == self.path.read_bytes()


@scenario
class CreateSparse(Create):
    """Creates a sparse file. After a failure the file must not exist."""

    sparse = True


@scenario
class Empty(Create):
    """Replaces the content of an existing file with mode "w+"."""

    mode = "w+"

    def prepare(self) -> None:
        self.path.write_bytes(CONTENT)

    def look(self, failed: bool) -> None:
        if failed:
            assert self.file is None
            assert self.path.read_bytes() in (b"", CONTENT)
        else:
            assert self.file[:] == bytes(SIZE) == self.path.read_bytes()
