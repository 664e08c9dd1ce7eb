"""What limits the memory that a process may lock. It imports nothing of the package: it is loaded before one is met."""

from __future__ import annotations

import errno
import sys

if sys.platform == "win32":

    def lock_limit(code: int, size: int) -> str:
        """Say so if it was the limit: VirtualLock, Remarks."""
        if code != 1453:  # ERROR_WORKING_SET_QUOTA
            return ""
        return (
            f"the minimum working set of the process limits what it can lock, and could not be raised by {size} bytes"
            " (SetProcessWorkingSetSize): lock less, or give its user the right to increase a process working set"
        )

else:
    import resource

    def lock_limit(code: int, size: int) -> str:
        """Say so if it was the limit: mlock(2), ERRORS."""
        most, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        if most == resource.RLIM_INFINITY or code not in (errno.ENOMEM, errno.EPERM, errno.EAGAIN):
            return ""
        locked = _locked_now()
        if locked is not None and locked + size <= most:
            return ""
        return (
            f"the process may lock {most} bytes (RLIMIT_MEMLOCK),{'' if locked is None else f' has locked {locked},'}"
            f" and this is {size}: lock less, or raise the limit (ulimit -l; limits.conf(5); LimitMEMLOCK= of systemd)"
        )

    def _locked_now() -> int | None:
        """Return how many bytes this process has locked, where that is told: proc_pid_status(5)."""
        try:
            with open("/proc/self/status", encoding="ascii", errors="replace") as status:
                return next(
                    int(line.split()[1]) * 1024 for line in status if line.startswith("VmLck:")
                )
        except (OSError, StopIteration):
            return None
