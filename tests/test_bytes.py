"""A window works like bytes wherever it has the same operation. The model is a bytearray."""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from children import code, run_python
from hypothesis import given
from hypothesis import strategies as st
from support import only

from mappedfile import GRANULARITY, PAGE_SIZE, MappedFile

LARGEST = 2**63 - 1

#: Offsets and lengths of windows: at, before and after each boundary of pages and of the file.
PLACES = [
    (0, 0),
    (0, 1),
    (0, PAGE_SIZE),
    (1, 2),
    (3, PAGE_SIZE),
    (PAGE_SIZE - 1, 2),
    (PAGE_SIZE, 17),
    (GRANULARITY - 1, PAGE_SIZE + 2),
    (GRANULARITY, GRANULARITY),
    (GRANULARITY + 1, 300),
    (1_003, 2 * GRANULARITY),
]
SIZE = 3 * GRANULARITY + 77
# Only four different bytes, so that searches find matches.
CONTENT = bytes(random.Random(1).choices(b"ab\0\xff", k=SIZE))


class Model(bytearray):
    """A bytearray with a short repr, for failures."""

    def __repr__(self) -> str:
        return f"<Model of {len(self)} bytes>"


@contextmanager
def window_on(folder: Path, place: Any, mode: Any = "r+") -> Iterator[tuple[Any, Model]]:
    """Open a file with random content, or a view of it. Yield it and its model."""
    path = folder / "bytes"
    path.write_bytes(CONTENT)
    with MappedFile(path, mode) as file:
        if place == "file":
            yield file, Model(CONTENT)
        else:
            offset, length = place
            with file.view(offset, length) as view:
                yield view, Model(CONTENT[offset : offset + length])


@pytest.fixture(scope="module", params=("file", *PLACES), ids=str)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Any, Model]]:
    """Return a window and its model. Tests change both in the same way."""
    with window_on(tmp_path_factory.mktemp("bytes"), request.param) as both:
        yield both


limits = (
    st.none()
    | st.integers(-SIZE - 5, SIZE + 5)
    | st.integers(-20, 20)
    | st.sampled_from([-LARGEST, LARGEST, -(10**30), 10**30])
)
steps = (
    st.none()
    | st.integers(-9, 9).filter(bool)
    | st.sampled_from([PAGE_SIZE, -PAGE_SIZE, LARGEST, -LARGEST])
)
positions = st.integers(-SIZE - 5, SIZE + 5) | st.integers(-20, 20)
needles = st.lists(st.sampled_from(b"ab\0\xffx"), max_size=12).map(bytes)


def same(model: Model, window: Any) -> bool:
    """Whether a window and its model are equal. pytest would print a long difference."""
    return model == window[:]


def outcome(function: Any) -> Any:
    """Return the result of a call, or the type of its exception."""
    try:
        return function()
    except Exception as error:
        return type(error)


@given(position=positions)
def test_item(pair: tuple[Any, Model], position: int) -> None:
    """An index returns an int, counts from either end, or raises IndexError."""
    window, model = pair
    assert outcome(lambda: model[position]) == outcome(lambda: window[position])


@given(start=limits, stop=limits, step=steps)
def test_slice(pair: tuple[Any, Model], start: int, stop: int, step: int) -> None:
    """A slice with any step returns a bytes object."""
    window, model = pair
    result = window[start:stop:step]
    assert type(result) is bytes
    assert model[start:stop:step] == result


@given(position=positions, value=st.integers(-2, 258))
def test_set_item(pair: tuple[Any, Model], position: int, value: int) -> None:
    """An item can be set to a number in range(256). Other numbers and positions raise the error of
    bytearray, and change nothing."""
    window, model = pair
    expected = outcome(lambda: model.__setitem__(position, value))
    result = outcome(lambda: window.__setitem__(position, value))
    if (
        expected is not ValueError or result is not IndexError
    ):  # if both are wrong, either error is right
        assert expected == result
    assert same(model, window)


