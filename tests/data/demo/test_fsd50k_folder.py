"""The demo set: the contents of its files, which are always the same."""

import csv
import hashlib
import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiotag_jax.data.demo import fsd50k_folder, soundscapes
from audiotag_jax.data.demo.ontology import ONTOLOGY
from audiotag_jax.errors import UserError

SIZES = {"num_train": 24, "num_val": 8, "num_eval": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
  folder = tmp_path_factory.mktemp("demo") / "soundscapes"
  fsd50k_folder.write_soundscapes(folder, **SIZES, seed=0, num_workers=1)
  return folder


def read_rows(path: Path) -> list[dict[str, str]]:
  with path.open(newline="") as file:
    return list(csv.DictReader(file))


def digests(folder: Path) -> dict[str, str]:
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in folder.rglob("*")
    if path.is_file()
  }


def test_csv_files_are_fsd50ks(folder):
  truth = folder / "FSD50K.ground_truth"
  lines = (truth / "dev.csv").read_text().splitlines()
  assert lines[0] == "fname,labels,mids,split"
  assert (truth / "eval.csv").read_text().splitlines()[0] == "fname,labels,mids"
  dev, evaluation = read_rows(truth / "dev.csv"), read_rows(truth / "eval.csv")
  assert Counter(row["split"] for row in dev) == {"train": 24, "val": 8}
  assert len(evaluation) == 8
  fnames = [row["fname"] for row in dev + evaluation]
  assert all(fname.isdecimal() for fname in fnames)
  assert len(set(fnames)) == 40
  for part, rows in (("dev", dev), ("eval", evaluation)):
    wavs = {path.stem for path in (folder / f"FSD50K.{part}_audio").iterdir()}
    assert wavs == {row["fname"] for row in rows}


def test_vocabulary_is_indexed_in_alphabetical_order_without_a_header(folder):
  text = (folder / "FSD50K.ground_truth" / "vocabulary.csv").read_text()
  rows = [line.split(",") for line in text.splitlines()]
  assert len(rows) == 46
  assert rows[0] == ["0", "Accelerating_and_revving_and_vroom", "/m/07q2z82"]
  assert rows[45] == ["45", "Wind", "/m/03m9d0z"]
  assert [int(row[0]) for row in rows] == list(range(46))
  assert len({row[2] for row in rows}) == 46


def test_every_class_occurs_with_its_mid_and_its_parents(folder):
  truth = folder / "FSD50K.ground_truth"
  seen = set()
  for row in read_rows(truth / "dev.csv") + read_rows(truth / "eval.csv"):
    labels = row["labels"].split(",")
    assert len(labels) == len(set(labels))
    mids = [ONTOLOGY[label][0] for label in labels]
    assert row["mids"] == ",".join(mids)
    parents = {p for label in labels for p in ONTOLOGY[label][1]}
    assert parents <= set(labels)
    seen |= set(labels)
  assert seen == set(ONTOLOGY)


def test_audio_is_fsd50ks_and_neither_clipped_nor_silent(folder):
  paths = sorted(folder.glob("*_audio/*.wav"))
  durations_s = []
  for path in paths:
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype) == (44_100, 1, "PCM_16")
    waveform, _ = soundfile.read(path, dtype="int16")
    # -20 dB and -0.5 dB of full scale.
    assert 3276 <= np.abs(waveform.astype(np.int32)).max() <= 30_935
    durations_s.append(info.duration)
  assert min(durations_s) >= 2.5
  assert max(durations_s) <= 6.0
  assert 3.75 < np.mean(durations_s) < 4.75


def test_set_is_bit_identical_whatever_the_number_of_workers(tmp_path, monkeypatch):
  monkeypatch.setattr(fsd50k_folder, "CLIPS_PER_TASK", 3)
  sizes = {"num_train": 7, "num_val": 1, "num_eval": 2}
  for num_workers in (1, 2):
    fsd50k_folder.write_soundscapes(
      tmp_path / str(num_workers), **sizes, seed=3, num_workers=num_workers
    )
  first = digests(tmp_path / "1")
  assert len(first) == 10 + 4
  assert first == digests(tmp_path / "2")


def test_clip_depends_on_seed_split_and_index_alone(folder):
  path = folder / "FSD50K.dev_audio" / f"{fsd50k_folder.fname('train', 5)}.wav"
  written, _ = soundfile.read(path, dtype="int16")
  clip = soundscapes.synthesize_clip(0, "train", 5)
  np.testing.assert_array_equal(written, clip.waveform)
  for other in ((1, "train", 5), (0, "val", 5), (0, "train", 6)):
    waveform = soundscapes.synthesize_clip(*other).waveform
    length = min(len(waveform), len(written))
    assert abs(np.corrcoef(waveform[:length], written[:length])[0, 1]) < 0.1


def test_finished_set_is_left_alone_and_another_refused(folder, tmp_path):
  before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
  fsd50k_folder.write_soundscapes(folder, **SIZES, seed=0)
  assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
  with pytest.raises(UserError, match="delete or move it") as error:
    fsd50k_folder.write_soundscapes(folder, **SIZES, seed=1)
  assert str(folder) in str(error.value)
  assert "'seed': 1" in str(error.value)
  assert "\n" not in str(error.value)
  (tmp_path / "holiday.jpg").write_text("")
  with pytest.raises(UserError, match="holds something else"):
    fsd50k_folder.write_soundscapes(tmp_path, **SIZES, seed=0)


def test_incomplete_set_is_refused(tmp_path):
  sizes = {"num_train": 2, "num_val": 1, "num_eval": 1}
  fsd50k_folder.write_soundscapes(tmp_path / "set", **sizes, seed=0)
  parameters = json.loads((tmp_path / "set" / "soundscapes.json").read_text())
  assert parameters["num_clips"] == {"train": 2, "val": 1, "eval": 1}
  next((tmp_path / "set" / "FSD50K.eval_audio").iterdir()).unlink()
  with pytest.raises(UserError, match="holds 3 of the 4 clips"):
    fsd50k_folder.write_soundscapes(tmp_path / "set", **sizes, seed=0)


@pytest.mark.parametrize(
  ("library", "function"), [(soundfile, "write"), (csv, "writer")]
)
def test_nothing_is_left_behind_when_writing_fails(
  library, function, tmp_path, monkeypatch
):
  write, num_calls = getattr(library, function), itertools.count(1)

  def fail_at_the_third(*args, **options):
    if next(num_calls) == 3:
      raise OSError("No space left on device")
    return write(*args, **options)

  monkeypatch.setattr(library, function, fail_at_the_third)
  with pytest.raises(UserError, match="No space left .* make room for about 1 MB"):
    fsd50k_folder.write_soundscapes(
      tmp_path / "set", num_train=1, num_val=1, num_eval=1, seed=0
    )
  assert [path.name for path in tmp_path.iterdir()] == [".set.lock"]
