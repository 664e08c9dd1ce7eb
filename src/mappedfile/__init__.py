"""One memory-mapped file, the same on Linux, macOS and Windows."""

from mappedfile._file import MappedFile
from mappedfile._system import GRANULARITY, PAGE_SIZE, Capabilities, capabilities
from mappedfile._view import View

__version__ = "0.1.0"

__all__ = ["GRANULARITY", "PAGE_SIZE", "Capabilities", "MappedFile", "View", "capabilities"]
