"""A picture of what of files is in memory, for ``mappedfile residency --png``: a strip for each file."""

from __future__ import annotations

import os
import warnings
from typing import Any

from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, NullLocator

from mappedfile import PAGE_SIZE
from mappedfile._cli_memory import amount, parts, share

CELLS = 1200  # as many as there are dots across, or nearly
NONE, ALL = "#e8ebee", "#0b5fa5"
INK = "#2b2f33"


def draw(files: list[dict[str, Any]], out: str) -> None:
    """Draw the strips into a file; its name says the format. Raises ``ValueError`` for one that there is not."""
    figure = Figure(
        figsize=(10, 0.7 + 0.95 * len(files)),
        dpi=150,
        layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06),
        facecolor="white",
    )
    colours = LinearSegmentedColormap.from_list("residency", [NONE, ALL])
    for axes, told in zip(figure.subplots(len(files), squeeze=False)[:, 0], files, strict=True):
        size, pages = told["size"], told["pages"]
        unit, scale = unit_for(size)
        end = max(pages, 1) * PAGE_SIZE / scale
        strip = [parts(told["found"], CELLS)] if pages else [[0.0]]
        picture = axes.imshow(
            strip, cmap=colours, vmin=0, vmax=1, aspect="auto", extent=(0, end, 0, 1), interpolation="none"
        )
        axes.set_title(shown(told["file"]), loc="left", fontsize=9, color=INK, fontweight="bold", parse_math=False)
        says = f"{amount(size)}, {share(told['resident'], pages)}" if pages else "empty"
        axes.set_title(says, loc="right", fontsize=8, color=INK)
        axes.set_yticks([])
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 4, 5, 8, 10]) if pages else NullLocator())
        axes.tick_params(labelsize=7, colors=INK, length=2)
        axes.set_xlabel(unit if pages else "", fontsize=7, color=INK, loc="right", labelpad=1)
        axes.spines[:].set_color("#9aa3ab")
    bar = figure.colorbar(picture, ax=figure.axes, shrink=0.6 if len(files) > 1 else 1, aspect=12, pad=0.01)
    bar.set_ticks([0, 1], labels=["none", "all"])
    bar.set_label("in memory", fontsize=7, color=INK)
    bar.ax.tick_params(labelsize=7, colors=INK, length=0)
    bar.outline.set_edgecolor("#9aa3ab")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # names may have characters that the font lacks
        figure.savefig(out)


def unit_for(size: int) -> tuple[str, int]:
    """Return a unit for an axis that ends at *size*, and the bytes in it."""
    unit, scale = "bytes", 1
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 2 * scale * 1024:
            break
        unit, scale = larger, scale * 1024
    return unit, scale


def shown(name: str) -> str:
    """Return a name that a title has room for, and the font can draw."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return text if len(text) <= 70 else "\N{HORIZONTAL ELLIPSIS}" + text[-69:]
