import hashlib

import numpy as np
import pytest

from audiotag_jax.data import builder, splits
from audiotag_jax.data.clips import read_index
from audiotag_jax.data.sources import fsd50k
from audiotag_jax.errors import UserError


@pytest.fixture
def prepared(fsd50k_dir, tmp_path):
  return builder.prepare(
    fsd50k.read_source(fsd50k_dir),
    data_dir=str(tmp_path / "data"),
    sample_rate_hz=8_000,
    allow_missing=0,
  )


def split_set(protocol, prepared):
  return splits.split_clips(protocol, *read_index(prepared.folder), prepared)


def test_official_splits_follow_dev_csv(prepared):
  clips = split_set("official", prepared)
  assert {name: len(split) for name, split in clips.items()} == {
    "train": 12,
    "val": 6,
    "eval": 7,
  }
  assert clips["val"].fname.tolist() == [str(n) for n in range(1012, 1018)]
  lines = "".join(f"{n}\n" for n in range(1012, 1018))
  assert clips["val"].sha256 == hashlib.sha256(lines.encode()).hexdigest()


def test_a_split_reads_its_own_records(prepared):
  val = split_set("official", prepared)["val"]
  example = val.features.deserialize_example(val.read(np.array([2]))[0])
  assert example["fname"].numpy() == b"1014"


def random_labels(num_clips, num_classes=20):
  rng = np.random.default_rng(0)
  share = np.geomspace(0.3, 0.01, num_classes)
  return (rng.random((num_clips, num_classes)) < share).astype(np.uint8)


def test_the_study_draws_12000_and_3000_of_fsd50k_s_dev_clips():
  labels = random_labels(splits.FSD50K_NUM_DEV_CLIPS)
  split = splits.draw_study_split(labels)
  counts = {name: int((split == name).sum()) for name in ("train", "val", "eval", "")}
  assert counts == {"train": 12_000, "val": 1_500, "eval": 3_000, "": 24_466}
  overall = labels.mean(axis=0)
  for name in ("train", "eval"):
    share = labels[split == name].mean(axis=0)
    np.testing.assert_allclose(share, overall, rtol=0.06)


def test_a_smaller_set_is_drawn_in_proportion():
  split = splits.draw_study_split(random_labels(4_097))
  counts = {name: int((split == name).sum()) for name in ("train", "val", "eval")}
  assert counts == {"train": 1_200, "val": 150, "eval": 300}


def test_the_study_split_is_drawn_once_and_kept_in_a_file(prepared, monkeypatch):
  monkeypatch.setattr(splits, "FSD50K_NUM_DEV_CLIPS", 24)
  monkeypatch.setattr(splits, "STUDY_NUM_CLIPS", {"train": 8, "val": 3, "eval": 4})
  first = split_set("study", prepared)
  assert {name: len(split) for name, split in first.items()} == {
    "train": 6,
    "val": 2,
    "eval": 3,
  }
  names = [set(split.fname) for split in first.values()]
  assert not names[0] & names[1] | names[0] & names[2] | names[1] & names[2]
  assert all(int(fname) < 1018 for fname in set.union(*names))  # dev clips

  monkeypatch.setattr(splits, "STUDY_SEED", 1)
  again = split_set("study", prepared)
  assert {n: s.sha256 for n, s in again.items()} == {
    n: s.sha256 for n, s in first.items()
  }


def test_a_study_file_with_clips_that_are_not_there_is_refused(prepared):
  prepared.study_split_path.write_text("fname,split\n777,train\n")
  with pytest.raises(UserError, match="names clip 777, which the prepared set lacks"):
    split_set("study", prepared)


def test_a_split_without_clips_is_refused(prepared):
  prepared.study_split_path.write_text("fname,split\n1000,train\n1001,val\n")
  with pytest.raises(UserError, match="split eval has no clips"):
    split_set("study", prepared)
