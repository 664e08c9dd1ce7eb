"""The command line, run as a program."""

import errno
import importlib.util
import json
import os
import re
import shlex
import shutil
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from children import run_command, start_command

import mappedfile
from mappedfile.contract import CLAUSES
from mappedfile.contract._report import _bsd_mounts, _linux_mounts

try:
    import pty
except ImportError:  # no pseudo-terminals on this system
    pty = None

HAS_RICH = importlib.util.find_spec("rich") is not None

needs_pty = pytest.mark.skipif(pty is None, reason="this system has no pseudo-terminals")
needs_rich = pytest.mark.skipif(not HAS_RICH, reason="rich is not installed")

# A contract with a clause for every result. The worker process imports this program too, and so
# registers the same clauses.
PROGRAM = """
import os, pathlib, subprocess, sys, threading, time, _thread
from mappedfile.contract._clauses import CLAUSES, Broken, NotHere, clause

CLAUSES.clear()

@clause("A1")
def holds(subject, folder):
    '''``this`` holds. Its second sentence.'''
    (folder / "file").write_bytes(b"left behind")

@clause("A2")
def fails(subject, folder):
    '''This fails in mode "r+".'''
    if subject.mode == "r+":
        raise Broken("length: expected 3, got 4")

@clause("A3", modes=("r", "c"))
def errs(subject, folder):
    '''This meets an error.'''
    raise OSError(5, "device on fire")

@clause("A4", modes=("r", "c"))
def not_here(subject, folder):
    '''This cannot be shown in mode "c".'''
    if subject.mode == "c":
        raise NotHere("no magic on this system")

@clause("A5", modes=("r",))
def not_here_at_all(subject, folder):
    '''This cannot be shown.'''
    raise NotHere("no magic at all")

@clause("B1", modes=("r", "r+"))
def crashes(subject, folder):
    '''This takes the interpreter along.'''
    if subject.mode == "r":
        os.abort()

@clause("B2", modes=("r",))
def hangs(subject, folder):
    '''This waits for a program that never ends.'''
    with open(folder / "held", "wb") as file:
        (folder / "hung").touch()
        subprocess.run([sys.executable, "-c", "import time; time.sleep(60)"], stdout=file)

def until(path):
    '''Wait until a file exists.'''
    while not path.exists():
        time.sleep(0.01)

@clause("C1", modes=("r",))
def waits_for_the_test(subject, folder):
    '''This holds once the test has read the line before.'''
    until(pathlib.Path(os.environ["GO"]))

@clause("C2", modes=("r", "r+"))
def waits_for_another(subject, folder):
    '''This holds if both modes run at the same time.'''
    (folder.parent / f"began-{subject.mode}").touch()
    for mode in ("r", "r+"):
        until(folder.parent / f"began-{mode}")

@clause("C3", modes=("r", "r+"))
def waits_for_the_next(subject, folder):
    '''This holds in mode "r" when it did in mode "r+".'''
    if subject.mode == "r":
        until(folder.parent / "over")
    else:
        (folder.parent / "over").touch()

def nobody_else(folder):
    others = {each.name for each in folder.parent.iterdir()} - {folder.name}
    if others:
        raise Broken(f"there is {others}")

@clause("D1", modes=("r", "r+", "c"))
def is_next_to_it(subject, folder):
    '''This takes a moment.'''
    time.sleep(0.05)

@clause("D2", modes=("r", "r+", "c"), alone=True)
def is_alone(subject, folder):
    '''This has the folder for itself.'''
    for _ in range(20):
        nobody_else(folder)
        time.sleep(0.005)

@clause("D3", modes=("r", "r+", "c"))
def comes_after_it(subject, folder):
    '''This takes a moment, too.'''
    time.sleep(0.05)

def interrupt(folder):
    while not list(pathlib.Path(folder).rglob("hung")):
        time.sleep(0.1)
    _thread.interrupt_main()

if __name__ == "__main__":
    if "--without-rich" in sys.argv:
        sys.argv.remove("--without-rich")
        sys.modules["rich"] = None
    if "--interrupt" in sys.argv:
        sys.argv.remove("--interrupt")
        threading.Thread(target=interrupt, args=(sys.argv[-1],)).start()
    from mappedfile.__main__ import main
    sys.exit(main())
"""

