"""Numbers of an inspection, as JSON and as text for a terminal."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from audiotag_jax.data.sources.source import SPLITS
from audiotag_jax.inspection.findings import Duplicates, find_suspicious
from audiotag_jax.inspection.measure import MEASURE_NAMES, Inspection, class_counts
from audiotag_jax.names import printable

# Fewest clips of a pair whose lift is shown; the lift of a rarer pair says little.
LEAST_PAIR_CLIPS = 5
NUM_PAIRS = 15
NUM_COMBINATIONS = 15
QUANTILES = {"min": 0, "5 %": 5, "25 %": 25, "50 %": 50, "75 %": 75, "95 %": 95}
QUANTILES |= {"max": 100}


def co_occurrence(inspection: Inspection) -> np.ndarray:
  """Counts the decoded clips with each pair of classes <int64>[classes, classes].

  The diagonal counts the clips with each class.
  """
  labels = inspection.labels[inspection.decoded()]
  return (labels.T @ labels).toarray()


def strongest_pairs(
  together: np.ndarray, num_clips: int, most: int = NUM_PAIRS
) -> dict[str, list[tuple[int, int, int, float]]]:
  """Finds the pairs of classes that come together most.

  Args:
    together: the counts of `co_occurrence`.
    num_clips: the number of clips counted.
    most: the most pairs to return.

  Returns:
    The pairs by `count`, and by `lift` (the clips with both classes, divided by the
    number expected of independent classes): tuples of two classes, the more frequent
    one first, the clips with both, and the lift. The list by `lift` has only pairs with
    `LEAST_PAIR_CLIPS` clips or more and a lift above 1.
  """
  support = together.diagonal()
  a, b = np.nonzero(np.triu(together, 1))
  count = together[a, b]
  lift = count * num_clips / (support[a] * support[b])
  a, b = np.where(support[a] >= support[b], (a, b), (b, a))
  chosen = (count >= LEAST_PAIR_CLIPS) & (lift > 1)
  orders = {
    "count": np.argsort(-count, kind="stable"),
    "lift": np.lexsort((-count, -np.where(chosen, lift, 0.0))),
  }
  orders["lift"] = orders["lift"][: chosen.sum()]
  return {
    name: [(int(a[i]), int(b[i]), int(count[i]), float(lift[i])) for i in order[:most]]
    for name, order in orders.items()
  }


def label_combinations(inspection: Inspection) -> collections.Counter[tuple[int, ...]]:
  """Counts the decoded clips of each set of labels."""
  clips = inspection.source.clips
  return collections.Counter(clips[i].labels for i in inspection.decoded())


def totals(inspection: Inspection) -> dict[str, dict[str, float]]:
  """Counts the lists' rows, by split and in all: rows = decoded + failed + rejected.

  Rejected rows without a known split count in `all` only.
  """
  rejected = collections.Counter(row.split for row in inspection.source.rejected)
  table = {}
  for split in (*SPLITS, None):
    decoded = inspection.decoded(split)
    in_lists = len(inspection.split)
    if split is not None:
      in_lists = int((inspection.split == split).sum())
    num_rejected = rejected.total() if split is None else rejected[split]
    table[split or "all"] = {
      "rows": in_lists + num_rejected,
      "decoded": len(decoded),
      "failed": in_lists - len(decoded),
      "rejected": num_rejected,
      "hours": float(inspection.measures["duration_s"][decoded].sum() / 3600),
      "classes": int((inspection.labels[decoded].sum(axis=0) > 0).sum()),
      "labels_per_clip": inspection.labels[decoded].sum() / max(1, len(decoded)),
    }
  return table


def quantiles(inspection: Inspection, measure: str) -> dict[str, dict[str, float]]:
  """Quantiles of a measure over the decoded clips of each split that has any."""
  values = {
    split: inspection.measures[measure][inspection.decoded(split)] for split in SPLITS
  }
  return {
    split: dict(
      zip(QUANTILES, np.percentile(x, list(QUANTILES.values())).tolist(), strict=True)
    )
    for split, x in values.items()
    if len(x)
  }


def formats(inspection: Inspection) -> list[dict[str, int]]:
  """Counts decoded clips by sample rate and number of channels, the commonest first."""
  m = inspection.measures[inspection.decoded()]
  pairs = zip(m["sample_rate_hz"].tolist(), m["channels"].tolist(), strict=True)
  return [
    {"sample_rate_hz": rate_hz, "channels": channels, "clips": count}
    for (rate_hz, channels), count in collections.Counter(pairs).most_common()
  ]


def summarize(
  inspection: Inspection, duplicates: Sequence[Duplicates]
) -> dict[str, Any]:
  """Returns every number of an inspection, ready for JSON."""
  classes = inspection.source.classes
  counts, combinations = class_counts(inspection), label_combinations(inspection)
  num_labels = inspection.labels.sum(axis=1)
  pairs = strongest_pairs(co_occurrence(inspection), len(inspection.decoded()))
  across = [group for group in duplicates if len(group.splits) > 1]
  return {
    "dataset": inspection.source.dataset,
    "place": str(inspection.source.place),
    "totals": totals(inspection),
    "failed": dict(collections.Counter(inspection.failed.values()).most_common()),
    "rejected": dict(
      collections.Counter(
        row.reason for row in inspection.source.rejected
      ).most_common()
    ),
    "classes": {
      name: {split: int(counts[split][c]) for split in SPLITS}
      for c, name in enumerate(classes)
    },
    "clips_by_number_of_labels": {
      split: np.bincount(num_labels[inspection.decoded(split)]).tolist()
      for split in SPLITS
    },
    "pairs": {
      by: [
        {"classes": [classes[a], classes[b]], "clips": count, "lift": lift}
        for a, b, count, lift in listed
      ]
      for by, listed in pairs.items()
    },
    "combinations": {
      "different": len(combinations),
      "of_one_clip": sum(n == 1 for n in combinations.values()),
      "commonest": [
        {"labels": [classes[c] for c in labels], "clips": n}
        for labels, n in combinations.most_common(NUM_COMBINATIONS)
      ],
    },
    "formats": formats(inspection),
    "quantiles": {
      name: quantiles(inspection, name)
      for name in MEASURE_NAMES
      if name not in ("sample_rate_hz", "channels", "sha256")
    },
    "duplicates": {
      "recordings": len(duplicates),
      "clips": sum(len(group.clips) for group in duplicates),
      "recordings_across_splits": len(across),
      "clips_across_splits": sum(len(group.clips) for group in across),
    },
    "look_at": [
      dataclasses.asdict(finding) for finding in find_suspicious(inspection, duplicates)
    ],
  }


def describe(summary: dict[str, Any]) -> str:
  """Formats the summary of `summarize` as text for a terminal."""
  everything, durations = summary["totals"]["all"], summary["quantiles"]["duration_s"]
  decoded = ", ".join(f"{name} {summary['totals'][name]['decoded']}" for name in SPLITS)
  rates = ", ".join(
    f"{row['sample_rate_hz']} Hz x {row['channels']}: {row['clips']}"
    for row in summary["formats"][:4]
  )
  shortest = min(row["min"] for row in durations.values())
  longest = max(row["max"] for row in durations.values())
  lines = [
    f"Source: {summary['place']} ({summary['dataset']})",
    f"  rows      {everything['rows']} = {everything['decoded']} decoded + "
    f"{everything['failed']} failed + {everything['rejected']} rejected",
    f"  clips     {everything['decoded']} ({decoded}), {everything['hours']:.2f} hours,"
    f" {shortest:.2f} to {longest:.2f} s",
    f"  classes   {everything['classes']} of {len(summary['classes'])}; "
    f"{everything['labels_per_clip']:.2f} labels per clip, "
    f"{summary['combinations']['different']} combinations",
    f"  formats   {rates}{', …' if len(summary['formats']) > 4 else ''}",
  ]
  if not summary["look_at"]:
    return "\n".join([*lines, "Look at: nothing suspicious was found"])
  lines.append("Look at:")
  for finding in summary["look_at"]:
    more = ", …" if finding["count"] > len(finding["names"]) else ""
    lines.append(f"  {finding['count']:<6} {finding['what']}")
    lines.append(f"         {printable(', '.join(finding['names']))}{more}")
  return "\n".join(lines)
