"""The pictures of the quant stages, as small PNGs: columns that drifted, and what was redundant."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from alchemy.quant.drift import ColumnDrift
from alchemy.quant.expand import Floats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BEFORE, _NOW = "#9aa7b4", "#c2410c"
_LABEL_CHARACTERS = 32
_LAST_LETTER = "\u0530"  # after Latin, Greek and Cyrillic


def drift_picture(columns: Sequence[ColumnDrift]) -> bytes:
    """Bars of the share of rows in each bin, then and now; one panel for each column."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.2 * max(len(columns), 1), 3), dpi=80, layout="constrained")
    panels = figure.subplots(1, max(len(columns), 1), squeeze=False)[0]
    for axes, column in zip(panels, columns, strict=False):
        at = np.arange(len(column.bins))
        axes.bar(at - 0.2, [one.reference for one in column.bins], 0.4, color=_BEFORE, label="released")
        axes.bar(at + 0.2, [one.current for one in column.bins], 0.4, color=_NOW, label="now")
        axes.set_xticks(at, [_plain(one.label) for one in column.bins], rotation=60, ha="right", fontsize=7)
        axes.set_title(f"{_plain(column.column)}\nPSI {column.psi:.2f}", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("share of rows")
    if columns:
        panels[0].legend(frameon=False, fontsize=7)
    return _png(figure)


def correlation_picture(considered: Floats, kept: Floats) -> bytes:
    """|r| of columns before and after the redundant ones were dropped, as two heat maps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.2), dpi=80, layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, title, matrix in zip(panels, ("considered", "kept"), (considered, kept), strict=True):
        shown = np.abs(matrix) if matrix.size else np.zeros((1, 1))
        image = axes.imshow(shown, vmin=0, vmax=1, cmap="magma", interpolation="nearest")
        axes.set_title(f"{title} (the first {len(matrix)})", fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(image, ax=panels, label="|r|", shrink=0.8)
    return _png(figure)


def _plain(text: str) -> str:
    """A label that fits, is no formula to matplotlib, and has only letters that its font has."""
    short = text if len(text) <= _LABEL_CHARACTERS else f"{text[: _LABEL_CHARACTERS - 1]}…"
    known = (one if one.isprintable() and (one < _LAST_LETTER or one == "…") else "?" for one in short)
    return "".join(known).replace("$", r"\$")


def _png(figure: "Figure") -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture, metadata={"Software": None})
    return picture.getvalue()
