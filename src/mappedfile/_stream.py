"""``Stream``: a C type, registered as an ``io.BufferedIOBase``."""

import io

from mappedfile._memory import Stream

io.BufferedIOBase.register(Stream)

__all__ = ["Stream"]
