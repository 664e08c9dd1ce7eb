"""The command line, run as users run it: as a program."""

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

# A contract with a clause for every fate. The worker process imports the program again, and so
# registers them too.
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
    '''Wait for a file that somebody else makes.'''
    while not path.exists():
        time.sleep(0.01)

@clause("C1", modes=("r",))
def waits_for_the_test(subject, folder):
    '''This holds once somebody has read the line before.'''
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

FATES = {
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
    """A folder to check, which every run leaves as it found it."""
    folder = tmp_path / "checked"
    folder.mkdir()
    (folder / "mine").write_bytes(b"mine")
    yield folder
    assert ["mine"] == os.listdir(folder)


@pytest.fixture(scope="session")
def program(tmp_path_factory):
    """The command line over the contract above."""
    path = tmp_path_factory.mktemp("program") / "program.py"
    path.write_text(PROGRAM, "utf-8")
    return [sys.executable, str(path)]


REAL = [sys.executable, "-m", "mappedfile"]


def run(command, *arguments, expect, **environment):
    """Run a command to its end with pipes for its streams; return what it wrote."""
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
    """Run a command on a pseudo-terminal of 80 columns; return what it showed. Types *keys* when it
    shows *after*."""
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
        except OSError:  # EIO: Linux' way to say that nobody has the other end open any more
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


#: Modes that have every clause between them; tests/test_contract.py has the others.
MODES = ("r", "r+", "c")


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The JSON report of a whole run."""
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
    """A command that was started, with pipes for its streams; clause C1 waits for the file "go" in
    the folder."""
    environment = {"PYTHONUNBUFFERED": "", "GO": str(folder / "go")}
    with start_command(command, env=environment) as talk:
        yield talk


class TestRealContract:
    """``mappedfile check`` in a folder of the test's."""

    def test_every_clause_is_in_the_report(self, told):
        """One row a clause, in the contract's order, with one outcome a mode."""
        expected = [
            (clause.id, clause.says, [mode for mode in clause.modes if mode in MODES])
            for clause in CLAUSES.values()
        ]

        assert expected == [
            (row["id"], row["says"], [outcome["mode"] for outcome in row["modes"]])
            for row in told["clauses"]
        ]

    def test_no_clause_fails(self, told):
        """The contract holds in the folder of temporary files."""
        assert 0 == told["summary"]["fails"]
        assert len(CLAUSES) == sum(told["summary"].values())

    def test_a_clause_that_cannot_be_shown_says_why(self, told):
        """There is no result "not here" without a message."""
        outcomes = [outcome for row in told["clauses"] for outcome in row["modes"]]

        assert [] == [
            outcome
            for outcome in outcomes
            if outcome["result"] == "not_here" and not outcome["message"]
        ]

    def test_the_report_tells_the_system(self, told):
        """Version, page size, granularity and capabilities are those that the package tells."""
        assert 1 == told["schema"]
        assert mappedfile.__version__ == told["mappedfile"]
        assert mappedfile.PAGE_SIZE == told["page_size"]
        assert mappedfile.GRANULARITY == told["granularity"]
        assert vars(mappedfile.capabilities()) == told["capabilities"]
        assert told["backend"] in ("posix", "windows")

    def test_default_folder_is_a_temporary_one(self, tmp_path):
        """Without DIR it goes where temporary files go, and removes what it made there."""
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
    """Every fate that a clause can have."""

    @pytest.fixture
    def told(self, program, folder):
        every = [word for letter in "AB" for word in ("--clause", letter)]
        out, err = run(program, "check", "--json", "--timeout", "2", *every, folder, expect=1)
        assert "" == err
        return json.loads(out)

    def test_json(self, told, folder):
        """A clause that fails, errs, crashes or hangs in one mode does not disturb the others."""
        fates = {
            (row["id"], outcome["mode"]): outcome
            for row in told["clauses"]
            for outcome in row["modes"]
        }

        assert FATES == {key: fates[key]["result"] for key in FATES}
        assert "length: expected 3, got 4" == fates["A2", "r+"]["message"]
        assert "OSError: [Errno 5] device on fire" == fates["A3", "r"]["message"]
        assert "no magic on this system" == fates["A4", "c"]["message"]
        assert fates["B1", "r"]["message"].startswith("the process crashed: ")
        assert "did not end within 2 seconds" == fates["B2", "r"]["message"]
        assert {"holds": 2, "fails": 4, "not_here": 1} == told["summary"]
        assert {"A1": "holds", "A2": "fails", "A3": "fails", "A4": "holds", "A5": "not_here"} == {
            row["id"]: row["result"] for row in told["clauses"] if row["id"][0] == "A"
        }
        assert str(folder) == told["folder"]

    def test_plain(self, program, folder):
        """In a pipe it is plain text of at most 80 columns: the clause, what it says, whether it
        holds, and why not."""
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
        """What fails is told again at the end, with its reasons and nothing else; then the counts
        and the verdict."""
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
        """Where no clause fails the last line says so."""
        out, _ = run(program, "check", "--clause", "A1", folder, expect=0)

        assert "What fails" not in out
        assert out.endswith(" s.\nNo clause fails here.\n")

    def test_verbose(self, program, folder):
        """--verbose: what this system can do, before the clauses; and clauses as a whole."""
        out, _ = run(program, "check", "--verbose", "--clause", "A1", folder, expect=0)

        before, after = out.split("  A1  holds     ")
        assert "truncate_mapped: others can truncate a mapped file" in " ".join(before.split())
        assert "this holds. Its second sentence.\n" in after

    def test_line_by_line(self, program, folder, tmp_path):
        """A pipe has every line at once: the check that is to come waits for somebody who has read
        the line before."""
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
        """Checks that wait for one another come to an end; the rows and modes are in order all the
        same."""
        out, _ = run(
            program, "check", "--json", "--clause", "C2", "--clause", "C3", folder, expect=0
        )

        rows = json.loads(out)["clauses"]
        assert [("C2", ["r", "r+"]), ("C3", ["r", "r+"])] == [
            (row["id"], [outcome["mode"] for outcome in row["modes"]]) for row in rows
        ]

    def test_alone(self, program, folder):
        """A check that is to be alone is: it starts when the others have ended, and the next when
        it has."""
        run(program, "check", "--clause", "D", folder, expect=0)

    def test_ascii(self, program, folder):
        """Where the output takes ASCII alone there are other characters, and no traceback."""
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
        """Clauses that hold, and clauses that cannot be shown, are a success."""
        run(program, "check", "--clause", "A1", "--clause", "A5", folder, expect=0)
        run(program, "check", "--clause", "A2", "--mode", "c", "--mode", "w+", folder, expect=0)

    def test_interrupted(self, program, folder):
        """Ctrl-C: a message, no traceback, the folder as it was, status 130."""
        out, err = run(program, "check", "--clause", "B2", "--interrupt", folder, expect=130)

        assert out.startswith("folder ")
        assert "B2" not in out
        assert "mappedfile: interrupted" == err.strip()


class TestUsage:
    """What cannot be run: status 2, a message, and nothing on the standard output."""

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
        """A pipe whose reader has gone, as in ``mappedfile check | true``: nothing is said, and the
        status is 141."""
        what = [] if not arguments else [folder] if arguments[0] == "check" else [folder / "mine"]
        reader, writer = os.pipe()
        os.close(reader)
        command = [*program, *arguments, *what]
        done = run_command(command, stdout=writer, env={"PYTHONUNBUFFERED": buffered}, check=False)
        os.close(writer)

        assert (141, "") == (done.returncode, done.stderr)

    def test_nobody_reads_any_more(self, program, folder, tmp_path):
        """The reader goes in the midst of it, as ``head`` does: the rest is not run, and the folder
        is as it was."""
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
        reason="there is no sh, or no disk that is always full",
    )
    def test_nobody_can_read(self, program, folder):
        """A full disk behind the standard output is told; a standard output that is closed is
        nobody's concern."""
        command = shlex.join([*program, "check", "--clause", "A1", str(folder)])

        _, err = run(["sh", "-c"], f"{command} > /dev/full", expect=2)
        assert f"mappedfile: cannot write the output: {os.strerror(errno.ENOSPC)}\n" == err
        assert ("", "") == run(["sh", "-c"], f"PYTHONDEVMODE=1 {command} >&-", expect=0)
        assert ("", "") == run(["sh", "-c"], f"{command} --clause Q 2>&-", expect=2)

    @pytest.mark.parametrize("option", ["-V", "--version"])
    def test_version(self, option):
        assert f"mappedfile {mappedfile.__version__}\n" == run(REAL, option, expect=0)[0]

    def test_help(self):
        """Alone it prints its help: every command, and what the exit statuses mean."""
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
        """Every command has a help of lines that fit, in ASCII."""
        out, _ = run(REAL, command, "--help", expect=0, PYTHONIOENCODING="ascii", COLUMNS="100")

        assert out.startswith(f"usage: mappedfile {command} ")
        assert max(map(len, out.splitlines())) <= 100


