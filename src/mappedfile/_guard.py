"""The fault guard: what becomes of the process when a page of a map is gone."""

from __future__ import annotations

from mappedfile._errors import os_error
from mappedfile._native import lib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mappedfile._errors import Name

#: Whether it is to be put in place before the next map is made.
pending = True
_wanted = True


def fault_guard(wanted: bool | None = None, /) -> bool:
    """Tell whether the fault guard is in place; or have it put in place now (True), or never (False).

    A page of a map can be gone: others cut the file short, the disk behind a hole is full, the device fails. Without
    the guard an access to it ends the process (POSIX: ``SIGBUS``; Windows: ``EXCEPTION_IN_PAGE_ERROR``). With it,
    access through this library raises ``MappingFault``; on POSIX buffers and arrays read zeros there.

    It is put in place with the first map. On POSIX it is the process's handler for ``SIGBUS``; what concerns no map of
    this library it passes on to the handler that it found. Whoever takes the signal afterwards comes first, until the
    next file is mapped as a whole: then the guard goes on top again.

    Raises ``RuntimeError`` when it was put in place and is not wanted: it stays, since others may rely on it.
    ``OSError`` when the system refuses. ``TypeError`` for what is neither a bool nor None.
    """
    global pending, _wanted
    if wanted is not None and not isinstance(wanted, bool):
        raise TypeError(f"fault_guard() takes True, False or None, not {wanted!r}")
    if wanted is False:
        if lib.mf_guarded() or (_wanted and not pending):
            raise RuntimeError("the fault guard is in place and stays: say fault_guard(False) before the first map")
        pending = _wanted = False
    elif wanted:
        _wanted = True
        put_in_place()
    return bool(lib.mf_guarded())


def put_in_place(name: Name | None = None) -> None:
    """Put the guard in place, because a map of file *name* is to be made, or the user says so."""
    global pending
    if code := lib.mf_guard():
        raise os_error(code, name)
    pending = False


def renew() -> None:
    """Put the guard on top again if somebody has taken its place, and it can be: ``fault_guard()`` tells."""
    if _wanted and not pending:
        lib.mf_guard()
