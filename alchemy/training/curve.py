"""The loss curve of a training run as a picture."""

import io

from alchemy.training.lora import TrainReport


def loss_curve(report: TrainReport) -> bytes:
    """A PNG of training and held-out loss over tokens trained on."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=100, layout="constrained")  # no pyplot: no state between runs
    axes = figure.add_subplot()
    axes.plot(*zip(*report.loss_curve, strict=True), color="#9aa7b4", linewidth=1.2, label="training step")
    if report.eval_curve:
        axes.plot(*zip(*report.eval_curve, strict=True), color="#c2410c", marker="o", label="held out")
        best = min(report.eval_curve, key=lambda point: point[1])
        axes.annotate(
            f"{best[1]:.2f}", best, xytext=(0, 8), textcoords="offset points", ha="center", color="#c2410c"
        )
        axes.axhline(report.eval_curve[0][1], color="#c2410c", linewidth=0.8, linestyle=":", label="base")
    axes.set_xlabel("tokens trained on")
    axes.set_ylabel("loss per response token (nats)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    picture = io.BytesIO()
    FigureCanvasAgg(figure).print_png(picture, metadata={"Software": None})
    return picture.getvalue()
