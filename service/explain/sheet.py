"""A page for matplotlib on which things are put by inches from its upper left corner."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from service.explain.raster import COLOURS, Pixels

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

DPI = 110
WIDTH_IN, MARGIN_IN = 11.5, 0.3
INNER_IN = WIDTH_IN - 2 * MARGIN_IN
NUM_COLOURS = 96
ASCENT = 0.95  # of a line above its baseline, in sizes of the font
POINTS = 8.5  # the size of most letters
# Where the font of matplotlib's own has no letter, these may, if they are installed.
FALLBACK_FONTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans", "Arial Unicode MS")


class Sheet:
    """An empty page of some height."""

    def __init__(self, height_in: float) -> None:
        from matplotlib.figure import Figure

        self.figure: Figure = Figure((WIDTH_IN, height_in), DPI, facecolor=COLOURS["paper"])
        self._height_in = height_in

    def text(self, x_in: float, y_in: float, text: str, **style: Any) -> None:
        """Text that begins at x, the upper edge of its line at y. Dollars are no formulas."""
        given: dict[str, Any] = {"fontsize": POINTS, "color": COLOURS["ink"], **style}
        baseline_in = y_in + ASCENT * given["fontsize"] / 72
        x, y = self._at(x_in, baseline_in)
        self.figure.text(x, y, text, parse_math=False, fontfamily=families(), **given)

    def line(self, x_in: float, y_in: float, width_in: float = 0, height_in: float = 0) -> None:
        """A thin line from a point to the right, or down."""
        from matplotlib.lines import Line2D

        (x, y), (to_x, to_y) = self._at(x_in, y_in), self._at(x_in + width_in, y_in + height_in)
        line = Line2D((x, to_x), (y, to_y), color=COLOURS["line"], linewidth=0.8)
        self.figure.add_artist(line)

    def pixels(self, x_in: float, y_in: float, pixels: Pixels) -> None:
        """A picture, pixel by pixel, its upper left corner there."""
        bottom = round((self._height_in - y_in) * DPI) - len(pixels)
        self.figure.figimage(pixels, round(x_in * DPI), bottom, origin="upper")

    def _at(self, x_in: float, y_in: float) -> tuple[float, float]:
        """In shares of the page, from its lower left corner."""
        return x_in / WIDTH_IN, 1 - y_in / self._height_in

    def save(self, path: Path) -> None:
        """Writes a PNG of few colours: a third of the bytes."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from PIL import Image

        canvas = FigureCanvasAgg(self.figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        drawn = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
        whole = Image.fromarray(drawn).convert("RGB")
        whole.quantize(NUM_COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(path)


@cache
def families() -> list[str]:
    """Fonts to look for letters in, of those that are there."""
    from matplotlib.font_manager import fontManager

    installed = {font.name for font in fontManager.ttflist}
    return ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]


@cache
def width_of(text: str, points: float = POINTS) -> float:
    """Inches that a text takes."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(family=families(), size=points)
    width, _, _ = text_to_path.get_text_width_height_descent(text, font, ismath=False)
    return float(width) / 72
