"""AudioSet's classes, in the order of PANNs' outputs."""

import csv
from pathlib import Path
from typing import NamedTuple

# Gemmeke et al., "Audio Set: An ontology and human-labeled dataset for audio events"
# (2017); one class per line, starting with class 0.
CLASSES_FILE = Path(__file__).with_name("audioset_classes.csv")


class AudioSetClass(NamedTuple):
  """A class: its name, and its id in Freebase."""

  name: str
  mid: str


def audioset_classes() -> list[AudioSetClass]:
  """Returns the 527 classes, in PANNs' order."""
  with CLASSES_FILE.open(newline="", encoding="utf-8") as file:
    return [AudioSetClass(row["name"], row["mid"]) for row in csv.DictReader(file)]


def audioset_class_names() -> list[str]:
  """Returns the 527 classes' names, in PANNs' order."""
  return [audioset_class.name for audioset_class in audioset_classes()]
