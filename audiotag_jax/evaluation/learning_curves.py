"""The learning curves of a run, read back from its TensorBoard event files."""

from pathlib import Path

import matplotlib.figure
import numpy as np
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.util import tensor_util


def read_scalars(workdir: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Reads a run's scalars back from its TensorBoard event files.

  If a step was written twice, because the run stopped after it and resumed before it,
  the later value counts.

  Returns:
    The (step <int64>[points], value <float64>[points]) of each tag, steps ascending.
  """
  events = event_accumulator.EventAccumulator(
    str(workdir), size_guidance={event_accumulator.TENSORS: 0}
  ).Reload()
  scalars = {}
  for tag in events.Tags()["tensors"]:
    if events.SummaryMetadata(tag).plugin_data.plugin_name != "scalars":
      continue
    points = {
      e.step: float(tensor_util.make_ndarray(e.tensor_proto))
      for e in events.Tensors(tag)
    }
    steps = np.array(sorted(points))
    scalars[tag] = steps, np.array([points[step] for step in steps])
  return scalars


def plot_learning_curves(workdir: Path, path: Path) -> None:
  """Plots losses, validation metrics and the learning rate over steps to a PNG."""
  scalars = read_scalars(workdir)
  panels = {
    "loss (val: cross-entropy)": ("train/loss", "val/loss"),
    "validation": ("val/mAP", "val/f1", "val/f1_macro"),
    "learning rate": ("train/learning_rate",),
  }
  figure = matplotlib.figure.Figure(figsize=(13, 4), layout="constrained")
  for axes, (title, tags) in zip(figure.subplots(1, 3), panels.items(), strict=True):
    for tag in tags:
      steps, values = scalars[tag]
      axes.plot(steps, values, label=tag, marker="." if len(steps) < 50 else None)
    axes.set(title=title, xlabel="step")
    axes.grid(alpha=0.3)
    axes.legend()
  path.parent.mkdir(parents=True, exist_ok=True)
  figure.savefig(path, dpi=120)
