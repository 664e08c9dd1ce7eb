"""``Stream``: a C type, which everybody is told here is a binary file."""

import io

from mappedfile._memory import Stream

io.BufferedIOBase.register(Stream)

__all__ = ["Stream"]
