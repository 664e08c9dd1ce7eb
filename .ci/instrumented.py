"""The tests on C files that were compiled to be watched.

    python .ci/instrumented.py asan|coverage [PYTEST ARGUMENT...]

asan      AddressSanitizer and UndefinedBehaviorSanitizer: what they see ends the process that did
          it. At last the storms again, with what was allocated in the C files, and never freed.
coverage  gcov: the lines and branches of the C files that no test reaches; and coverage.py's lines
          of the Python files.

Runs in an environment of its own, into which it installs the library.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from common import made, reported, without_report

ROOT = Path(__file__).resolve().parent.parent
COMPILE = {
    "asan": (
        "-g -O1 -fno-omit-frame-pointer"
        " -fsanitize=address,undefined -fno-sanitize-recover=undefined"
    ),
    "coverage": "-g -O0 --coverage -fprofile-update=atomic",
}
# The guard takes SIGBUS, and tests look at how their children die.
ASAN = (
    "handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_abort=0:"
    "abort_on_error=1:allocator_may_return_null=1:use_sigaltstack=0"
)
# What the sanitizer changes itself, and the tests that see it: of each, what its name begins with.
CHANGED = {
    "mlock() does nothing": [
        *(
            f"test_contract.py::test_{kind}[M{number}-"
            for kind in ("library", "layer")
            for number in "6789"
        ),
        "test_cli.py::TestRealContract",
        "test_cli_files.py::TestDirectories::test_residency_and_evict",
        "test_cli_files.py::TestDocuments::test_numbers",
        "test_cli_memory.py::TestEvict::test_what_stays",
        "test_interrupts.py::test_locks_that_fail",
        "test_memory.py::test_compared",
        "test_memory.py::test_cut_short",
        "test_memory.py::test_dontneed_of_what_is_locked",
        "test_memory.py::test_failures[mlock",
        "test_memory.py::test_failures[munlock",
        "test_memory.py::test_growth_past_the_limit",
        "test_memory.py::test_lock_of",
        "test_memory.py::test_locking_copies",
        "test_memory.py::test_refresh_keeps_the_lock",
    ],
    "its own system calls are made to fail, or are counted, too": ["test_failures.py"],
    "it takes the addresses that were given back": [
        f"test_contract.py::test_{kind}[L3-" for kind in ("library", "layer", "oracle")
    ],
    "its library must be preloaded first": [
        "test_kinds.py::test_a_new_file_on_a_plain_file_system"
    ],
}
LEAKS = "tests/test_storms.py"
OURS = r"mappedfile/_|backends/"
# What coverage.py cannot watch, since it keeps a lock and writes files in every process: these
# tests run without it, and gcov sees them all the same.
UNWATCHED = {
    "interrupts": "a signal handler that raises may leave its lock locked",
    "fork_": "a child that is forked meanwhile finds its lock locked",
    "no_room_in_files": "its file does not fit into the limit on the size of files either",
}
NO_TESTS = 5  # pytest's exit status, for a run of a few tests that has none of those


def build(kind: str, folder: Path) -> None:
    """Compile and install. What gcov needs lies beside the object files, so these are kept."""
    for name in ("backends", "src", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(
                source, folder / name, ignore=shutil.ignore_patterns("*.so", "__pycache__")
            )
        else:
            shutil.copy(source, folder)
    flags = dict.fromkeys(("CFLAGS", "LDFLAGS"), COMPILE[kind])
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "--force-reinstall",
        ".",
    ]
    subprocess.run(command, cwd=folder, env={**os.environ, **flags}, check=True)


def library(name: str) -> str:
    """Return the path of a runtime of gcc's."""
    told = subprocess.run(
        ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout
    return str(Path(told.strip()).resolve())


def run(arguments: list[str], **settings: str) -> int:
    """Run the tests."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **settings}, check=False).returncode


def asan(arguments: list[str], folder: Path) -> int:
    """Run the tests with the sanitizers; then the storms for leaks.

    Children under strace cannot be searched for leaks.
    """
    settings = {
        "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
        "PYTHONMALLOC": "malloc",
    }

    def reports(arguments: list[str], more: str) -> tuple[int, list[str]]:
        """Run them; return the status, and what the sanitizers reported.

        pytest would lose it with the process.
        """
        with tempfile.TemporaryDirectory() as logs:
            log = f"log_path={logs}/report"
            failed = run(
                ["pytest", *arguments],
                **settings,
                ASAN_OPTIONS=f"{ASAN}:{more}:{log}",
                UBSAN_OPTIONS=f"print_stacktrace=1:abort_on_error=1:{log}",
            )
            return failed, [file.read_text() for file in Path(logs).iterdir()]

    report, rest = without_report(arguments)
    with reported(report, "tests", folder) as option:
        without = [f"--deselect=tests/{name}" for names in CHANGED.values() for name in names]
        failed, told = reports([*without, *option, *rest], "detect_leaks=0")
    print("\n".join(told), f"{len(told)} reports", sep="\n")
    with reported(report, "leaks", folder) as option:
        more, leaks = reports(
            ["-q", *option, LEAKS], "detect_leaks=1:exitcode=0:fast_unwind_on_malloc=0"
        )
    # By what called the allocator: further down, the C files are in every stack that Python runs.
    stacks = [leak for report in leaks for leak in report.split("\n\n")]
    ours = [leak for leak in stacks if re.search(OURS, "".join(leak.splitlines()[:6]))]
    print("\n\n".join(ours), f"{len(ours)} leaks of what the C files allocated", sep="\n")
    return failed or more or bool(told or ours)


def coverage(arguments: list[str], folder: Path) -> int:
    """Run the tests, and print what they do not reach."""
    report, rest = without_report(arguments)
    settings = folder / "settings"
    settings.write_text(
        f"[run]\ndata_file={made(folder / 'data')}/coverage\nparallel=true\nbranch=true\n"
        "source=mappedfile\npatch=subprocess\n"
        "[paths]\nsource=\n    src/mappedfile\n    */site-packages/mappedfile\n"
        "[report]\nexclude_also=\n    if TYPE_CHECKING:\n    if sys.platform == .win32.:\n"
    )
    open_to_all(folder)
    watched = ["coverage", "run", "--rcfile", str(settings), "-m"]
    unwatched = " or ".join(UNWATCHED)
    failed = 0
    for name, under, which in (
        ("watched", watched, f"not ({unwatched})"),
        ("unwatched", [], unwatched),
    ):
        with reported(report, name, folder) as option:
            status = run([*under, "pytest", "-k", which, *option, *rest])
        failed = failed or (status if status != NO_TESTS else 0)
    for step in (["combine", "-q"], ["report", "-m", "--skip-covered"]):
        run(["coverage", step[0], "--rcfile", str(settings), *step[1:]])
    for notes in sorted(folder.rglob("*.gcno")):
        subprocess.run(
            ["gcov", "-b", "-o", str(notes.parent), str(notes)],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            check=True,
        )
    for listing in sorted(folder.glob("*.c.gcov")):
        if (ROOT / "backends" / listing.stem).exists():
            tell(listing)
    return failed


def open_to_all(folder: Path) -> None:
    """Let everybody write what gcov and coverage.py write: tests become other users."""
    # Every C file has its data afterwards.
    subprocess.run([sys.executable, "-c", "import mappedfile"], cwd=folder, check=True)
    folder.chmod(0o755)
    (folder / "data").chmod(0o777)
    for data in folder.rglob("*.gcda"):
        data.chmod(0o666)


def tell(listing: Path) -> None:
    """Print the lines that were never run, and those of which a branch was never taken."""
    lines, branches, ran, taken = [], [], [0, 0], [0, 0]
    number = text = ""
    for line in listing.read_text().splitlines():
        branch = re.match(r"branch +\d+ (never executed|taken (\d+)%?)(?! \(throw)", line)
        if branch:
            taken[branch[2] not in (None, "0")] += 1
            if branch[2] == "0" and (not branches or branches[-1][0] != number):
                branches.append((number, text))
        elif found := re.match(r" *([^:]+): *(\d+):(.*)", line):
            count, number, text = found.groups()
            if count != "-" and number != "0":
                ran[count[0] not in "#="] += 1
            if count[0] in "#=":
                lines.append((number, text))
    print(f"{listing.stem}: {ran[1]} of {sum(ran)} lines, {taken[1]} of {sum(taken)} branches")
    for what, found in (("never run", lines), ("a branch never taken", branches)):
        print(f"  {what}:", *(f"    {number:>4} {text}" for number, text in found), sep="\n")


def main() -> int:
    """Build, and run."""
    kind, *arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(kind, folder)
        return (asan if kind == "asan" else coverage)(arguments, folder)


if __name__ == "__main__":
    sys.exit(main())
