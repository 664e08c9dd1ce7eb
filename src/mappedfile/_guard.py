"""The fault guard: what becomes of the process when a page of a map is gone."""

from __future__ import annotations

from mappedfile import _memory
from mappedfile._errors import os_error
from mappedfile._native import lib


def fault_guard(wanted: bool | None = None, /) -> bool:
    """Tell whether the fault guard is in place; or have it put in place now (True), or never
    (False).

    A page of a map can be gone: others cut the file short, the disk behind a hole is full, the
    device fails. Without the guard an access to it ends the process (POSIX: ``SIGBUS``; Windows:
    ``EXCEPTION_IN_PAGE_ERROR``). With it, access through this library raises ``MappingFault``; on
    POSIX buffers and arrays read zeros there.

    It is put in place with the first map. On POSIX it is the process's handler for ``SIGBUS``; what
    concerns no map of this library it passes on to the handler that it found. Whoever takes the
    signal afterwards comes first, until the next file is mapped as a whole: then the guard goes on
    top again.

    Raises ``RuntimeError`` when it was put in place and is not wanted: it stays, since others may
    rely on it. ``OSError`` when the system refuses. ``TypeError`` for what is neither a bool nor
    None.
    """
    if wanted is not None and not isinstance(wanted, bool):
        raise TypeError(f"fault_guard() takes True, False or None, not {wanted!r}")
    if wanted is False:
        if lib.mf_guarded() or _memory.guard_policy() == _memory.GUARD_WANTED:
            raise RuntimeError(
                "the fault guard is in place and stays: say fault_guard(False) before the first map"
            )
        _memory.guard_policy(_memory.GUARD_REFUSED)
    elif wanted:
        if code := lib.mf_guard():
            raise os_error(code, None)
        _memory.guard_policy(_memory.GUARD_WANTED)
    return bool(lib.mf_guarded())


fault_guard.__module__ = "mappedfile"
