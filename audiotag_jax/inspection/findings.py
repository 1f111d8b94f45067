"""Findings in a data set: duplicates, and rows, classes and clips worth a look."""

import collections
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from audiotag_jax.data.sources.source import SPLITS
from audiotag_jax.inspection.measure import (
  CLIPPED_RUN,
  MEASURE_NAMES,
  SILENT_SHA256,
  Inspection,
  class_counts,
)

# FSD50K's clips are 0.3 to 30 s long (Fonseca et al. 2022).
SHORT_S = 0.3
LONG_S = 30.0
# Largest mean of the samples that is not reported, -40 dB.
DC_OFFSET = 0.01
# Fewest train clips of a class; a class with fewer is hardly learnt.
FEW_CLIPS = 10
NUM_EXAMPLES = 5


@dataclasses.dataclass(frozen=True)
class Duplicates:
  """Clips of the same audio.

  Attributes:
    clips: the clips' positions, ascending.
    splits: the clips' splits, in the order of `SPLITS`.
    label_agreement: the labels that all clips have, as a share of the labels that any
      clip has; 1 if the clips have no labels.
  """

  clips: tuple[int, ...]
  splits: tuple[str, ...]
  label_agreement: float


@dataclasses.dataclass(frozen=True)
class Finding:
  """Something to look at: its kind, its count, and a few names, the worst first."""

  what: str
  count: int
  names: tuple[str, ...]


def find_duplicates(inspection: Inspection) -> list[Duplicates]:
  """Finds the clips of the same audio, those in several splits first.

  Silent clips are not duplicates of each other. A recording that was coded with loss,
  resampled, cut or made louder is not recognised.
  """
  of_audio = collections.defaultdict(list)
  for clip in inspection.decoded().tolist():
    of_audio[inspection.measures["sha256"][clip]].append(clip)
  of_audio.pop(SILENT_SHA256, None)
  groups = [
    _duplicates(inspection, clips) for clips in of_audio.values() if len(clips) > 1
  ]
  return sorted(groups, key=lambda group: -len(group.splits))


def _duplicates(inspection: Inspection, clips: Sequence[int]) -> Duplicates:
  labels = [set(inspection.source.clips[clip].labels) for clip in clips]
  any_has = set.union(*labels)
  all_have = set.intersection(*labels)
  present = set(inspection.split[clips].tolist())
  splits = tuple(name for name in SPLITS if name in present)
  agreement = len(all_have) / len(any_has) if any_has else 1.0
  return Duplicates(tuple(clips), splits, agreement)


def find_suspicious(
  inspection: Inspection, duplicates: Sequence[Duplicates]
) -> list[Finding]:
  """Lists the findings that are worth a look before training, the gravest first."""
  found = [
    *_suspicious_duplicates(inspection, duplicates),
    *_suspicious_rows(inspection),
    *_suspicious_classes(inspection),
    *_suspicious_audio(inspection),
  ]
  return [finding for finding in found if finding.count]


def _suspicious_duplicates(
  inspection: Inspection, duplicates: Sequence[Duplicates]
) -> Iterator[Finding]:
  clips, split = inspection.source.clips, inspection.split
  across = [group for group in duplicates if len(group.splits) > 1]
  differing = [group for group in duplicates if group.label_agreement < 1]
  for what, groups in {
    "recordings in more than one split (leakage)": across,
    "recordings more than once in a split": [
      group for group in duplicates if len(group.clips) > len(group.splits)
    ],
    "recordings whose duplicates differ in their labels": differing,
  }.items():
    names = [
      " = ".join(f"{clips[i].fname} ({split[i]})" for i in group.clips)
      for group in groups[:NUM_EXAMPLES]
    ]
    yield Finding(what, len(groups), tuple(names))
  of_file = collections.defaultdict(set)
  for clip in clips:
    of_file[clip.audio].add(clip.split)
  shared = [audio.name for audio, splits in of_file.items() if len(splits) > 1]
  what = "files that clips of more than one split are cut from (leakage)"
  yield Finding(what, len(shared), tuple(shared[:NUM_EXAMPLES]))


