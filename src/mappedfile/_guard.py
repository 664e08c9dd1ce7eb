"""``fault_guard()``: the protection against pages of a map that are gone."""

from __future__ import annotations

from mappedfile import _memory
from mappedfile._errors import os_error
from mappedfile._native import lib


def fault_guard(wanted: bool | None = None, /) -> bool:
    """Return whether the fault guard is installed. True installs it now; False keeps it out.

    A page of a map can be gone: the file was truncated, the disk behind a hole is full, or the
    device failed. Without the guard, touching such a page ends the process (POSIX: ``SIGBUS``;
    Windows: ``EXCEPTION_IN_PAGE_ERROR``). With the guard, reading or writing through this library
    raises ``MappingFault``. On POSIX, buffers and arrays read zeros there.

    The first map installs the guard. On POSIX it is the handler of the process for ``SIGBUS``.
    Faults outside the maps of this library go to the handler that was there before. A handler that
    is installed later comes first, until the next file is mapped as a whole: that installs the
    guard on top again.

    Raises ``RuntimeError`` for False after the guard was installed: it stays, since other code may
    rely on it; ``OSError`` if the system refuses; ``TypeError`` for any other argument.
    """
    if wanted is not None and not isinstance(wanted, bool):
        raise TypeError(f"fault_guard() takes True, False or None, not {wanted!r}")
    if wanted is False:
        if lib.mf_guarded() or _memory.guard_policy() == _memory.GUARD_WANTED:
            raise RuntimeError(
                "the fault guard is installed and cannot be removed: call fault_guard(False)"
                " before the first map"
            )
        _memory.guard_policy(_memory.GUARD_REFUSED)
    elif wanted:
        if code := lib.mf_guard():
            raise os_error(code, None)
        _memory.guard_policy(_memory.GUARD_WANTED)
    return bool(lib.mf_guarded())


fault_guard.__module__ = "mappedfile"
