import numpy as np
import pytest

from audiotag_jax.data.sources.source import Rejected
from audiotag_jax.inspection import measure
from audiotag_jax.inspection.summary import (
  co_occurrence,
  describe,
  strongest_pairs,
  summarize,
)


def noise(seed, samples=4_000):
  """Uniform noise <float64>[samples] without an offset."""
  samples = np.random.default_rng(seed).uniform(-0.5, 0.5, samples)
  return samples - samples.mean()


def test_every_row_is_decoded_failed_or_rejected(make_source, tmp_path):
  (tmp_path / "broken.wav").write_bytes(b"no audio")
  rejected = [Rejected("x", "val", "has no labels"), Rejected("y", "test", "is odd")]
  source = make_source(
    ("good.wav", "train", (0,), noise(0, 8_000)),
    ("also.wav", "eval", (0, 2), noise(1, 4_000)),
    ("gone.wav", "train", (1,), None),
    ("broken.wav", "eval", (1,), None),
    rejected=rejected,
  )
  inspected = measure.inspect_source(source)
  assert inspected.failed[2] == "is missing"
  assert inspected.failed[3].startswith("cannot be decoded")
  summary = summarize(inspected, [])
  rows = {
    name: tuple(row[key] for key in ("rows", "decoded", "failed", "rejected"))
    for name, row in summary["totals"].items()
  }
  assert rows == {
    "train": (2, 1, 1, 0),
    "val": (1, 0, 0, 1),
    "eval": (2, 1, 1, 0),
    "all": (6, 2, 2, 2),
  }
  assert summary["totals"]["all"]["hours"] == pytest.approx(1.5 / 3600)
  assert summary["totals"]["all"]["labels_per_clip"] == 1.5
  assert summary["rejected"] == {"has no labels": 1, "is odd": 1}
  assert summary["failed"]["is missing"] == 1
  assert summary["clips_by_number_of_labels"] == {
    "train": [0, 1],
    "val": [],
    "eval": [0, 0, 1],
  }
  assert set(summary["quantiles"]["duration_s"]) == {"train", "eval"}
  text = describe(summary)
  assert "rows      6 = 2 decoded + 2 failed + 2 rejected" in text
  assert "clips     2 (train 1, val 0, eval 1), 0.00 hours, 0.50 to 1.00 s" in text
  assert "classes   2 of 3; 1.50 labels per clip, 2 combinations" in text
  assert "gone is missing" in text


def test_pairs_are_ranked_by_count_and_by_lift():
  # In 100 clips, 0 and 1 come together by chance, 2 only with 3, and 4 once with 0.
  together = np.diag([50, 40, 10, 8, 1])
  for a, b, count in ((0, 1, 20), (2, 3, 8), (0, 4, 1)):
    together[a, b] = together[b, a] = count
  pairs = strongest_pairs(together, 100)
  assert pairs["count"] == [(0, 1, 20, 1.0), (2, 3, 8, 10.0), (0, 4, 1, 2.0)]
  assert pairs["lift"] == [(2, 3, 8, 10.0)]
  assert strongest_pairs(together, 100, most=1)["count"] == [(0, 1, 20, 1.0)]


def test_co_occurrence_counts_pairs_of_decoded_clips(make_source):
  source = make_source(
    ("a.wav", "train", (0, 1), noise(0)),
    ("b.wav", "val", (0, 1, 2), noise(1)),
    ("c.wav", "eval", (1, 2), None),
  )
  together = co_occurrence(measure.inspect_source(source))
  assert together.tolist() == [[2, 2, 1], [2, 2, 1], [1, 1, 1]]
