"""A user's program without a mistake: no type checker says a word about it."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import BinaryIO, assert_type

import numpy as np

import mappedfile
from mappedfile import Advice, MappedFile, MappingFault, Mode, Residency, View
from mappedfile import mmap as layer


def open_all(path: Path, descriptor: int, stream: BinaryIO, mode: Mode) -> None:
    with MappedFile(path) as file:
        assert_type(file, MappedFile)
    with MappedFile(os.fspath(path), "r+", reserve=1 << 30), MappedFile(os.fsencode(path), "c"):
        pass
    MappedFile(descriptor, "w+", size=10, sparse=True).close()
    MappedFile(path, "x+", size=np.int64(10), populate=True).close(strict=True)
    MappedFile(stream, mode="r").close()
    assert_type(file.mode, Mode)
    assert_type(file.name, str | bytes | int)
    again: Mode = mode
    del again


def use(file: MappedFile) -> View:
    assert_type(file[0], int)
    assert_type(file[0:3], bytes)
    assert_type(file[::2], bytes)
    file[0] = 65
    file[np.int64(1)] = np.uint8(65)
    file[0:2] = b"ab"
    file[0:2] = bytearray(2)
    file[0:2] = memoryview(b"ab")
    file[0:2] = np.zeros(2, "u1").data
    assert_type(len(file), int)
    assert_type(b"x" in file, bool)
    assert_type(65 in file, bool)
    assert_type(list(file), list[int])
    assert_type(file.find(b"x"), int)
    assert_type(file.find(65, 1, None), int)
    assert_type(file.rfind(bytearray(b"x"), None, -1) + file.count(b"", 2), int)
    assert_type(file.data, memoryview[int])
    file.flush()
    file.flush(0, 10, durable=False)
    assert_type(file.advise("sequential"), bool)
    assert_type(file.advise(Advice.WILLNEED, 0, 10), bool)
    assert_type(file.residency(), Residency)
    assert_type(file.residency().fraction, float)
    file.lock()
    file.unlock()
    file.resize(100)
    assert_type(file.refresh(), bool)
    assert_type(file.fileno(), int)
    states = (file.closed, file.mapped, file.faulted, file.readonly)
    assert_type(states, tuple[bool, bool, bool, bool])
    with file.view(np.int64(3), length=10, populate=True) as view:
        assert_type(view, View)
        assert_type(view.offset, int)
    return file.view()


def pass_on(view: View, sink: BinaryIO) -> None:
    memoryview(view)
    sink.write(view)
    bytes(view)
    np.frombuffer(view.data, "<f4")
    anonymous = mmap.mmap(-1, 10)
    anonymous[:] = view[:10]


class Sub(MappedFile):
    def first(self) -> int:
        return self[0]


def ask(fault: MappingFault) -> None:
    assert_type(fault.offset, int | None)
    assert_type(mappedfile.fault_guard(), bool)
    assert_type(mappedfile.capabilities().reserve, bool)
    assert_type(mappedfile.PAGE_SIZE, int)
    assert_type(Sub("x").first(), int)
    assert_type(Sub("x"), Sub)


def mmap_in_its_place(descriptor: int) -> None:
    with layer.mmap(descriptor, 0, access=layer.ACCESS_READ) as m:
        assert_type(m, layer.mmap)
        assert_type(m[0], int)
        assert_type(m[0:5], bytes)
        assert_type(m.readline(), bytes)
        assert_type(m.find(b"a", 3), int)
        assert_type(m.seek(0, os.SEEK_END), int)
        for byte in m:
            assert_type(byte, bytes)
        memoryview(m).release()
        m.flush(0, layer.PAGESIZE, flags=layer.MS_ASYNC)
        m.madvise(layer.MADV_WILLNEED)
    layer.mmap(-1, 10, None, layer.ACCESS_COPY, 0, trackfd=False).resize(20)
    layer.mmap(-1, 10, layer.MAP_PRIVATE, layer.PROT_READ).set_name("spare")


class Anonymous(layer.mmap):
    def __new__(cls, size: int) -> Anonymous:
        return super().__new__(cls, -1, size)
