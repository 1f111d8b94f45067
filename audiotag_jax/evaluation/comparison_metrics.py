"""Sections of a comparison's report on metrics: of all clips, classes and bins."""

from collections.abc import Mapping, Sequence

from audiotag_jax.evaluation import bootstrap, comparison, comparison_figures
from audiotag_jax.evaluation.comparison import Scored
from audiotag_jax.evaluation.runs import FIXED_THRESHOLD, FinishedRun
from audiotag_jax.reporting import figures, page
from audiotag_jax.reporting.formatting import (
  difference_cell,
  estimate_cell,
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
# Rows of the tables of the largest differences.
NUM_WINS = 10


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
