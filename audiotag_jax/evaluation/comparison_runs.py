"""Sections of a comparison's report on the runs: training, robustness, cost."""

from collections.abc import Sequence

from audiotag_jax import workdir as workdir_lib
from audiotag_jax.evaluation import comparison, comparison_figures
from audiotag_jax.evaluation.comparison import Scored
from audiotag_jax.evaluation.runs import FinishedRun
from audiotag_jax.reporting import figures, page
from audiotag_jax.reporting.formatting import (
  change_cell,
  estimate_cell,
  interval,
  listed,
  number,
  whole,
)
from audiotag_jax.reporting.page import Figure, Section, Table

MEASURE = "tools/measure.py writes it, as in python tools/measure.py runs/crnn_fsd50k"


def runs_section(scored: Sequence[Scored]) -> Section:
  """The runs that are compared, and the best of them."""
  runs = [one.run for one in scored]
  labels = runs[0].predictions.labels
  num_empty = int((~labels.any(axis=0)).sum())
  empty = f", {num_empty} of which have no positive and are left out of means"
  best = max(scored, key=lambda one: one.values["fixed"]["mAP"])
  mean_ap = best.estimate("fixed", "mAP")
  notes = [
    f"Highest mAP: {best.run.name}, {number(mean_ap.value)} {interval(mean_ap)}.",
    *(
      f"Note: the runs' {split} clips are not the same."
      for split in ("train", "val")
      if comparison.clips_differ(runs, split)
    ),
  ]
  rows = [
    [
      run.name,
      run.entry["model"],
      run.read_json(workdir_lib.CONFIG).get("init_from") or "–",
      run.entry["checkpoint"],
      whole(run.entry["step"]),
      whole(run.entry["params"]),
      number(run.thresholds.get("global")),
    ]
    for run in runs
  ]
  return Section(
    "Runs",
    f"All runs were scored on the same {whole(len(labels))} clips of the "
    f"{runs[0].entry['split']} split, with {labels.shape[1]} classes"
    f"{empty if num_empty else ''}. The tuned threshold gives the largest micro-F1 on "
    "the val split.",
    [
      Table(
        "The runs",
        [
          "run",
          "model",
          "starts from",
          "checkpoint",
          "step",
          "parameters",
          "tuned threshold",
        ],
        rows,
        text_columns=4,
      ),
      *notes,
    ],
  )


def learning_section(styles: figures.Styles, runs: Sequence[FinishedRun]) -> Section:
  """Learning curves, and how soon each run came near its final val mAP."""
  curves = {run.name: comparison.curves(run) for run in runs}
  curves = {name: run_curves for name, run_curves in curves.items() if run_curves}
  caption = (
    "Training and validation loss and validation mAP, over steps and over training "
    "time. Training time is the sum of the log intervals' steps / steps per second; it "
    "leaves out validations and stops."
  )
  if not curves:
    return Section("Learning", caption, ["No run has TensorBoard event files."])
  rows = []
  for name, run_curves in curves.items():
    facts = comparison.convergence(run_curves["val/mAP"])
    rows.append(
      [
        name,
        number(facts["final"]),
        number(facts["best"]),
        *(whole(facts[key]) for key in ("best_step", "steps")),
        f"{facts['minutes']:.1f}",
        whole(facts["nearly_steps"]),
        f"{facts['nearly_minutes']:.1f}",
      ]
    )
  nearly = f"to {comparison.NEARLY:.0%} of final"
  header = [
    "run",
    "final val mAP",
    "best val mAP",
    "at step",
    "steps in all",
    "minutes in all",
    f"steps {nearly}",
    f"minutes {nearly}",
  ]
  without = [run.name for run in runs if run.name not in curves]
  return Section(
    "Learning",
    caption,
    [
      Figure(
        "learning_curves",
        "Learning curves",
        comparison_figures.learning_curves(styles, curves),
      ),
      Table("Convergence", header, rows),
      *([f"Left out, without event files: {listed(without)}."] if without else []),
    ],
  )


def robustness_section(styles: figures.Styles, runs: Sequence[FinishedRun]) -> Section:
  """mAP under noise, filters, codecs and the like."""
  conditions, values = comparison.robustness(runs)
  caption = (
    "mAP on the same clips after each disturbance of their audio. In the table, the "
    "change from the undisturbed clips is below each mAP."
  )
  if not values:
    how = f"No run has a results/robustness.json: {MEASURE}"
    return Section("Robustness", caption, [how])
  figure = comparison_figures.dot_plot(
    styles,
    conditions,
    values,
    title="mAP under each condition",
    xlabel="mAP",
    groups=[condition.split(",")[0] for condition in conditions],
  )
  rows: list[page.Row] = [
    [condition, *(change_cell(row[i], row[0]) for row in values.values())]
    for i, condition in enumerate(conditions)
  ]
  return Section(
    "Robustness",
    caption,
    [
      Figure("robustness", "mAP under each condition", figure),
      Table("mAP, and its change from clean", ["condition", *values], rows),
    ],
  )


def cost_section(styles: figures.Styles, scored: Sequence[Scored]) -> Section:
  """The cost of a clip."""
  caption = (
    "Multiply-adds of the model for one clip of the given length, and clips tagged per "
    "second on the given device."
  )
  costs = {one.run.name: one.run.read_cost() for one in scored}
  if not any(costs.values()):
    how = f"No run has a results/cost.json: {MEASURE}"
    return Section("Cost", caption, [how])
  rows = [
    [
      one.run.name,
      cost.get("device", "–"),
      whole(one.run.entry["params"]),
      whole(cost.get("multiply_adds_per_clip")),
      f"{cost['clip_s']:g}" if cost else "–",
      f"{cost['clips_per_second']:.1f}" if cost else "–",
      estimate_cell(one.estimate("fixed", "mAP")),
    ]
    for one, cost in zip(scored, costs.values(), strict=True)
  ]
  header = [
    "run",
    "device",
    "parameters",
    "multiply-adds per clip",
    "clip in s",
    "clips/s",
    "mAP",
  ]
  blocks: list[page.Block] = [Table("Cost", header, rows, text_columns=2)]
  points = {
    one.run.name: (cost["multiply_adds_per_clip"], one.estimate("fixed", "mAP"))
    for one, cost in zip(scored, costs.values(), strict=True)
    if cost
  }
  if len(points) > 1:
    title = "mAP against multiply-adds"
    blocks.append(Figure("cost", title, comparison_figures.cost(styles, points)))
  return Section("Cost", caption, blocks)
