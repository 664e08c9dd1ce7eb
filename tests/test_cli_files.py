"""Directories, ranges and JSON documents of ``mappedfile residency``, ``warm`` and ``evict``, and
their output on terminals."""

import json
import os
import re
import sys
from itertools import pairwise

import pytest
from support import LINUX, need, only
from test_cli import REAL, needs_pty, on_a_terminal, run
from test_cli_memory import WITHOUT_RICH, document, needs_evict, needs_matplotlib, needs_residency
from test_memory import by_vmtouch, kept, write

from mappedfile import PAGE_SIZE, MappedFile
from mappedfile.cli import joined
from mappedfile.cli._files import found
from mappedfile.cli._numbers import amount, range_of
from mappedfile.cli._warm import data_in, steps

MIB = 1 << 20


@pytest.fixture
def tree(folder):
    """Return a directory with files at several depths, links and a FIFO; and the paths of the
    files, in order."""
    top = folder / "tree"
    (top / "b" / "deep").mkdir(parents=True)
    (top / "empty").mkdir()
    paths = [top / "a", top / "b" / "deep" / "c", top / "b" / "x", top / "z"]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * (number * PAGE_SIZE + 1))
    os.link(top / "a", top / "b" / "same")
    if hasattr(os, "mkfifo"):
        os.mkfifo(top / "fifo")
    try:
        os.symlink(top / "a", top / "link")
        os.symlink(top, top / "b" / "loop")
    except OSError:
        pass  # on Windows few users may create links
    return top, [str(path) for path in paths]


class TestDirectories:
    """A directory argument stands for the files in it."""

    def test_found(self, tree):
        """Regular files at any depth are found, in order. Links are ignored, and a file with
        several names counts once."""
        top, paths = tree
        assert paths == [file.name for file in found([str(top)])]
        assert [1, PAGE_SIZE + 1, 2 * PAGE_SIZE + 1, 3 * PAGE_SIZE + 1] == [
            file.status.st_size for file in found([str(top)])
        ]

    def test_links_that_are_named(self, tree):
        """A symbolic link that is an argument is followed, to a file or a directory."""
        top, paths = tree
        need((top / "link").exists(), "symbolic links")
        assert [str(top / "link")] == [file.name for file in found([str(top / "link")])]
        loop = str(top / "b" / "loop")
        assert [path.replace(str(top), loop) for path in paths] == [
            file.name for file in found([loop])
        ]

    def test_a_file_counts_once(self, tree):
        """A file that is named twice is reported, and processed once."""
        top, paths = tree
        out, err = run(REAL, "warm", top, paths[3], top / "b" / "same", expect=0)
        again = [
            f"mappedfile warm: {path}: counted once, under another name"
            for path in (paths[3], top / "b" / "same")
        ]
        assert again == err.splitlines()
        assert [*paths, "4 files"] == [line.rpartition(": ")[0] for line in out.splitlines()]

    def test_what_cannot_be_listed(self, tree):
        """A directory that cannot be listed gives an error, and the others are processed."""
        only(LINUX and os.geteuid() == 0, "Linux and root only: becomes another user")
        top, paths = tree
        for folder in (top, *list(top.parents)[:3]):
            folder.chmod(0o755)
        (top / "b").chmod(0o700)
        program = """
import os, sys
from mappedfile.__main__ import main
main(["warm", sys.executable])
os.setgid(65534), os.setuid(65534)
print("--")
sys.exit(main(["warm", sys.argv[1]]))
"""
        out, err = run([sys.executable, "-c", program, str(top)], expect=1)
        assert f"mappedfile warm: {top / 'b'}: Permission denied\n" == err
        assert [paths[0], paths[3], "2 files"] == [
            line.rpartition(": ")[0] for line in out.partition("--\n")[2].splitlines()
        ]

    def test_a_directory_without_files(self, tree):
        top, _ = tree
        out, err = run(REAL, "warm", top / "empty", expect=0)
        assert ("0 files: 0 bytes in 0.00 s\n", "") == (out, err)

    @needs_evict
    def test_residency_and_evict(self, tree):
        """Sums are those of the files. --summary shows only the sum."""
        top, paths = tree
        with MappedFile(paths[3]) as file, file.view() as view:
            view.lock()
            out, _ = run(REAL, "residency", top, expect=0)
            assert re.search(
                r"^4 files: \d+ of 10 pages in memory \(\d+\.\d %\)$", out.splitlines()[-1]
            )
            assert all(f"\n{path}: " in f"\n{out}" for path in paths)
            out, _ = run(REAL, "residency", "--summary", top, expect=0)
            assert re.search(r"^4 files: \d+ of 10 pages in memory \(\d+\.\d %\)\n$", out)
            out, _ = run(REAL, "evict", "-s", top, expect=0)
            assert re.search(r"^4 files: \d+ of \d+ pages evicted; 4 remain: ", out)
            files = document("residency", top)
        assert [(0, 1), (0, 2), (0, 3), (4, 4)] == [
            (file["resident"], file["pages"]) for file in files
        ]


