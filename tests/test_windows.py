"""Windows only: its error numbers, handles, sharing modes, and files that cannot be shrunk or
deleted."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest
from children import code, run_python

from mappedfile import GRANULARITY, PAGE_SIZE, MappedFile, capabilities
from mappedfile._native import ffi, lib
from mappedfile.contract import _probe

kernel32: Any = pytest.importorskip(
    "mappedfile.contract._kernel32", reason="no kernel32 here", exc_type=ImportError
)
kernel32_calls: Any = pytest.importorskip("kernel32_calls")

CONTENT = bytes(range(256)) * ((2 * GRANULARITY) // 256)

ERROR_ACCESS_DENIED = 5
ERROR_INVALID_HANDLE = 6
ERROR_SHARING_VIOLATION = 32
ERROR_LOCK_VIOLATION = 33
ERROR_INVALID_ADDRESS = 487
ERROR_MAPPED_ALIGNMENT = 1132
ERROR_USER_MAPPED_FILE = 1224
FSCTL_SET_SPARSE = 0x900C4


@pytest.fixture
def file(path: Path) -> Any:
    """Yield a mapped file."""
    path.write_bytes(CONTENT)
    with MappedFile(path, "r+") as file:
        yield file


def test_sizes() -> None:
    """Maps begin at multiples of 64 KiB. Views hide this.

    Not shared: on POSIX the granularity is the page size.
    """
    assert (4096, 65536) == (PAGE_SIZE, GRANULARITY)


def test_unmap_of_what_was_not_mapped() -> None:
    """UnmapViewOfFile of other memory, and of address 0, returns error 487: L10.

    Not shared: the code is that of Windows.
    """
    memory = ffi.new("char[]", 100)
    other = {"base": memory, "length": 100, "file": ffi.new("mf_file *")}
    assert ERROR_INVALID_ADDRESS == lib.mf_unmap(ffi.new("mf_mapping *", other))
    assert ERROR_INVALID_ADDRESS == lib.mf_unmap(ffi.new("mf_mapping *", [ffi.NULL, 100]))


def test_unmap_twice(file: MappedFile) -> None:
    """close() of a view that other code unmapped raises error 487 with the file's name. The view is
    closed: L10.

    Not shared: munmap of unmapped pages succeeds.
    """
    view = file.view(0, 10)
    same = {
        "base": ffi.cast("char *", _probe.address_of(view.data)),
        "length": 10,
        "file": ffi.new("mf_file *"),
    }
    assert 0 == lib.mf_unmap(ffi.new("mf_mapping *", same))
    with pytest.raises(OSError, match="file") as caught:
        view.close()
    assert (ERROR_INVALID_ADDRESS, str(file.name)) == (
        caught.value.winerror,
        str(caught.value.filename),
    )
    assert (True, False) == (view.closed, view.mapped)
    view.close()


def test_close_twice(file: MappedFile) -> None:
    """CloseHandle of a closed handle returns error 6: L10.

    Not shared: on POSIX it is EBADF, which the contract checks.
    """
    raw = ffi.new("mf_file *")
    assert lib.mf_duplicate(file.handle, lib.MF_READ, lib.MF_EXISTING, raw) == 0
    again = ffi.new("mf_file *", [raw.handle, 0])
    assert lib.mf_close(raw) == 0
    assert raw.handle == -1
    assert ERROR_INVALID_HANDLE == lib.mf_close(again)
    assert lib.mf_close(raw) == 0


def test_handles(path: Path) -> None:
    """A mapped file has two handles: of the file and of the section. An empty file has one. Views
    have none: L1.

    Not shared: POSIX has one descriptor.
    """
    path.write_bytes(CONTENT)
    before = _probe.handles()
    with MappedFile(path) as file:
        assert before + 2 == _probe.handles()
        view = file.view(5, 5)
        view[0], file[0]
        assert before + 2 == _probe.handles()
    assert before == _probe.handles()
    view.close()
    path.write_bytes(b"")
    with MappedFile(path):
        assert before + 1 == _probe.handles()
    assert before == _probe.handles()


def test_misaligned_offset(file: MappedFile) -> None:
    """MapViewOfFile refuses an offset that is not a multiple of 64 KiB with error 1132. A view
    accepts it.

    Not shared: on POSIX the offset of a page is aligned.
    """
    other = MappedFile(file.name)
    out, section = ffi.new("mf_mapping *"), ffi.new("mf_section *")
    with other._use(0, None, False) as use:
        raw = ffi.cast("mf_file *", use.handle)
        assert 0 == lib.mf_open_section(raw, lib.MF_READ, section)
        assert ERROR_MAPPED_ALIGNMENT == lib.mf_map(
            raw, section, lib.MF_READ, PAGE_SIZE, PAGE_SIZE, out
        )
        assert 0 == lib.mf_close_section(section)
    assert out.base == ffi.NULL
    with other.view(PAGE_SIZE, PAGE_SIZE) as view:
        assert CONTENT[PAGE_SIZE : 2 * PAGE_SIZE] == view[:]
    other.close()


def test_flush_of_what_is_being_written(file: MappedFile) -> None:
    """While the system writes the same pages, FlushViewOfFile returns ERROR_LOCK_VIOLATION. The
    backend repeats it after pauses that double, and returns the error after half a second: F1, F8.

    Not shared: msync waits by itself.
    """
    with file.view(0, 10) as view:
        for times in (3, 9, 10):
            with kernel32_calls.watched() as calls:
                calls.failing = dict.fromkeys(
                    [("FlushViewOfFile", number) for number in range(1, times + 1)],
                    ERROR_LOCK_VIOLATION,
                )
                if times == 10:
                    with pytest.raises(OSError, match="file") as caught:
                        view.flush()
                    assert (ERROR_LOCK_VIOLATION, str(file.name)) == (
                        caught.value.winerror,
                        str(caught.value.filename),
                    )
                else:
                    view.flush()
            pauses = [arguments[0] for name, arguments in calls.made if name == "Sleep"]
            assert [2**number for number in range(min(times, 9))] == pauses
            assert min(times + 1, 10) == calls.names().count("FlushViewOfFile")
            assert (times < 10) == ("FlushFileBuffers" in calls.names())


@pytest.mark.parametrize("alive", ["file", "view", "buffer"])
def test_cut_short(path: Path, alive: str) -> None:
    """Shrinking a file that other objects have mapped raises error 1224 with the file's name, and
    the size does not change: T2, S4.

    Not shared: POSIX allows it.
    """
    path.write_bytes(CONTENT)
    file = MappedFile(path)
    view = file.view(0, 10)
    buffer = view.data
    if alive != "file":
        file.close()
    if alive == "buffer":
        view.close()
    with MappedFile(path, "r+") as other:
        with pytest.raises(OSError, match="file") as caught:
            other.resize(100)
        assert (ERROR_USER_MAPPED_FILE, str(path)) == (
            caught.value.winerror,
            str(caught.value.filename),
        )
        assert (len(CONTENT), CONTENT) == (len(other), other[:])
        assert CONTENT[:10] == buffer.tobytes()
        buffer.release()
        view.close()
        file.close()
        other.resize(100)
    assert CONTENT[:100] == path.read_bytes()


def test_others_without_sharing(file: MappedFile) -> None:
    """While a mapped file is open, opening it without sharing fails with error 32. If only views
    are left, Windows allows it (L9: without sharing restrictions). Wine refuses it, since it counts
    the section as a user.

    Not shared: POSIX has no sharing modes.
    """
    path = str(file.name)
    view = file.view(0, 10)
    file[0]
    with pytest.raises(PermissionError) as caught:
        kernel32.open_exclusively(path)
    assert caught.value.winerror == ERROR_SHARING_VIOLATION
    file.close()
    try:
        kernel32.close_handle(kernel32.open_exclusively(path))
    except PermissionError as error:
        assert error.winerror == ERROR_SHARING_VIOLATION
        assert kernel32.is_wine(), "Windows allows it"
    assert CONTENT[:10] == view[:]
    view.close()
    kernel32.close_handle(kernel32.open_exclusively(path))


def test_deletion_by_others(file: MappedFile) -> None:
    """DeleteFile of a file with a view has one of three results: error 5, the name disappears at
    once (newer Windows), or it disappears with the last view (Wine): N2. The memory does not
    change.

    Not shared: on POSIX the name disappears at once.
    """
    path = Path(str(file.name))
    view = file.view(0, 10)
    file.close()
    try:
        os.unlink(path)
    except PermissionError as error:
        assert error.winerror == ERROR_ACCESS_DENIED
        outcome = "refused"
    else:
        outcome = "later" if path.exists() else "at once"
    assert outcome == "later" or not kernel32.is_wine()
    assert CONTENT[:10] == view[:]
    view.close()
    assert (outcome == "refused") == path.exists()


def test_crash_is_seen(path: Path) -> None:
    """A child that reads unmapped memory ends by an access violation, and its exit status shows it.

    So the contract's checks would notice a crash. Not shared: on POSIX it ends by a signal.
    """
    path.write_bytes(CONTENT)
    program = """
