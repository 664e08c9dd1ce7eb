"""The limits on locked memory. It imports nothing of the package."""

from __future__ import annotations

import errno
import sys

if sys.platform == "win32":

    def lock_limit(code: int, size: int) -> str:
        """Return a text if the limit was met: VirtualLock, Remarks."""
        if code != 1453:  # ERROR_WORKING_SET_QUOTA
            return ""
        return (
            "the minimum working set of the process limits its locked memory, and could not be"
            f" raised by {size} bytes (SetProcessWorkingSetSize): lock less, or give its user the"
            " right to increase a process working set"
        )

else:
    import resource

    def lock_limit(code: int, size: int) -> str:
        """Return a text if the limit was met: mlock(2), ERRORS."""
        most, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        if most == resource.RLIM_INFINITY or code not in (errno.ENOMEM, errno.EPERM, errno.EAGAIN):
            return ""
        locked = _locked_now()
        if locked is not None and locked + size <= most:
            return ""
        has = "" if locked is None else f", and has locked {locked}"
        return (
            f"the process may lock {most} bytes (RLIMIT_MEMLOCK){has}; this needs {size}: lock"
            " less, or raise the limit (ulimit -l; limits.conf(5); LimitMEMLOCK= of systemd)"
        )

    def _locked_now() -> int | None:
        """Return how many bytes this process has locked (proc_pid_status(5)); None if unknown."""
        try:
            with open("/proc/self/status", encoding="ascii", errors="replace") as status:
                return next(
                    int(line.split()[1]) * 1024 for line in status if line.startswith("VmLck:")
                )
        except (OSError, StopIteration):
            return None
