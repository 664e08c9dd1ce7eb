"""Types for annotations: nothing here is needed while a program runs."""

from __future__ import annotations

import os
from typing import Literal, Protocol, TypeAlias, Union

#: How a file is opened: see ``MappedFile``.
Mode: TypeAlias = Literal["r", "r+", "w+", "x+", "c"]


class HasFileno(Protocol):
    """A file object."""

    def fileno(self) -> int:
        """Return its descriptor."""


#: What a file is opened by.
File: TypeAlias = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]", int, HasFileno]