EXPECTED_RESULTS = {
    ("A1", "r"): "holds",
    ("A2", "r"): "holds",
    ("A2", "r+"): "fails",
    ("A3", "c"): "fails",
    ("A4", "c"): "not_here",
    ("A5", "r"): "not_here",
    ("B1", "r"): "fails",
    ("B1", "r+"): "holds",
    ("B2", "r"): "fails",
}


@pytest.fixture
def folder(tmp_path):
    """Return a folder to check. Afterwards its content must be unchanged."""
    folder = tmp_path / "checked"
    folder.mkdir()
    (folder / "mine").write_bytes(b"mine")
    yield folder
    assert ["mine"] == os.listdir(folder)


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """Return the command that checks the contract above."""
    path = tmp_path_factory.mktemp("program") / "program.py"
    path.write_text(PROGRAM, "utf-8")
    return [sys.executable, str(path)]


REAL = [sys.executable, "-m", "mappedfile"]


def run(command, *arguments, expect, **environment):
    """Run a command with pipes, check its exit status, and return its output and errors."""
    done = run_command(
        [*command, *arguments],
        check=False,
        timeout=240,
        encoding="utf-8",
        env={"PYTHONIOENCODING": "utf-8", "COLUMNS": "80", **environment},
    )
    assert expect == done.returncode, done.stdout + done.stderr
    return done.stdout, done.stderr


def on_a_terminal(command, *arguments, expect, keys=None, after=None, **environment):
    """Run a command on a pseudo-terminal of 80 columns; return what it showed. Type KEYS after it
    has shown AFTER."""
    import fcntl
    import struct
    import termios

    child, terminal = pty.fork()
    if child == 0:
        os.execve(
            command[0],
            [*command, *map(str, arguments)],
            {**os.environ, "TERM": "xterm-256color", **environment},
        )
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
    shown = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # EIO: on Linux, the other end is closed
            part = b""
        if not part:
            break
        shown += part
        if keys is not None and after in shown:
            time.sleep(0.3)
            os.write(terminal, keys)
            keys = None
    _, status = os.waitpid(child, 0)
    os.close(terminal)
    text = shown.decode("utf-8").replace("\r\n", "\n")
    assert expect == os.waitstatus_to_exitcode(status), text
    return text


ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


