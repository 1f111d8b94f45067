"""Report of a comparison of runs: its sections and its files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from audiotag_jax import files
from audiotag_jax import workdir as workdir_lib
from audiotag_jax.errors import UserError
from audiotag_jax.evaluation import bootstrap, comparison, comparison_figures
from audiotag_jax.evaluation.comparison import Scored
from audiotag_jax.evaluation.runs import FIXED_THRESHOLD, FinishedRun, load_runs
from audiotag_jax.reporting import figures, page
from audiotag_jax.reporting.formatting import (
  change_cell,
  difference_cell,
  estimate_cell,
  interval,
  listed,
  number,
  whole,
)
from audiotag_jax.reporting.page import Figure, Section, Table

METRICS = {
  "accuracy": "accuracy",
  "precision": "precision",
  "recall": "recall",
  "f1": "F1 (micro)",
  "f1_macro": "F1 (macro)",
  "mAP": "mAP",
  "auc": "AUC",
  "d_prime": "d′",
  "lwlrap": "lwlrap",
}
DECISION_METRICS = ("accuracy", "precision", "recall", "f1", "f1_macro")
THRESHOLD_NAMES = {"global": "one for all", "per_class": "one per class"}
MEASURE = "tools/measure.py writes it, as in python tools/measure.py runs/crnn_fsd50k"
# Rows of the tables of the largest differences and of the commonest confusions.
NUM_WINS = 10
NUM_CONFUSIONS = 10
NUM_HEAT_MAP_CLASSES = 40


def write_report(workdirs: Sequence[Path], output: Path) -> None:
  """Compares finished runs: performance.json, report.html, report.md and figures/.

  Args:
    workdirs: the runs' workdirs; the other runs are compared with the first.
    output: the folder to write to.

  Raises:
    UserError: the runs cannot be compared; nothing is written.
  """
  runs = load_runs(workdirs)
  if any(
    output.resolve() == (run.workdir / workdir_lib.RESULTS).resolve() for run in runs
  ):
    raise UserError(
      f"--output={output} holds the results of a run, which would be overwritten: give "
      "another folder"
    )
  title = f"Comparison of {listed([run.name for run in runs])}"
  sections = make_sections([comparison.score(run) for run in runs])
  texts = {
    f"figures/{figure.name}.svg": figure.svg for figure in page.figures(sections)
  }
  texts["report.md"] = page.to_markdown(title, sections)
  texts["report.html"] = page.to_html(title, sections)
  for name, text in texts.items():
    files.write_text(output / name, text)
  entries = {run.name: run.entry for run in runs}
  files.write_json(output / "performance.json", entries)


def make_sections(scored: Sequence[Scored]) -> list[Section]:
  """Makes the sections of the report, in order."""
  runs = [one.run for one in scored]
  styles = figures.styles([run.name for run in runs])
  chance = comparison.chance(runs)
  return [
    runs_section(scored),
    results_section(scored, chance),
    learning_section(styles, runs),
    classes_section(styles, scored),
    calibration_section(styles, runs, chance),
    co_occurrence_section(runs),
    precision_recall_section(styles, scored),
    bins_section(
      styles,
      runs,
      comparison.bins_by_labels(runs[0].predictions.labels),
      what="number of labels",
      xlabel="labels in the clip",
      name="by_labels",
    ),
    bins_section(
      styles,
      runs,
      comparison.bins_by_duration(runs[0].predictions.duration_s),
      what="clip length",
      xlabel="length of the clip in s",
      name="by_length",
    ),
    robustness_section(styles, runs),
    cost_section(styles, scored),
  ]


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


def results_section(
  scored: Sequence[Scored], chance: Mapping[str, float] | None
) -> Section:
  """The study's table, the table at tuned thresholds, and the differences."""
  rows: list[page.Row] = [
    [
      one.run.name,
      *(estimate_cell(one.estimate("fixed", metric)) for metric in METRICS),
    ]
    for one in scored
  ]
  if chance is not None:
    rows.append(["label prior (chance)", *(number(chance[m]) for m in METRICS)])
  blocks: list[page.Block] = [
    Table(f"At a threshold of {FIXED_THRESHOLD}", ["run", *METRICS.values()], rows)
  ]
  tuned_rows: list[page.Row] = [
    [
      one.run.name,
      THRESHOLD_NAMES[threshold],
      *(estimate_cell(one.estimate(threshold, metric)) for metric in DECISION_METRICS),
    ]
    for one in scored
    for threshold in one.run.thresholds
    if threshold in THRESHOLD_NAMES
  ]
  if tuned_rows:
    header = ["run", "threshold", *(METRICS[metric] for metric in DECISION_METRICS)]
    blocks.append(
      Table("At thresholds tuned on val", header, tuned_rows, text_columns=2)
    )
  if len(scored) > 1:
    blocks.append(differences_table(scored))
  prior = (
    " The label prior scores every clip with each class's share of the val clips."
    if chance is not None
    else " No run has val predictions, so the report has no chance level and no tuned "
    "threshold."
  )
  return Section(
    "Results",
    "Each value has its 95 % interval below it: the percentiles of "
    f"{whole(bootstrap.NUM_RESAMPLES)} bootstrap resamples of the clips, the same for "
    "all runs, shifted by the difference between the value and the resamples' mean (a "
    "resample repeats clips, which raises mAP). An interval tells how a value would "
    "vary with as many other clips, not with another training. Precision and recall "
    "are micro-averaged. Decisions are at a threshold of 0.5 in the first table, and "
    "at the threshold or thresholds of the largest F1 on val in the "
    f"second.{prior}",
    blocks,
  )


