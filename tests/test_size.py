"""Sizes, on file systems that are small, sparse, or keep bytes behind the end of a file: S1-S8."""

from __future__ import annotations

import errno
import io
import mmap
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support import mounts, needs, only, small_file_system

from mappedfile import GRANULARITY, PAGE_SIZE, MappedFile, capabilities
from mappedfile.contract import CLAUSES, NATIVE, NotHere, Subject
from mappedfile.contract._probe import address_of, file_maps, handles
from mappedfile.contract._size import allocated, past, scribble, scribble_past, system_leaves_holes

MIB = 2**20
TIB = 2**40
on_small_disks = needs(mounts(), "to mount file systems")
SIZES = [clause for clause in CLAUSES.values() if clause.id[0] == "S"]


@pytest.fixture(scope="module", params=["tmpfs", "ext4"])
def small(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """Mount a file system of 16 MiB."""
    with small_file_system(tmp_path_factory.mktemp("small"), request.param, 16 * MIB) as place:
        yield place


@pytest.fixture
def little(small: Path) -> Iterator[Path]:
    """Yield a folder in the small file system. Afterwards all space must be free again."""
    free = shutil.disk_usage(small).free
    folder = small / "folder"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)
    assert shutil.disk_usage(small).free == free, "blocks leak"


@on_small_disks
@pytest.mark.parametrize(
    ("id", "subject"), [(c.id, s) for c in SIZES for s in NATIVE if s.mode in c.modes], ids=str
)
def test_small_disks(id: str, subject: Subject, little: Path) -> None:
    """Every clause of size holds on a small tmpfs and a small ext4. The check of S5 fills the disk:
    S1-S8."""
    CLAUSES[id].check(subject, little)


