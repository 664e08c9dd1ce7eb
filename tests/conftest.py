"""Settings and fixtures of all tests."""

import gc
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import numpy  # noqa: F401 (the tests that need it must not be skipped for want of it)
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mappedfile

#: The long runs: MAPPEDFILE_STRESS=1.
STRESS = bool(os.environ.get("MAPPEDFILE_STRESS"))

#: How many seconds a test may take.
LIMIT = 7200 if STRESS else 300

settings.register_profile(
    "short", max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", settings.get_profile("short"), max_examples=5000)
settings.load_profile("long" if STRESS else "short")


def pytest_configure(config: pytest.Config) -> None:
    """Make every warning an error: an object that a test leaves open is one too.

    Make Ctrl-C be Ctrl-C.
    """
    config.addinivalue_line("filterwarnings", "error")
    # What a shell runs in the background ignores Ctrl-C, and so would the programs that tests start
    # and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip once a test, a class or a module that cannot run here, as its mark says.

    Its parameters and tests are not skipped each.
    """
    skipped = set()
    kept = []
    for item in items:
        marked = {
            node.nodeid.partition("[")[0]
            for node, mark in item.iter_markers_with_node("skipif")
            if any(mark.args)
        }
        if not marked & skipped:
            kept.append(item)
        skipped |= marked
    items[:] = kept


def pytest_collection_finish() -> None:
    """Keep what is there by now out of the way of the garbage collector, which is asked often."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> list[str]:
    """Say what is being tested."""
    return [
        f"mappedfile {mappedfile.__version__} from {Path(mappedfile.__file__).parent}",
        f"{mappedfile.capabilities()}",
    ]


@pytest.fixture(autouse=True)
def _alone() -> None:
    """Let go of the objects that earlier tests left behind.

    They do not go, and are not counted, during this test.
    """
    gc.collect()


def _too_long(_: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"the test has taken {LIMIT} seconds")


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """Have a test that hangs fail.

    Processes that it started have limits of their own. On Windows .ci/wine.py has one for all
    tests.
    """
    if not hasattr(signal, "alarm"):
        yield
        return
    before = signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for the test alone."""
    return tmp_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of a file that does not exist yet."""
    return tmp_path / "file"


if sys.platform == "win32":
    import msvcrt

    # A child that crashes ends, rather than show a dialog.
    msvcrt.SetErrorMode(msvcrt.SEM_FAILCRITICALERRORS | msvcrt.SEM_NOGPFAULTERRORBOX)


@given(st.none())
def look_once(_: None) -> None:
    """Nothing.

    But Hypothesis registers NumPy's generator, and Python 3.14 counts fewer references than it
    expects.
    """


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    look_once()
