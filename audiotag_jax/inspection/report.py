"""Report of a data set's inspection: its sections and its files."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audiotag_jax import files
from audiotag_jax.data.sources.source import SPLITS
from audiotag_jax.frontend.mel import LogMelParams
from audiotag_jax.inspection import contact_sheet, findings, measure
from audiotag_jax.inspection.figures import (
  NUM_HEAT_MAP_CLASSES,
  class_counts_figure,
  heat_map,
  histograms,
  labels_figure,
)
from audiotag_jax.inspection.findings import Duplicates
from audiotag_jax.inspection.measure import Inspection
from audiotag_jax.inspection.summary import LEAST_PAIR_CLIPS, QUANTILES, summarize
from audiotag_jax.names import for_spreadsheet
from audiotag_jax.reporting import page
from audiotag_jax.reporting.formatting import number, whole
from audiotag_jax.reporting.page import Figure, Section, Table

# Most rows of the tables of duplicates and of rejected rows; the csv files have all.
MAX_ROWS = 100
DUPLICATES_HEADER = (
  "recording",
  "fname",
  "split",
  "splits",
  "label_agreement",
  "labels",
  "sha256",
)


def write_report(
  inspected: Inspection, params: LogMelParams, output: Path, max_classes: int
) -> dict[str, Any]:
  """Writes inspection.html, clips.csv, duplicates.csv and summary.json.

  Args:
    inspected: the data set.
    params: the front-end of the pictures' log-mels.
    output: the folder to write to.
    max_classes: the most classes that the contact sheet shows, the frequent ones.

  Returns:
    The summary that is written to summary.json.
  """
  duplicates = findings.find_duplicates(inspected)
  summary = summarize(inspected, duplicates)
  sections = make_sections(inspected, duplicates, summary)
  sections.append(contact_sheet.listen_section(inspected, params, max_classes))
  title = f"Inspection of {inspected.source.place}"
  text = page.to_html(title, sections, css=contact_sheet.CSS)
  files.write_text(output / "inspection.html", text)
  _write_csv(output / "clips.csv", *clip_table(inspected))
  rows = duplicate_rows(inspected, duplicates)
  _write_csv(output / "duplicates.csv", DUPLICATES_HEADER, rows)
  files.write_json(output / "summary.json", summary)
  return summary


def clip_table(inspected: Inspection) -> tuple[Sequence[str], Iterable[Sequence]]:
  """Returns the header and the rows of clips.csv: one for each row of the lists."""
  source, measures = inspected.source, inspected.measures
  names = measure.MEASURE_NAMES
  header = ("fname", "split", "file", "start_s", "end_s", "labels", "state", "reason")

  def rows() -> Iterable[Sequence]:
    for i, clip in enumerate(source.clips):
      labels = ";".join(inspected.label_names(i))
      end_s = "" if clip.end_s is None else clip.end_s
      facts = [clip.fname, clip.split, clip.audio.name, clip.start_s, end_s, labels]
      if i in inspected.failed:
        yield [*facts, "failed", inspected.failed[i], *[""] * len(names)]
      else:
        yield [*facts, "decoded", "", *map(_csv_value, measures[i].item())]
    for row in source.rejected:
      empty = [""] * 4
      yield [row.fname, row.split, *empty, "rejected", row.reason, *[""] * len(names)]

  return (*header, *names), rows()


def _csv_value(value: float | bytes) -> str:
  if isinstance(value, bytes):
    return value.decode()
  return str(value) if isinstance(value, int) else f"{value:.6g}"


def duplicate_rows(
  inspected: Inspection, duplicates: Sequence[Duplicates]
) -> Iterable[Sequence]:
  """Yields the rows of duplicates.csv: one for each clip that has a duplicate."""
  for recording, group in enumerate(duplicates, start=1):
    for i in group.clips:
      yield [
        recording,
        inspected.source.clips[i].fname,
        inspected.split[i],
        "+".join(group.splits),
        f"{group.label_agreement:.3f}",
        ";".join(inspected.label_names(i)),
        inspected.measures["sha256"][i].decode(),
      ]


def make_sections(
  inspected: Inspection, duplicates: Sequence[Duplicates], summary: Mapping[str, Any]
) -> list[Section]:
  """Makes the sections of the report, except the contact sheet, in order."""
  return [
    overview_section(summary),
    duplicates_section(inspected, duplicates, summary),
    classes_section(inspected, summary),
    labels_section(inspected, summary),
    durations_section(inspected, summary),
    levels_section(inspected, summary),
    formats_section(inspected, summary),
  ]


def overview_section(summary: Mapping[str, Any]) -> Section:
  """The overview: the numbers of rows, and the findings."""
  rows = [
    [
      name,
      *(whole(row[key]) for key in ("rows", "decoded", "failed", "rejected")),
      f"{row['hours']:.2f}",
      whole(row["classes"]),
      f"{row['labels_per_clip']:.2f}",
    ]
    for name, row in summary["totals"].items()
  ]
  header = ["split", "rows", "decoded", "failed", "rejected", "hours", "classes"]
  findings = [
    [
      finding["what"],
      "; ".join(finding["names"])
      + ("; …" if finding["count"] > len(finding["names"]) else ""),
      whole(finding["count"]),
    ]
    for finding in summary["look_at"]
  ]
  look_at = Table("Look at", ["finding", "examples, worst first", "count"], findings, 2)
  return Section(
    "Overview",
    f"The original files of the {summary['dataset']} data set, in its owner's splits, "
    "each decoded whole at its own rate. Every row of the lists is decoded, failed "
    "(its file is missing or unreadable) or rejected (the row names no usable clip). "
    "Everything below is about the decoded clips.",
    [
      Table("Rows", [*header, "labels per clip"], rows),
      look_at if findings else "Nothing suspicious was found.",
    ],
  )


def duplicates_section(
  inspected: Inspection, duplicates: Sequence[Duplicates], summary: Mapping[str, Any]
) -> Section:
  """The duplicates: clips of the same recording."""
  counts = summary["duplicates"]
  clips, split = inspected.source.clips, inspected.split
  rows = [
    [
      ", ".join(f"{clips[i].fname} ({split[i]})" for i in group.clips),
      " / ".join(
        dict.fromkeys(", ".join(inspected.label_names(i)) for i in group.clips)
      ),
      page.Cell(" + ".join(group.splits), marked=len(group.splits) > 1),
      f"{group.label_agreement:.0%}",
    ]
    for group in duplicates[:MAX_ROWS]
  ]
  header = ["clips", "labels, all if they differ", "splits", "label agreement"]
  text = (
    f"Recordings that come more than once: {whole(counts['recordings'])}, as "
    f"{whole(counts['clips'])} clips; in more than one split: "
    f"{whole(counts['recordings_across_splits'])}, as "
    f"{whole(counts['clips_across_splits'])} clips."
  )
  if not duplicates:
    text = "No recording comes more than once."
  return Section(
    "Duplicates",
    "Duplicates are clips whose mono mix has the same samples, at 16 bits and without "
    "the zeros at its ends; the lossless format and padding do not matter. A recording "
    "that was coded with loss, resampled, cut or made louder is not recognised, and "
    "silent clips do not count. A recording in two splits leaks from training into "
    "evaluation. Label agreement is the share of labels that all of a recording's "
    "clips have, among the labels that any of its clips has.",
    [
      text,
      *_table_of("Duplicates", header, rows, len(duplicates), "duplicates.csv", 2),
    ],
  )


def classes_section(inspected: Inspection, summary: Mapping[str, Any]) -> Section:
  """The number of clips of each class."""
  counts = measure.class_counts(inspected)
  order = np.argsort(-sum(counts.values()), kind="stable")
  names = [inspected.source.classes[c] for c in order]
  title = "Clips of each class"
  figure = class_counts_figure(names, {split: n[order] for split, n in counts.items()})
  rows = [
    [name, *(whole(summary["classes"][name][split]) for split in SPLITS)]
    for name in names
  ]
  return Section(
    "Classes",
    "Decoded clips of each class in each split. A class with fewer than "
    f"{findings.FEW_CLIPS} train clips (the dashed line) is hardly learnt, and a class "
    "that a split lacks has no score there.",
    [
      Figure("class_counts", title, figure),
      Table(title, ["class", *SPLITS], rows, folded=True),
    ],
  )


def labels_section(inspected: Inspection, summary: Mapping[str, Any]) -> Section:
  """The number of labels per clip, and the labels that come together."""
  combinations, pairs = summary["combinations"], summary["pairs"]
  figure = labels_figure(summary["clips_by_number_of_labels"])
  blocks: list[page.Block] = [Figure("labels_per_clip", "Labels per clip", figure)]
  if pairs["count"]:
    blocks += [
      Figure("co_occurrence", "Labels that come together", heat_map(inspected)),
      _pairs_table("Pairs that come together most often", pairs["count"], summary),
    ]
  if pairs["lift"]:
    title = f"Pairs with the highest lift ({LEAST_PAIR_CLIPS} clips or more)"
    blocks.append(_pairs_table(title, pairs["lift"], summary))
  rows = [
    [", ".join(row["labels"]) or "none", whole(row["clips"])]
    for row in combinations["commonest"]
  ]
  blocks += [
    f"There are {whole(combinations['different'])} combinations of labels, "
    f"{whole(combinations['of_one_clip'])} of them in one clip only.",
    Table("Commonest combinations", ["labels", "clips"], rows, folded=True),
  ]
  return Section(
    "Labels",
    "The bars show the labels per clip. The heat map shows the share of the clips with "
    "the row's label that also have the column's label, for the "
    f"{NUM_HEAT_MAP_CLASSES} most frequent classes. The lift of a pair is its number "
    "of clips, divided by the number expected of independent classes. A data set that "
    "also labels the parents of a sound's class has many pairs of the two.",
    blocks,
  )


def _pairs_table(
  title: str, pairs: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> Table:
  support = {name: sum(n.values()) for name, n in summary["classes"].items()}
  rows = [
    [
      *pair["classes"],
      whole(pair["clips"]),
      *(f"{pair['clips'] / support[name]:.0%}" for name in pair["classes"]),
      f"{pair['lift']:.1f}",
    ]
    for pair in pairs
  ]
  header = ["class", "and class", "clips", "of the first's", "of the second's", "lift"]
  return Table(title, header, rows, text_columns=2)


def durations_section(inspected: Inspection, summary: Mapping[str, Any]) -> Section:
  """The lengths of the clips."""
  values = _by_split(inspected, lambda m: m["duration_s"])
  everything = np.concatenate(list(values.values()))
  low, high = everything.min(), everything.max()
  bins = np.geomspace(low / 1.02, high * 1.02, 40)
  figure = histograms([("Duration", "s", values, bins, "log")])
  return Section(
    "Durations",
    f"Lengths of the clips. FSD50K's are {findings.SHORT_S:g} to "
    f"{findings.LONG_S:g} s long; shorter and longer clips are named above.",
    [
      Figure("durations", "Durations", figure),
      _quantiles_table("Duration in s", summary["quantiles"]["duration_s"]),
    ],
  )


def levels_section(inspected: Inspection, summary: Mapping[str, Any]) -> Section:
  """The levels of the clips, and faults of their samples."""

  def peak_db(m: np.ndarray) -> np.ndarray:
    return 10 * np.log10(np.maximum(m["peak"] ** 2, measure.MIN_POWER))

  peaks = _by_split(inspected, peak_db)
  rms = _by_split(inspected, lambda m: m["rms_db"])
  silent = _by_split(inspected, lambda m: 100 * m["silent_share"])
  figure = histograms(
    [
      ("Peak", "dB of full scale", peaks, _db_bins(peaks), "linear"),
      ("RMS level", "dB of full scale", rms, _db_bins(rms), "linear"),
      ("Silence", "% of the clip", silent, np.linspace(0, 100, 26), "linear"),
    ]
  )
  tables = [
    _quantiles_table(title, summary["quantiles"][key], scale, folded=True)
    for key, title, scale in (
      ("rms_db", "RMS level in dB", 1),
      ("peak", "Peak, full scale at 1", 1),
      ("clipped_share", "Clipped samples in %", 100),
      ("silent_share", "Silence in %", 100),
      ("leading_silence_s", "Silence before the sound in s", 1),
      ("trailing_silence_s", "Silence after the sound in s", 1),
      ("dc_offset", "DC offset, full scale at 1", 1),
    )
  ]
  return Section(
    "Levels",
    "Levels are relative to a constant at full scale, so that a sine has −3 dB at "
    f"most. A block of {1000 * measure.BLOCK_S:g} ms is silent below "
    f"−{-measure.SILENCE_DB:g} dB. Samples are clipped if {measure.CLIPPED_RUN} or "
    "more in a row are at full scale (of 16 bits, minus one step); a recording that "
    "was made softer after it had clipped is not recognised. The worst clips are named "
    "above, and clips.csv has all clips.",
    [Figure("levels", "Levels", figure), *tables],
  )


def formats_section(inspected: Inspection, summary: Mapping[str, Any]) -> Section:
  """The rates and channels, and the rows that could not be read."""
  rows = [
    [whole(row["sample_rate_hz"]), whole(row["channels"]), whole(row["clips"])]
    for row in summary["formats"]
  ]
  clips = inspected.source.clips
  unread = [
    [clips[i].fname, reason, clips[i].split]
    for i, reason in sorted(inspected.failed.items())
  ]
  unread += [[row.fname, row.reason, row.split] for row in inspected.source.rejected]
  reasons = [
    [reason, state, whole(count)]
    for state in ("failed", "rejected")
    for reason, count in summary[state].items()
  ]
  header = ["sample rate in Hz", "channels", "clips"]
  blocks: list[page.Block] = [Table("Formats", header, rows, text_columns=0)]
  if unread:
    blocks += _table_of(
      "Reasons", ["reason", "state", "clips"], reasons, len(reasons), "summary.json", 2
    )
    blocks += _table_of(
      "Failed and rejected rows",
      ["clip", "reason", "split"],
      unread,
      len(unread),
      "clips.csv",
      3,
    )
  else:
    blocks.append("No row failed, and none was rejected.")
  return Section(
    "Formats and failures",
    "Sample rates and channels as the files have them; preparation mixes to mono and "
    "resamples. A low-rate recording has nothing above half its rate.",
    blocks,
  )


def _by_split(
  inspected: Inspection, value: Callable[[np.ndarray], np.ndarray]
) -> dict[str, np.ndarray]:
  """Values of the decoded clips of each split."""
  return {
    split: value(inspected.measures[inspected.decoded(split)]) for split in SPLITS
  }


def _db_bins(values: Mapping[str, np.ndarray]) -> np.ndarray:
  """Edges every 2 dB, no lower than -100."""
  everything = np.concatenate(list(values.values())).clip(-100)
  low, high = np.floor(everything.min() / 2), np.ceil(everything.max() / 2)
  return 2 * np.arange(low, max(high, low + 1) + 1)


def _quantiles_table(
  title: str,
  quantiles: Mapping[str, Mapping[str, float]],
  scale: float = 1.0,
  *,
  folded: bool = False,
) -> Table:
  rows = [
    [split, *(number(scale * value) for value in row.values())]
    for split, row in quantiles.items()
  ]
  return Table(title, ["split", *QUANTILES], rows, folded=folded)


def _table_of(
  title: str,
  header: Sequence[str],
  rows: Sequence[Sequence],
  count: int,
  file: str,
  text_columns: int,
) -> list[Table | str]:
  """Makes a table of the first rows of `count`, and names the file with all rows."""
  if not rows:
    return []
  table = Table(title, header, rows[:MAX_ROWS], text_columns)
  if count <= MAX_ROWS:
    return [table]
  return [table, f"The first {MAX_ROWS} of {whole(count)} rows; {file} has all."]


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  for row in (header, *rows):
    writer.writerow([for_spreadsheet(str(cell)) for cell in row])
  files.write_text(path, text.getvalue())
