"""The subjects of the contract: the library in each mode; the standard library's mmap, as an
oracle; and mappedfile.mmap."""

from __future__ import annotations

import io
import mmap
import os
import threading
from operator import index
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from mappedfile import MappedFile
from mappedfile import mmap as layer


class Subject(NamedTuple):
    """A way to open files in one mode."""

    name: str
    mode: str
    #: Opens a file like ``MappedFile``. The result has the methods of MappedFile that the subject
    #: supports.
    open: Any

    @property
    def writable(self) -> bool:
        return self.mode != "r"

    @property
    def shared(self) -> bool:
        """Whether writes reach the file."""
        return self.mode not in ("r", "c")

    def create(self, path: Path, content: bytes, **options: Any) -> Any:
        """Open a file with this content in the subject's mode. Modes that create files create
        it."""
        if self.mode in ("w+", "x+"):
            mapped = self.open(path, self.mode, size=len(content), **options)
            if content:
                mapped[0 : len(content)] = content
            return mapped
        path.write_bytes(content)
        return self.open(path, self.mode, **options)

    def __str__(self) -> str:
        return f"{self.name} {self.mode}"


class StdlibWindow:
    """mmap.mmap with the method names of MappedFile. It adds no feature that mmap lacks, so these
    fail."""

    module: ClassVar[Any] = mmap

    def __init__(self, descriptor: int, mode: str, offset: int = 0, length: int = 0) -> None:
        access = {"r": mmap.ACCESS_READ, "c": mmap.ACCESS_COPY}.get(mode, mmap.ACCESS_WRITE)
        self._map = self.module.mmap(descriptor, length, access=access, offset=offset)
        self._mode = mode

    def __getattr__(self, name: str) -> Any:
        return getattr(self._map, name)

    def __len__(self) -> int:
        return len(self._map)

    def __getitem__(self, key: Any) -> Any:
        return self._map[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._map[key] = value

    def __contains__(self, sub: Any) -> bool:
        return sub in self._map

    @property
    def data(self) -> memoryview:
        return memoryview(self._map)

    @property
    def mapped(self) -> bool:
        return not self._map.closed

    @property
    def readonly(self) -> bool:
        return self._mode == "r"

    def close(self, *, strict: bool = False) -> None:
        self._map.close()  # always strict

    def flush(self, offset: int = 0, length: int | None = None, *, durable: bool = True) -> None:
        self._map.flush(
            *(
                ()
                if length is None and not offset
                else (offset,)
                if length is None
                else (offset, length)
            )
        )

    def advise(self, kind: Any, offset: int = 0, length: int | None = None) -> None:
        number = getattr(self.module, f"MADV_{getattr(kind, 'name', kind).upper()}")
        self.madvise(number, offset, *(() if length is None else (length,)))

    def stream(self, offset: int = 0, length: int | None = None, *, grow: bool = False) -> Any:
        if offset or length is not None or grow:
            raise io.UnsupportedOperation("mmap has one position, and reads to its end")
        return self._map

    def array(self, dtype: Any = "u1", shape: Any = None, offset: int = 0, order: Any = "C") -> Any:
        import numpy

        array = numpy.frombuffer(self._map, dtype, -1, offset)
        return array if shape is None else array.reshape(shape, order=order)

    def __enter__(self) -> Any:
        self._map.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class StdlibFile(StdlibWindow):
    """The same for a whole file."""

    window: ClassVar[type[StdlibWindow]] = StdlibWindow

    def __init__(
        self, file: Any, mode: str = "r", *, size: int | None = None, sparse: bool = False
    ) -> None:
        flags = {
            "r": os.O_RDONLY,
            "c": os.O_RDONLY,
            "r+": os.O_RDWR,
            "w+": os.O_RDWR | os.O_CREAT | os.O_TRUNC,
        }
        flags["x+"] = os.O_RDWR | os.O_CREAT | os.O_EXCL
        self.name = file
        self.mode = mode
        # Protects the descriptor's number: after a close, another file may have it.
        self._lock = threading.RLock()
        owned = not isinstance(file, int) and not hasattr(file, "fileno")
        binary = getattr(os, "O_BINARY", 0)
        self._fd = (
            os.open(file, flags[mode] | binary)
            if owned
            else os.dup(file if isinstance(file, int) else file.fileno())
        )
        try:
            if size is not None:
                os.truncate(self._fd, size)
            super().__init__(self._fd, mode)
        except BaseException:
            os.close(self._fd)
            raise

    def view(self, offset: int = 0, length: int | None = None) -> StdlibWindow:
        offset, length = index(offset), None if length is None else index(length)
        with self._lock:
            len(self)  # raises ValueError if it is closed
            return self.window(self._fd, self._mode, offset, length or 0)

    def fileno(self) -> int:
        len(self)
        return self._fd

    def close(self, *, strict: bool = False) -> None:
        super().close()
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1


class LayerWindow(StdlibWindow):
    """mappedfile.mmap, in the same way."""

    module: ClassVar[Any] = layer

    @property
    def mapped(self) -> bool:
        return bool(self._map._mapped)


class LayerFile(StdlibFile, LayerWindow):
    """The same for a whole file."""

    module: ClassVar[Any] = layer
    window: ClassVar[type[StdlibWindow]] = LayerWindow


#: The library, in each mode.
NATIVE: tuple[Subject, ...] = tuple(
    Subject("mappedfile", mode, MappedFile) for mode in ("r", "r+", "w+", "x+", "c")
)

#: The oracle, in each mode.
STDLIB: tuple[Subject, ...] = tuple(
    Subject("mmap", mode, StdlibFile) for mode in ("r", "r+", "w+", "x+", "c")
)

#: The replacement of mmap: for the clauses that it keeps, it behaves like the library.
LAYER: tuple[Subject, ...] = tuple(
    Subject("mappedfile.mmap", mode, LayerFile) for mode in ("r", "r+", "w+", "x+", "c")
)
