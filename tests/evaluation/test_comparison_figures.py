"""The figures: SVG that parses, with each run's colour and name, and with labels."""

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from audiotag_jax.evaluation import comparison_figures
from audiotag_jax.evaluation.comparison import Curve
from audiotag_jax.reporting import figures
from audiotag_jax.reporting.formatting import Estimate

NAMES = [f"run{i}" for i in range(6)]


def texts(svg):
  return {e.text for e in ElementTree.fromstring(svg).iter() if e.tag.endswith("text")}


def test_each_run_has_its_own_colour_and_marker():
  styles = figures.styles(NAMES)
  assert len({style["color"] for style in styles.values()}) == 6
  assert len({style["marker"] for style in styles.values()}) == 6


@pytest.mark.parametrize("num_runs", [1, 6])
@pytest.mark.parametrize("num_rows", [1, 12, 200])
def test_dots_name_every_row_and_run(num_runs, num_rows):
  names = NAMES[:num_runs]
  rows = [f"$class {i}$ & more" for i in range(num_rows)]
  values = np.linspace(0.1, 0.9, num_rows)
  values[-1] = np.nan
  svg = comparison_figures.dot_plot(
    figures.styles(NAMES),
    rows,
    dict.fromkeys(names, values),
    title="A title",
    xlabel="AP",
    groups=[str(i // 3) for i in range(num_rows)],
  )
  assert {*rows, *names, "A title", "AP"} <= texts(svg)
  assert figures.COLORS[num_runs - 1].lower() in svg


def test_a_figure_is_the_same_each_time():
  args = (figures.styles(NAMES), ["a", "b"], {"run0": np.array([0.1, 0.2])})
  svgs = {comparison_figures.dot_plot(*args, title="t", xlabel="x") for _ in range(2)}
  assert len(svgs) == 1
  assert "<metadata>" not in svgs.pop()


@pytest.mark.parametrize(("steps_per_minute", "unit"), [(100, "minutes"), (1, "hours")])
def test_training_time_has_a_unit(steps_per_minute, unit):
  steps = np.arange(1, 1001)
  curve = Curve(steps, steps / steps_per_minute, 1 / steps)
  curves = dict.fromkeys(("train/loss", "val/loss", "val/mAP"), curve)
  svg = comparison_figures.learning_curves(
    figures.styles(NAMES), {"run0": curves, "run1": curves}
  )
  assert {f"training time in {unit}", "step", "val/mAP", "run0", "run1"} <= texts(svg)


def test_costs_have_units():
  costs = {
    name: (10.0 ** (8 + i), Estimate(0.5, 0.4, 0.6)) for i, name in enumerate("ab")
  }
  svg = comparison_figures.cost(figures.styles("ab"), costs)
  assert {"100 M", "1 G", "multiply-adds per clip"} <= texts(svg)
