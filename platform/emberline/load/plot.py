"""Latency by percentile, drawn: the further right, the rarer."""

from pathlib import Path

import numpy as np

from emberline.load.latency import Latencies


def plot(found: Latencies, path: Path, title: str) -> None:
    """Writes an SVG or PNG, as the path's ending says."""
    import matplotlib as mpl

    mpl.use("svg" if path.suffix == ".svg" else "agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4.5))
    for values, label in ((found.corrected, "from when it was due"), (found.uncorrected, "from when it was sent")):
        rarer = len(values) / np.arange(len(values), 0, -1)  # of n, the last is one in n
        axes.step(rarer, values, where="post", label=label)
    axes.set_xscale("log")
    ticks = [one for one in (1, 2, 10, 100, 1000, 10_000, 100_000) if one <= 2 * len(found.corrected)]
    axes.set_xticks(ticks, [f"{100 * (1 - 1 / one):g} %" for one in ticks])
    axes.minorticks_off()
    axes.set(xlabel="requests answered within", ylabel="ms", title=title, ylim=(0, None))
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)
