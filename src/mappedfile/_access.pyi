"""What backends/access.c has for Window."""

from typing import Any

class Access:
    _open: bool
    @property
    def _held(self) -> Any: ...
    def _point_at(self, held: Any, mapping: int, offset: int, length: int, writable: bool, /) -> None: ...