import ctypes, sys
from mappedfile import MappedFile
from mappedfile.contract import _probe
with MappedFile(sys.argv[1]) as file: where = _probe.address_of(file.data)
ctypes.string_at(where, 1)
"""
    done = run_python(*code(program), path, check=False, timeout=60)
    assert done.returncode != 0


def regions(address: int, length: int) -> list[tuple[int, int]]:
    """Return the views that begin in a range, relative to its start."""
    return [
        (start - address, stop - address)
        for start, stop in kernel32.mapped_regions()
        if address <= start < address + length
    ]


@pytest.fixture
def reserving(path: Path) -> Any:
    """Yield a mapped file of 5 bytes with 16 pages of reserved address space."""
    if not capabilities().reserve:
        pytest.skip(
            "this Windows has no placeholders: they came with Windows 10, version 1803;"
            " Wine 8 has none"
        )
    path.write_bytes(b"begin")
    with MappedFile(path, "r+", reserve=16 * PAGE_SIZE) as file:
        yield file


def test_placeholders() -> None:
    """Address space can be reserved exactly if Windows has placeholders. The test finds out without
    the backend.

    Not shared: POSIX can always reserve.
    """
    assert kernel32.has_placeholders() == capabilities().reserve


@pytest.mark.parametrize("size", [0, 5, PAGE_SIZE + 5, len(CONTENT) + 5])
def test_size_changes_while_a_section_is_made(path: Path, size: int) -> None:
    """A change of the size by others is noticed between reading the size and making the section:
    S8, I2.

    Not shared: POSIX has no sections.
    """
    path.write_bytes(CONTENT)
    with kernel32_calls.watched() as calls:
        calls.before["CreateFileMappingW"] = lambda: os.truncate(path, size)
        file = MappedFile(path)
    assert {} == calls.before
    with file:
        assert size == len(file) == path.stat().st_size
        assert (CONTENT + bytes(5))[:size] == file[:]


@pytest.mark.parametrize("size", [0, 5])
def test_size_changes_while_there_is_no_section(file: MappedFile, size: int) -> None:
    """After a shrink there is no section until the next use, so others may truncate the file. The
    next use maps the rest: S8.

    Not shared: POSIX has no sections.
    """
    file[0]
    file.resize(10)
    os.truncate(file.name, size)
    assert CONTENT[:size] == file[:]
    assert size == len(file)


@pytest.mark.parametrize("sparse", [False, True])
def test_holes(tmp_path: Path, sparse: bool) -> None:
    """With sparse=True a file is marked as sparse when it grows. Otherwise NTFS would allocate its
    clusters: S5.

    Not shared: on POSIX every file can have holes.
    """
    paths = [tmp_path / name for name in ("created", "empty", "there")]
    paths[2].write_bytes(CONTENT)
    with kernel32_calls.watched() as calls:
        MappedFile(paths[0], "x+", size=len(CONTENT) + 1, sparse=sparse).close()
        for path, mode, size in ((paths[1], "x+", 0), (paths[2], "r+", None)):
            with MappedFile(path, mode, size=size, sparse=sparse) as file:
                file.resize(len(CONTENT) + 1)
    marks = [arguments[1] for name, arguments in calls.made if name == "DeviceIoControl"]
    assert [FSCTL_SET_SPARSE] * (3 if sparse else 0) == marks
    for path in paths:
        marked = path.stat().st_file_attributes & stat.FILE_ATTRIBUTE_SPARSE_FILE
        assert bool(marked) == sparse or kernel32.is_wine(), "only Wine does not store the mark"


def test_growth_in_place(reserving: MappedFile) -> None:
    """Growth in reserved address space maps a new view right behind the others, at any page.
    Closing unmaps all views: S2.

    Not shared: Windows cannot map beyond the end of a file.
    """
    data = reserving.data
    address = _probe.address_of(data)
    views = [(0, 1)]
    assert [(0, PAGE_SIZE)] == regions(address, 16 * PAGE_SIZE)
    for size, stop in (
        (PAGE_SIZE, 1),
        (PAGE_SIZE + 1, 2),
        (2 * PAGE_SIZE - 1, 2),
        (7 * PAGE_SIZE + 9, 8),
        (16 * PAGE_SIZE, 16),
    ):
        reserving.resize(size)
        if stop > views[-1][1]:
            views.append((views[-1][1], stop))
        assert [(start * PAGE_SIZE, stop * PAGE_SIZE) for start, stop in views] == regions(
            address, 16 * PAGE_SIZE
        )
        reserving[size - 1] = 7
    assert b"begin" == data.tobytes()
    reserving.flush()
    reserving.flush(PAGE_SIZE // 2, 8 * PAGE_SIZE)  # over several views
    reserving.close()
    assert len(views) == len(regions(address, 16 * PAGE_SIZE))
    data.release()
    assert [] == regions(address, 16 * PAGE_SIZE)


def test_address_space_is_taken_and_given_back(reserving: MappedFile) -> None:
    """The reserved address space is not used by others until the map is closed. Then it is free.

    Not shared: on POSIX it is a part of the map.
    """
    data = reserving.data
    behind = _probe.address_of(data) + GRANULARITY // 2
    data.release()
    assert not kernel32.is_free(behind)
    reserving.close()
    assert kernel32.is_free(behind)


def test_reserved_map_that_somebody_unmapped(reserving: MappedFile) -> None:
    """If other code unmapped a reserved map, close() raises error 487, as for a map of one view:
    L10.

    Not shared: munmap of unmapped pages succeeds.
    """
    data = reserving.data
    address = _probe.address_of(data)
    data.release()
    reserving.resize(3 * PAGE_SIZE)
    kernel32.unmap(address)
    with pytest.raises(OSError, match="file") as caught:
        reserving.close()
    assert ERROR_INVALID_ADDRESS == caught.value.winerror
    # The other views are not unmapped: others may use that address space by now.
    assert [(PAGE_SIZE, 3 * PAGE_SIZE)] == regions(address, 16 * PAGE_SIZE)
    kernel32.unmap(address + PAGE_SIZE)


def test_file_pointer_stays(path: Path) -> None:
    """Growth does not move the position of the caller's open file, which the duplicated handle
    shares.

    Not shared: pwrite does not use the position.
    """
    path.write_bytes(b"content")
    with open(path, "r+b", buffering=0) as opened:
        opened.seek(3)
        with MappedFile(opened, "r+") as file:
            file.resize(100)
        assert 3 == opened.tell()
        assert b"tent" == opened.read(4)


def test_no_address_space(path: Path) -> None:
    """Growth past the address space raises an error, also with views alive, and the file does not
    change: S4.

    Not shared: POSIX has a limit for the test, RLIMIT_AS.
    """
    path.write_bytes(b"content")
    with MappedFile(path, "r+", sparse=True) as file, file.view() as view:
        file[0]
        with pytest.raises(OSError, match="file"):
            file.resize(2**47)
        assert (7, 7) == (len(file), path.stat().st_size)
        assert b"content" == file[:] == view[:]