@on_small_disks
@pytest.mark.parametrize(("mode", "reserve"), [("r+", 0), ("r+", 32 * MIB), ("w+", 0), ("x+", 0)])
def test_full(little: Path, mode: str, reserve: int) -> None:
    """On a full disk, creation and growth raise ENOSPC with the file's name. Nothing leaks, the
    objects stay usable, and the content does not change: S4, S5."""
    path = little / "file"
    content = os.urandom(3 * PAGE_SIZE + 5)
    path.write_bytes(content)
    room = shutil.disk_usage(little).free
    before = handles(), file_maps()
    with MappedFile(path, "r+", reserve=reserve) as file, file.view(PAGE_SIZE + 3) as view:
        array = np.frombuffer(file.data, np.uint8)
        for new in (room + 8 * MIB, 64 * MIB, TIB):
            with pytest.raises(OSError, match="No space left") as caught:
                if mode == "r+":
                    file.resize(new)
                elif mode == "w+":
                    MappedFile(little / "new", "w+", size=new)
                else:
                    MappedFile(little / "new", "x+", size=new)
            name = path if mode == "r+" else little / "new"
            assert (errno.ENOSPC, str(name)) == (caught.value.errno, str(caught.value.filename))
            assert (mode == "w+") == (little / "new").exists()
            assert len(content) == len(file) == path.stat().st_size
            assert content == file[:] == path.read_bytes() == array.tobytes()
            assert content[PAGE_SIZE + 3 :] == view[:]
            assert shutil.disk_usage(little).free >= room - 8 * PAGE_SIZE
            del caught
        view[-1] = 77
        assert 77 == file[-1] == array[-1]
        file.resize(room // 2)
        file[len(content) :] = os.urandom(room // 2 - len(content))
        del array
    assert before == (handles(), file_maps())


@on_small_disks
def test_no_fault_on_allocated(little: Path) -> None:
    """Reserved blocks are usable when the rest of the disk is full: no page faults: S5."""
    with MappedFile(little / "mine", "x+", size=4 * MIB) as file:
        file.resize(5 * MIB)
        with (
            pytest.raises(OSError, match="No space left"),
            open(little / "theirs", "wb", buffering=0) as theirs,
        ):
            while True:
                theirs.write(bytes(PAGE_SIZE))
        file[:] = b"\1" * len(file)
        file.flush()
    assert b"\1" * 5 * MIB == (little / "mine").read_bytes()


@pytest.mark.parametrize("size", [5 * 2**30, TIB])
@pytest.mark.parametrize("subject", NATIVE, ids=str)
@pytest.mark.parametrize("where", ["disk", "shm"])
def test_past_4_gib(folder: Path, subject: Subject, size: int, where: str) -> None:
    """Sparse files of 5 GiB and 1 TiB can be mapped as a whole and in parts, on disk and on tmpfs:
    S7."""
    if where == "shm":
        only(os.path.isdir("/dev/shm"), "no tmpfs at /dev/shm")
        folder = Path("/dev/shm") / f"mappedfile-{os.getpid()}"
        folder.mkdir()
    try:
        past(subject, folder / "file", size)
    except NotHere as why:
        pytest.skip(str(why))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def behind_the_end(folder: Path, sparse: bool) -> None:
    """Write behind the end of files through maps, and grow the files. The written bytes must not
    appear."""
    path = folder / "file"
    for size in (1, 5, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, GRANULARITY + 7):
        for more in (1, PAGE_SIZE - size % PAGE_SIZE, PAGE_SIZE, 3 * PAGE_SIZE + 1):
            path.write_bytes(b"x" * size)
            with MappedFile(path, "r+", sparse=sparse) as file:
                scribble(path, size)
                scribble_past(address_of(file.data), size)
                file.resize(size + more)
                assert b"x" * size + bytes(more) == file[:] == path.read_bytes()


@pytest.mark.parametrize("sparse", [False, True])
def test_bytes_behind_the_end(folder: Path, sparse: bool) -> None:
    """Bytes written through a map behind the end of the file never appear, in the map or in the
    file, after growth by any size: S2."""
    behind_the_end(folder, sparse)


@on_small_disks
@pytest.mark.parametrize("sparse", [False, True])
def test_bytes_behind_the_end_on_small_disks(little: Path, sparse: bool) -> None:
    """The same on ext4, and on tmpfs, which keeps such bytes: S2."""
    behind_the_end(little, sparse)


def test_growing_with_arrays_alive(folder: Path) -> None:
    """Arrays made at every size keep their address, and all show the same bytes: S2."""
    with MappedFile(folder / "file", "x+", size=100) as file:
        arrays = []
        for step in range(1, 40):
            array = np.frombuffer(file.data, np.uint8)
            arrays.append((array, array.ctypes.data))
            file.resize(len(file) + 1000 * step)
            file[50] = step
            assert [(step, address) for _, address in arrays] == [
                (each[50], each.ctypes.data) for each, _ in arrays
            ]
        with pytest.raises(BufferError, match=r"39 buffers"):
            file.resize(10)
        del array, arrays
        file.resize(10)
        assert bytes(10) == file[:]


def test_reserve(folder: Path) -> None:
    """Inside the reserved address space the map does not move. Past it, the map may move: S2."""
    only(capabilities().reserve, "no address space can be reserved here")
    with MappedFile(folder / "file", "x+", size=10, reserve=64 * MIB) as file:
        file[0:10] = b"0123456789"
        address = address_of(file.data)
        for size in (11, 5000, MIB, MIB + 1, 64 * MIB):
            file.resize(size)
            assert (size, address) == (len(file), address_of(file.data))
            assert b"0123456789\0" == file[:11]
            file[size - 1] = 0
        file.resize(64 * MIB + 1)
        assert b"0123456789\0" == file[:11]
        file.resize(5)
        assert (b"01234", 5) == (file[:], len(file.data))
        with pytest.raises(IndexError):
            file[5]
        assert -1 == file.find(b"\0")


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_reserve_costs_no_memory(folder: Path, mode: str) -> None:
    """A terabyte of address space can be reserved, also for private maps. Growth by others inside
    it does not move the map: S8."""
    only(capabilities().reserve, "no address space can be reserved here")
    counting = Path("/proc/sys/vm/overcommit_memory")  # 2 counts all private maps: proc(5)
    only(
        mode != "c" or not counting.exists() or counting.read_text() != "2\n",
        "this system counts all private maps as memory",
    )
    path = folder / "file"
    path.write_bytes(b"content")
    with MappedFile(path, mode, reserve=TIB) as file:
        address = address_of(file.data) if mode != "r" else None
        with open(path, "ab") as others:
            others.write(b"more" * MIB)
        file.refresh()
        assert (b"contentmore", 4 * MIB + 7) == (file[:11], len(file))
        assert address == (address_of(file.data) if mode != "r" else None)


@pytest.mark.parametrize("mode", ["r", "c"])
def test_no_resize(folder: Path, mode: str) -> None:
    """Resizing a file that is not open for writing raises an error with advice: S4."""
    path = folder / "file"
    path.write_bytes(b"content")
    with MappedFile(path, mode) as file:
        for size in (0, 7, 100):
            with pytest.raises(
                io.UnsupportedOperation, match=r"open it in mode 'r\+', 'w\+' or 'x\+'"
            ):
                file.resize(size)
    assert b"content" == path.read_bytes()


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
def test_cut_short_by_others(folder: Path, mode: str) -> None:
    """After others truncate a file, refresh() sets the smaller size. The file can be read and
    grown: S8."""
    only(capabilities().truncate_mapped, "this system does not truncate mapped files")
    path = folder / "file"
    path.write_bytes(b"content" * PAGE_SIZE)
    with MappedFile(path, mode) as file:
        assert b"content" == file[:7]
        os.truncate(path, 5)
        file.refresh()
        assert (5, b"conte") == (len(file), file[:])
        os.truncate(path, 0)
        file.refresh()
        assert (0, b"") == (len(file), file[:])
        if mode == "r+":
            os.truncate(path, 3)  # without a refresh()
            file.resize(6)
            assert bytes(6) == file[:] == path.read_bytes()


@pytest.mark.parametrize("alive", [False, True])
def test_private_changes_survive_refresh(folder: Path, alive: bool) -> None:
    """Bytes written to a private map are kept by refresh() after the file has grown: C4, S8."""
    path = folder / "file"
    path.write_bytes(b"content" * PAGE_SIZE)
    with MappedFile(path, "c") as file:
        file[0:4] = b"mine"
        data = file.data if alive else None
        file.refresh()
        assert b"mineent" == file[:7]
        with open(path, "ab") as others:
            others.write(b" and more")
        file.refresh()
        assert b"mineent" == file[:7]
        assert b"ent and more" == file[-12:]
        del data


def test_growth_in_a_page_with_private_changes(folder: Path) -> None:
    """After refresh(), appended bytes also show in a page that has private changes: S8."""
    path = folder / "file"
    path.write_bytes(b"content")
    with MappedFile(path, "c") as file:
        file[0:4] = b"mine"
        with open(path, "ab") as others:
            others.write(b" and more")
        file.refresh()
        assert b"mineent and more" == file[:]


def test_blocks(folder: Path) -> None:
    """Created and grown files have all their blocks. Sparse files have not, in every mode: S5."""
    only(system_leaves_holes(folder, MIB), "this file system has no holes")
    for mode in ("w+", "x+"):
        for sparse in (False, True):
            path = folder / f"{mode}{sparse}"
            with MappedFile(path, mode, size=MIB + 1, sparse=sparse) as file:
                assert (allocated(path) < MIB) == sparse
                file.resize(3 * MIB + 1)
                assert (allocated(path) < 3 * MIB) == sparse
                assert (allocated(path) < MIB) == sparse
    with open(folder / "plain", "wb") as plain:
        plain.write(b"x" * PAGE_SIZE)
    with MappedFile(folder / "plain", "r+", sparse=True) as file:
        file.resize(3 * MIB)
        assert allocated(folder / "plain") < MIB


@on_small_disks
def test_file_systems_that_cannot_allocate(folder: Path) -> None:
    """If blocks cannot be reserved, they are allocated by writing zeros: S5.

    The file system is ext2 on a loop device, which has no fallocate.
    """
    with small_file_system(folder, "ext2", 8 * MIB) as place:
        path = place / "file"
        path.write_bytes(b"content")
        with MappedFile(path, "r+") as file:
            file.resize(2 * MIB)
            assert allocated(path) >= 2 * MIB
            assert b"content" + bytes(2 * MIB - 7) == file[:]
            with pytest.raises(OSError, match="No space left"):
                file.resize(9 * MIB)
            assert 2 * MIB == len(file) == path.stat().st_size
            assert b"content" + bytes(2 * MIB - 7) == file[:]
        with pytest.raises(OSError, match="No space left"):
            MappedFile(place / "new", "x+", size=9 * MIB)
        assert not (place / "new").exists()


def test_views_near_the_end(folder: Path) -> None:
    """Views work at every offset in the last pages with every length that fits. Longer ones raise
    ValueError: S6."""
    size = 2 * GRANULARITY + 100
    content = np.random.default_rng(1).bytes(size)
    path = folder / "file"
    path.write_bytes(content)
    with MappedFile(path) as file:
        for offset in [
            *range(2 * GRANULARITY - 40, size + 1),
            *range(GRANULARITY - 3, GRANULARITY + 3),
        ]:
            for length in {0, min(1, size - offset), (size - offset) // 2, size - offset}:
                with file.view(offset, length) as view:
                    assert content[offset : offset + length] == view[:]
            for length in (size - offset + 1, size, 2**62):
                if offset:
                    with pytest.raises(ValueError, match="past the end"):
                        file.view(offset, length)
    assert size == path.stat().st_size


def test_errors_keep_nothing(folder: Path) -> None:
    """A kept error of a failed view() does not prevent shrinking the file: S3."""
    with MappedFile(folder / "file", "x+", size=10) as file:
        with pytest.raises(ValueError, match="past the end") as caught:
            file.view(11)
        file.resize(5)
        assert caught.tb is not None


def test_foreign_maps_see_growth(folder: Path) -> None:
    """A map that others made before the file grew shares its bytes with the library's map: S2,
    C1."""
    path = folder / "file"
    path.write_bytes(bytes(PAGE_SIZE))
    with (
        open(path, "r+b") as opened,
        mmap.mmap(opened.fileno(), 0) as foreign,
        MappedFile(path, "r+") as file,
    ):
        file.resize(10 * PAGE_SIZE)
        file[5] = 1
        foreign[6] = 2
        assert (1, 2) == (foreign[5], file[6])
