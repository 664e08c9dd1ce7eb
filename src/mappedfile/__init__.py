"""One memory-mapped file for Python, the same on Linux, macOS and Windows."""

from mappedfile._errors import MappingFault
from mappedfile._file import MappedFile
from mappedfile._system import GRANULARITY, PAGE_SIZE
from mappedfile._view import View

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mappedfile._advice import Advice, Residency
    from mappedfile._capabilities import Capabilities, capabilities
    from mappedfile._guard import fault_guard
    from mappedfile._open_npy import open_npy
    from mappedfile._stream import Stream
    from mappedfile._types import Mode

__version__ = "0.1.0"

__all__ = [
    "GRANULARITY",
    "PAGE_SIZE",
    "Advice",
    "Capabilities",
    "MappedFile",
    "MappingFault",
    "Mode",
    "Residency",
    "Stream",
    "View",
    "capabilities",
    "fault_guard",
    "open_npy",
]

#: The modules of names that few programs use. They are imported on first use, so that importing
#: mappedfile stays fast.
_LAZY = {
    "Advice": "_advice",
    "Capabilities": "_capabilities",
    "Mode": "_types",
    "Residency": "_advice",
    "Stream": "_stream",
    "capabilities": "_capabilities",
    "fault_guard": "_guard",
    "open_npy": "_open_npy",
}


if not TYPE_CHECKING:  # A type checker would accept every name.

    def __getattr__(name: str) -> object:
        if name in _LAZY:
            from importlib import import_module

            value = globals()[name] = getattr(import_module(f"mappedfile.{_LAZY[name]}"), name)
            return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__} - {"TYPE_CHECKING", "_LAZY"})
