"""Files that can be mapped, and files that cannot: disks, huge pages, files without names, files of
the kernel. See docs/files.md."""

from __future__ import annotations

import errno
import io
import mmap
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from children import code, run_python, start_python
from support import LINUX, mounts, need, only, unmount

from mappedfile import PAGE_SIZE, MappedFile, _advice
from mappedfile.contract import _probe

assert _advice  # imported early: importing it in a test would add maps

posix = pytest.mark.skipif(os.name != "posix", reason="these files are on POSIX only")
linux = pytest.mark.skipif(not LINUX, reason="these files are on Linux only")


@pytest.fixture(scope="module")
def loaded() -> None:
    """Import the modules that pytest and subprocess import on first use."""
    with suppress(ImportError):
        import termios  # noqa: F401
    run_python(*code(""))


@pytest.fixture
def nothing_left(loaded: None) -> Iterator[None]:
    """Check that no descriptors and maps leak."""
    before = _probe.handles(), _probe.file_maps()
    yield
    assert before == (_probe.handles(), _probe.file_maps())


pytestmark = pytest.mark.usefixtures("nothing_left")


# Disks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Make a loop device on a file of a bit more than a million bytes."""
    only(LINUX, "Linux only: makes a loop device")
    need(mounts(), "root, and loop devices")
    image = tmp_path / "image"
    image.write_bytes(os.urandom(2048 * 512))
    found = subprocess.run(
        ["losetup", "--find", "--show", image], capture_output=True, text=True, check=True
    ).stdout.strip()
    try:
        yield Path(found)
    finally:
        subprocess.run(["losetup", "--detach", found], check=True)


def test_disk(disk: Path, tmp_path: Path) -> None:
    """A disk can be mapped, and has its size. Flushed data is on the disk. It cannot be resized,
    created or emptied."""
    content = (tmp_path / "image").read_bytes()
    with MappedFile(disk) as file:
        assert (2048 * 512, content) == (len(file), file[:])
        with file.view(1_000_003, 100) as view:
            assert content[1_000_003:1_000_103] == view[:]
        assert not file.refresh()
        assert not file.replaced
    with MappedFile(disk, "c") as file:
        file[0:4] = b"mine"
    with MappedFile(disk, "r+") as file:
        assert content == file[:]
        file[5:9] = b"ours"
        file.flush()
        for size in (0, 100, len(file) + 512):
            with pytest.raises(io.UnsupportedOperation, match="is a disk"):
                file.resize(size)
        with pytest.raises(io.UnsupportedOperation, match="is a disk"):
            file.stream(grow=True)
        assert file.residency().pages == 256
    descriptor = os.open(disk, os.O_RDONLY)
    with MappedFile(descriptor) as file:
        assert b"ours" == file[5:9]
    os.close(descriptor)
    for mode, kind in (("w+", OSError), ("x+", FileExistsError)):
        with pytest.raises(kind) as caught:
            MappedFile(disk, mode, size=512)
        assert str(disk) == str(caught.value.filename)
    subprocess.run(["blockdev", "--flushbufs", disk], check=True)
    assert content[:5] + b"ours" + content[9:] == (tmp_path / "image").read_bytes()


# Files without a name


@linux
@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_memfd(mode: Any) -> None:
    """A memfd can be mapped, and grows and shrinks like a file."""
    descriptor = os.memfd_create("memory")
    os.write(descriptor, b"x" * (PAGE_SIZE + 5))
    with MappedFile(descriptor, mode) as file:
        assert (PAGE_SIZE + 5, ord("x")) == (len(file), file[-1])
        if mode == "r+":
            file.resize(3 * PAGE_SIZE)
            file[-1] = 7
            file.flush()
            file.resize(10)
            assert b"x" * 10 == os.pread(descriptor, 100, 0)
    os.close(descriptor)


@linux
def test_sealed_memfd() -> None:
    """Resizing a sealed memfd raises an error that names the seal, and changes nothing."""
    import fcntl

    descriptor = os.memfd_create("memory", os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 100)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
    with MappedFile(descriptor, "r+") as file:
        for size in (50, 200, 100_000):
            with pytest.raises(PermissionError):
                file.resize(size)
            assert (100, 100) == (len(file), os.fstat(descriptor).st_size)
        file[99] = 1
    with pytest.raises(PermissionError):
        MappedFile(descriptor, "w+", size=10)
    assert 100 == os.fstat(descriptor).st_size
    os.close(descriptor)


