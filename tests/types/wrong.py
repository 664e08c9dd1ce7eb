"""A program with mistakes: type checkers find an error in each line that ends in "error", and in no
other."""

from __future__ import annotations

import mappedfile
from mappedfile import Advice, MappedFile, Mode, Stream, View, mmap, open_npy

MappedFile()  # error
MappedFile("x", "bogus")  # error
MappedFile("x", "rb")  # error
MappedFile("x", "w+")  # error
MappedFile("x", "x+", sparse=True)  # error
MappedFile("x", "r", size="10")  # error
MappedFile("x", size="10")  # error
MappedFile(1.5)  # error
MappedFile(None)  # error
MappedFile("x", "r", True)  # error
MappedFile("x", reserve=1.5)  # error
mode: Mode = "a"  # error
mappedfile.nope  # error
View()  # error
Stream()  # error


def use(w: MappedFile, view: View) -> None:
    w[0] = b"x"  # error
    w[0] = "x"  # error
    w[0:2] = 7  # error
    w[0:2] = "ab"  # error
    w["0"]  # error
    w[1.5]  # error
    c: str = w[0]  # error
    d: int = w[0:1]  # error
    del w[0]  # error
    w.view("1")  # error
    w.view(0, 10, True)  # error
    w.find("text")  # error
    w.find(b"x", "0")  # error
    w.rfind("text")  # error
    w.count()  # error
    "text" in w  # error
    w.flush(0, 10, False)  # error
    w.startswith("text")  # error
    w.startswith(["x"])  # error
    w.endswith(120)  # error
    w.index()  # error
    w.stream("1")  # error
    w.stream(0, 10, True)  # error
    w.stream().write("text")  # error
    w.stream().readinto(b"x"[0])  # error
    w.stream().nope()  # error
    line: str = w.stream().readline()  # error
    w.array(3.5j)  # error
    w.array("u1", "3")  # error
    w.array("u1", order="K")  # error
    open_npy("x", "rb")  # error
    open_npy("x", "w+", "f8")  # error
    w.advise("someday")  # error
    w.advise(Advice.SOMEDAY)  # error
    w.resize("1")  # error
    w.resize()  # error
    w.closed = True  # error
    w.name = "y"  # error
    w.nope()  # error
    w.nope  # error
    w.close(True)  # error
    view.resize(10)  # error
    view.nope()  # error
    number: str = view.offset  # error
    what: bytes = view.data  # error


def mmap_in_its_place(m: mmap.mmap) -> None:
    mmap.mmap()  # error
    mmap.mmap("path", 0)  # error
    mmap.mmap(3, 0, 1, "tag")  # error
    m["a"]  # error
    m[0] = b"x"  # error
    m.find("a")  # error
    m.find(97)  # error
    m.close(strict=True)  # error
    m.write("a")  # error
    mmap.MAP_NOPE  # error
    line: str = m.readline()  # error