def differences_table(scored: Sequence[Scored]) -> Table:
  """Paired differences, also at tuned thresholds if all runs have them."""
  metrics = {("fixed", metric): name for metric, name in METRICS.items()}
  if all("global" in one.run.thresholds for one in scored):
    metrics["global", "f1"] = "F1 (micro), one tuned threshold"
    metrics["per_class", "f1_macro"] = "F1 (macro), one per class"
  pairs = comparison.pairs(scored)
  rows: list[page.Row] = [
    [name, *(difference_cell(comparison.difference(*pair, *metric)) for pair in pairs)]
    for metric, name in metrics.items()
  ]
  return Table(
    "Paired differences; * and bold: the interval excludes 0",
    ["metric", *(f"{second.run.name} − {first.run.name}" for first, second in pairs)],
    rows,
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


def classes_section(styles: figures.Styles, scored: Sequence[Scored]) -> Section:
  """Average precision of each class."""
  first = scored[0]
  predictions = first.run.predictions
  support = predictions.labels.sum(axis=0)
  ap = {one.run.name: one.values["fixed"]["AP"] for one in scored}
  shown = [c for c in (-ap[first.run.name]).argsort() if support[c]]
  figure = comparison_figures.dot_plot(
    styles,
    [f"{predictions.classes[c]} ({support[c]})" for c in shown],
    {name: values[shown] for name, values in ap.items()},
    title="Average precision of each class (positives)",
    xlabel="average precision",
  )
  blocks: list[page.Block] = [
    Figure("per_class_ap", "Average precision of each class", figure)
  ]
  if len(scored) > 1:
    blocks += wins_tables(*scored[:2])
  rows: list[page.Row] = [
    [
      str(predictions.classes[c]),
      whole(support[c]),
      *(estimate_cell(one.class_estimate(c)) for one in scored),
    ]
    for c in range(len(support))
  ]
  header = ["class", "positives", *ap]
  blocks.append(Table("Average precision of all classes", header, rows, folded=True))
  return Section(
    "Classes",
    f"Average precision of each class, in the order of {first.run.name}'s. Brackets "
    "give the number of clips with the class. Intervals are from the same resamples as "
    "above; a class with few positives has a wide interval.",
    blocks,
  )


def wins_tables(first: Scored, second: Scored) -> list[Table]:
  """The classes where the second run's AP is most above and below the first's."""
  predictions = first.run.predictions
  differences = comparison.class_differences(first, second)
  gains = [c for c, by in differences.items() if by.value > 0][:NUM_WINS]
  losses = [c for c, by in reversed(differences.items()) if by.value < 0][:NUM_WINS]
  header = ["class", "positives", first.run.name, second.run.name, "difference"]

  def rows(classes: Sequence[int]) -> list:
    return [
      [
        str(predictions.classes[c]),
        whole(predictions.labels[:, c].sum()),
        *(number(one.values["fixed"]["AP"][c]) for one in (first, second)),
        difference_cell(differences[c]),
      ]
      for c in classes
    ]

  a, b = first.run.name, second.run.name
  return [
    Table(f"Where {b} is most above {a} in AP", header, rows(gains)),
    Table(f"Where {b} is most below {a} in AP", header, rows(losses)),
  ]


def calibration_section(
  styles: figures.Styles,
  runs: Sequence[FinishedRun],
  chance: Mapping[str, float] | None,
) -> Section:
  """The agreement of scores with probabilities."""
  pooled = [(run.predictions.scores, run.predictions.labels) for run in runs]
  names = [run.name for run in runs]
  errors = [comparison.brier_and_calibration_error(*pair) for pair in pooled]
  if chance is not None:
    names, errors = [*names, "label prior (chance)"], [*errors, {**chance}]
  rows = [
    [name, f"{error['ece']:.4f}", f"{error['brier']:.4f}"]
    for name, error in zip(names, errors, strict=True)
  ]
  bins = {
    run.name: comparison.reliability(*pair)
    for run, pair in zip(runs, pooled, strict=True)
  }
  return Section(
    "Calibration",
    "The share of positives among the decisions (clip by class, pooled) of each score, "
    f"in {comparison.NUM_CALIBRATION_BINS} bins of equal width; a calibrated model "
    "follows the diagonal. The expected calibration error is the mean gap, weighted by "
    "the bins' counts; the Brier score is the mean squared error. Most decisions are "
    "easy negatives, which keeps both small.",
    [
      Figure(
        "calibration", "Reliability", comparison_figures.reliability(styles, bins)
      ),
      Table("Calibration", ["run", "expected calibration error", "Brier score"], rows),
    ],
  )


def co_occurrence_section(runs: Sequence[FinishedRun]) -> Section:
  """The labels that come together, and the classes that are confused."""
  predictions = runs[0].predictions
  frequent, share = comparison.co_occurrence(predictions.labels, NUM_HEAT_MAP_CLASSES)
  figure = figures.co_occurrence([str(c) for c in predictions.classes[frequent]], share)
  blocks: list[page.Block] = [
    Figure("co_occurrence", "Labels that come together", figure)
  ]
  for run in runs:
    rows = [
      [
        *(str(predictions.classes[c]) for c in (missed, wrong)),
        whole(clips),
        whole(all_missed),
      ]
      for missed, wrong, clips, all_missed in comparison.confusions(
        run.predictions.scores,
        run.predictions.labels,
        run.thresholds[run.operating_threshold],
        NUM_CONFUSIONS,
      )
    ]
    header = ["missed", "wrongly predicted", "clips with both", "clips missed in all"]
    title = f"{run.name}: commonest confusions, at {_operating(run)}"
    blocks.append(Table(title, header, rows, text_columns=2))
  return Section(
    "Co-occurrence and confusions",
    "The share of the clips with the row's label that also have the column's label, "
    f"for the {len(frequent)} most frequent classes. A confusion is a clip in which a "
    "true class was missed and another was wrongly predicted; a clip with several of "
    "either counts for each pair.",
    blocks,
  )


def precision_recall_section(
  styles: figures.Styles, scored: Sequence[Scored]
) -> Section:
  """Precision over recall, for one threshold for all classes."""
  curves, points = {}, {}
  for one in scored:
    predictions = one.run.predictions
    curves[one.run.name] = comparison.precision_recall(
      predictions.scores, predictions.labels
    )
    points[one.run.name] = {
      name: (one.values[name]["recall"], one.values[name]["precision"])
      for name in ("fixed", one.run.operating_threshold)
    }
  figure = comparison_figures.precision_recall(styles, curves, points)
  return Section(
    "Precision and recall",
    "Precision over recall as one threshold for all classes falls, over all decisions "
    "(clip by class), pooled. F1 is the same along a grey line. Hollow marks are at a "
    "threshold of 0.5, full marks at the threshold tuned on val.",
    [Figure("precision_recall", "Precision and recall", figure)],
  )


def bins_section(
  styles: figures.Styles,
  runs: Sequence[FinishedRun],
  bins: Sequence[comparison.Bin],
  *,
  what: str,
  xlabel: str,
  name: str,
) -> Section:
  """mAP and F1 of each bin's clips alone."""
  estimates = {
    run.name: [comparison.score_bin(run, one) for one in bins] for run in runs
  }
  counts = [int(one.clips.sum()) for one in bins]
  title = f"mAP and F1 by {what}"
  figure = comparison_figures.by_bin(
    styles,
    [f"{one.name}\n({count:,})" for one, count in zip(bins, counts, strict=True)],
    estimates,
    title=f"{title} (clips)",
    xlabel=xlabel,
  )
  tables = []
  for metric, label in (("mAP", "mAP"), ("f1", "F1 (micro)")):
    rows: list[page.Row] = [
      [
        one.name,
        whole(counts[i]),
        *(estimate_cell(of_run[i][metric]) for of_run in estimates.values()),
      ]
      for i, one in enumerate(bins)
    ]
    tables.append(Table(f"{label} by {what}", [xlabel, "clips", *estimates], rows))
  return Section(
    f"By {what}",
    "Metrics over the clips of each bin alone, with 95 % intervals from resamples of "
    "these clips. Bins with few clips are merged with a neighbour. mAP is over the "
    "classes with positives in the bin, so bins also differ in their classes and "
    "chance levels. F1 is micro-averaged, at the threshold tuned on val (0.5 for a "
    "run without val predictions).",
    [Figure(name, title, figure), *tables],
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
  costs = {one.run.name: one.run.read_json(workdir_lib.COST) for one in scored}
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


def _operating(run: FinishedRun) -> str:
  """Names the threshold of a run's decisions, in words."""
  name = (
    "the tuned threshold of"
    if run.operating_threshold == "global"
    else "a threshold of"
  )
  return f"{name} {number(run.thresholds[run.operating_threshold])}"