@given(
    data=st.data(),
    start=limits,
    stop=limits,
    step=steps,
    longer=st.sampled_from([0, 0, 0, 0, -1, 1]),
)
def test_set_slice(
    pair: tuple[Any, Model], data: st.DataObject, start: int, stop: int, step: int, longer: int
) -> None:
    """A slice can be set to bytes of its own length. Other lengths raise ValueError, since a window
    does not change its length."""
    window, model = pair
    length = len(model[start:stop:step])
    pattern = data.draw(st.binary(min_size=1, max_size=20))
    new = (pattern * (length // len(pattern) + 2))[: max(length + longer, 0)]
    kind = data.draw(
        st.sampled_from([bytes, bytearray, memoryview, lambda new: np.frombuffer(new, "u1")])
    )
    if len(new) == length:
        window[start:stop:step] = kind(new)
        model[start:stop:step] = new
    else:
        with pytest.raises(ValueError, match="bytes"):
            window[start:stop:step] = kind(new)
    assert same(model, window)


@given(needle=needles, start=limits, end=limits)
def test_search(pair: tuple[Any, Model], needle: bytes, start: int | None, end: int | None) -> None:
    """find, rfind, count and ``in`` return what they return for bytes, with every start and end."""
    window, model = pair
    assert model.find(needle, start, end) == window.find(needle, start, end)
    assert model.rfind(needle, start, end) == window.rfind(needle, start, end)
    assert model.count(needle, start, end) == window.count(needle, start, end)
    assert (needle in model) == (needle in window)


@given(number=st.integers(-1, 256), start=limits, end=limits)
def test_search_for_a_number(
    pair: tuple[Any, Model], number: int, start: int | None, end: int | None
) -> None:
    """A number stands for one byte. A number that is not a byte raises ValueError."""
    window, model = pair
    for name in ("find", "rfind", "count"):
        expected = outcome(lambda name=name: getattr(model, name)(number, start, end))
        assert expected == outcome(lambda name=name: getattr(window, name)(number, start, end))
    assert outcome(lambda: number in model) == outcome(lambda: number in window)


@given(data=st.data())
def test_search_for_its_own_bytes(pair: tuple[Any, Model], data: st.DataObject) -> None:
    """find and rfind find the first and the last place of every slice of a window."""
    window, model = pair
    start = data.draw(st.integers(0, len(model)))
    needle = bytes(model[start : start + data.draw(st.integers(0, 600))])
    assert model.find(needle) == window.find(needle)
    assert model.rfind(needle) == window.rfind(bytearray(needle))
    assert needle in window


@given(needle=needles, start=limits, end=limits)
def test_index(pair: tuple[Any, Model], needle: bytes, start: int | None, end: int | None) -> None:
    """index and rindex return what find and rfind do, but raise ValueError in place of -1."""
    window, model = pair
    for name in ("index", "rindex"):
        for sub in (needle, needle[0] if needle else 97):
            expected = outcome(lambda name=name, sub=sub: getattr(model, name)(sub, start, end))
            assert expected == outcome(
                lambda name=name, sub=sub: getattr(window, name)(sub, start, end)
            )


@given(data=st.data(), start=limits, end=limits)
def test_starts_and_ends(
    pair: tuple[Any, Model], data: st.DataObject, start: int | None, end: int | None
) -> None:
    """startswith and endswith return what they return for bytes, with every start and end, and with
    tuples."""
    window, model = pair
    length = data.draw(st.integers(0, 300))
    part = bytes(model[start:end])
    given = data.draw(st.sampled_from([part[:length], part[-length:], b"", b"a", part]))
    for sub in (given, (), (given,), (b"no", bytearray(given)), (given + b"x", b"\xff" + given)):
        for name in ("startswith", "endswith"):
            asked = tuple(map(bytes, sub)) if isinstance(sub, tuple) else sub
            assert getattr(model, name)(asked, start, end) == getattr(window, name)(sub, start, end)
    assert model.startswith(given) == window.startswith(memoryview(given))


def test_iteration(pair: tuple[Any, Model]) -> None:
    """Iteration yields ints in both directions. list, tuple and bytes accept a window."""
    window, model = pair
    assert list(model) == list(window)
    assert list(reversed(model)) == list(reversed(window))
    assert len(model) == len(window)
    assert bool(model) == bool(window)


def test_buffer(pair: tuple[Any, Model]) -> None:
    """``data`` is a flat writable buffer of the same memory: the window sees what is written
    through it."""
    window, model = pair
    data = window.data
    assert (model, "B", 1, 1, (len(model),), True) == (
        data.tobytes(),
        data.format,
        data.itemsize,
        data.ndim,
        data.shape,
        data.c_contiguous,
    )
    assert not data.readonly
    if len(model):
        data[-1] = model[-1] = model[-1] ^ 0x55
    assert same(model, window)


# Errors


WRONG_KEYS = ["0", 1.0, None, b"x", (0, 1), ..., [0], 1j]
WRONG_VALUES = ["x", 1.5, None, b"x", [1], ...]
WRONG_BYTES = ["xx", 5, None, [1, 2], 1.5, ...]


@pytest.mark.parametrize("place", ["file", (3, 500)], ids=str)
@pytest.mark.parametrize("mode", ["r+", "c"])
def test_wrong_calls(folder: Path, place: Any, mode: str) -> None:
    """Repeated and unknown arguments raise TypeError. An exception in __index__ or __bool__ and a
    released buffer raise their own error. Nothing changes."""

    class Bad:
        def __index__(self) -> int:
            raise KeyError("no number")

        def __bool__(self) -> bool:
            raise KeyError("no answer")

    gone = memoryview(b"ab")
    gone.release()
    with window_on(folder, place, mode) as (window, model):
        for wrong in ({"offset": 1}, {"unknown": 1}):
            with pytest.raises(TypeError, match="flush"):
                window.flush(0, **wrong)
        with pytest.raises(TypeError, match="flush"):
            window.flush(0, 1, True)
        for call in (
            lambda: window.flush(durable=Bad()),
            lambda: window.close(strict=Bad()),
            lambda: Bad() in window,
            lambda: window[Bad()],
            lambda: window.find(b"a", Bad()),
            lambda: window.startswith(b"a", 0, Bad()),
        ):
            with pytest.raises(KeyError, match="no"):
                call()
        for call in (
            lambda: window.find(gone),
            lambda: gone in window,
            lambda: window.startswith(gone),
            lambda: window.endswith((b"zz", gone)),
            lambda: window.__setitem__(slice(0, 2), gone),
        ):
            with pytest.raises(ValueError, match="released"):
                call()
        assert bytes(model) == window[:]


@pytest.mark.parametrize("place", ["file", (3, 500)], ids=str)
@pytest.mark.parametrize("mode", ["r+", "c"])
def test_wrong_types(folder: Path, place: Any, mode: str) -> None:
    """Wrong types of indexes, bytes and bytes-like arguments raise TypeError, as for a bytearray,
    and change nothing."""
    with window_on(folder, place, mode) as (window, model):
        for key in WRONG_KEYS:
            with pytest.raises(TypeError):
                window[key]
            with pytest.raises(TypeError):
                window[key] = 1
        for key in (slice("a", None), slice(None, 1.0), slice(0, 5, "1"), slice(b"", None)):
            with pytest.raises(TypeError):
                window[key]
            with pytest.raises(TypeError):
                window[key] = b""
        for value in WRONG_VALUES:
            with pytest.raises(TypeError):
                window[0] = value
        for value in WRONG_BYTES:
            with pytest.raises(TypeError):
                window[0:2] = value
        with pytest.raises(ValueError, match="zero"):
            window[::0]
        with pytest.raises(ValueError, match="zero"):
            window[::0] = b""
        for needle in ("x", None, 1.5, [97], ...):
            for search in (
                window.find,
                window.rfind,
                window.count,
                window.__contains__,
                window.index,
                window.rindex,
            ):
                with pytest.raises(TypeError):
                    search(needle)
        for part in ("x", None, 1, 1.5, [b"a"], ("x",), (97,), (None,)):
            for test in (window.startswith, window.endswith):
                with pytest.raises(TypeError):
                    test(part)
        for limit in ("0", 1.5, b"", [0]):
            for search in (
                window.find,
                window.rfind,
                window.count,
                window.startswith,
                window.endswith,
            ):
                with pytest.raises(TypeError):
                    search(b"a", limit)
                with pytest.raises(TypeError):
                    search(b"a", 0, limit)
        assert same(model, window)


@pytest.mark.parametrize(
    ("place", "value", "instead"),
    [
        (0, b"x", "write w[0] = 120, or w[0:1] = b'x'"),
        (-1, b"x", "write w[-1] = 120, or w[-1:] = b'x'"),
        (5, b"abc", "write w[5:8] = b'abc'"),
        (-3, b"abc", "write w[-3:] = b'abc'"),
        (-1, b"abc", "write w[499:502] = b'abc'"),
        (2, "a", "write w[2:3] = ..."),
        (2, bytes(99), "write w[2:101] = ..."),
    ],
)
def test_what_to_write_instead(folder: Path, place: int, value: Any, instead: str) -> None:
    """Setting an item to bytes raises an error that says how to set bytes."""
    with window_on(folder, (3, 500)) as (window, _):
        with pytest.raises(TypeError) as caught:
            window[place] = value
        assert str(caught.value).endswith(instead)


@pytest.mark.parametrize("place", ["file", (3, 500)], ids=str)
def test_read_only(folder: Path, place: Any) -> None:
    """Every assignment to a read-only window raises TypeError with advice, and changes nothing."""
    with window_on(folder, place, "r") as (window, model):
        for key, value in [
            (0, 1),
            (-1, 0),
            (10**9, 1),
            (0, 999),
            (slice(0, 1), b"x"),
            (slice(0, 0), b""),
            (slice(0, 9, 2), b"x"),
        ]:
            with pytest.raises(TypeError, match=r"read-only.*'r\+'"):
                window[key] = value
        assert same(model, window)


@pytest.mark.parametrize("place", ["file", (3, 500)], ids=str)
def test_no_deletion_no_arithmetic(folder: Path, place: Any) -> None:
    """Deleting, adding and multiplying raise TypeError."""
    with window_on(folder, place) as (window, _):
        with pytest.raises((TypeError, AttributeError)):
            del window[0]
        for function in (lambda: window + b"x", lambda: window * 2, lambda: window + window):
            with pytest.raises(TypeError):
                function()


def test_overlapping(folder: Path) -> None:
    """A slice can be set to an overlapping part of the same memory, as with memmove."""
    with window_on(folder, (5, 300)) as (window, model):
        for shift in (-7, 7):
            data = window.data[20:120]
            model[20 + shift : 120 + shift] = bytes(model[20:120])
            window[20 + shift : 120 + shift] = data
            assert same(model, window)


def test_values_of_other_shapes(folder: Path) -> None:
    """Every buffer is bytes-like: of any format and dimension, and also if it is not contiguous."""
    with window_on(folder, (5, 300)) as (window, model):
        for value in (
            np.arange(10, dtype="<u4"),
            np.arange(40, dtype="u1").reshape(5, 8),
            np.arange(80, dtype="u1")[::2],
            memoryview(bytes(80))[::2],
            memoryview(bytes(40)).cast("Q"),
            np.arange(40, dtype="i1").reshape(8, 5).T,
        ):
            model[100:140] = bytes(value) if not isinstance(value, np.ndarray) else value.tobytes()
            window[100:140] = value
            assert same(model, window)
            assert model.find(bytes(model[100:140])) == window.find(value)


@pytest.mark.parametrize("place", ["file", (3, 500)], ids=str)
def test_closed(folder: Path, place: Any) -> None:
    """Every use of a closed window raises ValueError with the file's name, also with wrong
    arguments."""
    with window_on(folder, place) as (window, _):
        iterator = iter(window)
        next(iterator)
        window.close()
        for function in (
            lambda: window[0],
            lambda: window[10**9],
            lambda: window[3:1],
            lambda: window[::2],
            lambda: window.__setitem__(0, 1),
            lambda: window.__setitem__(slice(0, 1), b"x"),
            lambda: window.__setitem__(slice(0, 1), b"too long"),
            lambda: len(window),
            lambda: list(window),
            lambda: next(iterator),
            lambda: b"x" in window,
            lambda: window.find(b"x"),
            lambda: window.rfind(b"x", 2, 1),
            lambda: window.count(b""),
            lambda: window.index(b"x"),
            lambda: window.rindex(b"x"),
            lambda: window.startswith(b""),
            lambda: window.endswith(()),
            lambda: window.stream(),
            lambda: window.array(),
            lambda: window.view(),
            lambda: window.data,
            lambda: window.flush(),
            lambda: window.__enter__(),
        ):
            with pytest.raises(ValueError, match="closed") as caught:
                function()
            assert "bytes" in str(caught.value)


LONG_SEARCH = """
import _thread, sys, threading
from mappedfile import MappedFile
# No machine can search all of it during the test.
with MappedFile(sys.argv[1], "w+", size=1 << 40, sparse=True) as file:
    file[5:7] = b"no"
    for search in (file.find, file.rfind, file.count):
        timer = threading.Timer(0.1, _thread.interrupt_main)
        timer.start()
        try:
            search(b"yes")
        except KeyboardInterrupt:
            timer.join()
            print(search.__name__, flush=True)
    assert (file.find(b"no"), file.count(b"no", 0, 1000)) == (5, 1)
    file.close(strict=True)
"""


def test_a_long_search_hears_signals(folder: Path) -> None:
    """Ctrl-C ends a search, and the window stays usable."""
    only(os.name == "posix", "POSIX only: maps a file of 1 TiB")
    done = run_python(*code(LONG_SEARCH), folder / "long", quiet=True)
    assert ["find", "rfind", "count"] == done.stdout.split()


@given(st.binary(min_size=1, max_size=3), st.data())
def test_pieces_of_a_search(
    three_pieces: tuple[MappedFile, bytes], needle: bytes, data: st.DataObject
) -> None:
    """A long search is done in steps. It finds a match across two steps, and counts it once."""
    file, content = three_pieces
    near = st.sampled_from(EDGES) | st.integers(0, len(content))
    for place in data.draw(st.lists(near, max_size=5)):
        content = content[:place] + needle * 2 + content[place + 2 * len(needle) :]
    content = content[: len(file)]
    file[:] = content
    start, end = sorted((data.draw(near), data.draw(near)))
    assert content.find(needle, start, end) == file.find(needle, start, end)
    assert content.rfind(needle, start, end) == file.rfind(needle, start, end)
    assert content.count(needle, start, end) == file.count(needle, start, end)


#: Places near the ends of a search's steps: backends/window.c.
EDGES = [
    edge + by
    for edge in (64 << 10, 1 << 20, (1 << 20) + (64 << 10), 2 << 20)
    for by in (-3, -2, -1, 0, 1)
]


@pytest.fixture(scope="module")
def three_pieces(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MappedFile, bytes]]:
    with MappedFile(
        tmp_path_factory.mktemp("pieces") / "file", "w+", size=(2 << 20) + 1000
    ) as file:
        yield file, bytes(len(file))
