"""The report as pictures: measures of retrieval and answers with their intervals, losses of the adapters.

Drawn when they are shown; a report holds numbers, so another version of the drawing library changes nothing.
"""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from alchemy.evaluation.finding import MEASURES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BEFORE, _NOW = "#9aa7b4", "#c2410c"


def report_picture(report: Mapping[str, Any]) -> bytes:
    """A PNG with three panels; whiskers are 95 % intervals."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), dpi=90, layout="constrained")
    found, sources, losses = figure.subplots(1, 3)
    retrieval, answers = report["retrieval"] or {}, report["answers"]
    rows = {name: retrieval[name] for name in MEASURES if name in retrieval}
    kept = ("citation_precision", "citation_recall", "groundedness")
    _intervals(found, rows | {name: answers[name] for name in kept if answers[name]})
    found.set_title("held-out questions", fontsize=9)
    by_source = retrieval.get("by_source", {})
    _intervals(
        sources, {f"{name} ({one['questions']})": one["recall_at_5"] for name, one in by_source.items()}
    )
    sources.set_title("recall@5 by source (questions)", fontsize=9)
    _losses(losses, report["adapters"])
    losses.set_title("held-out loss (nats per token)", fontsize=9)
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture, metadata={"Software": None})
    return picture.getvalue()


def _intervals(axes: "Axes", rows: Mapping[str, Mapping[str, float]]) -> None:
    for place, one in enumerate(rows.values()):
        axes.plot([one["low"], one["high"]], [place, place], color=_BEFORE, linewidth=3)
        axes.plot(one["mean"], place, color=_NOW, marker="o")
    axes.set_yticks(range(len(rows)), list(rows), fontsize=8)
    axes.set_xlim(-0.02, 1.02)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)


def _losses(axes: "Axes", adapters: Mapping[str, Mapping[str, Any]]) -> None:
    measured = {name: one for name, one in adapters.items() if one.get("loss") is not None}
    for place, one in enumerate(measured.values()):
        axes.bar(place - 0.2, one["base_loss"], 0.4, color=_BEFORE, label="" if place else "base")
        axes.bar(place + 0.2, one["loss"], 0.4, color=_NOW, label="" if place else "adapter")
        if one.get("change"):
            low, high = (one["base_loss"] * (1 + one["change"][end]) for end in ("low", "high"))
            axes.plot([place + 0.2] * 2, [low, high], color="black", linewidth=1)
    axes.set_xticks(range(len(measured)), list(measured), fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    if measured:
        axes.legend(frameon=False, fontsize=8)
