"""POSIX only: errors of munmap, numbers of descriptors, fork."""

import errno
import os
import shutil
import sys
from pathlib import Path

import pytest
from children import code, run_command, run_python
from support import need, only

from mappedfile import GRANULARITY, PAGE_SIZE, MappedFile
from mappedfile._native import ffi, lib
from mappedfile.contract import _probe

pytest.importorskip("fcntl", reason="no POSIX here")

CONTENT = bytes(range(256)) * ((4 * GRANULARITY) // 256)


def test_munmap_of_an_unaligned_address(path: Path) -> None:
    """munmap of an unaligned address fails with EINVAL, and the map stays: L10.

    Not shared: UnmapViewOfFile accepts any address inside a view.
    """
    path.write_bytes(CONTENT)
    with MappedFile(path) as file:
        data = file.data
        base = ffi.cast("char *", _probe.address_of(data))
        of = ffi.new("mf_file *", {"granularity": PAGE_SIZE})
        unaligned = {"base": base + 1, "length": PAGE_SIZE, "file": of}
        assert errno.EINVAL == lib.mf_unmap(ffi.new("mf_mapping *", unaligned))
        assert CONTENT == data.tobytes()
        data.release()


def test_unmap_of_what_was_not_mapped() -> None:
    """The backend refuses to unmap address 0 with EINVAL, since munmap would unmap the lowest pages
    of memory: L10.

    Not shared: the code is that of POSIX.
    """
    assert errno.EINVAL == lib.mf_unmap(ffi.new("mf_mapping *", [ffi.NULL, PAGE_SIZE]))


def test_no_such_file() -> None:
    """Every call with a closed descriptor returns EBADF. Unknown advice returns ENOTSUP.

    Not shared: descriptors are those of POSIX.
    """
    closed = ffi.new("mf_file *")
    closed.handle = -1
    size, known = ffi.new("int64_t *"), ffi.new("int *")
    assert errno.EBADF == lib.mf_get_size(closed, size)
    assert errno.EBADF == lib.mf_set_size(closed, 5)
    assert errno.EBADF == lib.mf_sync(closed, True)
    assert errno.EBADF == lib.mf_residency_is_reliable(closed, known)
    assert 0 != lib.mf_count_cached(closed, 0, 5, size)
    assert errno.ENOTSUP == lib.mf_advise(ffi.NULL, 0, 99)
    assert errno.ENOTSUP == lib.mf_allow_locked(5)


MANY = Path("/proc/sys/vm/max_map_count")


@pytest.mark.skipif(not MANY.exists(), reason="this system has no /proc/sys/vm/max_map_count")
def test_munmap_that_fails(folder: Path) -> None:
    """close() raises the error of munmap with the file's name. The view is closed, and its memory
    is still mapped: L10.

    The error is ENOMEM: at the system's limit of maps, unmapping the middle of a merged map would
    need one more map.

    Not shared: Windows does not merge views.
    """
    if int(MANY.read_text()) > 300_000:
        pytest.skip(f"{MANY} is so large that it takes too long to reach")
    program = """
import mmap, sys
from mappedfile import PAGE_SIZE, MappedFile
from mappedfile.contract import _probe

with open(sys.argv[1], "wb") as file:
    file.truncate(3 * PAGE_SIZE)
file = MappedFile(sys.argv[1])
# The system maps from high addresses to low ones, so these three are neighbours in order.
views = {number: file.view(number * PAGE_SIZE, PAGE_SIZE) for number in (2, 1, 0)}
where = [_probe.address_of(views[number].data) for number in (0, 1, 2)]
if not where[0] + PAGE_SIZE == where[1] == where[2] - PAGE_SIZE:
    sys.exit("not neighbours")
fill = []
try:
    while True:  # two kinds in turn: the system would merge equal ones
        prot = (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE)[len(fill) % 2]
        fill.append(mmap.mmap(-1, PAGE_SIZE, prot=prot))
except OSError:
    pass
try:
    views[1].close()
except OSError as error:
    said = error.errno, error.filename
else:
    said = "nothing"
del fill[-100:]
print(said, views[1].closed, _probe.is_mapped(where[1], PAGE_SIZE))
views[1].close()
for window in (views[0], views[2], file):
    window.close()
"""
    what = (*code(program), folder / "file")
    done = run_python(*what, flags=("-W", "error"), check=False)
    if done.returncode and "not neighbours" in done.stderr:
        pytest.skip("this system does not map neighbours")
    assert (0, "") == (done.returncode, done.stderr)
    assert f"{(errno.ENOMEM, str(folder / 'file'))} True True" == done.stdout.strip()


def test_descriptor_taken_by_others(path: Path, folder: Path) -> None:
    """After close(), the number of the descriptor can belong to another file. Views, their flush
    and the closed object do not use it.

    Not shared: Windows does not reuse the value of a handle so soon.
    """
    path.write_bytes(CONTENT)
    file = MappedFile(path, "r+")
    view = file.view(GRANULARITY)
    number = file.fileno()
    file.close()
    taken = os.open(folder / "other", os.O_RDWR | os.O_CREAT)
    assert number == taken
    view[0] = 1
    view.flush(durable=False)
    view.close()
    file.close()
    del file, view
    os.fstat(taken)
    os.close(taken)


def test_standard_descriptors_stay_free(path: Path) -> None:
    """A duplicated descriptor never gets the number of a closed standard stream: I1.

    Not shared: on Windows the library has a handle, not a descriptor.
    """
    path.write_bytes(CONTENT)
    program = f"""
import os, sys
from mappedfile import MappedFile
descriptor = os.open({str(path)!r}, os.O_RDONLY)
os.close(0)
with MappedFile(descriptor) as file:
    assert file.fileno() > 2
"""
    run_python(*code(program), quiet=True)


def test_fork_at_exit(path: Path) -> None:
    """When a child exits, it releases its inherited objects. The parent's objects are not affected:
    L11.

    Not shared: Windows has no fork.
    """
    path.write_bytes(CONTENT)
    program = """
import os, sys
from mappedfile import MappedFile
file = MappedFile(sys.argv[1], "r+"); view = file.view(5); data = view.data
pid = os.fork()
if pid:
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert data[0] == 5 and view[0] == 5 and file[5] == 5
    os.fstat(file.fileno())
    data.release(); view.close(strict=True); file.close(strict=True)
"""
    run_python(*code(program), path, flags=("-W", "ignore"), quiet=True, timeout=60)


def test_fork_during_a_resize(path: Path) -> None:
    """A child that is forked during another thread's resize and mapping does not wait for them:
    L11.

    Not shared: Windows has no fork.
    """
    path.write_bytes(CONTENT)
    program = """
import os, signal, sys, threading
from mappedfile._native import ffi, lib
from support import import_with
begun, ended = threading.Event(), threading.Event()
@ffi.callback("int(mf_file *, mf_growth *, mf_section *)")
def grow(*arguments):
    if not begun.is_set():
        begun.set()
        ended.wait()
    return lib.mf_grow(*arguments)
file = import_with(grow=grow).MappedFile(sys.argv[1], "r+")
thread = threading.Thread(target=file.resize, args=(300_000,))
thread.start()
begun.wait()
waiting = threading.Thread(target=lambda: file[5])  # waits: the file is not mapped yet
waiting.start()
waiting.join(0.1)
assert waiting.is_alive()
pid = os.fork()
if not pid:
    signal.alarm(20)
    assert file[5] == 5
    file.resize(1000)
    file.close()
    os._exit(0)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert status == 0, status
ended.set()
thread.join()
waiting.join()
file.refresh()
assert len(file) == 300_000, len(file)
file.close()
"""
    run_python(*code(program), path, flags=("-W", "ignore"), quiet=True, timeout=60)


def test_unlock_during_a_resize(path: Path) -> None:
    """unlock() waits for another thread's resize, so that nothing stays locked.

    Not shared: it reads /proc.
    """
    only(sys.platform == "linux", "reads /proc")
    path.write_bytes(CONTENT)
    program = """
import sys, threading
from pathlib import Path
from mappedfile._native import ffi, lib
from support import import_with
armed = False
@ffi.callback("int(char *, size_t)")
def lock(base, size):
    global armed
    if armed:
        armed = False
        unlocking.start()
        unlocking.join(0.5)  # it would end here if it did not wait for the resize
    return lib.mf_lock(base, size)
file = import_with(lock=lock).MappedFile(sys.argv[1], "r+")
unlocking = threading.Thread(target=file.unlock)
file.lock()
armed = True
file.resize(1_000_000)
assert not armed
unlocking.join()
status = Path("/proc/self/status").read_text()
(locked,) = [line.split()[1] for line in status.splitlines() if line.startswith("VmLck:")]
assert locked == "0", locked
file.resize(2_000_000)
file.close()
"""
    run_python(*code(program), path, flags=("-W", "ignore"), quiet=True, timeout=60)


def test_compiles_without_what_openbsd_lacks() -> None:
    """The POSIX backend compiles without posix_fallocate, posix_fadvise, mincore and uc_sigmask,
    and reports that it lacks them.

    Not shared: Windows has another backend.
    """
    only(sys.platform == "linux", "Linux only: imitates OpenBSD with its headers")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    need(compiler, "a C compiler")
    here = Path(__file__).parent
    command = [
        str(compiler),
        "-std=c11",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fsyntax-only",
        "-include",
        here / "openbsd.h",
    ]
    sources = sorted((here.parent / "backends").glob("posix*.c"))
    assert sources
    for source in sources:
        run_command([*command, source], quiet=True)
