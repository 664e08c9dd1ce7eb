"""``mappedfile residency``, ``warm``, ``evict`` and ``info``, run as programs, and compared with
vmtouch."""

import importlib.util
import json
import os
import re
import struct
import subprocess
import sys
import zlib

import pytest
from children import code, run_python
from support import LINUX, need, only, small_file_system
from test_cli import ESCAPES, REAL, needs_pty, needs_rich, on_a_terminal, run
from test_memory import by_us, by_vmtouch, half_warm, kept, locked, write

import mappedfile
from mappedfile import PAGE_SIZE, MappedFile, Residency
from mappedfile.cli._bars import level, parts, runs
from mappedfile.cli._numbers import amount, share, span

ABLE = mappedfile.capabilities()
BLOCKS = "\N{LIGHT SHADE}\N{MEDIUM SHADE}\N{DARK SHADE}\N{FULL BLOCK}"

needs_residency = pytest.mark.skipif(
    not ABLE.file_residency, reason="this system reports only the working set"
)
needs_evict = pytest.mark.skipif(not ABLE.evict, reason="this system cannot evict")
needs_matplotlib = pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed"
)

WITHOUT_RICH = [
    sys.executable,
    "-c",
    "import sys; sys.modules['rich'] = None\n"
    "from mappedfile.__main__ import main; sys.exit(main())",
]


def document(*arguments, expect=0):
    """Run a command with --json; return the document."""
    out, _ = run(REAL, *arguments, "--json", expect=expect)
    document = json.loads(out)
    assert (1, PAGE_SIZE) == (document["schema"], document["page_size"])
    return document["files"]


