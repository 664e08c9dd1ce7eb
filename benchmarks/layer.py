"""``mappedfile.mmap`` against the standard library's ``mmap``: the same code on both."""

from __future__ import annotations

import mmap
import random
import struct
from typing import TYPE_CHECKING, Any

from mappedfile import mmap as layer

from .harness import Samples, Setting, row

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = 4096
MIB = 1 << 20
BAR = 1.15


def _pair(at: Setting, size: int = 4 * MIB, content: bytes = b"") -> dict[str, Any]:
    path = at.file(size, content or random.Random(1).randbytes(MIB))
    with open(path, "r+b") as f:
        m, w = mmap.mmap(f.fileno(), 0), layer.mmap(f.fileno(), 0)
    assert m[:] == w[:]  # this also maps every page
    return {"m": m, "w": w, "i": size // 2}


def _same(at: Setting, code: str, names: dict[str, Any], *, loop: bool = True) -> Samples:
    """Measure a piece of code in which ``m`` is the map."""
    return at.compare(
        code, code.replace("m.", "w.").replace("m[", "w[").replace("(m", "(w"), names, loop=loop
    )


def _row(name: str, code: str, bar: float = BAR, content: bytes = b"", **more: Any) -> None:
    @row(f"mmap-{name}", code, "the same", bar)
    def measure(at: Setting) -> Samples:
        return _same(at, code, _pair(at, content=content) | more)


@row("mmap-open", "open(), mmap(fd, 0), first byte, close", "the same", BAR)
def opening(at: Setting) -> Samples:
    names = {"path": str(at.file(MIB)), "m": mmap.mmap, "w": layer.mmap}
    code = "f = open(path, 'r+b'); a = {}(f.fileno(), 0); a[0]; a.close(); f.close()"
    return at.compare(code.format("m"), code.format("w"), names)


@row("mmap-part", "mmap(fd, 4096, offset=off), first byte, close", "the same", BAR)
def part(at: Setting) -> Samples:
    with open(at.file(MIB), "r+b") as f:
        names = {"fd": f.fileno(), "off": 17 * PAGE, "m": mmap.mmap, "w": layer.mmap}
        code = "a = {}(fd, 4096, offset=off); a[0]; a.close()"
        return at.compare(code.format("m"), code.format("w"), names)


_LINES = (b"x" * 43 + b"\n") * 1000

_row("item", "m[i]")
_row("set", "m[i] = 7")
_row("slice-64", "m[a:b]", a=1000, b=1064)
_row("slice-1M", "m[a:b]", a=1000, b=1000 + MIB)
_row("slice-step", "m[a:b:2]", a=1000, b=1000 + 4096)
_row("set-64", "m[a:b] = data", a=1000, b=1064, data=b"y" * 64)
_row("len", "len(m)")
_row("memoryview", "memoryview(m)")


@row("mmap-unpack", "struct.unpack_from('<I', m, 8)", "the same", BAR)
def unpack(at: Setting) -> Samples:
    names = _pair(at) | {"unpack": struct.unpack_from}
    return at.compare("unpack('<I', m, 8)", "unpack('<I', w, 8)", names, loop=True)


_row("find-near", "m.find(needle, 0)", needle=b"\n", content=_LINES)
_row("rfind-near", "m.rfind(needle, 0)", needle=b"\n", content=_LINES)
_row("readline", "m.readline() or m.seek(0)", content=_LINES)
_row("read-64", "m.read(64) or m.seek(0)")
_row("read-byte", "m.read_byte() if m.tell() < n else m.seek(0)", n=4 * MIB)
_row("write-64", "m.write(data); m.seek(0)", data=b"z" * 64)
_row("tell", "m.tell()")
_row("size", "m.size()")
_row("flush", "m.flush(0, 4096)")


def _resizing(at: Setting) -> tuple[Callable[[], float], Callable[[], float]]:
    from .harness import stopwatch

    def side(kind: Any, name: str) -> Callable[[], float]:
        file = open(at.sparse(MIB, name), "r+b")  # noqa: SIM115 (it stays open)
        m = kind(file.fileno(), 0)
        size = MIB

        def grow() -> float:
            nonlocal size
            size += PAGE
            return stopwatch(m.resize, size)

        return grow

    return side(mmap.mmap, "peer"), side(layer.mmap, "ours")


@row("mmap-resize", "m.resize() by a page", "the same", BAR)
def resizing(at: Setting) -> Samples:
    peer, ours = _resizing(at)
    return at.alternate(peer, ours, at.pick(2000, 400))