def _suspicious_rows(inspection: Inspection) -> Iterator[Finding]:
  clips, rejected = inspection.source.clips, inspection.source.rejected
  failed = [f"{clips[i].fname} {why}" for i, why in inspection.failed.items()]
  yield Finding("clips that cannot be decoded", len(failed), _few(failed))
  rows = [f"{row.fname} {row.reason}" for row in rejected]
  yield Finding("rows of the lists that are rejected", len(rows), _few(rows))
  without = [clips[i].fname for i in inspection.decoded() if not clips[i].labels]
  yield Finding("clips without a label", len(without), _few(without))


def _suspicious_classes(inspection: Inspection) -> Iterator[Finding]:
  classes, counts = np.array(inspection.source.classes), class_counts(inspection)
  for split in SPLITS:
    lacking = classes[counts[split] == 0]
    yield Finding(f"classes lacking in {split}", len(lacking), _few(lacking))
  train = counts["train"]
  few = np.flatnonzero((train > 0) & (train < FEW_CLIPS))
  few = few[np.argsort(train[few], kind="stable")]
  names = [f"{classes[c]} {train[c]}" for c in few]
  yield Finding(
    f"classes with fewer than {FEW_CLIPS} train clips", len(few), _few(names)
  )


def _suspicious_audio(inspection: Inspection) -> Iterator[Finding]:
  m = inspection.measures
  silent = m["silent_share"] == 1
  for what, is_suspicious, badness, shown in (
    ("clips that are silent throughout", silent, m["duration_s"], "{duration_s:.1f} s"),
    (
      "clips that are silent for more than half their time",
      (m["silent_share"] > 0.5) & ~silent,
      m["silent_share"],
      "{silent_share:.0%}",
    ),
    (
      f"clips that clip ({CLIPPED_RUN} samples at full scale in a row, or more)",
      m["clipped_share"] > 0,
      m["clipped_share"],
      "{clipped_share:.2%} of samples",
    ),
    (
      f"clips with a DC offset beyond {DC_OFFSET} of full scale",
      np.abs(m["dc_offset"]) > DC_OFFSET,
      np.abs(m["dc_offset"]),
      "{dc_offset:+.3f}",
    ),
    (
      f"clips shorter than {SHORT_S} s",
      m["duration_s"] < SHORT_S,
      -m["duration_s"],
      "{duration_s:.3f} s",
    ),
    (
      f"clips longer than {LONG_S:g} s",
      m["duration_s"] > LONG_S,
      m["duration_s"],
      "{duration_s:.1f} s",
    ),
  ):
    yield _audio_finding(inspection, what, is_suspicious, badness, shown)
  for what, key in {
    "different sample rates in Hz": "sample_rate_hz",
    "different numbers of channels": "channels",
  }.items():
    values, counts = np.unique(m[key][inspection.decoded()], return_counts=True)
    names = [f"{value} ({n} clips)" for value, n in zip(values, counts, strict=True)]
    if len(values) > 1:
      yield Finding(what, len(values), _few(names))


def _audio_finding(
  inspection: Inspection,
  what: str,
  is_suspicious: np.ndarray,
  badness: np.ndarray,
  shown: str,
) -> Finding:
  """Makes a finding of the decoded clips of a mask <bool>[clips], the worst first."""
  decoded = inspection.decoded()
  chosen = decoded[is_suspicious[decoded]]
  chosen = chosen[np.argsort(-badness[chosen], kind="stable")]
  names = []
  for i in chosen[:NUM_EXAMPLES]:
    measured = {name: inspection.measures[name][i] for name in MEASURE_NAMES}
    names.append(f"{inspection.source.clips[i].fname} ({shown.format(**measured)})")
  return Finding(what, len(chosen), tuple(names))


def _few(names: Sequence[str]) -> tuple[str, ...]:
  return tuple(str(name) for name in names[:NUM_EXAMPLES])