@linux
def test_tmpfile(tmp_path: Path) -> None:
    """A file without a name can be mapped by its descriptor."""
    try:
        descriptor = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR, 0o600)
    except OSError as error:
        pytest.skip(f"no O_TMPFILE on this file system: {error}")
    with MappedFile(descriptor, "w+", size=PAGE_SIZE) as file:
        file[0] = 1
        with pytest.raises(ValueError, match="no name"):
            file.replaced  # noqa: B018
    assert b"\1" + bytes(PAGE_SIZE - 1) == os.pread(descriptor, 2 * PAGE_SIZE, 0)
    os.close(descriptor)


@linux
def test_direct(tmp_path: Path) -> None:
    """A descriptor opened with O_DIRECT can be mapped."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 8192)
    try:
        descriptor = os.open(path, os.O_DIRECT | os.O_RDWR)
    except OSError as error:
        pytest.skip(f"no O_DIRECT on this file system: {error}")
    with MappedFile(descriptor, "r+") as file:
        file[1] = 7
        file.resize(100)
        file.flush()
    os.close(descriptor)
    assert b"x\7" + b"x" * 98 == path.read_bytes()


# Huge pages


@pytest.fixture
def huge() -> Iterator[tuple[int, int]]:
    """Make a memfd of two huge pages. Yield its descriptor, and the size of a huge page."""
    only(LINUX, "Linux only: a memfd of huge pages")
    pool = Path("/proc/sys/vm/nr_hugepages")
    need(pool.exists() and os.access(pool, os.W_OK), "root, and huge pages")
    size = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text("ascii").splitlines()
        if line.startswith("Hugepagesize:")
    )
    before = pool.read_text("ascii")
    pool.write_text(str(int(before) + 4), "ascii")
    descriptor = os.memfd_create("huge", os.MFD_HUGETLB)
    try:
        need(int(pool.read_text("ascii")) >= int(before) + 4, "memory for four huge pages")
        os.ftruncate(descriptor, 2 * size)
        yield descriptor, size
    finally:
        os.close(descriptor)
        pool.write_text(before, "ascii")


def test_huge_pages(huge: tuple[int, int]) -> None:
    """Views of a file of huge pages work at any offset, and no map leaks. A size that is not a
    multiple of a huge page is refused."""
    descriptor, page = huge
    with MappedFile(descriptor, "r+") as file:
        assert 2 * page == len(file)
        file[page - 1], file[page], file[-1] = 1, 2, 3
        for offset, length in (
            (0, 10),
            (PAGE_SIZE, PAGE_SIZE),
            (page - 1, 2),
            (page + PAGE_SIZE + 1, 100),
            (2 * page - 1, 1),
        ):
            before = _probe.file_maps()
            with file.view(offset, length) as view:
                data = view.data
                assert file[offset : offset + length] == view[:]
                view.flush()
                assert view.residency().resident == view.residency().pages
            data.release()
            del data
            assert before == _probe.file_maps()
        file.resize(3 * page)
        file[-1] = 4
        assert (3 * page, 2, 0, 4) == (len(file), file[page], file[2 * page], file[-1])
        file.resize(2 * page)
        assert (2 * page, 2) == (len(file), file[page])
    with MappedFile(descriptor, "c") as file:
        file[page] = 9
    with MappedFile(descriptor) as file:
        assert 2 == file[page]


# Files that cannot be mapped


@posix
def test_files_of_the_kernel() -> None:
    """A file of the kernel with size 0 that cannot be mapped is not treated as an empty file:
    I2."""
    found = [
        path
        for path in (
            "/proc/cpuinfo",
            "/proc/self/status",
            "/sys/kernel/mm/transparent_hugepage/enabled",
            "/sys/power/state",
        )
        if os.path.exists(path)
    ]
    only(found, "needs files of the kernel")
    for path in found:
        for mode in ("r", "c"):
            with pytest.raises(OSError, match="not a regular file that can be mapped") as caught:
                MappedFile(path, mode)
            assert (errno.ENODEV, path) == (caught.value.errno, caught.value.filename)


@posix
def test_what_is_no_file(tmp_path: Path) -> None:
    """Opening character devices, FIFOs, sockets and folders raises an error, and does not wait."""
    fifo, address = tmp_path / "fifo", tmp_path / "socket"
    os.mkfifo(fifo)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(address))
        for path in ("/dev/null", "/dev/zero", fifo, address, tmp_path):
            for mode in ("r", "c", "r+"):
                with pytest.raises(OSError) as caught:
                    MappedFile(path, mode)
                assert caught.value.errno in (
                    errno.ENODEV,
                    errno.ENXIO,
                    errno.EISDIR,
                    errno.EOPNOTSUPP,
                )
                assert str(path) == str(caught.value.filename)
    reading, writing = os.pipe()
    for descriptor in (reading, writing):
        with pytest.raises(OSError):
            MappedFile(descriptor)
        os.close(descriptor)


# Large private maps


@linux
def test_larger_than_memory(tmp_path: Path) -> None:
    """A private map of a file larger than memory only needs memory for the written pages: C4."""
    only(
        Path("/proc/sys/vm/overcommit_memory").read_text("ascii").strip() != "2",
        "not with strict overcommit",
    )
    path = tmp_path / "large"
    size = 4 * os.sysconf("SC_PHYS_PAGES") * PAGE_SIZE
    with open(path, "wb") as file:
        file.truncate(size)
    with MappedFile(path, "c") as mapped, mapped.view(5, size - 5) as view:
        mapped[size - 1] = 1
        view[0] = 2
        assert (1, 0) == (mapped[-1], mapped[5])


# New files


def test_a_new_file_is_whole_or_not_there(tmp_path: Path) -> None:
    """A program that looks while a file is created sees no file, or the full size: S5."""
    path = tmp_path / "new"
    program = """