@needs_pty
class TestTerminal:
    """On a terminal."""

    @needs_rich
    def test_rich(self, program, folder):
        """With rich: a progress bar, which goes away, and lines in colours that fit 80 columns."""
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
        """A terminal that takes ASCII alone gets nothing else."""
        text = on_a_terminal(
            program, "check", "--clause", "A", folder, expect=1, PYTHONIOENCODING="ascii"
        )

        assert text.isascii()
        assert "Traceback" not in text
        assert "The contract does not hold here: A2, A3." in text

    @needs_rich
    def test_no_color(self, program, folder):
        """NO_COLOR is respected."""
        text = on_a_terminal(program, "check", "--clause", "A", folder, expect=1, NO_COLOR="1")

        assert "holds" in text
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", text)

    def test_without_rich(self, program, folder):
        """Without rich: a line that counts, and plain text."""
        text = on_a_terminal(program, "check", "--clause", "A", "--without-rich", folder, expect=1)

        assert "\r1/15 A1 r" in text
        assert "\x1b" not in text
        assert "\n  A1  holds     this holds.\n" in text

    def test_ctrl_c(self, program, folder):
        """Ctrl-C typed on the terminal: a message, the folder as it was, status 130."""
        text = on_a_terminal(
            program, "check", "--clause", "B2", folder, expect=130, keys=b"\x03", after=b"B2"
        )

        assert "mappedfile: interrupted" in text
        assert "Traceback" not in text


class TestFileSystemType:
    """The tables of mounts are read right."""

    def test_linux(self):
        """/proc/self/mountinfo: octal escapes in the mount point, any number of optional fields."""
        text = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        text += "35 22 0:31 / /a\\040b rw - fuse.bindfs /c rw\n"
        assert [("/", "ext4"), ("/a b", "fuse.bindfs")] == list(_linux_mounts(text))

    def test_macos(self):
        """The lines of mount(8), also with a bracket or an "on" in the name."""
        text = "/dev/disk3s1s1 on / (apfs, sealed, local)\n"
        text += "//me@nas/share on /Volumes/on (2) (smbfs, nodev)\n"

        assert [("/", "apfs"), ("/Volumes/on (2)", "smbfs")] == list(_bsd_mounts(text))


def test_script_is_the_module():
    """The installed program ``mappedfile`` is the same as ``python -m mappedfile``."""
    script = Path(sys.executable).with_name("mappedfile.exe" if os.name == "nt" else "mappedfile")
    if not script.exists():
        pytest.skip("installed without its script")
    assert f"mappedfile {mappedfile.__version__}\n" == run([str(script)], "--version", expect=0)[0]
