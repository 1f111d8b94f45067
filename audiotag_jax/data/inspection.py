"""What a researcher checks of a data set before training, measured on its source.

Levels are in dB relative to a constant at full scale: a sine at full scale has -3.
"""

import collections
import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import scipy.sparse
from tqdm import tqdm

from audiotag_jax.audio import files as audio_files
from audiotag_jax.data.source import SPLITS, Clip, Source
from audiotag_jax.errors import UserError

# Samples this large count as clipped, three or more in a row: full scale of 16 bits
# less one step, in runs as long as Audacity's "Find Clipping" asks for by default. One
# sample at full scale is the peak of a clip that was normalised.
CLIPPED_LEVEL = 32_766 / 32_768
CLIPPED_RUN = 3
# A block of 50 ms whose level is below this is silent.
BLOCK_S = 0.05
SILENCE_DB = -60.0
# -120 dB: what is softer still counts as this.
MIN_POWER = 1e-12
# FSD50K's clips are 0.3 to 30 s long (Fonseca et al. 2022).
SHORT_S = 0.3
LONG_S = 30.0
# A mean of the samples beyond this, -40 dB, is worth a look.
DC_OFFSET = 0.01
# A class with fewer clips to train on is hardly learnt.
FEW_CLIPS = 10
# The lift of a pair that comes together less often says little.
LEAST_PAIR_CLIPS = 5
NUM_PAIRS = 15
NUM_COMBINATIONS = 15
NUM_EXAMPLES = 5
QUANTILES = {"min": 0, "5 %": 5, "25 %": 25, "50 %": 50, "75 %": 75, "95 %": 95}
QUANTILES |= {"max": 100}
# Clips that are handed to the threads at a time.
CHUNK = 1024

# What is measured of a clip; see `measure`.
MEASURES = np.dtype(
  [
    ("duration_s", np.float64),
    ("sample_rate_hz", np.int64),
    ("channels", np.int64),
    ("peak", np.float64),
    ("rms_db", np.float64),
    ("clipped_share", np.float64),
    ("leading_silence_s", np.float64),
    ("trailing_silence_s", np.float64),
    ("silent_share", np.float64),
    ("dc_offset", np.float64),
    ("sha256", "S64"),
  ]
)
SILENT_SHA256 = hashlib.sha256().hexdigest().encode()


@dataclasses.dataclass(frozen=True)
class Inspection:
  """A data set's source, measured.

  Attributes:
    source: the source.
    labels: <int64>[clips, classes], sparse: 1 where a clip has a class.
    split: <str>[clips].
    measures: <MEASURES>[clips]; zeros where a clip could not be decoded.
    failed: the reason, by the position of each clip that could not be decoded.
  """

  source: Source
  labels: scipy.sparse.csr_array = dataclasses.field(repr=False)
  split: np.ndarray = dataclasses.field(repr=False)
  measures: np.ndarray = dataclasses.field(repr=False)
  failed: dict[int, str] = dataclasses.field(repr=False)

  def decoded(self, split: str | None = None) -> np.ndarray:
    """Positions of the clips that could be decoded, of one split or of all <int>[n]."""
    there = np.full(len(self.split), True) if split is None else self.split == split
    there[list(self.failed)] = False
    return np.flatnonzero(there)

  def label_names(self, clip: int) -> list[str]:
    return [self.source.classes[c] for c in self.source.clips[clip].labels]


@dataclasses.dataclass(frozen=True)
class Duplicates:
  """Clips of the same audio.

  Attributes:
    clips: their positions, ascending.
    splits: those they are in, in the order of `SPLITS`.
    label_agreement: the labels that all of them have, as a share of those that any has;
      1 where none has any.
  """

  clips: tuple[int, ...]
  splits: tuple[str, ...]
  label_agreement: float


@dataclasses.dataclass(frozen=True)
class Finding:
  """Something to look at: what, how often, and a few of its names, worst first."""

  what: str
  count: int
  names: tuple[str, ...]


