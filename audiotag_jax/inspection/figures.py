"""The figures of an inspection, as SVG."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure as Plot
from matplotlib.ticker import LogLocator

from audiotag_jax.data.sources.source import SPLITS
from audiotag_jax.inspection import findings
from audiotag_jax.inspection.measure import Inspection
from audiotag_jax.inspection.summary import co_occurrence
from audiotag_jax.names import for_figure
from audiotag_jax.reporting import figures

NUM_HEAT_MAP_CLASSES = 40


def heat_map(inspected: Inspection) -> str:
  """Draws how often the most frequent classes come together."""
  together = co_occurrence(inspected)
  support = together.diagonal()
  frequent = np.argsort(-support, kind="stable")
  frequent = frequent[support[frequent] > 0][:NUM_HEAT_MAP_CLASSES]
  share = together[np.ix_(frequent, frequent)] / support[frequent, None]
  np.fill_diagonal(share, np.nan)
  return figures.co_occurrence([inspected.source.classes[c] for c in frequent], share)


@figures.drawn
def class_counts_figure(
  classes: Sequence[str], counts: Mapping[str, np.ndarray]
) -> str:
  """Draws the clips of each class in each split, the first class at the top."""
  styles = figures.styles(list(counts))
  num_columns = 2 if len(classes) > figures.ROWS_OF_A_COLUMN else 1
  per_column = -(-len(classes) // num_columns)
  figure = Plot(figsize=(figures.WIDTH_IN, 0.165 * per_column + 1.2))
  columns = figure.subplots(1, num_columns, sharex=True, squeeze=False)[0]
  for k, axes in enumerate(columns):
    part = slice(k * per_column, (k + 1) * per_column)
    y = np.arange(len(classes))[part]
    for split, values in counts.items():
      axes.plot(values[part], y, ls="none", alpha=0.85, **styles[split])
    axes.axvline(findings.FEW_CLIPS, color="0.4", ls="--", lw=1, zorder=0)
    # The axis is linear from 0 to 1, so that 0 has a place.
    axes.set_xscale("symlog", linthresh=1, linscale=0.4)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_yticks(y, list(map(for_figure, classes[part])), fontsize=7.5)
    axes.set_ylim(y[-1] + 0.8, y[0] - 0.8)
    axes.set_xlabel("clips")
    axes.tick_params(axis="x", top=True, labeltop=per_column > 30)
    axes.grid(axis="y", alpha=0.12)
  columns[0].set_xlim(left=-0.2)
  figures.add_legend(figure, styles, counts, "Clips of each class")
  return figures.to_svg(figure)


@figures.drawn
def labels_figure(counts: Mapping[str, Sequence[int]]) -> str:
  """Draws the share of each split's clips over their number of labels."""
  styles = figures.styles(list(counts))
  figure = Plot(figsize=(figures.WIDTH_IN, 3))
  axes = figure.subplots()
  width = 0.8 / len(counts)
  for k, (split, values) in enumerate(counts.items()):
    share = 100 * np.array(values) / max(1, sum(values))
    x = np.arange(len(values)) + width * (k - (len(counts) - 1) / 2)
    axes.bar(x, share, width, color=styles[split]["color"], zorder=2)
  most = max(map(len, counts.values()))
  axes.set(xlabel="labels of the clip", ylabel="% of the split's clips")
  axes.set_xticks(np.arange(most))
  axes.set_xlim(-0.6 if any(v and v[0] for v in counts.values()) else 0.4, most - 0.4)
  axes.grid(axis="x", visible=False)
  figures.add_legend(figure, styles, counts, "Labels per clip")
  return figures.to_svg(figure)


@figures.drawn
def histograms(
  panels: Sequence[tuple[str, str, Mapping[str, np.ndarray], np.ndarray, str]],
) -> str:
  """Draws histograms beside each other, a line for each split.

  Args:
    panels: the title, the unit, the splits' values, the bins' edges and the scale of
      the values' axis, for each panel.
  """
  styles = figures.styles(SPLITS)
  figure = Plot(figsize=(figures.WIDTH_IN, 3.2))
  for axes, (title, unit, values, edges, scale) in zip(
    figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
  ):
    for split, x in values.items():
      counts, _ = np.histogram(np.clip(x, edges[0], edges[-1]), edges)
      share = 100 * counts / max(1, len(x))
      axes.stairs(share, edges, baseline=None, color=styles[split]["color"], lw=1.5)
    axes.set(title=title, xlabel=unit, xscale=scale)
    axes.set_ylim(bottom=0)
    if scale == "log":
      axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
      axes.xaxis.set_major_formatter("{x:g}")
      axes.xaxis.set_minor_formatter("")
  figure.axes[0].set_ylabel("% of the split's clips")
  figures.add_legend(figure, styles, dict.fromkeys(SPLITS))
  return figures.to_svg(figure)