import sys, threading
from mappedfile import MappedFile
print("ready", flush=True)
for turn in range(int(sys.argv[2])):
    MappedFile(f"{sys.argv[1]}-{turn}", "x+", size=3_000_001 + turn).close()
"""
    seen: set[str] = set()
    with start_python(*code(program), path, 40) as maker:
        assert "ready" == maker.hear()
        while maker.process.poll() is None:
            for turn in range(40):
                try:
                    size = os.path.getsize(f"{path}-{turn}")
                except FileNotFoundError:
                    break
                assert 3_000_001 + turn == size
                seen.add(str(turn))
        maker.end()
    assert {f"new-{turn}" for turn in range(40)} == set(os.listdir(tmp_path))


@posix
def test_nothing_is_left_of_a_new_file(tmp_path: Path) -> None:
    """A process killed during creation leaves no file, on file systems with O_TMPFILE."""
    try:
        os.close(os.open(tmp_path, getattr(os, "O_TMPFILE", 0) | os.O_RDWR, 0o600))
    except OSError as error:
        pytest.skip(f"no O_TMPFILE on this file system: {error}")
    program = """
import os, signal, sys
from support import import_with
from mappedfile._native import ffi, lib
@ffi.callback("int(mf_file *, mf_growth *, mf_section *)")
def grow(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)
import_with(grow=grow).MappedFile(sys.argv[1], "x+", size=1000)
"""
    done = run_python(*code(program), tmp_path / "new", check=False)
    assert -9 == done.returncode
    assert [] == os.listdir(tmp_path)


def test_a_new_file_that_cannot_be(tmp_path: Path) -> None:
    """An existing name, a missing folder and a size that is too large raise errors, and leave no
    file."""
    path = tmp_path / "new"
    path.write_bytes(b"theirs")
    with pytest.raises(FileExistsError) as caught:
        MappedFile(path, "x+", size=10)
    assert str(path) == str(caught.value.filename)
    assert b"theirs" == path.read_bytes()
    with pytest.raises(FileNotFoundError):
        MappedFile(tmp_path / "no" / "new", "x+", size=10)
    with pytest.raises(OSError):
        MappedFile(tmp_path / "large", "x+", size=2**62)
    with pytest.raises(FileNotFoundError):
        MappedFile("", "x+", size=10)
    assert ["new"] == os.listdir(tmp_path)
    if os.name == "posix":
        os.symlink("nowhere", tmp_path / "link")
        with pytest.raises(FileExistsError):
            MappedFile(tmp_path / "link", "x+", size=10)
        old = os.umask(0o027)
        try:
            MappedFile(tmp_path / "mine", "x+", size=10).close()
        finally:
            os.umask(old)
        assert 0o640 == os.stat(tmp_path / "mine").st_mode & 0o777


@linux
@pytest.mark.parametrize("lacks", ["NO_RENAMES", "NO_LINKS"])
def test_a_new_file_on_a_plain_file_system(tmp_path: Path, lacks: str) -> None:
    """A new file appears with its full size also on file systems without O_TMPFILE, and without
    hard links or RENAME_NOREPLACE."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    need(compiler, "a C compiler")
    library, folder = tmp_path / "plain.so", tmp_path / "folder"
    folder.mkdir()
    source = Path(__file__).with_name("plain_files.c")
    subprocess.run([str(compiler), "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    program = """
import os, sys
from support import import_with
from mappedfile._native import ffi, lib
@ffi.callback("int(mf_file *, mf_growth *, mf_section *)")
def grow(*arguments):
    assert min(os.listdir(".")).startswith(".mappedfile-"), os.listdir(".")
    return lib.mf_grow(*arguments)
MappedFile = import_with(grow=grow).MappedFile
with MappedFile("new", "x+", size=10_000) as file:
    file[9_999] = 7
    assert os.listdir(".") == ["new"]
try:
    MappedFile("new", "x+", size=10)
except FileExistsError as error:
    assert error.filename == "new"
assert (os.path.getsize("new"), os.listdir(".")) == (10_000, ["new"])
try:
    MappedFile(os.path.abspath("large"), "x+", size=2**62)
except OSError:
    pass
assert os.listdir(".") == ["new"]
"""
    environment = {"LD_PRELOAD": str(library), lacks: "1"}
    run_python(*code(program), cwd=folder, env=environment, quiet=True)


@linux
def test_a_new_file_on_fuse(tmp_path: Path) -> None:
    """On FUSE the kernel can treat a file with two names as two files. A new file is one file:
    programs that open its name see what is written to the map."""
    need(mounts() and shutil.which("bindfs"), "bindfs, and to mount it")
    under, place = tmp_path / "under", tmp_path / "place"
    under.mkdir()
    place.mkdir()
    # bindfs continues in the background: a pipe would stay open.
    subprocess.run(["bindfs", under, place], stdout=subprocess.DEVNULL, check=True)
    try:
        path = place / "new"
        with MappedFile(path, "x+", size=3 * PAGE_SIZE) as file, MappedFile(path, "r+") as other:
            file[5:10] = b"hello"
            assert (b"hello", b"hello") == (other[5:10], path.read_bytes()[5:10])
            other[7] = 76
            assert b"heLlo" == file[5:10]
        assert ["new"] == os.listdir(under)
    finally:
        unmount(place)


# Names and descriptors


def inode_of(path: Path) -> int:
    """Return the inode number of a file. On Wine 8, os.stat does not have it."""
    with open(path, "rb") as file:
        return os.fstat(file.fileno()).st_ino


def test_fileno_is_a_descriptor(tmp_path: Path) -> None:
    """fileno() is a descriptor on every system. Others can use it, and it closes with the file.
    ``handle`` is the handle of the system: I1."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    before = _probe.handles()
    with MappedFile(path, "r+") as file:
        descriptor = file.fileno()
        assert descriptor == file.fileno()
        assert (100, os.fstat(descriptor).st_ino) == (os.fstat(descriptor).st_size, inode_of(path))
        assert not os.get_inheritable(descriptor)
        if sys.platform == "win32":
            import msvcrt

            assert isinstance(file.handle, int)
            assert file.handle != msvcrt.get_osfhandle(descriptor)
        else:
            assert descriptor == file.handle
        # On Windows, one of these may have the number of the handle.
        many = [os.open(path, os.O_RDONLY) for _ in range(300)]
        with MappedFile(file, "r+") as same:
            same[0] = 65
        for each in many:
            os.close(each)
        assert (65, b"A") == (file[0], path.read_bytes()[:1])
        with mmap.mmap(descriptor, 0) as standard:
            assert b"Ax" == standard[:2]
        file.close()
        assert before == _probe.handles()
        with pytest.raises(OSError):
            os.fstat(descriptor)
        for ask in (file.fileno, lambda: file.handle):
            with pytest.raises(ValueError, match="closed"):
                ask()


def test_replaced(tmp_path: Path) -> None:
    """``replaced`` is true if the name leads to another file, or to none."""
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(b"one")
    with MappedFile(path, "r+") as file:
        assert not file.replaced
        file.resize(100)
        file[0] = 1
        assert not file.replaced
        os.rename(path, other)
        assert file.replaced
        path.write_bytes(b"two")
        assert file.replaced
        os.unlink(path)
        os.rename(other, path)
        assert not file.replaced
    with pytest.raises(ValueError, match="closed"):
        file.replaced  # noqa: B018


def test_refresh_tells(tmp_path: Path) -> None:
    """refresh() returns whether anything has changed."""
    path = tmp_path / "file"
    path.write_bytes(b"one")
    with MappedFile(path, "r+") as file:
        assert file.refresh() is False
        with open(path, "ab") as others:
            others.write(b"two")
        assert file.refresh() is True
        assert (b"onetwo", False) == (file[:], file.refresh())
        file.resize(100)
        assert file.refresh() is False


def test_what_was_never_seen_is_never_cut(tmp_path: Path) -> None:
    """A resize without refresh() raises an error if another object appended to the file. No data is
    lost: S3."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    with MappedFile(path, "r+") as one, MappedFile(path, "r+") as two:
        one[0], two[0]
        two.resize(200)
        two[100:200] = b"y" * 100
        for size in (150, 101, 50, 0):
            with pytest.raises(ValueError, match=r"from 100 bytes to 200.*refresh\(\) first"):
                one.resize(size)
            assert (100, 200) == (len(one), os.path.getsize(path))
        assert one.refresh()
        one.resize(250)
        assert b"x" * 99 + b"y" * 100 + bytes(50) == one[1:]
    assert 250 == os.path.getsize(path)
