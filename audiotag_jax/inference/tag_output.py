"""Tags and events of files as text, in each format."""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from audiotag_jax import names
from audiotag_jax.inference.events import Event

FORMATS = ("table", "json", "jsonl", "csv", "audacity", "raven", "dcase")
EVENT_FORMATS = ("audacity", "raven", "dcase")
# Formats that write a file of their own for each of several recordings: its ending.
FOLDER_FORMATS = {"audacity": ".txt", "raven": ".Table.1.selections.txt"}
# Formats whose output a second run continues.
APPENDED_FORMATS = ("jsonl", "csv", "dcase")
CSV_FIELDS = ("file", "duration_s", "label", "score", "error")
# https://dcase.community: tab-separated, in spite of the name.
DCASE_FIELDS = ("filename", "onset", "offset", "event_label")
# Raven Pro's names of the columns of a selection table.
RAVEN_FIELDS = (
  *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)"),
  *("Low Freq (Hz)", "High Freq (Hz)", "Annotation"),
)


class Tagged(NamedTuple):
  """The tags or events of a file.

  Attributes:
    file: the file's path, as given or as found in a given folder; see `file_name`.
    duration_s: the file's length.
    tags: names and scores, highest first.
    events: names and events, by start.
    error: the reason why the file was not tagged; empty if it was.
    highest_hz: half of the model's rate.
  """

  file: str
  duration_s: float = 0.0
  tags: tuple[tuple[str, float], ...] = ()
  events: tuple[tuple[str, Event], ...] = ()
  error: str = ""
  highest_hz: float = 0.0


def file_name(path: Path) -> str:
  """Returns a file's path as the formats have it, and an earlier run's output."""
  return names.as_key(str(path))


def as_json(tagged: Tagged) -> dict[str, Any]:
  """Returns a file's row in jsonl and json."""
  if tagged.error:
    return {"file": tagged.file, "error": tagged.error}
  return {
    "file": tagged.file,
    "duration_s": round(tagged.duration_s, 4),
    "tags": [
      {"label": label, "score": round(score, 6)} for label, score in tagged.tags
    ],
  }


def as_table(tagged: Tagged) -> str:
  """Returns a file's tags for a person; "" for an error, which goes to stderr."""
  if tagged.error:
    return ""
  lines = [f"{names.printable(tagged.file)} ({tagged.duration_s:.2f} s)"]
  lines += [
    f"  {score:6.3f}  {names.printable(label.replace('_', ' '))}"
    for label, score in tagged.tags
  ]
  if not tagged.tags:
    lines.append("  no tag reaches its threshold: --top_k shows the highest")
  return "\n".join(lines) + "\n"


def as_csv(tagged: Tagged) -> str:
  """Returns one row per tag, or one row without a tag; see `names.for_spreadsheet`."""
  duration_s = "" if tagged.error else f"{tagged.duration_s:.4f}"
  tags = [(label, f"{score:.6f}") for label, score in tagged.tags] or [("", "")]
  rows = [(tagged.file, duration_s, *tag, tagged.error) for tag in tags]
  return _csv(map(names.for_spreadsheet, row) for row in rows)


def as_dcase(tagged: Tagged) -> str:
  """Returns one row per event, with as many decimals as the hop needs, 3 to 6.

  A file without events has an empty row, as in DESED; a failed file has no row.
  """
  if tagged.error:
    return ""
  rows = [
    (tagged.file, _trimmed(event.start_s), _trimmed(_end_s(event, tagged)), label)
    for label, event in tagged.events
  ]
  return _csv(rows or [(tagged.file, "", "", "")], "\t")


def as_audacity(tagged: Tagged) -> str:
  """Returns a label track, as Audacity imports it."""
  return "".join(
    f"{event.start_s:.6f}\t{_end_s(event, tagged):.6f}\t{names.printable(label)}\n"
    for label, event in tagged.events
  )


def as_raven(tagged: Tagged) -> str:
  """Returns a selection table, as Raven opens it; boxes have the model's whole band."""
  rows = [
    f"{number}\tSpectrogram 1\t1\t{event.start_s:.6f}\t{_end_s(event, tagged):.6f}\t"
    f"0.0\t{tagged.highest_hz:.1f}\t{names.printable(label)}\n"
    for number, (label, event) in enumerate(tagged.events, start=1)
  ]
  return "\t".join(RAVEN_FIELDS) + "\n" + "".join(rows)


def _end_s(event: Event, tagged: Tagged) -> float:
  """Returns an event's end; its last frame may reach beyond the recording's end."""
  return min(event.end_s, tagged.duration_s)


def _trimmed(seconds: float) -> str:
  whole, _, decimals = f"{seconds:.6f}".partition(".")
  return f"{whole}.{decimals.rstrip('0'):0<3}"


def _csv(rows: Iterable[Iterable[str]], delimiter: str = ",") -> str:
  text = io.StringIO()
  for row in map(tuple, rows):
    # A reader takes an unquoted \r for the end of a row; not all writers quote it.
    csv.writer(
      text,
      delimiter=delimiter,
      lineterminator="\n",
      quoting=csv.QUOTE_ALL if "\r" in "".join(row) else csv.QUOTE_MINIMAL,
    ).writerow(row)
  return text.getvalue()


AS_TEXT = {
  "table": as_table,
  "jsonl": lambda tagged: json.dumps(as_json(tagged), ensure_ascii=False) + "\n",
  "csv": as_csv,
  "audacity": as_audacity,
  "raven": as_raven,
  "dcase": as_dcase,
}
HEADERS = {"csv": _csv([CSV_FIELDS]), "dcase": _csv([DCASE_FIELDS], "\t")}
