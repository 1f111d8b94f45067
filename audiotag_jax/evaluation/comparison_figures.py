"""The figures of a comparison, as SVG.

Each function takes the runs' styles as its first argument, and data by the run's name.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator

from audiotag_jax.evaluation.comparison import CURVES, Curve
from audiotag_jax.names import for_figure
from audiotag_jax.reporting.figures import (
  ROWS_OF_A_COLUMN,
  WIDTH_IN,
  Styles,
  add_legend,
  drawn,
  to_svg,
)
from audiotag_jax.reporting.formatting import Estimate

CURVE_LABELS = {
  "train/loss": "the recipe's loss",
  "val/loss": "binary cross-entropy",
  "val/mAP": "mAP",
}


@drawn
def learning_curves(styles: Styles, runs: Mapping[str, Mapping[str, Curve]]) -> str:
  """Draws the curves of `comparison.CURVES`, over steps and over training time."""
  longest = max(c["train/loss"].minutes.max() for c in runs.values())
  unit, minutes = ("hours", 60) if longest > 180 else ("minutes", 1)
  figure = Figure(figsize=(WIDTH_IN, 6))
  axes = figure.subplots(2, len(CURVES))
  for column, tag in enumerate(CURVES):
    for name, curves in runs.items():
      curve = curves[tag]
      few = len(curve.steps) <= 50
      line = {
        "color": styles[name]["color"],
        "lw": 1.5 if tag.startswith("val") else 1,
        "marker": styles[name]["marker"] if few else None,
        "markersize": 3.5,
      }
      axes[0, column].plot(curve.steps, curve.values, **line)
      axes[1, column].plot(curve.minutes / minutes, curve.values, **line)
    ylabel = CURVE_LABELS[tag]
    axes[0, column].set(title=tag, xlabel="step", ylabel=ylabel)
    axes[1, column].set(xlabel=f"training time in {unit}", ylabel=ylabel)
    for row in axes[:, column]:
      row.set_xlim(left=0)
      row.locator_params(axis="x", nbins=6)
  add_legend(figure, styles, runs)
  return to_svg(figure)


@drawn
def dot_plot(
  styles: Styles,
  rows: Sequence[str],
  runs: Mapping[str, Sequence[float] | np.ndarray],
  *,
  title: str,
  xlabel: str,
  groups: Sequence[str] = (),
) -> str:
  """Draws a dot for each run in each row, the first row at the top.

  Many rows go into two columns side by side. Rows are set apart where the group
  changes, if groups are given.
  """
  num_columns = 2 if len(rows) > ROWS_OF_A_COLUMN else 1
  per_column = -(-len(rows) // num_columns)
  changes = [a != b for a, b in zip(groups, groups[1:], strict=False)]
  num_changes = np.cumsum(changes or [False] * (len(rows) - 1))
  y = np.arange(len(rows)) + 0.6 * np.r_[0, num_changes]
  height_in = 0.165 * (per_column + 0.6 * sum(changes)) + 1.2
  figure = Figure(figsize=(WIDTH_IN, height_in))
  columns = figure.subplots(1, num_columns, sharex=True, squeeze=False)[0]
  values = np.array([runs[name] for name in runs])
  for k, axes in enumerate(columns):
    part = slice(k * per_column, (k + 1) * per_column)
    shown = values[:, part]
    for name, row in zip(runs, shown, strict=True):
      axes.plot(row, y[part], ls="none", alpha=0.85, **styles[name])
    low, high = _min(shown, axis=0), -_min(-shown, axis=0)
    axes.hlines(y[part], low, high, color="0.75", lw=1, zorder=1)
    axes.set_yticks(y[part], list(map(for_figure, rows[part])), fontsize=7.5)
    axes.set_ylim(y[part][-1] + 0.8, y[part][0] - 0.8)
    axes.set_xlabel(xlabel)
    axes.tick_params(axis="x", top=True, labeltop=per_column > 30)
    axes.grid(axis="y", alpha=0.12)
  columns[0].set_xlim(left=0)
  add_legend(figure, styles, runs, title)
  return to_svg(figure)


@drawn
def reliability(styles: Styles, runs: Mapping[str, Mapping[str, np.ndarray]]) -> str:
  """Draws, over the score, the share of positives and the number of decisions."""
  figure = Figure(figsize=(WIDTH_IN, 4.2))
  left, right = figure.subplots(1, 2)
  left.plot([0, 1], [0, 1], color="0.6", ls="--", lw=1)
  for name, bins in runs.items():
    left.plot(bins["score"], bins["positive"], **styles[name])
    edges = np.linspace(0, 1, len(bins["count"]) + 1)
    counts = np.where(bins["count"] > 0, bins["count"], np.nan)
    right.stairs(counts, edges, baseline=None, color=styles[name]["color"], lw=1.5)
  left.set(
    title="Reliability",
    xlabel="mean score in bin",
    ylabel="share of positives in bin",
    xlim=(0, 1),
    ylim=(0, 1),
    aspect="equal",
  )
  right.set(
    title="Decisions in bin",
    xlabel="score",
    ylabel="clip-by-class decisions",
    yscale="log",
    xlim=(0, 1),
  )
  right.yaxis.set_major_formatter("{x:,.0f}")
  right.yaxis.set_minor_formatter("")
  add_legend(figure, styles, runs)
  return to_svg(figure)


@drawn
def precision_recall(
  styles: Styles,
  runs: Mapping[str, tuple[np.ndarray, np.ndarray]],
  points: Mapping[str, Mapping[str, tuple[float, float]]],
) -> str:
  """Draws curves (recall, precision), lines of equal F1, and operating points.

  Args:
    styles: the runs' styles.
    runs: recall and precision along each run's curve.
    points: recall and precision at each run's `fixed` and, if any, `global` threshold.
  """
  figure = Figure(figsize=(7.5, 6))
  axes = figure.subplots()
  for f1 in (0.2, 0.4, 0.6, 0.8):
    recall = np.linspace(f1 / 2 + 1e-3, 1, 200)
    axes.plot(recall, f1 * recall / (2 * recall - f1), color="0.8", lw=0.8, zorder=0)
    axes.annotate(
      f"F1 {f1}",
      (1, f1 / (2 - f1)),
      (0, 4),
      textcoords="offset points",
      color="0.5",
      fontsize=7,
      ha="right",
    )
  for name, curve in runs.items():
    color = styles[name]["color"]
    axes.plot(*curve, color=color, lw=1.5)
    for threshold, point in points[name].items():
      face = "white" if threshold == "fixed" else color
      axes.plot(*point, **styles[name], markerfacecolor=face, markersize=8, zorder=3)
  axes.set(
    title="Precision and recall, micro-averaged",
    xlabel="recall",
    ylabel="precision",
    xlim=(0, 1.01),
    ylim=(0, 1.01),
  )
  marks = {"at 0.5": "white", "at the tuned threshold": "0.4"}
  handles = [
    Line2D(
      [], [], ls="none", marker="o", color="0.4", markerfacecolor=face, label=label
    )
    for label, face in marks.items()
  ]
  axes.legend(handles=handles, loc="lower left")
  add_legend(figure, styles, runs)
  return to_svg(figure)


@drawn
def by_bin(
  styles: Styles,
  bins: Sequence[str],
  runs: Mapping[str, Sequence[Mapping[str, Estimate]]],
  *,
  title: str,
  xlabel: str,
) -> str:
  """Draws each run's mAP and micro-F1, with intervals, in each bin of clips."""
  figure = Figure(figsize=(WIDTH_IN, 3.8))
  for axes, (metric, label) in zip(
    figure.subplots(1, 2), {"mAP": "mAP", "f1": "F1 (micro)"}.items(), strict=True
  ):
    for i, (name, estimates) in enumerate(runs.items()):
      shift = 0.6 * ((i + 0.5) / len(runs) - 0.5)
      x = np.arange(len(bins)) + shift
      value, low, high = np.transpose(
        [(e[metric].value, e[metric].low, e[metric].high) for e in estimates]
      )
      axes.vlines(x, low, high, color=styles[name]["color"], lw=1.5)
      axes.plot(x, value, ls="none", **styles[name])
    axes.set_xticks(np.arange(len(bins)), bins, fontsize=7)
    axes.set(xlabel=xlabel, ylabel=label, xlim=(-0.6, len(bins) - 0.4))
    axes.set_ylim(bottom=0)
    axes.grid(axis="x", visible=False)
  add_legend(figure, styles, runs, title)
  return to_svg(figure)


@drawn
def cost(styles: Styles, runs: Mapping[str, tuple[float, Estimate]]) -> str:
  """Draws the mAP, with its interval, over multiply-adds."""
  figure = Figure(figsize=(7.5, 4))
  axes = figure.subplots()
  for name, (multiply_adds, mean_ap) in runs.items():
    axes.vlines(multiply_adds, mean_ap.low, mean_ap.high, styles[name]["color"], lw=1.5)
    axes.plot(multiply_adds, mean_ap.value, ls="none", **styles[name], markersize=8)
  axes.set(
    title="mAP against multiply-adds",
    xlabel="multiply-adds per clip",
    ylabel="mAP",
    xscale="log",
  )
  axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
  axes.xaxis.set_major_formatter(EngFormatter())
  axes.xaxis.set_minor_formatter("")
  axes.margins(x=0.15, y=0.15)
  add_legend(figure, styles, runs)
  return to_svg(figure)


def _min(values: np.ndarray, axis: int) -> np.ndarray:
  """The minimum over an axis without NaN; NaN where all values are NaN."""
  least = np.min(np.where(np.isnan(values), np.inf, values), axis=axis)
  return np.where(np.isinf(least), np.nan, least)