@needs_residency
class TestResidency:
    """``mappedfile residency FILE...``"""

    @needs_evict
    def test_as_vmtouch(self, path):
        """The counts equal those of vmtouch, and the runs are at the right pages."""
        with half_warm(path):
            (file,) = document("residency", path)
            if LINUX:
                assert by_vmtouch(path) == (file["resident"], file["pages"])
        assert (str(path), 8 << 20, (8 << 20) // PAGE_SIZE) == (
            file["file"],
            file["size"],
            file["pages"],
        )
        assert file["resident"] / file["pages"] == file["fraction"]
        assert sum(count for _, count in file["runs"]) == file["resident"]
        assert 0 == file["runs"][0][0]
        assert all(first + count <= (4 << 20) // PAGE_SIZE for first, count in file["runs"])

    @needs_evict
    def test_plain(self, path):
        """In a pipe there is a line of numbers and a bar of blocks, as wide as COLUMNS."""
        with half_warm(path):
            out, err = run(REAL, "residency", path, expect=0)
        assert "" == err
        head, bar = out.splitlines()
        assert f"{path}: 8.0 MiB, 1,024 of 2,048 pages in memory (50.0 %)" == head
        assert BLOCKS[3] * 40 + BLOCKS[0] * 40 == bar

    @needs_evict
    def test_ascii(self, path):
        """If the encoding has no blocks, ASCII characters replace them."""
        with half_warm(path):
            out, _ = run(REAL, "residency", path, expect=0, PYTHONIOENCODING="ascii")
        assert "#" * 40 + "." * 40 == out.splitlines()[1]

    @needs_evict
    @needs_pty
    @needs_rich
    def test_on_a_terminal(self, path):
        """With rich there is one coloured line of 80 blocks."""
        with half_warm(path):
            text = on_a_terminal(REAL, "residency", path, expect=0)
        assert f"\x1b[32m{BLOCKS[3] * 40}\x1b[0m\x1b[90m{BLOCKS[0] * 40}\x1b[0m" in text
        assert ["8.0 MiB", BLOCKS[3] * 40 + BLOCKS[0] * 40] == [
            re.search(r"8.0 MiB", text)[0],
            ESCAPES.sub("", text).splitlines()[-1],
        ]

    @needs_evict
    @needs_pty
    def test_on_a_terminal_without_rich(self, path):
        with half_warm(path):
            text = on_a_terminal(WITHOUT_RICH, "residency", path, expect=0)
        assert "\x1b" not in text
        assert BLOCKS[3] * 40 + BLOCKS[0] * 40 == text.splitlines()[-1]

    def test_what_cannot_be_looked_at(self, path, folder):
        """A file that cannot be opened gives a message, the others are shown, and the exit status
        is 1."""
        path.write_bytes(b"x" * PAGE_SIZE)
        missing, gone = folder / "missing", folder / "gone" / "too"
        out, err = run(REAL, "residency", missing, path, gone, expect=1)
        assert out.startswith(f"{path}: ")
        assert re.search(
            rf"^mappedfile residency: {re.escape(str(missing))}: \S.+\n"
            rf"mappedfile residency: {re.escape(str(gone))}: \S.+\n$",
            err,
        )
        files = document("residency", missing, path, expect=1)
        assert ({"file", "error"}, 1) == ({*files[0]}, files[1]["pages"])

    def test_several(self, path, folder):
        """Several files have a sum. Empty files and sparse files of any size count too."""
        path.write_bytes(b"x" * 5 * PAGE_SIZE)
        empty, large = folder / "empty", folder / "large"
        empty.touch()
        with open(large, "wb") as file:
            file.truncate((6 << 30) + 1)
        with kept(path, (0, 5 * PAGE_SIZE)):
            out, _ = run(REAL, "residency", empty, large, path, expect=0)
        pages = (6 << 30) // PAGE_SIZE + 1
        assert (
            f"{empty}: 0 bytes, 0 of 0 pages in memory\n"
            f"{large}: 6.0 GiB, 0 of {pages:,} pages in memory (0.0 %)\n" in out
        )
        assert out.endswith(f"3 files: 5 of {pages + 5:,} pages in memory (0.1 %)\n")

    @needs_matplotlib
    @needs_evict
    def test_png(self, path, folder):
        """--png draws a strip for each file: dark for pages in memory, light for the others."""
        empty, out = (
            folder / "$math$ that is none, and \N{SNOWMAN}\N{CJK UNIFIED IDEOGRAPH-6587}",
            folder / "out.png",
        )
        empty.touch()
        with half_warm(path):
            said, err = run(REAL, "residency", path, empty, "--png", out, expect=0)
        assert (4, "") == (len(said.splitlines()), err)
        width, rows = decoded(out.read_bytes())
        assert width == 1500
        dark = bytes.fromhex("0b5fa5")
        (row, *_) = [row for row in rows if dark in row]
        places = [at // 4 for at in range(0, len(row), 4) if row[at : at + 3] == dark]
        assert 0.4 * width < len(places) < 0.5 * width
        assert max(places) < 0.5 * width

    def test_png_that_cannot_be(self, path, folder):
        """Without matplotlib, with an unknown format, or in a missing folder, the exit status is 2
        and there is a message."""
        path.write_bytes(b"x")
        without = [sys.executable, "-c", WITHOUT_RICH[2].replace("'rich'", "'matplotlib'")]
        _, err = run(without, "residency", path, "--png", folder / "out.png", expect=2)
        assert (
            "mappedfile residency: --png needs matplotlib: pip install 'mappedfile[plot]'\n" == err
        )
        if importlib.util.find_spec("matplotlib") is not None:
            for wrong in (folder / "missing" / "out.png", folder / "out.nothing"):
                _, err = run(REAL, "residency", path, "--png", wrong, expect=2)
                assert f"mappedfile residency: {wrong}: " in err
                assert "Traceback" not in err


def decoded(png):
    """Return the width and the rows of a PNG of 8-bit RGBA: RFC 2083."""
    data, place, header = b"", 8, None
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        kind, chunk = png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        header = struct.unpack(">IIBB", chunk[:10]) if kind == b"IHDR" else header
        data += chunk if kind == b"IDAT" else b""
        place += 12 + length
    width, height, depth, colour = header
    assert (8, 6) == (depth, colour)
    raw, size, rows = zlib.decompress(data), 4 * width, []
    before = bytes(size)
    for number in range(height):
        method, line = (
            raw[number * (size + 1)],
            bytearray(raw[number * (size + 1) + 1 : (number + 1) * (size + 1)]),
        )
        for at in range(size):
            left, above = line[at - 4] if at >= 4 else 0, before[at]
            corner = before[at - 4] if at >= 4 else 0
            guess = left + above - corner
            nearest = min((left, above, corner), key=lambda each: abs(guess - each))
            line[at] = (line[at] + (0, left, above, (left + above) // 2, nearest)[method]) % 256
        rows.append(bytes(line))
        before = rows[-1]
    return width, rows


class TestWarm:
    """``mappedfile warm FILE...``"""

    @needs_evict
    def test_warm(self, path):
        """Afterwards all of the file is in memory; vmtouch agrees."""
        write(path, (70 << 20) + 5)
        pages = (70 << 20) // PAGE_SIZE + 1
        for _ in range(10):  # the system may take pages away at any time
            out, err = run(REAL, "warm", path, expect=0)
            assert "" == err
            assert re.match(
                rf"{re.escape(str(path))}: 70.0 MiB in \d+\.\d\d s, [\d,]+\.\d MiB/s[;\n]", out
            )
            said = by_vmtouch(path) if LINUX else by_us(path)
            if (pages, pages) == said:
                assert out.endswith("iB/s\n")
                return
        pytest.fail(f"{said} is not all of it")

    def test_errors(self, path, folder):
        path.write_bytes(b"x" * 10)
        empty = folder / "empty"
        empty.touch()
        out, err = run(REAL, "warm", folder / "missing", empty, folder / "gone", path, expect=1)
        assert [str(empty), str(path), "2 files"] == [
            line.rpartition(": ")[0] for line in out.splitlines()
        ]
        assert 2 == err.count("mappedfile warm: ")
        assert "Traceback" not in err

    @needs_pty
    @needs_rich
    def test_rich(self, path):
        """On a terminal there is a bar that disappears, with the amount and the rate."""
        path.write_bytes(bytes(200 << 20))
        text = on_a_terminal(REAL, "warm", path, expect=0, COLUMNS="160")
        assert "━" in text
        # Both sizes have the same unit. The time left is shown.
        assert re.search(
            r" \d+\.\d of 200\.0 MiB, [\d,]+\.\d MiB/s, \d+:\d\d left  file", ESCAPES.sub("", text)
        )
        assert f"{path}: 200.0 MiB in" in ESCAPES.sub("", text).replace("\n", "")

    @needs_pty
    def test_terminal_without_rich(self, path):
        path.write_bytes(bytes(200 << 20))
        text = on_a_terminal(WITHOUT_RICH, "warm", path, expect=0)
        assert re.search(r"\r200\.0 of 200\.0 MiB, [\d,]+\.\d MiB/s, 0:00 left  file", text)
        assert "\x1b" not in text


@needs_evict
class TestEvict:
    """``mappedfile evict FILE...``"""

    def test_evict(self, path):
        """Pages in memory are evicted, dirty ones too, and the file has the written data; vmtouch
        agrees."""
        content = os.urandom((9 << 20) + 5)
        path.write_bytes(content)
        out, err = run(REAL, "evict", path, expect=0)
        assert "" == err
        numbers = re.fullmatch(
            rf"{re.escape(str(path))}: ([\d,]+) of ([\d,]+) pages evicted\n", out
        ).groups()
        evicted, before = (int(number.replace(",", "")) for number in numbers)
        assert 0 < evicted == before
        if LINUX:
            assert (0, len(content) // PAGE_SIZE + 1) == by_vmtouch(path)
        assert content == path.read_bytes()

    def test_what_stays(self, path):
        """Locked pages stay, and the message says so."""
        only(LINUX, "Linux only: reads the locked pages from /proc")
        path.write_bytes(os.urandom(20 * PAGE_SIZE))
        with MappedFile(path) as file, file.view(0, 5 * PAGE_SIZE) as view:
            view.lock()
            assert 5 == locked()
            out, _ = run(REAL, "evict", path, expect=0)
            evicted, of, stay = map(
                int, re.findall(r"\d+(?= of| pages| remain)", out.removeprefix(str(path)))
            )
            assert (of, True) == (evicted + stay, stay >= 5)

    def test_tmpfs(self, folder):
        """On tmpfs all pages stay, and the message says so."""
        with small_file_system(folder, "tmpfs", 1 << 20) as place:
            (place / "file").write_bytes(bytes(10 * PAGE_SIZE))
            out, _ = run(REAL, "evict", place / "file", expect=0)
        assert out.endswith(
            "0 of 10 pages evicted; 10 remain: they are mapped, or the file system is in memory\n"
        )

    def test_errors(self, path, folder):
        path.write_bytes(b"x")
        out, err = run(REAL, "evict", folder / "missing", path, folder / "gone", expect=1)
        assert out.startswith(f"{path}: ")
        assert 2 == err.count("mappedfile evict: ")


@needs_evict
def test_files_of_others(path):
    """A file that another user owns and this one may only read can be warmed and evicted. Its
    residency is unknown."""
    only(
        hasattr(os, "geteuid") and os.geteuid() == 0 and LINUX,
        "Linux and root only: becomes another user",
    )
    path.write_bytes(os.urandom(20 * PAGE_SIZE))
    path.chmod(0o444)
    for folder in path.parents[:3]:
        folder.chmod(0o755)
    program = """
import os, sys
from mappedfile.__main__ import main
# Imports happen before the user changes.
for command in ("residency", "warm", "evict", "info"):
    main([command, sys.argv[1]])
os.setgid(65534), os.setuid(65534)
print("--")
for command in ("warm", "residency", "evict"):
    print(main([command, sys.argv[1]]))
"""
    done = run_python(*code(program), path)
    lines = done.stdout.partition("--\n")[2].splitlines()
    assert re.match(r".*: 80.0 KiB in [\d.]+ s, [\d,.]+ KiB/s$", lines[0])
    assert ["0", "1"] == lines[1:3]
    assert [
        f"{path}: evicted; only the owner of the file, and processes that may write to it,"
        " can see how many pages remain",
        "0",
    ] == lines[3:]
    reason = "on Linux, only the owner of a file, and processes that may write to it,"
    reason += " can see its residency"
    assert f"mappedfile residency: {path}: {reason}\n" == done.stderr
    if LINUX:
        assert 0 == by_vmtouch(path)[0]


class TestInfo:
    """``mappedfile info FILE``"""

    def test_lines(self, path):
        path.write_bytes(bytes(3 * PAGE_SIZE))
        with kept(path, (0, 3 * PAGE_SIZE)):
            out, err = run(REAL, "info", path, expect=0)
        assert "" == err
        lines = out.splitlines()
        assert str(path) == lines[0]
        said = {line[2:15].strip(): line[15:] for line in lines[1:]}
        assert [
            "size",
            "on disk",
            "mode",
            "maps",
            "page size",
            "granularity",
            "huge pages",
            "in memory",
        ] == [*said]
        assert f"{3 * PAGE_SIZE:,} bytes (12.0 KiB)" == said["size"]
        assert said["mode"].endswith("opens in 'r', 'r+', 'c'")
        assert (f"{PAGE_SIZE:,} bytes", f"{mappedfile.GRANULARITY:,} bytes") == (
            said["page size"],
            said["granularity"],
        )
        assert ("3 of 3 pages (100.0 %)" if ABLE.file_residency else "unknown") == said["in memory"]
        if LINUX:
            assert re.search(rf"\({os.getpid()}\)", said["maps"])

    def test_json(self, path, folder):
        """The facts equal those from other sources of the system."""
        path.write_bytes(b"x" * (PAGE_SIZE + 1))
        with MappedFile(path) as file, file.view(0, 5), file.view(0, PAGE_SIZE):
            file[0]
            facts, missing = document("info", path, folder / "missing", expect=1)
        assert (PAGE_SIZE + 1, 2, PAGE_SIZE, mappedfile.GRANULARITY) == tuple(
            facts[key] for key in ("size", "pages", "page_size", "granularity")
        )
        assert ["r", "r+", "c"] == facts["modes"]
        assert {"file", "error"} == {*missing}
        if LINUX:
            assert path.stat().st_blocks * 512 == facts["allocated"]
            assert [(os.getpid(), 3)] == [(each["process"], each["maps"]) for each in facts["maps"]]
            with open(
                "/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", encoding="ascii"
            ) as size:
                assert int(size.read()) == facts["huge_pages"]["size"]
        if not ABLE.file_residency:
            assert facts["resident"] is None

    def test_huge_pages(self, folder):
        """The kernel says whether maps of a file can have huge pages, for example by the mount
        options of tmpfs."""
        for options, expected in (("always", True), ("never", False)):
            with small_file_system(folder, "tmpfs", 16 << 20) as place:
                done = subprocess.run(
                    ["mount", "-o", f"remount,huge={options}", place],
                    capture_output=True,
                    check=False,
                )
                need(done.returncode == 0, "a kernel with huge pages in tmpfs")
                (place / "file").write_bytes(bytes(4 << 20))
                (file,) = document("info", place / "file")
                assert expected == file["huge_pages"]["eligible"]
            (folder / "mnt-tmpfs").rmdir()

    def test_modes(self, path):
        """The listed modes are those in which the user may open the file."""
        only(
            hasattr(os, "geteuid") and os.geteuid() == 0 and LINUX,
            "Linux and root only: becomes another user",
        )
        path.write_bytes(b"x")
        path.chmod(0o444)
        for folder in path.parents[:3]:
            folder.chmod(0o755)
        program = """
import os, sys
from mappedfile.cli._info import facts
facts(sys.argv[1])
os.setgid(65534), os.setuid(65534)
known = facts(sys.argv[1])
print(*known["modes"], known["resident"], known["permissions"])
"""
        done = run_python(*code(program), path)
        assert "r c None -r--r--r--" == done.stdout.strip()


@pytest.mark.skipif(ABLE.file_residency, reason="this system supports the command")
@pytest.mark.parametrize("command", ["residency", "evict"])
def test_what_the_system_cannot_do(path, command):
    """A command that the system does not support names the capability; the exit status is 2."""
    path.write_bytes(b"x")
    out, err = run(REAL, command, path, expect=2)
    assert "" == out
    assert re.fullmatch(
        rf"mappedfile {command}: this system .*\(capabilities\(\)\.\w+ is false\)\n", err
    )


class TestParts:
    """The parts of the bars."""

    def test_parts(self):
        """Cells divide the pages evenly. With more cells than pages, a page has several cells."""
        assert [1.0, 0.0, 0.5] == parts(Residency(b"\1\1\0\0\1\0"), 3)
        assert [1.0, 1.0, 0.0, 0.0] == parts(Residency(b"\1\0"), 4)
        assert [0.0] == parts(Residency(b"\0"), 1)
        for pages in range(1, 40):
            for cells in range(1, 40):
                assert [1.0] * cells == parts(Residency(b"\1" * pages), cells)
                only_last = parts(Residency(b"\0" * (pages - 1) + b"\1"), cells)
                assert only_last[-1] > 0

    def test_runs(self):
        assert [(0, 2), (4, 1)] == runs(Residency(b"\1\1\0\0\1\0"))
        assert [] == runs(Residency(b"\0\0"))
        assert [] == runs(Residency())
        assert [(1, 2)] == runs(Residency(b"\0\1\1"))

    def test_words(self):
        """A part of the pages is never shown as 0 % or 100 %."""
        assert [0, 1, 1, 2, 2, 3] == [level(part) for part in (0, 0.001, 0.499, 0.5, 0.999, 1)]
        for some, of, part in (
            (0, 9, "0.0"),
            (1, 10**6, "0.1"),
            (10**6 - 1, 10**6, "99.9"),
            (3, 3, "100.0"),
        ):
            assert f"{some:,} of {of:,} pages in memory ({part} %)" == share(some, of)
        assert "0 of 0 pages in memory" == share(0, 0)
        assert ["0 bytes", "1 byte", "1,023 bytes", "1.0 KiB", "1.5 GiB", "2,048.0 PiB"] == [
            amount(size) for size in (0, 1, 1023, 1024, 3 << 29, 2 << 60)
        ]
        assert "1,536.0 MiB" == amount(3 << 29, "MiB")
        assert ["0:00", "0:59", "1:00", "1:00:05"] == [
            span(seconds) for seconds in (0.4, 59, 59.7, 3605)
        ]
