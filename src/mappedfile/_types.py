"""Types for annotations. A running program does not need them."""

from __future__ import annotations

import os
from typing import Literal, Protocol, TypeAlias, Union

#: The mode of a ``MappedFile``.
Mode: TypeAlias = Literal["r", "r+", "w+", "x+", "c"]


class HasFileno(Protocol):
    """A file object."""

    def fileno(self) -> int:
        """Return the descriptor of the file."""


#: The argument *file* of ``MappedFile``.
File: TypeAlias = Union[str, bytes, "os.PathLike[str]", "os.PathLike[bytes]", int, HasFileno]
