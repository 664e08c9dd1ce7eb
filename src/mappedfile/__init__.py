"""One memory-mapped file, the same on Linux, macOS and Windows."""

from mappedfile._errors import MappingFault
from mappedfile._file import MappedFile
from mappedfile._guard import fault_guard
from mappedfile._system import GRANULARITY, PAGE_SIZE
from mappedfile._view import View

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mappedfile._capabilities import Capabilities, capabilities
    from mappedfile._memory import Advice, Residency

__version__ = "0.1.0"

__all__ = [
    "GRANULARITY",
    "PAGE_SIZE",
    "Advice",
    "Capabilities",
    "MappedFile",
    "MappingFault",
    "Residency",
    "View",
    "capabilities",
    "fault_guard",
]


def __getattr__(name: str) -> object:
    """Import what few programs ask for when one does: importing mappedfile is to cost next to nothing."""
    if name in ("Capabilities", "capabilities"):
        from mappedfile import _capabilities

        return getattr(_capabilities, name)
    if name in ("Advice", "Residency"):
        from mappedfile import _memory

        return getattr(_memory, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
