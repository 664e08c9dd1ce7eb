"""Runs the tests on instrumented C files.

    python .ci/instrumented.py asan|coverage [PYTEST ARGUMENT...]

asan      AddressSanitizer and UndefinedBehaviorSanitizer: an error ends the process. Afterwards
          tests/test_storms.py runs again, to find leaks of the C files.
coverage  gcov and coverage.py: the lines and branches of the C files, and the lines of the Python
          files, that no test reaches.

Run it in a virtual environment: it installs the library there.
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
# The guard handles SIGBUS itself. Tests check which signal ends a child.
ASAN = (
    "handle_segv=0:handle_sigbus=0:handle_sigfpe=0:handle_abort=0:"
    "abort_on_error=1:allocator_may_return_null=1:use_sigaltstack=0"
)
# Changes by the sanitizer, and the first parts of the names of tests that would see them.
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
    "the tests would count its own system calls, and make them fail": ["test_failures.py"],
    "it reuses unmapped addresses": [
        f"test_contract.py::test_{kind}[L3-" for kind in ("library", "layer", "oracle")
    ],
    "its library must be the first in LD_PRELOAD": [
        "test_kinds.py::test_a_new_file_on_a_plain_file_system"
    ],
}
LEAKS = "tests/test_storms.py"
OURS = r"mappedfile/_|backends/"
# Tests that run without coverage.py, and why: it holds a lock, and writes files in every process.
# gcov measures them too.
UNWATCHED = {
    "interrupts": "a signal handler that raises may leave its lock locked",
    "fork_": "a child forked at that moment finds the lock locked",
    "no_room_in_files": "the limit on the size of files holds for its file too",
}
NO_TESTS = 5  # pytest's exit status if no test is selected


def build(kind: str, folder: Path) -> None:
    """Compile and install. The object files are kept, because gcov needs the files beside them."""
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
    """Return the path of a runtime library of gcc."""
    done = subprocess.run(
        ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout
    return str(Path(done.strip()).resolve())


def run(arguments: list[str], **settings: str) -> int:
    """Run the tests."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **settings}, check=False).returncode


def asan(arguments: list[str], folder: Path) -> int:
    """Run the tests with the sanitizers; then look for leaks in test_storms.py.

    A process under strace cannot look for its leaks.
    """
    settings = {
        "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
        "PYTHONMALLOC": "malloc",
    }

    def reports(arguments: list[str], more: str) -> tuple[int, list[str]]:
        """Run pytest; return the exit status, and the reports of the sanitizers.

        They go to files: pytest loses the output of a process that is killed.
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
        failed, errors = reports([*without, *option, *rest], "detect_leaks=0")
    print("\n".join(errors), f"{len(errors)} reports", sep="\n")
    with reported(report, "leaks", folder) as option:
        more, leaks = reports(
            ["-q", *option, LEAKS], "detect_leaks=1:exitcode=0:fast_unwind_on_malloc=0"
        )
    # Only the callers next to the allocator count: every stack has the C files further down.
    stacks = [leak for report in leaks for leak in report.split("\n\n")]
    ours = [leak for leak in stacks if re.search(OURS, "".join(leak.splitlines()[:6]))]
    print("\n\n".join(ours), f"{len(ours)} leaks of what the C files allocated", sep="\n")
    return failed or more or bool(errors or ours)


def coverage(arguments: list[str], folder: Path) -> int:
    """Run the tests, and print the lines that they do not reach."""
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
            print_unreached(listing)
    return failed


def open_to_all(folder: Path) -> None:
    """Let every user write the data of gcov and coverage.py: some tests change the user."""
    # After this import, every C file has a data file.
    subprocess.run([sys.executable, "-c", "import mappedfile"], cwd=folder, check=True)
    folder.chmod(0o755)
    (folder / "data").chmod(0o777)
    for data in folder.rglob("*.gcda"):
        data.chmod(0o666)


def print_unreached(listing: Path) -> None:
    """Print the lines that were never run, and those with a branch that was never taken."""
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
    """Build, and run the tests."""
    kind, *arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(kind, folder)
        return (asan if kind == "asan" else coverage)(arguments, folder)


if __name__ == "__main__":
    sys.exit(main())