class TestRanges:
    """``--range`` has the form of ``vmtouch -p``."""

    def test_words(self):
        """A range has sizes with binary units. A missing end is the end of the file. A single size
        is the end."""
        assert [(0, 1 << 30), (1 << 30, None), (0, 1 << 30), (0, 1 << 30), (0, None)] == [
            range_of(text) for text in ("0-1G", "1G-", "-1G", "1G", "0-")
        ]
        assert [(1, 1023), (1024, 3 * 512), (5 << 20, 7 << 40)] == [
            range_of(text) for text in ("1-1023", "1K-1.5k", "5MiB-7 TiB")
        ]

    @pytest.mark.parametrize(
        "text", ["", "-", "x", "1-2-3", "5-5", "7-5", "1.5-3", "1X-", "0x10", "1KB", "--1", "-1K-"]
    )
    def test_what_is_no_range(self, text):
        with pytest.raises(ValueError, match=r"size|ends|whole"):
            range_of(text)

    def test_the_message(self, path):
        """The message has the given text and the expected form."""
        out, err = run(REAL, "warm", path, "--range", "5-3", expect=2)
        assert "" == out
        assert (
            "'5-3' is not a range (it ends where it begins, or before):"
            " expected START-END, in bytes or with K, M, G or T,"
            " such as 0-1G, 1G- or -1G" in err
        )

    def test_a_range_that_looks_like_an_option(self):
        """-1G is accepted as the value of --range, and words after -- are names."""
        assert ["warm", "--range=-1G", "f"] == joined(["warm", "--range", "-1G", "f"])
        assert ["warm", "--range", "1G-", "f"] == joined(["warm", "--range", "1G-", "f"])
        assert ["warm", "--", "--range", "-1G"] == joined(["warm", "--", "--range", "-1G"])
        assert ["warm", "--range"] == joined(["warm", "--range"])

    def test_warm(self, path):
        """Numbers count the range only. A range ends at the end of the file at the latest."""
        path.write_bytes(bytes(10 * PAGE_SIZE + 1))
        (file,) = document("warm", path, "--range", f"{2 * PAGE_SIZE + 5}-")
        size = 10 * PAGE_SIZE + 1
        assert (size, 2 * PAGE_SIZE + 5, 8 * PAGE_SIZE - 4, 9) == tuple(
            file[key] for key in ("size", "offset", "length", "pages")
        )
        (file,) = document("warm", path, "--range", "1T-")
        assert (size, size, 0, 0) == tuple(
            file[key] for key in ("size", "offset", "length", "pages")
        )

    @needs_evict
    def test_only_the_range_comes_in(self, path):
        """Only the range of a file is read; vmtouch agrees."""
        only(LINUX, "Linux only: depends on its readahead")
        write(path, 64 * MIB)
        for _ in range(10):  # the system may take pages away at any time
            run(REAL, "warm", path, "--range", "16M-20M", expect=0)
            (file,) = document("residency", path)
            if by_vmtouch(path) == (4 * MIB // PAGE_SIZE, 64 * MIB // PAGE_SIZE):
                break
        assert [[16 * MIB // PAGE_SIZE, 4 * MIB // PAGE_SIZE]] == file["runs"]

    @needs_residency
    def test_residency(self, path):
        """Pages are counted in the range, and numbered from the start of the file."""
        path.write_bytes(bytes(100 * PAGE_SIZE))
        with kept(path, (0, 100 * PAGE_SIZE)):
            out, _ = run(
                REAL,
                "residency",
                path,
                "--range",
                f"{10 * PAGE_SIZE + 1}-{20 * PAGE_SIZE}",
                expect=0,
            )
            (file,) = document(
                "residency", path, "--range", f"{10 * PAGE_SIZE + 1}-{20 * PAGE_SIZE}"
            )
        assert (
            f"{path}: 40.0 KiB to 80.0 KiB of 400.0 KiB, 10 of 10 pages in memory (100.0 %)"
            == out.splitlines()[0]
        )
        assert (10, 10, 1.0, [[10, 10]]) == tuple(
            file[key] for key in ("pages", "resident", "fraction", "runs")
        )

    @needs_evict
    def test_evict(self, path):
        """Pages with a byte in the range are evicted; the others stay."""
        only(LINUX, "macOS evicts whole files only")
        content = os.urandom(8 * MIB + 1)
        path.write_bytes(content)
        # A folio, the kernel's group of pages, is smaller than 4 MiB, and begins at a multiple of
        # its size.
        for wanted in ("4M-", f"{4 * MIB + 1}-"):
            for _ in range(10):  # the system may take pages away at any time
                run(REAL, "warm", path, expect=0)
                (file,) = document("evict", path, "--range", wanted)
                assert (4 * MIB // PAGE_SIZE + 1, 0) == (file["pages"], file["resident"])
                (file,) = document("residency", path)
                if file["resident"] == 4 * MIB // PAGE_SIZE:
                    break
            assert [[0, 4 * MIB // PAGE_SIZE]] == file["runs"]
        assert content == path.read_bytes()

    @needs_evict
    def test_what_stays(self, path):
        """Pages in one folio with pages outside the range may stay, and the message says so."""
        only(LINUX, "Linux only: reads the locked pages from /proc")
        path.write_bytes(os.urandom(20 * PAGE_SIZE))
        with kept(path, (0, 20 * PAGE_SIZE)):
            out, _ = run(REAL, "evict", path, "--range", f"0-{5 * PAGE_SIZE}", expect=0)
        assert (
            f"{path}: 0 of 5 pages evicted;"
            f" 5 remain: they are mapped, in one piece with pages outside the range,"
            " or the file system is in memory\n" == out
        )


class TestHoles:
    """``mappedfile warm`` does not read holes."""

    @needs_evict
    def test_warm(self, path):
        """Afterwards the pages of data are in memory, and no page of a hole is; vmtouch agrees."""
        only(LINUX, "Linux only: depends on its readahead")
        with open(path, "wb") as file:
            for place in (0, 50 * MIB, 51 * MIB - 5):
                file.seek(place)
                file.write(os.urandom(2 * MIB))
            file.truncate(1 << 30)
        run(REAL, "evict", path, expect=0)
        need(path.stat().st_blocks * 512 < 6 * MIB, "a file system with holes")
        with MappedFile(path) as mapped:
            data = data_in(mapped, 0, len(mapped))
            assert sum(size for _, size in data) < 6 * MIB
            assert 0 == mapped.residency().resident
        pages = sum(size for _, size in data) // PAGE_SIZE
        for _ in range(10):  # the system may take pages away at any time
            (file,) = document("warm", path)
            assert (pages * PAGE_SIZE, 1 << 30) == (file["data"], file["length"])
            said = by_vmtouch(path)
            if (pages, 0, pages) == (file["resident"], file["missing"], said[0]):
                break
        assert (pages, (1 << 30) // PAGE_SIZE) == said
        out, _ = run(REAL, "warm", path, expect=0)
        assert f"; {amount((1 << 30) - pages * PAGE_SIZE)} of holes left out" in out

    def test_data(self, path):
        """Data is rounded to whole pages, neighbours are merged, and all parts lie inside the
        range."""
        with open(path, "wb") as file:
            for place in (3 * MIB, 3 * MIB + 2 * PAGE_SIZE - 1, 9 * MIB):
                file.seek(place)
                file.write(b"x" * PAGE_SIZE)
            file.truncate(12 * MIB + 5)
        with MappedFile(path) as mapped:
            whole = data_in(mapped, 0, len(mapped))
            assert all(start % PAGE_SIZE == 0 for start, _ in whole)
            assert all(
                start + size == len(mapped) or size % PAGE_SIZE == 0 for start, size in whole
            )
            assert all(one + size < two for (one, size), (two, _) in pairwise(whole))
            for place in (3 * MIB, 3 * MIB + 3 * PAGE_SIZE - 2, 9 * MIB):
                assert any(start <= place < start + size for start, size in whole)
            assert [(3 * MIB + 5, 10)] == data_in(mapped, 3 * MIB + 5, 10)
            assert [] == data_in(mapped, 7, 0)
            if sum(size for _, size in whole) < 6 * MIB:
                assert [] == data_in(mapped, 1 * MIB + 7, MIB)

    def test_steps(self):
        assert [(0, 4), (4, 4), (8, 2), (20, 1)] == list(steps([(0, 10), (20, 1)], 4))
        assert [] == list(steps([], 4))


class TestDocuments:
    """JSON documents have the same form for all commands."""

    def test_fields(self, path, folder):
        """Each file in each document has its size, its range, the number of pages, and how many are
        in memory."""
        path.write_bytes(bytes(3 * PAGE_SIZE))
        expected = {
            "file": str(path),
            "size": 3 * PAGE_SIZE,
            "offset": 0,
            "length": 3 * PAGE_SIZE,
            "pages": 3,
        }
        extra = {
            "residency": {"fraction", "runs"},
            "warm": {"data", "missing", "seconds"},
            "evict": {"evicted"},
        }
        for command, fields in extra.items():
            if command != "warm" and sys.platform == "win32":
                continue
            file, error = document(command, path, folder / "missing", expect=1)
            assert expected == {key: file[key] for key in expected}
            assert {*expected, "resident"} | fields == {*file}
            assert {"file", "error"} == {*error}

    @needs_evict
    def test_numbers(self, path):
        path.write_bytes(os.urandom(5 * PAGE_SIZE))
        with kept(path, (0, 5 * PAGE_SIZE)):
            (warm,) = document("warm", path)
            (evict,) = document("evict", path)
        assert (5, 0, 5 * PAGE_SIZE) == (warm["resident"], warm["missing"], warm["data"])
        assert (5, 0) == (evict["resident"], evict["evicted"])
        assert warm["seconds"] >= 0


class TestStreams:
    """The output fits the encoding of its stream."""

    @pytest.mark.parametrize("json_", [False, True])
    @pytest.mark.parametrize("command", ["residency", "warm", "evict", "info"])
    def test_ascii(self, folder, command, json_):
        """If the output accepts only ASCII, any name of a file is printed without a traceback."""
        only(
            command in ("warm", "info") or sys.platform != "win32", "this system lacks the command"
        )
        path = folder / "\N{SNOWMAN}\u00e9"
        path.write_bytes(bytes(5 * PAGE_SIZE))
        missing = folder / "\N{SNOWMAN}"
        arguments = [command, path, missing, *(["--json"] if json_ else [])]
        out, err = run(REAL, *arguments, expect=1, PYTHONIOENCODING="ascii")
        assert re.fullmatch(rf"mappedfile {command}: .*\\u2603: \S.+\n", err)
        assert "Traceback" not in err
        if json_:
            assert [str(path), str(missing)] == [file["file"] for file in json.loads(out)["files"]]
        else:
            assert "\\u2603\\xe9" in out

    @needs_pty
    @pytest.mark.parametrize("program", [REAL, WITHOUT_RICH], ids=["rich", "without rich"])
    @pytest.mark.parametrize("command", ["residency", "warm", "evict", "info"])
    def test_ascii_terminal(self, path, command, program):
        """A terminal that accepts only ASCII gets only ASCII."""
        path.write_bytes(bytes(50 * PAGE_SIZE))
        text = on_a_terminal(program, command, path, expect=0, PYTHONIOENCODING="ascii")
        assert text.isascii()
        assert "Traceback" not in text

    @needs_pty
    @pytest.mark.parametrize("program", [REAL, WITHOUT_RICH], ids=["rich", "without rich"])
    def test_names_disturb_no_terminal(self, folder, program):
        """Control characters in a name are escaped."""
        name = b"red\x1b[31m\xff"
        (folder / os.fsdecode(name)).write_bytes(b"x")
        text = on_a_terminal(program, "warm", folder, expect=0)
        assert "red\\x1b[31m\\udcff: 1 byte in " in text
        assert "\x1b[31m" not in text

    @needs_pty
    def test_no_color(self, path):
        path.write_bytes(bytes(50 * PAGE_SIZE))
        text = on_a_terminal(REAL, "residency", path, expect=0, NO_COLOR="1")
        assert not re.search(r"\x1b\[[0-9;]*[39][0-7]m", text)


@needs_matplotlib
class TestAxis:
    """The axis of the picture."""

    @pytest.mark.parametrize(
        ("first", "last", "begin", "end"),
        [
            (0, 8 * MIB, "0", "8 MiB"),
            (0, 1, "0", "1 bytes"),
            (0, 2047, "0", "2,047 bytes"),
            (0, 5_000_000_000, "0", "4.7 GiB"),
            (0, 3 * MIB // 2, "0", "1,536 KiB"),
            (10 * MIB, 20 * MIB, "10", "20 MiB"),
            (0, 3000 << 50, "0", "3,000 PiB"),
        ],
    )
    def test_ticks(self, first, last, begin, end):
        """There are ticks at both ends, and the last has the unit. Ticks between them keep a
        distance."""
        from mappedfile.cli._picture import ticks

        places, labels = ticks(first, last)
        assert (first, last, begin, end) == (places[0], places[-1], labels[0], labels[-1])
        assert len(places) == len(labels) <= 11
        gaps = [two - one for one, two in pairwise(places)]
        assert min(gaps) >= (last - first) / 13
        assert all(re.fullmatch(r"[\d,]+(\.\d+)?", label) for label in labels[:-1])

    def test_nothing(self):
        from mappedfile.cli._picture import ticks

        assert ([], []) == ticks(0, 0)
