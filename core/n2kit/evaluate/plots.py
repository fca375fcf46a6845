"""A plot of the results of `n2kit neglect`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from n2kit.errors import Unavailable, counted
from n2kit.evaluate.neglect import Curves, Neglect
from n2kit.evaluate.protocol import Figure

EXTRA = 'pip install "n2kit[plots]"'
LABELS = ("image → word", "text → word", "among the others")


def plot_neglect(found: Neglect, out: Path) -> None:
    """Write a PNG: recall by way, and the saliency curves where there are some.

    Raises:
        Unavailable: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise Unavailable("a plot needs matplotlib, which is not installed", EXTRA) from None
    columns = 1 if found.saliency is None else 2
    canvas = Canvas(figsize=(6.5 * columns, 4.0), layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.subplots(1, columns, squeeze=False)[0]
    _bars(axes[0], found.figures)
    axes[0].set_title(f"{counted(found.queries, 'query')}, pool of {found.pool:,}")
    if found.saliency is not None:
        _curves(axes[1], found.saliency)
    canvas.savefig(out, dpi=120)


def _bars(axis: Any, figures: dict[str, dict[str, Figure]]) -> None:
    names = [name for name in next(iter(figures.values())) if name.startswith("recall@")]
    width = 0.8 / len(figures)
    for n, (way, values) in enumerate(figures.items()):
        shown = [values[name] for name in names]
        places = np.arange(len(names)) + (n - (len(figures) - 1) / 2) * width
        heights = np.array([f.value for f in shown])
        bounds = [[f.value if b is None else b for f in shown for b in [getattr(f, side)]] for side in ("low", "high")]
        errors = np.abs(np.array(bounds) - heights)
        axis.bar(places, heights, width, yerr=errors, label=way, capsize=2)
    axis.set_xticks(range(len(names)), names)
    axis.set_ylim(0, 1.05)
    axis.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=len(figures), frameon=False)


def _curves(axis: Any, curves: Curves) -> None:
    layers = np.arange(1, len(curves.mean) + 1)
    for n, label in enumerate(LABELS):
        axis.plot(layers, curves.shares[:, n], marker="o", markersize=3, label=label)
    axis.set_title(f"share of the saliency, {counted(curves.items, 'item')}")
    axis.set_xlabel("layer")
    axis.locator_params(axis="x", integer=True)
    axis.set_ylim(0, 1)
    axis.legend(fontsize="small")