def inspect_source(source: Source) -> Inspection:
  """Decodes and measures every clip of a source, each at its own rate.

  No audio is kept, so memory grows by some 150 bytes a clip.

  Raises:
    UserError: not one clip can be decoded.
  """
  clips = source.clips
  measures, failed = np.zeros(len(clips), MEASURES), {}
  for position, result in enumerate(_measure_all(clips)):
    if isinstance(result, audio_files.AudioError):
      failed[position] = str(result)
    else:
      measures[position] = result
  if len(failed) == len(clips):
    example = f" ({clips[0].fname} {failed[0]})" if clips else ""
    raise UserError(
      f"{source.place}: none of its {len(clips)} clips can be decoded{example}: check "
      "config.data.source_dir"
    )
  shape = len(clips), len(source.classes)
  rows = np.repeat(np.arange(len(clips)), [len(clip.labels) for clip in clips])
  columns = [c for clip in clips for c in clip.labels]
  ones = np.ones(len(rows), np.int64)
  labels = scipy.sparse.csr_array((ones, (rows, columns)), shape=shape)
  split = np.array([clip.split for clip in clips])
  return Inspection(source, labels, split, measures, failed)


def _measure_all(clips: Sequence[Clip]) -> Iterator[tuple | audio_files.AudioError]:
  """Yields each clip's measures, or why there are none, in order."""

  def measure_clip(clip: Clip) -> tuple | audio_files.AudioError:
    try:
      return measure(*audio_files.decode(clip.audio, clip.start_s, clip.end_s))
    except audio_files.AudioError as error:
      return error

  with (
    ThreadPoolExecutor(os.cpu_count()) as pool,
    tqdm(total=len(clips), desc="inspecting", unit="clip", disable=None) as bar,
  ):
    for start in range(0, len(clips), CHUNK):
      for result in pool.map(measure_clip, clips[start : start + CHUNK]):
        bar.update()
        yield result


def measure(channels: np.ndarray, sample_rate_hz: int) -> tuple:
  """Measures a clip.

  Args:
    channels: <float32>[samples, channels], full scale at 1, at least one sample.
    sample_rate_hz: their rate.

  Returns:
    `MEASURES`, in order: the duration, the rate, the number of channels; the largest
    magnitude; the level; the share of clipped samples; the silence before the first
    block that is not silent and after the last one (both the duration, if none is), and
    that of all silent blocks as a share; the mean of the mono mix; and what tells its
    audio from that of other clips (see `audio_sha256`). Levels and shares are over all
    channels.
  """
  num_samples, num_channels = channels.shape
  duration_s = num_samples / sample_rate_hz
  peak = float(max(channels.max(), -channels.min()))
  mono = channels[:, 0]
  if num_channels > 1:
    mono = channels @ np.full(num_channels, 1 / num_channels, np.float32)
  power, block_s = _blocks(channels, sample_rate_hz)
  mean_power = (power * block_s).sum() / duration_s
  sounding = np.flatnonzero(power >= 10 ** (SILENCE_DB / 10))
  ends_s = np.cumsum(block_s)
  leading_s = trailing_s = duration_s
  if len(sounding):
    leading_s = ends_s[sounding[0]] - block_s[sounding[0]]
    trailing_s = ends_s[-1] - ends_s[sounding[-1]]
  return (
    duration_s,
    sample_rate_hz,
    num_channels,
    peak,
    10 * np.log10(max(mean_power, MIN_POWER)),
    _count_clipped(channels) / channels.size if peak >= CLIPPED_LEVEL else 0.0,
    leading_s,
    trailing_s,
    1 - block_s[sounding].sum() / ends_s[-1] if len(sounding) else 1.0,
    mono.mean(dtype=np.float64),
    audio_sha256(mono),
  )


def _blocks(channels: np.ndarray, rate_hz: int) -> tuple[np.ndarray, np.ndarray]:
  """Cuts a clip into blocks of `BLOCK_S`, the last one as short as it is.

  Returns:
    The mean power and the length in seconds of each <float64>[blocks].
  """
  num_samples, num_channels = channels.shape
  size = max(1, round(BLOCK_S * rate_hz))
  num_whole = num_samples // size
  whole = channels[: num_whole * size].reshape(num_whole, size * num_channels)
  rest = channels[num_whole * size :].reshape(1, -1)
  energy = [np.einsum("bs,bs->b", part, part) for part in (whole, rest)]
  sizes = np.r_[np.full(num_whole, size), num_samples - num_whole * size]
  there = sizes > 0
  energy, sizes = np.concatenate(energy).astype(np.float64)[there], sizes[there]
  return energy / (sizes * num_channels), sizes / rate_hz


def _count_clipped(channels: np.ndarray) -> int:
  """Counts the samples in runs of `CLIPPED_RUN` or more at `CLIPPED_LEVEL` or above."""
  count = 0
  for channel in channels.T:
    is_large = np.abs(channel) >= CLIPPED_LEVEL
    edges = np.flatnonzero(np.diff(np.r_[False, is_large, False]))
    runs = edges[1::2] - edges[::2]
    count += int(runs[runs >= CLIPPED_RUN].sum())
  return count


