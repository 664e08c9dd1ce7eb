"""``python -m benchmarks``: a table of ratios, or profiles with ``--profile``."""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

import mappedfile

from . import growing, guard, layer, mapping, memory, searching, ways
from .harness import CLOCKS, ROWS, NotHere, Result, Setting

EPILOG = (
    "ratio: the median over turns, with its quartiles; a '?' means that the quartiles lie on both"
    " sides of the bar."
)
#: Importing these modules adds their rows, in this order.
FILES = (mapping, searching, growing, guard, memory, ways, layer)
HERE = Path(__file__).resolve().parent
PACKAGE = Path(mappedfile.__file__).resolve().parent


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, epilog=EPILOG
    )
    parser.add_argument(
        "--rows",
        default="*",
        metavar="NAMES",
        help="names or patterns, separated by commas: open,view,find-*",
    )
    parser.add_argument("--list", action="store_true", help="list the rows and stop")
    parser.add_argument(
        "--quick", action="store_true", help="fewer turns and smaller files: a tenth of the time"
    )
    parser.add_argument(
        "--json", action="store_true", help="one JSON document instead of the table"
    )
    parser.add_argument("--profile", action="store_true", help="show profiles instead of the table")
    parser.add_argument(
        "--dir", type=Path, help="the folder for the files (default: that of temporary files)"
    )
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu leaves out waiting, for a busy machine; the rows import, many*, append* and step"
        " always use wall",
    )
    # For the process of one row.
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    patterns = options.rows.split(",")
    order = [file.__name__ for file in FILES]
    names = sorted(ROWS, key=lambda name: order.index(ROWS[name].measure.__module__))
    chosen = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    if not chosen:
        parser.error(f"no such row: {options.rows}; there are {', '.join(names)}")
    if options.list:
        for name in chosen:
            print(f"{name:16} {ROWS[name].what}, against {ROWS[name].against}")
        return 0
    if options.inside:
        with tempfile.TemporaryDirectory(prefix="mappedfile-benchmark-", dir=options.dir) as folder:
            inside(chosen[0], Setting(Path(folder), options.quick, options.clock), options.profile)
        return 0
    results = []
    before = state()
    if not options.json:
        print(
            f"Python {platform.python_version()}, {platform.platform()}, files in"
            f" {options.dir or tempfile.gettempdir()}"
        )
        load = (
            f", load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors"
            if hasattr(os, "getloadavg")
            else ""
        )
        print(f"{PACKAGE}, {before}{load}")
        if not options.profile:
            print(HEAD)
    for name in chosen:
        found = in_a_process(name, options)
        results.append(found)
        if not options.json:
            print(steps_of(found) if options.profile else line(found), flush=True)
    if state() != before:
        print(
            f"The library has changed to {state()} meanwhile: the rows measure different code.",
            file=sys.stderr,
        )
    if options.json:
        print(json.dumps(results, indent=1))
    return int(any("error" in found for found in results))


def state() -> str:
    """Return a digest of the library's files, to detect a change during the run."""
    digest = hashlib.sha256()
    for path in sorted([*PACKAGE.glob("*.py"), *PACKAGE.glob("_native*")]):
        if path.suffix in {".py", ".so", ".pyd"}:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def inside(name: str, at: Setting, profile: bool) -> None:
    """Measure one row and print the result as JSON, for the parent process."""
    row = ROWS[name]
    try:
        if profile:
            steps = list(row.explain(at)) if row.explain else [("no profile of this row", 0.0)]
            print(json.dumps({"row": name, "what": row.what, "steps": steps}))
        else:
            print(json.dumps(asdict(row.run(at))))
    except NotHere as reason:
        print(json.dumps({"row": name, "what": row.what, "not_here": str(reason)}))


def in_a_process(name: str, options: argparse.Namespace) -> dict[str, object]:
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "--inside",
        "--rows",
        name,
        "--clock",
        options.clock,
    ]
    command += ["--quick"] * options.quick + ["--profile"] * options.profile
    if options.dir:
        command += ["--dir", str(options.dir.resolve())]
    run = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=False)
    if run.returncode:
        return {"row": name, "what": ROWS[name].what, "error": run.stderr.strip()}
    found: dict[str, object] = json.loads(run.stdout)
    return found


# Output

HEAD = f"{'row':15} {'what':52} {'peer':>9} {'ours':>9} {'ratio':>6}  {'quartiles':11} {'bar':>5}"


def line(found: dict[str, object]) -> str:
    if reason := found.get("error") or found.get("not_here"):
        return f"{found['row']:15} {found['what']:52} {str(reason).splitlines()[-1]}"
    result = Result(**found)  # type: ignore[arg-type]
    verdict = {None: "", True: "ok", False: "MISSED"}[result.ok] + "?" * result.unsure
    bar = "" if result.bar is None else f"{result.bar:.2f}"
    text = (
        f"{result.row:15} {result.what:52} {duration(result.peer):>9} {duration(result.ours):>9}"
        f" {result.ratio:6.2f}  {result.low:.2f}-{result.high:<6.2f} {bar:>5} {verdict}"
    )
    remarks = [result.remark] if result.remark else []
    if result.loop:
        remarks.append(
            f"empty loop {duration(result.loop)}, subtracted in the ratio; without that"
            f" {result.unadjusted_ratio:.2f}"
        )
    if result.unsteady:
        remarks.append(
            f"UNSTEADY: the medians give {result.ours / result.peer:.2f}; run it again on a quiet"
            " machine"
        )
    remarks += [f"{label}: {ratio:.2f}" for label, ratio in result.further.items()]
    return f"{text}\n{'':15} {'; '.join(remarks)}" if remarks else text


def steps_of(found: dict[str, object]) -> str:
    if reason := found.get("error") or found.get("not_here"):
        return f"\n{found['row']}: {reason}"
    steps: list[tuple[str, float]] = found["steps"]  # type: ignore[assignment]
    lines = [f"  {duration(cost) if cost else '':>9}  {label}" for label, cost in steps]
    return "\n".join([f"\n{found['row']}: {found['what']}", *lines])


def duration(nanoseconds: float) -> str:
    for unit, scale in (("ns", 1), ("us", 1e3), ("ms", 1e6), ("s", 1e9)):
        if abs(nanoseconds) < 1000 * scale or unit == "s":
            break
    return f"{nanoseconds / scale:.{1 if unit == 'ns' else 2}f} {unit}"


if __name__ == "__main__":
    sys.exit(main())
