"""Every search algorithm of this processor returns the same results.

tests/search_paths.c includes search.c. Other tests of searching only run the algorithm that this
processor selects.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from support import need

pytest.importorskip("fcntl", reason="no POSIX here")

HERE = Path(__file__).parent
SANITIZERS = "-fsanitize=address,undefined"
#: The algorithms besides Two-Way and words, which every processor has.
VECTORS = {"x86_64": ["sse2"], "AMD64": ["sse2"], "aarch64": ["neon"], "arm64": ["neon"]}
CPUINFO = Path("/proc/cpuinfo")


def build(folder: Path, *options: str) -> Path:
    """Compile tests/search_paths.c."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    need(compiler, "a C compiler")
    program = folder / "search_paths"
    sources = ["-I", HERE.parent / "backends", HERE / "search_paths.c"]
    subprocess.run([str(compiler), *options, "-o", program, *sources, "-lpthread"], check=True)
    return program


def run(program: Path, *arguments: object) -> list[str]:
    """Run the program, and return the lines of its output."""
    # Looking for leaks needs permission to trace the process.
    environment = os.environ | {"ASAN_OPTIONS": "detect_leaks=0"}
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env=environment
    )
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout.splitlines()


def test_every_way(folder: Path) -> None:
    """Each algorithm finds the same as a simple search, for thousands of inputs. It reads no byte
    outside, even if the bytes change during the search."""
    found = run(build(folder, "-O2"), "compare", 8000)[-1].split(", ")
    expected = ["two-way", "words", *VECTORS.get(platform.machine(), [])]
    assert expected == [way for way in found if way != "avx2"]
    if CPUINFO.exists():
        assert (" avx2 " in CPUINFO.read_text()) == ("avx2" in found)


def test_every_way_sanitized(folder: Path) -> None:
    """The same with AddressSanitizer and UndefinedBehaviorSanitizer."""
    empty = folder / "empty.c"
    empty.write_text("int main(void) { return 0; }")
    compiler = shutil.which("cc") or "cc"
    can = subprocess.run(
        [compiler, SANITIZERS, "-o", folder / "empty", empty], capture_output=True, check=False
    )
    need(can.returncode == 0, "a compiler with sanitizers")
    run(build(folder, "-O1", "-g", SANITIZERS, "-fno-sanitize-recover=all"), "compare", 2000)


def test_linear(folder: Path) -> None:
    """The number of steps for each byte of haystack and needle is limited for every input. Without
    Two-Way it is not."""
    program = build(folder, "-O2")
    assert float(run(program, "worst", 4096)[0]) < 4
    assert float(run(program, "worst", 10**12)[0]) > 40