def audio_sha256(mono: np.ndarray) -> str:
  """Hashes a waveform <float32>[samples] at 16 bits, without the zeros at its ends.

  So the same recording has the same hash in any lossless format, and with silence put
  before or after it. `SILENT_SHA256` is that of nothing but zeros.
  """
  samples = np.rint(mono * 2.0**15).clip(-(2**15), 2**15 - 1).astype("<i2")
  some = samples != 0
  if not some.any():
    return SILENT_SHA256.decode()
  start, end = some.argmax(), len(some) - some[::-1].argmax()
  return hashlib.sha256(samples[start:end]).hexdigest()


def find_duplicates(inspection: Inspection) -> list[Duplicates]:
  """Finds the clips of the same audio: those in several splits first.

  Silent clips are no duplicates of each other. A recording that was coded with loss,
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
  here = set(inspection.split[clips].tolist())
  splits = tuple(name for name in SPLITS if name in here)
  agreement = len(all_have) / len(any_has) if any_has else 1.0
  return Duplicates(tuple(clips), splits, agreement)


def class_counts(inspection: Inspection) -> dict[str, np.ndarray]:
  """Decoded clips of each class in each split <int64>[classes]."""
  return {
    split: inspection.labels[inspection.decoded(split)].sum(axis=0) for split in SPLITS
  }


def co_occurrence(inspection: Inspection) -> np.ndarray:
  """Decoded clips with each pair of classes <int64>[classes, classes].

  On the diagonal are those with the class.
  """
  labels = inspection.labels[inspection.decoded()]
  return (labels.T @ labels).toarray()


def strongest_pairs(
  together: np.ndarray, num_clips: int, most: int = NUM_PAIRS
) -> dict[str, list[tuple[int, int, int, float]]]:
  """Finds the pairs of classes that come together most.

  Args:
    together: what `co_occurrence` returned.
    num_clips: how many clips that is of.
    most: how many pairs to return.

  Returns:
    By `count`, and by `lift` (how many times as often as if they came independently of
    each other): tuples of two classes, the more frequent one first, the clips with
    both, and the lift. By `lift` are those of `LEAST_PAIR_CLIPS` or more alone whose
    lift is above 1.
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


def find_suspicious(
  inspection: Inspection, duplicates: Sequence[Duplicates]
) -> list[Finding]:
  """Lists what is worth a look before training, the gravest first."""
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
  for what, there, badness, shown in (
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
    yield _audio_finding(inspection, what, there, badness, shown)
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
  there: np.ndarray,
  badness: np.ndarray,
  shown: str,
) -> Finding:
  """Makes a finding of the decoded clips of a mask, the worst first."""
  decoded = inspection.decoded()
  chosen = decoded[there[decoded]]
  chosen = chosen[np.argsort(-badness[chosen], kind="stable")]
  names = []
  for i in chosen[:NUM_EXAMPLES]:
    measured = {name: inspection.measures[name][i] for name in MEASURES.names}
    names.append(f"{inspection.source.clips[i].fname} ({shown.format(**measured)})")
  return Finding(what, len(chosen), tuple(names))


def _few(names: Sequence[str]) -> tuple[str, ...]:
  return tuple(str(name) for name in names[:NUM_EXAMPLES])


def totals(inspection: Inspection) -> dict[str, dict[str, float]]:
  """Rows of the lists, by split and in all: rows = decoded + failed + rejected.

  Rejected rows of no known split are in `all` alone.
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
  """Quantiles of a measure over the decoded clips of each split that has some."""
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
  """Decoded clips of each sample rate and number of channels, the commonest first."""
  m = inspection.measures[inspection.decoded()]
  pairs = zip(m["sample_rate_hz"].tolist(), m["channels"].tolist(), strict=True)
  return [
    {"sample_rate_hz": rate_hz, "channels": channels, "clips": count}
    for (rate_hz, channels), count in collections.Counter(pairs).most_common()
  ]


def summarize(
  inspection: Inspection, duplicates: Sequence[Duplicates]
) -> dict[str, Any]:
  """Every number of an inspection, for json."""
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
        for a, b, count, lift in some
      ]
      for by, some in pairs.items()
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
      for name in MEASURES.names
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
  """What `summarize` returned, for a person to read at a terminal."""
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
    lines.append(f"         {', '.join(finding['names'])}{more}")
  return "\n".join(lines)
