"""Settings and fixtures of all tests."""

import gc
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import numpy  # noqa: F401 (without NumPy, its tests would be skipped)
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mappedfile

#: Whether to run the long tests: MAPPEDFILE_STRESS=1.
STRESS = bool(os.environ.get("MAPPEDFILE_STRESS"))

#: How many seconds a test may take.
LIMIT = 7200 if STRESS else 300

settings.register_profile(
    "short", max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("long", settings.get_profile("short"), max_examples=5000)
settings.load_profile("long" if STRESS else "short")


def pytest_configure(config: pytest.Config) -> None:
    """Make every warning an error, also those of objects that a test leaves open.

    Reset the handler of SIGINT.
    """
    config.addinivalue_line("filterwarnings", "error")
    # A shell starts background jobs with SIGINT ignored. The programs that tests start and
    # interrupt would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Report one skip for a test, class or module with a skipif mark.

    Without this, each parameter and each test of it is reported.
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
    """Freeze the objects that exist after collection, so that gc.collect() before each test is
    fast."""
    gc.collect()
    gc.freeze()


def pytest_report_header() -> list[str]:
    """Return the version, the folder and the capabilities of the tested library."""
    return [
        f"mappedfile {mappedfile.__version__} from {Path(mappedfile.__file__).parent}",
        f"{mappedfile.capabilities()}",
    ]


@pytest.fixture(autouse=True)
def _collected() -> None:
    """Collect garbage of earlier tests before this test."""
    gc.collect()


def _too_long(_: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"the test has taken {LIMIT} seconds")


@pytest.fixture(autouse=True)
def _in_time() -> Iterator[None]:
    """Fail a test that takes longer than LIMIT seconds.

    Processes that it starts have limits of their own. Windows has no alarm(): .ci/wine.py limits
    the whole run.
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
    """Return an empty folder for this test."""
    return tmp_path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a file that does not exist yet."""
    return tmp_path / "file"


if sys.platform == "win32":
    import msvcrt

    # A child that crashes ends at once. By default Windows shows a dialog.
    msvcrt.SetErrorMode(msvcrt.SEM_FAILCRITICALERRORS | msvcrt.SEM_NOGPFAULTERRORBOX)


@given(st.none())
def warm_up_hypothesis(_: None) -> None:
    """Do nothing.

    The first use registers NumPy's generator. On Python 3.14 that causes a warning about reference
    counts, which is ignored here.
    """


with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    warm_up_hypothesis()
