"""Sections of a comparison's report on scores: calibration, confusions, thresholds."""

from collections.abc import Mapping, Sequence

from audiotag_jax.evaluation import comparison, comparison_figures
from audiotag_jax.evaluation.comparison import Scored
from audiotag_jax.evaluation.runs import FinishedRun
from audiotag_jax.reporting import figures, page
from audiotag_jax.reporting.formatting import number, whole
from audiotag_jax.reporting.page import Figure, Section, Table

# Rows of the table of the commonest confusions.
NUM_CONFUSIONS = 10
NUM_HEAT_MAP_CLASSES = 40


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


def _operating(run: FinishedRun) -> str:
  """Names the threshold of a run's decisions, in words."""
  name = (
    "the tuned threshold of"
    if run.operating_threshold == "global"
    else "a threshold of"
  )
  return f"{name} {number(run.thresholds[run.operating_threshold])}"
