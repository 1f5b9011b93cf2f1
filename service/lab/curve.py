"""The losses of a run as a picture. Needs matplotlib, the `lab` extra."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from service.errors import ConfigError


def plot(table: Path, picture: Path, *, smooth: int = 50) -> None:
    """Draws `curve.tsv` (step, CTC, attention, audio seconds, seconds) as a PNG.

    Lines are running means over `smooth` steps. Raises ConfigError without matplotlib.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError("a picture needs matplotlib: pip install 'winnow[lab]'") from error
    with table.open(newline="") as file:
        rows = np.array([[float(x) for x in row] for row in csv.reader(file, delimiter="\t")])
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for column, label in ((1, "CTC, per character"), (2, "attention, per token")):
        known = rows[np.isfinite(rows[:, column])]
        width = min(smooth, len(known))
        mean = np.convolve(known[:, column], np.ones(width) / width, "valid")
        axes.plot(known[width - 1 :, 0], mean, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("training loss (nats)")
    axes.set_ylim(0, 4)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(picture, dpi=110)