#: Together these modes have every clause. tests/test_contract.py checks the other modes.
MODES = ("r", "r+", "c")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Return the JSON report of a whole run."""
    folder = tmp_path_factory.mktemp("whole")
    out, err = run(
        REAL,
        "check",
        "--json",
        *(word for mode in MODES for word in ("--mode", mode)),
        folder,
        expect=0,
    )
    assert "" == err
    assert [] == os.listdir(folder)
    return json.loads(out)


@contextmanager
def began(command, folder):
    """Start a command with pipes. Clause C1 waits for the file "go" in the folder."""
    environment = {"PYTHONUNBUFFERED": "", "GO": str(folder / "go")}
    with start_command(command, env=environment) as talk:
        yield talk


class TestRealContract:
    """``mappedfile check`` in a folder of the test."""

    def test_every_clause_is_in_the_report(self, report):
        """The report has a row for each clause, in order, with an outcome for each mode."""
        expected = [
            (clause.id, clause.says, [mode for mode in clause.modes if mode in MODES])
            for clause in CLAUSES.values()
        ]

        assert expected == [
            (row["id"], row["says"], [outcome["mode"] for outcome in row["modes"]])
            for row in report["clauses"]
        ]

    def test_no_clause_fails(self, report):
        """The contract holds in the folder of temporary files."""
        assert 0 == report["summary"]["fails"]
        assert len(CLAUSES) == sum(report["summary"].values())

    def test_a_clause_that_cannot_be_shown_says_why(self, report):
        """Every result "not here" has a message."""
        outcomes = [outcome for row in report["clauses"] for outcome in row["modes"]]

        assert [] == [
            outcome
            for outcome in outcomes
            if outcome["result"] == "not_here" and not outcome["message"]
        ]

    def test_the_report_tells_the_system(self, report):
        """The report has the same version, page size, granularity and capabilities as the
        package."""
        assert 1 == report["schema"]
        assert mappedfile.__version__ == report["mappedfile"]
        assert mappedfile.PAGE_SIZE == report["page_size"]
        assert mappedfile.GRANULARITY == report["granularity"]
        assert vars(mappedfile.capabilities()) == report["capabilities"]
        assert report["backend"] in ("posix", "windows")

    def test_default_folder_is_a_temporary_one(self, tmp_path):
        """Without DIR the check uses the folder of temporary files, and removes its own files."""
        places = {"TMPDIR": str(tmp_path), "TEMP": str(tmp_path), "TMP": str(tmp_path)}

        out, _ = run(REAL, "check", "--json", "--clause", "I3", "--mode", "r", expect=0, **places)

        assert str(tmp_path) == json.loads(out)["folder"]
        assert [] == os.listdir(tmp_path)

    def test_import_does_not_load_the_command_line(self):
        """``import mappedfile`` loads neither the command line, nor the contract, nor rich."""
        before = "import sys; before = {*sys.modules}; import mappedfile; "
        out, _ = run([sys.executable, "-c", before + "print(*{*sys.modules} - before)"], expect=0)

        assert "mappedfile._file" in out.split()
        assert not re.search(r"rich|argparse|multiprocessing|contract|\bcli\b|__main__", out)


class TestReport:
    """The results that a clause can have."""

    @pytest.fixture
    def report(self, program, folder):
        every = [word for letter in "AB" for word in ("--clause", letter)]
        out, err = run(program, "check", "--json", "--timeout", "2", *every, folder, expect=1)
        assert "" == err
        return json.loads(out)

    def test_json(self, report, folder):
        """A clause that fails, raises, crashes or hangs in one mode does not affect the others."""
        results = {
            (row["id"], outcome["mode"]): outcome
            for row in report["clauses"]
            for outcome in row["modes"]
        }

        assert EXPECTED_RESULTS == {key: results[key]["result"] for key in EXPECTED_RESULTS}
        assert "length: expected 3, got 4" == results["A2", "r+"]["message"]
        assert "OSError: [Errno 5] device on fire" == results["A3", "r"]["message"]
        assert "no magic on this system" == results["A4", "c"]["message"]
        assert results["B1", "r"]["message"].startswith("the process crashed: ")
        assert "did not end within 2 seconds" == results["B2", "r"]["message"]
        assert {"holds": 2, "fails": 4, "not_here": 1} == report["summary"]
        assert {"A1": "holds", "A2": "fails", "A3": "fails", "A4": "holds", "A5": "not_here"} == {
            row["id"]: row["result"] for row in report["clauses"] if row["id"][0] == "A"
        }
        assert str(folder) == report["folder"]

    def test_plain(self, program, folder):
        """In a pipe the report is plain text of at most 80 columns. A row has the clause, its text,
        the result, and the reason."""
        out, err = run(program, "check", "--clause", "A", folder, expect=1)

        assert "" == err
        assert "\x1b" not in out
        assert max(map(len, out.splitlines())) <= 80
        assert "  A1  holds     this holds.\n" in out
        assert (
            '  A2  FAILS     This fails in mode "r+".\n'
            "                - mode r+: length: expected 3, got 4\n" in out
        )
        assert (
            "  A3  FAILS     This meets an error.\n"
            "                - OSError: [Errno 5] device on fire\n" in out
        )
        assert "- mode c: not here: no magic on this system" in out
        assert "  A5  not here  This cannot be shown.\n                - no magic at all\n" in out
        assert f"\npage size    {mappedfile.PAGE_SIZE:,} bytes\n" in out
        assert "truncate_mapped" not in out

    def test_the_verdict_comes_last(self, program, folder):
        """The failures are repeated at the end with their reasons; then come the counts and the
        verdict."""
        out, _ = run(program, "check", "--clause", "A", folder, expect=1)

        *_, end = out.split("\nWhat fails\n\n")
        assert [
            '  A2  FAILS     This fails in mode "r+".',
            "                - mode r+: length: expected 3, got 4",
            "  A3  FAILS     This meets an error.",
            "                - OSError: [Errno 5] device on fire",
            "",
        ] == end.splitlines()[:5]
        counts, verdict = end.splitlines()[5:]
        assert re.fullmatch(r"2 hold, 2 fail, 1 cannot be shown here\. It took \d+\.\d s\.", counts)
        assert "The contract does not hold here: A2, A3." == verdict

    def test_nothing_fails(self, program, folder):
        """If no clause fails, the last line says so."""
        out, _ = run(program, "check", "--clause", "A1", folder, expect=0)

        assert "What fails" not in out
        assert out.endswith(" s.\nNo clause fails here.\n")

    def test_verbose(self, program, folder):
        """--verbose adds the capabilities of the system, and prints whole clauses."""
        out, _ = run(program, "check", "--verbose", "--clause", "A1", folder, expect=0)

        before, after = out.split("  A1  holds     ")
        assert "truncate_mapped: others can truncate a mapped file" in " ".join(before.split())
        assert "this holds. Its second sentence.\n" in after

    def test_line_by_line(self, program, folder, tmp_path):
        """A pipe gets every line at once. The next check waits until the test has read the line
        before."""
        command = [
            *program,
            "check",
            "--clause",
            "A1",
            "--clause",
            "C1",
            "--mode",
            "r",
            str(folder),
        ]
        with began(command, tmp_path) as process:
            lines = iter(process.hear, None)
            before = [
                next(line for line in lines if line.startswith(start))
                for start in ("folder", "  A1")
            ]
            (tmp_path / "go").touch()
            after = process.end().stdout.splitlines()

        assert before[1].split()[:2] == ["A1", "holds"]
        assert after[-1].strip() == "No clause fails here."

    def test_side_by_side(self, program, folder):
        """Checks run at the same time: two that wait for each other both end. Rows and modes stay
        in order."""
        out, _ = run(
            program, "check", "--json", "--clause", "C2", "--clause", "C3", folder, expect=0
        )

        rows = json.loads(out)["clauses"]
        assert [("C2", ["r", "r+"]), ("C3", ["r", "r+"])] == [
            (row["id"], [outcome["mode"] for outcome in row["modes"]]) for row in rows
        ]

    def test_alone(self, program, folder):
        """A check with alone=True starts when the others have ended, and the next one starts after
        it."""
        run(program, "check", "--clause", "D", folder, expect=0)

    def test_ascii(self, program, folder):
        """If the output accepts only ASCII, other characters replace the rest."""
        out, err = run(
            REAL,
            "check",
            "--clause",
            "L5",
            "--mode",
            "r",
            folder,
            expect=0,
            PYTHONIOENCODING="ascii",
        )

        assert "" == err
        assert "\nL - Lifetime: closing while mapped\n" in out

    def test_exit_status_0(self, program, folder):
        """Clauses that hold or cannot be shown give exit status 0."""
        run(program, "check", "--clause", "A1", "--clause", "A5", folder, expect=0)
        run(program, "check", "--clause", "A2", "--mode", "c", "--mode", "w+", folder, expect=0)

    def test_interrupted(self, program, folder):
        """Ctrl-C gives a message without a traceback, an unchanged folder, and exit status 130."""
        out, err = run(program, "check", "--clause", "B2", "--interrupt", folder, expect=130)

        assert out.startswith("folder ")
        assert "B2" not in out
        assert "mappedfile: interrupted" == err.strip()


class TestUsage:
    """Wrong arguments give exit status 2, a message, and no output."""

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["chek"], "invalid choice"),
            (["check", "--mode", "rw"], "invalid choice"),
            (["check", "--clause", "Q7"], "no such clause: Q7; there are A1, A2"),
            (
                ["check", "--clause", "A5", "--mode", "c"],
                "none of the chosen clauses applies to mode c",
            ),
            (
                ["check", "--timeout", "soon"],
                "'soon' is not a time: expected seconds, more than 0, such as 60 or 0.5",
            ),
            (["check", "--timeout", "0"], "'0' is not a time"),
            (["check", "--timeout", "nan"], "'nan' is not a time"),
        ],
    )
    def test_arguments(self, program, arguments, says):
        out, err = run(program, *arguments, expect=2)

        assert "" == out
        assert says in err

    def test_missing_folder(self, tmp_path):
        missing = tmp_path / "missing"

        out, err = run(REAL, "check", missing, expect=2)

        assert "" == out
        assert re.search(r"^mappedfile check: cannot use '.*missing': .+\n$", err)

    def test_file_instead_of_folder(self, tmp_path):
        (tmp_path / "file").touch()

        out, err = run(REAL, "check", "--json", tmp_path / "file", expect=2)

        assert "" == out
        assert "cannot use" in err
        assert "Traceback" not in err

    @pytest.mark.parametrize("buffered", ["", "1"])
    @pytest.mark.parametrize(
        "arguments",
        [
            ("check", "--clause", "A1"),
            ("check", "--json", "--clause", "A1"),
            ("warm",),
            ("info", "--json"),
            (),
        ],
    )
    def test_nobody_reads(self, program, folder, arguments, buffered):
        """If the reader of the pipe has ended, as in ``mappedfile check | true``, there is no
        message, and the exit status is 141."""
        what = [] if not arguments else [folder] if arguments[0] == "check" else [folder / "mine"]
        reader, writer = os.pipe()
        os.close(reader)
        command = [*program, *arguments, *what]
        done = run_command(command, stdout=writer, env={"PYTHONUNBUFFERED": buffered}, check=False)
        os.close(writer)

        assert (141, "") == (done.returncode, done.stderr)

    def test_nobody_reads_any_more(self, program, folder, tmp_path):
        """If the reader ends during the run, as ``head`` does, the rest is not run, and the folder
        is unchanged."""
        every = ("A1", "C1", "A2", "B2")  # B2 would hang
        clauses = [word for id in every for word in ("--clause", id)]
        with began([*program, "check", *clauses, "--mode", "r", str(folder)], tmp_path) as process:
            while not process.hear().startswith("  A1"):
                pass
            process.process.stdout.close()
            (tmp_path / "go").touch()
            done = process.end(check=False)

        assert (141, "") == (done.returncode, done.stderr)

    @pytest.mark.skipif(
        not (shutil.which("sh") and os.path.exists("/dev/full")),
        reason="needs sh and /dev/full",
    )
    def test_nobody_can_read(self, program, folder):
        """If the output goes to a full disk, there is a message. A closed output is no error."""
        command = shlex.join([*program, "check", "--clause", "A1", str(folder)])

        _, err = run(["sh", "-c"], f"{command} > /dev/full", expect=2)
        assert f"mappedfile: cannot write the output: {os.strerror(errno.ENOSPC)}\n" == err
        assert ("", "") == run(["sh", "-c"], f"PYTHONDEVMODE=1 {command} >&-", expect=0)
        assert ("", "") == run(["sh", "-c"], f"{command} --clause Q 2>&-", expect=2)

    @pytest.mark.parametrize("option", ["-V", "--version"])
    def test_version(self, option):
        assert f"mappedfile {mappedfile.__version__}\n" == run(REAL, option, expect=0)[0]

    def test_help(self):
        """Without arguments the program prints its help: every command, and the exit statuses."""
        out, err = run(REAL, expect=0)

        assert "" == err
        assert (out, err) == run(REAL, "--help", expect=0)
        assert ["check", "residency", "warm", "evict", "info"] == re.findall(
            r"^    (\w+) {2,}\w", out, re.MULTILINE
        )
        for status in ("0", "1", "2", "130", "141"):
            assert re.search(rf"^  {status} +\w", out, re.MULTILINE)

    @pytest.mark.parametrize("command", ["check", "residency", "warm", "evict", "info"])
    def test_help_of_a_command(self, command):
        """The help of a command is ASCII, in lines that fit the terminal."""
        out, _ = run(REAL, command, "--help", expect=0, PYTHONIOENCODING="ascii", COLUMNS="100")

        assert out.startswith(f"usage: mappedfile {command} ")
        assert max(map(len, out.splitlines())) <= 100


@needs_pty
class TestTerminal:
    """The output on a terminal."""

    @needs_rich
    def test_rich(self, program, folder):
        """With rich there is a progress bar, which disappears, and coloured lines of at most 80
        columns."""
        text = on_a_terminal(program, "check", "--clause", "A", folder, expect=1)

        assert "━" in text  # the bar
        assert "\x1b[32mholds" in text
        assert "\x1b[1;31mFAILS" in text
        assert "\x1b[33mnot here" in text
        end = ESCAPES.sub("", text[text.rindex("What fails") :])
        assert (
            '\n  A2  FAILS     This fails in mode "r+".\n'
            "                - mode r+: length: expected 3, got 4\n" in end
        )
        assert "\nThe contract does not hold here: A2, A3.\n" in end
        assert "━" not in end
        assert max(map(len, end.splitlines())) <= 80

    def test_ascii(self, program, folder):
        """A terminal that accepts only ASCII gets only ASCII."""
        text = on_a_terminal(
            program, "check", "--clause", "A", folder, expect=1, PYTHONIOENCODING="ascii"
        )

        assert text.isascii()
        assert "Traceback" not in text
        assert "The contract does not hold here: A2, A3." in text

    @needs_rich
    def test_no_color(self, program, folder):
        """With NO_COLOR there are no colours."""
        text = on_a_terminal(program, "check", "--clause", "A", folder, expect=1, NO_COLOR="1")

        assert "holds" in text
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", text)

    def test_without_rich(self, program, folder):
        """Without rich there is a line with a counter, and plain text."""
        text = on_a_terminal(program, "check", "--clause", "A", "--without-rich", folder, expect=1)

        assert "\r1/15 A1 r" in text
        assert "\x1b" not in text
        assert "\n  A1  holds     this holds.\n" in text

    def test_ctrl_c(self, program, folder):
        """Ctrl-C on the terminal gives a message, an unchanged folder, and exit status 130."""
        text = on_a_terminal(
            program, "check", "--clause", "B2", folder, expect=130, keys=b"\x03", after=b"B2"
        )

        assert "mappedfile: interrupted" in text
        assert "Traceback" not in text


class TestFileSystemType:
    """The tables of mounts are parsed correctly."""

    def test_linux(self):
        """/proc/self/mountinfo has octal escapes in the mount point, and any number of optional
        fields."""
        text = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        text += "35 22 0:31 / /a\\040b rw - fuse.bindfs /c rw\n"
        assert [("/", "ext4"), ("/a b", "fuse.bindfs")] == list(_linux_mounts(text))

    def test_macos(self):
        """Lines of mount(8) can have a bracket or an "on" in the name."""
        text = "/dev/disk3s1s1 on / (apfs, sealed, local)\n"
        text += "//me@nas/share on /Volumes/on (2) (smbfs, nodev)\n"

        assert [("/", "apfs"), ("/Volumes/on (2)", "smbfs")] == list(_bsd_mounts(text))


def test_script_is_the_module():
    """The installed program ``mappedfile`` is the same as ``python -m mappedfile``."""
    script = Path(sys.executable).with_name("mappedfile.exe" if os.name == "nt" else "mappedfile")
    if not script.exists():
        pytest.skip("installed without its script")
    assert f"mappedfile {mappedfile.__version__}\n" == run([str(script)], "--version", expect=0)[0]
