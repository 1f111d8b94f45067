"""Report of a data set's inspection: its files."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from audiotag_jax import files
from audiotag_jax.frontend.mel import LogMelParams
from audiotag_jax.inspection import contact_sheet, findings, measure, sections
from audiotag_jax.inspection.findings import Duplicates
from audiotag_jax.inspection.measure import Inspection
from audiotag_jax.inspection.summary import summarize
from audiotag_jax.names import for_spreadsheet
from audiotag_jax.reporting import page

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
  content = sections.make_sections(inspected, duplicates, summary)
  content.append(contact_sheet.listen_section(inspected, params, max_classes))
  title = f"Inspection of {inspected.source.place}"
  text = page.to_html(title, content, css=contact_sheet.CSS)
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


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
  text = io.StringIO()
  writer = csv.writer(text, lineterminator="\n")
  for row in (header, *rows):
    writer.writerow([for_spreadsheet(str(cell)) for cell in row])
  files.write_text(path, text.getvalue())
