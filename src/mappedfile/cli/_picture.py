"""The picture of ``mappedfile residency --png``: a strip for each file."""

from __future__ import annotations

import os
import warnings

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from mappedfile.cli._files import place
from mappedfile.cli._numbers import UNITS, share, unit_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from mappedfile.cli._files import Facts

NONE, ALL = "#e8ebee", "#0b5fa5"
INK = "#2b2f33"


def draw(files: list[Facts], strips: list[list[float]], out: str) -> None:
    """Draw a strip for each file, and save the picture; the name of *out* decides the format.

    Raises ``ValueError`` for an unknown format.
    """
    figure = Figure(
        figsize=(10, 0.7 + 0.95 * len(files)),
        dpi=150,
        layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06),
        facecolor="white",
    )
    colours = LinearSegmentedColormap.from_list("residency", [NONE, ALL])
    rows = figure.subplots(len(files), squeeze=False)[:, 0]
    for axes, facts, strip in zip(rows, files, strips, strict=True):
        first, last = facts["offset"], facts["offset"] + facts["length"]
        picture = axes.imshow(
            [strip or [0.0]],
            cmap=colours,
            vmin=0,
            vmax=1,
            aspect="auto",
            extent=(first, max(last, first + 1), 0, 1),
            interpolation="none",
        )
        axes.set_title(
            shown(facts["file"]),
            loc="left",
            fontsize=9,
            color=INK,
            fontweight="bold",
            parse_math=False,
        )
        says = f"{place(facts)}, {share(facts['resident'], facts['pages'])}" if strip else "empty"
        axes.set_title(says, loc="right", fontsize=8, color=INK)
        axes.set_yticks([])
        places, labels = ticks(first, last)
        axes.set_xticks(places, labels)
        axes.tick_params(labelsize=7, colors=INK, length=2)
        axes.spines[:].set_color("#9aa3ab")
    bar = figure.colorbar(
        picture, ax=figure.axes, shrink=0.6 if len(files) > 1 else 1, aspect=12, pad=0.01
    )
    bar.set_ticks([0, 1], labels=["none", "all"])
    bar.set_label("in memory", fontsize=7, color=INK)
    bar.ax.tick_params(labelsize=7, colors=INK, length=0)
    bar.outline.set_edgecolor("#9aa3ab")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a name may have characters that the font lacks
        figure.savefig(out)


def ticks(first: int, last: int) -> tuple[list[float], list[str]]:
    """Return the ticks of an axis from one byte to another, and their labels.

    The first and the last byte have ticks. The label of the last tick has the unit.
    """
    if first >= last:
        return [], []
    unit = "bytes" if last < 2048 else unit_for(last / 2)
    scale = 1024 ** UNITS.index(unit)
    begin, end = first / scale, last / scale
    between = MaxNLocator(8, steps=[1, 2, 4, 5, 8, 10]).tick_values(begin, end)
    margin = (end - begin) / 12  # room for the label of the end
    places = [begin, *(each for each in between if begin + margin <= each <= end - margin), end]
    labels = [f"{round(each, 1 if each == end else 3):,.10g}" for each in places]
    labels[-1] += f" {unit}"
    return [each * scale for each in places], labels


def shown(name: str) -> str:
    """Return a name that fits in a title, and that the font can draw."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return text if len(text) <= 70 else "\N{HORIZONTAL ELLIPSIS}" + text[-69:]
