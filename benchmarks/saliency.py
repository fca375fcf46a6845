"""Draw what share of each layer's saliency flows from the picture, by variant: `python benchmarks/saliency.py bench/mine saliency.png`.

Of the cells of a matrix that was run with `saliency`: S_v / (S_v + S_t + S_o) of NoteLLM-2's section 3.2, its mean over seeds; a
panel for each vision encoder.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Curves = dict[str, dict[str, list[np.ndarray]]]  # vision encoder → variant → share by layer [L] of each seed


def read(folder: Path) -> Curves:
    """The curves of all cells that are done and have some."""
    found: Curves = defaultdict(lambda: defaultdict(list))
    for row in map(json.loads, (folder / "results.jsonl").read_text("utf8").rstrip("\n").split("\n")):
        if row["state"] == "done" and row.get("saliency"):
            layers = np.asarray(row["saliency"]["layers"])
            vision = (row["axes"]["vision"] or row["axes"]["mllm"]).rstrip("/").rpartition("/")[2]
            found[vision][row["axes"]["variant"]].append(layers[:, 0] / layers.sum(1).clip(1e-30))
    return found


def draw(found: Curves, out: Path) -> None:
    """One panel an encoder, one line a variant."""
    canvas = Figure(figsize=(6.5 * len(found), 4.0), layout="constrained")
    FigureCanvasAgg(canvas)
    panels = canvas.subplots(1, len(found), squeeze=False, sharey=True)[0]
    for axis, (vision, variants) in zip(panels, sorted(found.items()), strict=True):
        for variant, curves in sorted(variants.items()):
            mean = np.mean(curves, axis=0)
            axis.plot(
                np.arange(1, len(mean) + 1),
                100 * mean,
                marker="o",
                markersize=3,
                label=f"{variant}: {100 * mean.mean():.0f} %",
            )
        axis.set_title(vision)
        axis.set_xlabel("layer")
        axis.legend(title="mean over layers", fontsize="small")
    panels[0].set_ylabel("saliency from the picture, % of the layer's")
    canvas.savefig(out, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of a matrix")
    parser.add_argument("out", type=Path, help="a PNG file")
    options = parser.parse_args()
    found = read(options.folder)
    if not found:
        parser.error(f"no cell of {options.folder} has saliency: run the matrix with `saliency: 64`")
    draw(found, options.out)
    for vision, variants in sorted(found.items()):
        for variant, curves in sorted(variants.items()):
            print(f"{vision} {variant}: {len(curves)} seeds, {100 * np.mean(curves):.1f} % from the picture")


if __name__ == "__main__":
    main()
