"""The comparison, from workdirs to the report."""

import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import finished_runs
import pytest

from tools import compare

pytestmark = pytest.mark.slow

SECTIONS = (
  "Runs",
  "Results",
  "Learning",
  "Classes",
  "Calibration",
  "Co-occurrence and confusions",
  "Precision and recall",
  "By number of labels",
  "By clip length",
  "Robustness",
  "Cost",
)
FIGURES = {
  "learning_curves",
  "per_class_ap",
  "calibration",
  "co_occurrence",
  "precision_recall",
  "by_labels",
  "by_length",
  "robustness",
  "cost",
}


@pytest.fixture
def run_compare(tmp_path, monkeypatch):
  """Runs the command line; returns the folder it wrote to."""

  def run(*workdirs: Path) -> Path:
    output = tmp_path / "comparison"
    args = ["compare.py", *map(str, workdirs), f"--output={output}"]
    monkeypatch.setattr(sys, "argv", args)
    monkeypatch.setattr(compare.logs, "show_progress", lambda: None)
    compare.main()
    return output

  return run


def check_report(output, figures):
  """Checks that the report is whole, in both forms, and fetches nothing."""
  page = (output / "report.html").read_text()
  markdown = (output / "report.md").read_text()
  titles = re.findall(r"<h2>(.*?)</h2>", page)
  assert titles == list(SECTIONS) == re.findall(r"^## (.*)$", markdown, re.MULTILINE)
  assert not re.search(r"<(link|script|img|iframe)\b", page)
  targets = re.findall(r'(?:href|src)="([^"]*)"', page)
  assert all(target.startswith(("#", "data:")) for target in targets)
  assert "@import" not in page
  assert set(re.findall(r"url\((.)", page)) <= {"#"}
  ids = re.findall(r'\bid="([^"]*)"', page)
  assert len(ids) == len(set(ids))
  assert {target[1:] for target in targets if target[0] == "#"} <= set(ids)
  assert page.count("<svg") == len(figures)
  assert "nan" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
  assert set(re.findall(r"\(figures/(.*)\.svg\)", markdown)) == figures
  assert {path.stem for path in (output / "figures").iterdir()} == figures
  for path in (output / "figures").iterdir():
    assert ElementTree.parse(path).getroot().tag.endswith("svg")
  assert not list(output.rglob(".*"))


def test_three_runs(run_compare, tmp_path, capsys):
  workdirs = [
    finished_runs.write_run(tmp_path / "crnn"),
    finished_runs.write_run(tmp_path / "cnn14", seed=1, separation=3.0),
    finished_runs.write_run(
      tmp_path / "ensemble", seed=2, with_events=False, with_extras=False
    ),
  ]
  output = run_compare(*workdirs)
  assert f"Report: {output / 'report.html'}" in capsys.readouterr().out
  check_report(output, FIGURES)
  merged = json.loads((output / "performance.json").read_text())
  assert list(merged) == ["crnn", "cnn14", "ensemble"]
  for workdir in workdirs:
    own = json.loads((workdir / "results/performance.json").read_text())
    assert merged[workdir.name] == own[workdir.name]
  markdown = (output / "report.md").read_text()
  assert f"| crnn | {merged['crnn']['accuracy']:.3f} [" in markdown
  assert f"Highest mAP: cnn14, {merged['cnn14']['mAP']:.3f} [" in markdown
  assert "| metric | cnn14 − crnn | ensemble − crnn | ensemble − cnn14 |" in markdown
  assert "| label prior (chance) |" in markdown
  assert "Left out, without event files: ensemble." in markdown
  assert r"\<Rain\>\|\$5\$" in markdown
  assert "&lt;Rain&gt;|$5$" in (output / "report.html").read_text()


def test_one_bare_run(run_compare, tmp_path):
  workdir = finished_runs.write_run(
    tmp_path / "crnn",
    split="val",
    with_val=False,
    with_events=False,
    with_extras=False,
  )
  output = run_compare(workdir)
  check_report(output, FIGURES - {"learning_curves", "robustness", "cost"})
  markdown = (output / "report.md").read_text()
  assert "Paired differences" not in markdown
  assert "No run has val predictions" in markdown
  assert "No run has TensorBoard event files." in markdown
  assert "No run has a results/robustness.json" in markdown
  assert "No run has a results/cost.json" in markdown


def test_nothing_is_written_of_runs_that_cannot_be_compared(run_compare, tmp_path):
  first = finished_runs.write_run(tmp_path / "crnn", with_events=False)
  other = finished_runs.write_run(tmp_path / "other", num_clips=80, with_events=False)
  with pytest.raises(SystemExit, match="error: .*crnn and .*other cannot be compared"):
    run_compare(first, other)
  with pytest.raises(SystemExit, match="error: .*nowhere has no results/performance"):
    run_compare(first, tmp_path / "nowhere")
  assert not (tmp_path / "comparison").exists()


def test_a_runs_own_results_are_not_written_over(tmp_path, run_tool):
  workdir = finished_runs.write_run(tmp_path / "crnn", with_events=False)
  before = (workdir / "results/performance.json").read_text()
  result = run_tool("compare.py", str(workdir), f"--output={workdir / 'results'}")
  assert result.returncode == 1
  assert "holds the results of a run" in result.stderr
  assert "Traceback" not in result.stderr
  assert (workdir / "results/performance.json").read_text() == before
