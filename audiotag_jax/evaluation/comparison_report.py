"""Report of a comparison of runs: its sections and its files."""

from collections.abc import Sequence
from pathlib import Path

from audiotag_jax import files
from audiotag_jax import workdir as workdir_lib
from audiotag_jax.errors import UserError
from audiotag_jax.evaluation import (
  comparison,
  comparison_metrics,
  comparison_runs,
  comparison_scores,
)
from audiotag_jax.evaluation.comparison import Scored
from audiotag_jax.evaluation.runs import load_runs
from audiotag_jax.reporting import figures, page
from audiotag_jax.reporting.formatting import listed
from audiotag_jax.reporting.page import Section


def write_report(workdirs: Sequence[Path], output: Path) -> None:
  """Compares finished runs: performance.json, report.html, report.md and figures/.

  Args:
    workdirs: the runs' workdirs; the other runs are compared with the first.
    output: the folder to write to.

  Raises:
    UserError: the runs cannot be compared; nothing is written.
  """
  runs = load_runs(workdirs)
  if (output / workdir_lib.PREDICTIONS).exists():
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
    comparison_runs.runs_section(scored),
    comparison_metrics.results_section(scored, chance),
    comparison_runs.learning_section(styles, runs),
    comparison_metrics.classes_section(styles, scored),
    comparison_scores.calibration_section(styles, runs, chance),
    comparison_scores.co_occurrence_section(runs),
    comparison_scores.precision_recall_section(styles, scored),
    comparison_metrics.bins_section(
      styles,
      runs,
      comparison.bins_by_labels(runs[0].predictions.labels),
      what="number of labels",
      xlabel="labels in the clip",
      name="by_labels",
    ),
    comparison_metrics.bins_section(
      styles,
      runs,
      comparison.bins_by_duration(runs[0].predictions.duration_s),
      what="clip length",
      xlabel="length of the clip in s",
      name="by_length",
    ),
    comparison_runs.robustness_section(styles, runs),
    comparison_runs.cost_section(styles, scored),
  ]
