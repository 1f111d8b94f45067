import collections
import os

import pytest
from etils import epath

from audiotag_jax.data.sources import esc50
from audiotag_jax.data.sources.source import Rejected
from audiotag_jax.errors import UserError

HEADER = "filename,fold,target,category,esc10,src_file,take\n"
CATEGORIES = {0: "dog", 14: "chirping_birds", 36: "vacuum_cleaner"}


@pytest.fixture
def folder(tmp_path):
  """Three of ESC-50's classes, two clips of each in each fold."""
  rows = [
    f"{fold}-{100 + take}-{'AB'[take]}-{target}.wav,{fold},{target},{category},"
    f"False,{100 + take},{'AB'[take]}\n"
    for fold in range(1, 6)
    for target, category in reversed(CATEGORIES.items())
    for take in range(2)
  ]
  return write(tmp_path / "ESC-50", "".join(rows))


def write(folder, rows, header=HEADER):
  (folder / "meta").mkdir(parents=True)
  (folder / "audio").mkdir()
  (folder / "meta/esc50.csv").write_text(header + rows)
  return epath.Path(folder)


@pytest.mark.parametrize(("fold", "val"), [(1, 5), (2, 1), (5, 4)])
def test_a_fold_is_eval_and_the_one_before_it_val(folder, fold, val):
  source = esc50.read_esc50(folder, fold=fold)
  assert source.dataset == "esc50"
  assert source.place == folder
  assert source.rejected == ()
  for clip in source.clips:
    number = int(clip.fname[0])
    assert clip.split == {fold: "eval", val: "val"}.get(number, "train")
  counts = collections.Counter(clip.split for clip in source.clips)
  assert counts == {"train": 18, "val": 6, "eval": 6}


def test_classes_are_in_the_order_of_their_targets(folder):
  source = esc50.read_esc50(folder, fold=1)
  assert source.classes == ("dog", "chirping_birds", "vacuum_cleaner")
  first = source.clips[0]
  assert first.fname == "1-100-A-36.wav"
  assert first.audio == folder / "audio" / "1-100-A-36.wav"
  assert first.labels == (2,)


@pytest.mark.parametrize(
  ("row", "fname", "split", "reason"),
  [
    (",1,0,dog", "line 32", "eval", "has no file's name"),
    ("..,1,0,dog", "..", "eval", "has no file's name"),
    ("../x.wav,1,0,dog", "../x.wav", "eval", "has no file's name"),
    ("out.wav,1,0,dog", "out.wav", "eval", "lies outside of the audio folder"),
    ("x.wav,6,0,dog", "x.wav", "6", "has fold '6', which is not from 1 to 5"),
    ("x.wav,2,-1,dog", "x.wav", "train", "has target '-1', which is not a number"),
    ("x.wav,2,0,", "x.wav", "train", "has no category"),
    (
      "x.wav,5,0,cat",
      "x.wav",
      "val",
      "has target 0 and category 'cat', unlike other rows",
    ),
    (
      "x.wav,5,1,dog",
      "x.wav",
      "val",
      "has target 1 and category 'dog', unlike other rows",
    ),
    (
      "1-100-A-36.wav,1,36,vacuum_cleaner",
      "1-100-A-36.wav",
      "eval",
      "comes more than once (lines 2 and 32)",
    ),
    (
      "x.wav,2,0,dog,False,1,A,B",
      "x.wav",
      "train",
      "has more fields than the header: quote those that hold commas",
    ),
  ],
)
def test_a_row_of_no_usable_clip_is_rejected(
  folder, tmp_path, row, fname, split, reason
):
  (tmp_path / "x.wav").write_text("audio")
  os.symlink(tmp_path / "x.wav", folder / "audio" / "out.wav")
  with open(folder / "meta" / "esc50.csv", "a") as file:
    file.write(f"{row}\n")
  source = esc50.read_esc50(folder, fold=1)
  assert source.rejected == (Rejected(fname, split, reason),)
  assert len(source.clips) == 30
  assert len(source.classes) == 3


def test_a_folder_of_something_else_is_refused(tmp_path):
  path = tmp_path / "none" / "meta" / "esc50.csv"
  with pytest.raises(UserError) as info:
    esc50.read_esc50(epath.Path(tmp_path) / "none", fold=1)
  assert str(info.value) == (
    f"{path} cannot be read (No such file or directory): give a csv file"
  )
  with pytest.raises(UserError, match="name the columns filename, fold, target"):
    esc50.read_esc50(write(tmp_path / "a", "", "file,label\n"), fold=1)
  with pytest.raises(UserError, match="has no clips"):
    esc50.read_esc50(write(tmp_path / "b", ""), fold=1)


@pytest.mark.parametrize("fold", [0, 6])
def test_there_are_five_folds(folder, fold):
  with pytest.raises(UserError, match=f"ESC-50 has no fold {fold}: choose 1 to 5"):
    esc50.read_esc50(folder, fold=fold)


def test_a_table_is_read_as_meant(tmp_path):
  row = "1-1-A-0.wav,{fold},0,café,,,"
  rows = [row.format(fold=fold).replace("1-1", f"{fold}-1") for fold in range(1, 6)]
  text = HEADER + "\r\n".join(rows)
  plain = esc50.read_esc50(write(tmp_path / "plain", text, ""), fold=1)
  text = text.replace(",3,", ",\u00a03 ,").replace(
    "café,,,", "cafe\u0301 ,,,\n,,,,,,", 1
  )
  meant = esc50.read_esc50(write(tmp_path / "meant", text, ""), fold=1)
  assert meant.classes == plain.classes == ("café",)
  assert meant.rejected == plain.rejected == ()
  assert [c.split for c in meant.clips] == [c.split for c in plain.clips]
