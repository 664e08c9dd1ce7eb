"""The helpers of these tests: processes and threads have time limits, and failures show their
output."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest
from children import child, code, run_command, run_python, start_python
from children.crew import Crew, at_once


def test_what_a_child_is_given() -> None:
    """A child has no input and can import from tests/. It gets arguments as text, and changed
    environment variables."""
    program = """
    import os, sys
    import children, support
    print([*sys.argv[1:], sys.stdin.read(), os.environ.get("MORE"), os.environ.get("FEWER")])
    """
    os.environ["FEWER"] = "x"
    try:
        done = run_python(*code(program), 1, Path("a"), env={"MORE": "m", "FEWER": None})
    finally:
        del os.environ["FEWER"]
    assert "['1', 'a', '', 'm', None]\n" == done.stdout


def test_a_child_that_fails() -> None:
    """The failure shows the child's output."""
    with pytest.raises(AssertionError, match=r"ended with 3\nout\n(?s:.*)err"):
        run_python(*code("import sys\nprint('out'); print('err', file=sys.stderr); sys.exit(3)"))
    with pytest.raises(AssertionError, match="on standard error\nerr"):
        run_python(*code("import sys\nprint('err', file=sys.stderr)"), quiet=True)


def test_a_child_that_hangs() -> None:
    """A child is killed at its limit, and the failure shows its output."""
    program = "import time\nprint('out', flush=True)\ntime.sleep(60)"
    began = time.monotonic()
    with pytest.raises(AssertionError, match=r"did not end within 2 seconds\nout"):
        run_python(*code(program), timeout=2)
    with start_python(*code(program), limit=2) as talk:
        assert "out" == talk.hear()
        with pytest.raises(AssertionError, match="said no more within 2 seconds"):
            talk.hear()
    with (
        start_python(*code(program), limit=2) as talk,
        pytest.raises(AssertionError, match=r"within 2 seconds\nout"),
    ):
        talk.end()
    assert time.monotonic() - began < 50


def test_a_child_that_converses() -> None:
    """A child reads and writes lines. Output at its end is not lost."""
    program = """
    import sys
    for line in sys.stdin:
        print("heard", line.strip(), flush=True)
    print("the rest")
    """
    with start_python(*code(program)) as talk:
        for word in ("one", "two"):
            talk.say(word)
            assert f"heard {word}" == talk.hear()
        talk.say("three")
        assert ["heard three", "the rest"] == talk.end(quiet=True).stdout.splitlines()
    with (
        start_python(*code("import sys\nsys.exit('gone')")) as talk,
        pytest.raises(AssertionError, match=r"said no more\ngone"),
    ):
        talk.hear()


def test_a_task_that_is_not_there() -> None:
    """The failure lists the existing tasks."""
    done = run_python(*child("guard_switch"), "typo", check=False)
    says = "no such task: 'typo'; there are states, switched_off, switched_on_late, first_view"
    assert (1, says) == (done.returncode, done.stderr.strip())


def test_a_command(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        run_command([tmp_path / "missing"])


# Threads


def test_at_once() -> None:
    """at_once returns what each function raised, in order."""
    first, second = at_once(lambda: 1, lambda: int("x"))
    assert first is None
    assert isinstance(second, ValueError)


def test_a_thread_that_fails() -> None:
    """If a thread fails, waiting at a barrier ends, and the crew raises the thread's error."""

    def fail() -> None:
        raise ValueError("broken")

    began = time.monotonic()
    with pytest.raises(ValueError, match="broken"), Crew(60) as crew:
        meeting = crew.barrier(3)
        crew.start(meeting.wait)
        crew.start(fail)
        meeting.wait()
    assert time.monotonic() - began < 50
    assert threading.active_count() == 1


def test_who_starts_them_fails() -> None:
    """If the main thread fails, its threads stop waiting and end."""
    began = time.monotonic()
    with pytest.raises(ValueError, match="broken"), Crew(60) as crew:
        crew.start(crew.barrier(2).wait)
        crew.start(crew.stopped.wait)
        raise ValueError("broken")
    assert time.monotonic() - began < 50
    assert threading.active_count() == 1


def test_threads_that_hang(capfd: pytest.CaptureFixture[str]) -> None:
    """Waiting ends with an error at the limit: at a barrier, and for a thread to end."""
    end = threading.Event()
    with pytest.raises(threading.BrokenBarrierError), Crew(0.2) as crew:
        crew.start(crew.barrier(2).wait)
        time.sleep(0.5)
    with pytest.raises(AssertionError, match="hangs"), Crew(0.2) as crew:
        thread = crew.start(end.wait)
    end.set()
    thread.join()
    assert "test_children.py" in capfd.readouterr().err
