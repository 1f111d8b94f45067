"""Figures of reports, as SVG: their look, and the parts that reports share.

A run, or a split, has the same colour and marker in all figures: `styles` gives them.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from audiotag_jax.names import for_figure

# Okabe & Ito's colours (2008), which colour-blind people can tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH_IN = 10.0
# Most rows of one column; more rows go into two columns side by side.
ROWS_OF_A_COLUMN = 60

Styles = Mapping[str, Mapping[str, Any]]

# A name with dollar signs does not become a formula, in any figure.
PLAIN_TEXT: Any = {"text.parse_math": False, "text.usetex": False}
plain_text = matplotlib.rc_context(PLAIN_TEXT)
# Text stays text, and the salt makes the same figure the same file.
drawn = matplotlib.rc_context(
  {
    **PLAIN_TEXT,
    "svg.fonttype": "none",
    "svg.hashsalt": "audiotag_jax",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "lines.markersize": 5,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
  }
)


def styles(names: Sequence[str]) -> Styles:
  """Gives each run a colour and a marker."""
  return {
    name: {"color": COLORS[i % len(COLORS)], "marker": MARKERS[i % len(MARKERS)]}
    for i, name in enumerate(names)
  }


@drawn
def co_occurrence(classes: Sequence[str], share: np.ndarray) -> str:
  """Draws how often labels come together, as a heat map.

  Args:
    classes: the names of the rows and the columns.
    share: the share of the row's clips that have the column's label
      <float>[classes, classes]; NaN where there is nothing to show.
  """
  size_in = min(WIDTH_IN, 3.5 + 0.17 * len(classes))
  figure = Figure(figsize=(size_in, size_in * 0.92))
  axes = figure.subplots()
  colors = matplotlib.colormaps["Blues"].with_extremes(bad="0.85")
  image = axes.imshow(share, cmap=colors, vmin=0, vmax=1, interpolation="none")
  ticks = np.arange(len(classes))
  labels = list(map(for_figure, classes))
  axes.set_xticks(ticks, labels, rotation=90, fontsize=7)
  axes.set_yticks(ticks, labels, fontsize=7)
  axes.grid(visible=False)
  axes.set(
    title="Labels that come together",
    xlabel="also have this label",
    ylabel="clips with this label",
  )
  figure.colorbar(image, label="share of the row's clips", shrink=0.6)
  return to_svg(figure)


def add_legend(
  figure: Figure, styles: Styles, names: Mapping[str, object], title: str = ""
) -> None:
  """Puts the legend of the runs above the figure, under a title if it has one."""
  labels = list(map(for_figure, names))
  # About 5 points a letter, and 45 for the line before it.
  width_points = 45 + 5 * max(map(len, labels))
  figure.legend(
    [Line2D([], [], lw=1.5, **styles[name]) for name in names],
    labels,
    loc="outside upper left",
    ncols=max(1, int(72 * figure.get_figwidth() / width_points)),
    title=title,
    title_fontsize=10,
    alignment="left",
  )


def to_svg(figure: Figure) -> str:
  """Returns the figure as SVG, without a date, so that it does not change daily."""
  file = io.StringIO()
  nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
  figure.savefig(file, format="svg", metadata=nothing)
  return file.getvalue()
