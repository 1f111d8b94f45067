import collections
import os

import pytest
from etils import epath

from audiotag_jax.data.sources import audioset
from audiotag_jax.data.sources.source import Rejected
from audiotag_jax.errors import UserError

CLASSES = """index,mid,display_name
0,/m/09x0r,"Speech"
1,/m/05zppz,"Male speech, man speaking"
2,/m/0dgw9r,"Bark"
"""
COMMENTS = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=22160, num_segs=22160, num_unique_labels=527, num_positive_labels=52882
# YTID, start_seconds, end_seconds, positive_labels
"""
ROWS = {
  "balanced_train_segments.csv": """--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/m/05zppz"
-0RWZT_miFs, 420.000, 430.000, "/m/0dgw9r"
""",
  "unbalanced_train_segments.csv": """Yabc_efg-ij, 0.500, 10.500, "/m/0dgw9r,/m/09x0r"
gone0000000, 0.000, 10.000, "/m/0dgw9r"
""",
  "eval_segments.csv": """12345678901, 7.000, 17.000, "/m/05zppz"
""",
}
FILES = ("--PJHxphWEs.wav", "-0RWZT_miFs.flac", "Yabc_efg-ij.m4a", "12345678901.wav")


@pytest.fixture
def folder(tmp_path):
  folder = epath.Path(tmp_path) / "audioset"
  folder.mkdir()
  (folder / "class_labels_indices.csv").write_text(CLASSES)
  for name, rows in ROWS.items():
    (folder / name).write_text(COMMENTS + rows)
  return folder


def add(folder, *names):
  for name in names:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("audio")


def test_segments_with_a_file_are_clips(folder, caplog):
  add(folder, *(f"audio/part {i}/{name}" for i, name in enumerate(FILES)))
  source = audioset.read_audioset(folder, audio_dir=None)
  assert source.dataset == "audioset"
  assert source.place == folder
  assert source.classes == ("Speech", "Male speech, man speaking", "Bark")
  labels = {clip.fname: clip.labels for clip in source.clips}
  assert labels == {
    "--PJHxphWEs": (0, 1),
    "-0RWZT_miFs": (2,),
    "Yabc_efg-ij": (0, 2),
    "12345678901": (1,),
  }
  for i, clip in enumerate(source.clips):
    assert clip.audio == folder / "audio" / f"part {i}" / FILES[i]
    assert (clip.start_s, clip.end_s) == (0.0, None)
  assert source.rejected == ()
  assert [record.getMessage() for record in caplog.records] == [
    f"1 of AudioSet's segments have no file below {folder} and are left out; 4 have."
  ]


@pytest.mark.parametrize(
  ("name", "is_found"),
  [
    ("-0RWZT_miFs.wav", True),
    ("Y-0RWZT_miFs.wav", True),
    ("-0RWZT_miFs_420.wav", True),
    ("-0RWZT_miFs_420.000.opus", True),
    ("-0RWZT_miFs_420000.wav", True),
    ("-0RWZT_miFs_420_430.wav", True),
    ("Y-0RWZT_miFs_420000_430000.flac", True),
    ("Y-0RWZT_miFs_420.000_430.000.wav", True),
    ("sub/dir/-0RWZT_miFs_420.mp3", True),
    ("-0RWZT_miFs_30.wav", False),
    ("-0RWZT_miFs_42.wav", False),
    ("-0RWZT_miFs_420.json", False),
    ("._-0RWZT_miFs.wav", False),
    ("YY-0RWZT_miFs.wav", False),
    ("-0RWZT_miFsx.wav", False),
  ],
)
def test_names_that_a_segment_s_file_may_have(folder, name, is_found):
  add(folder / "audio", name, "12345678901.wav")
  source = audioset.read_audioset(folder, audio_dir=folder / "audio")
  found = {clip.fname: clip.audio for clip in source.clips}
  found.pop("12345678901")
  assert found == ({"-0RWZT_miFs": folder / "audio" / name} if is_found else {})


@pytest.mark.parametrize(
  "name", ["Yabc_efg-ij", "YYabc_efg-ij", "Yabc_efg-ij_0", "YYabc_efg-ij_500_10500"]
)
def test_an_id_may_begin_with_y_and_a_start_be_a_fraction(folder, name):
  add(folder, f"{name}.wav")
  source = audioset.read_audioset(folder, audio_dir=None)
  assert [clip.fname for clip in source.clips] == ["Yabc_efg-ij"]


def test_of_a_video_s_files_the_first_by_name_that_fits_is_taken(folder):
  names = ("-0RWZT_miFs_10.wav", "b/-0RWZT_miFs_420.wav", "a/-0RWZT_miFs_420.flac")
  add(folder, *names)
  source = audioset.read_audioset(folder, audio_dir=None)
  assert source.clips[0].audio == folder / "a" / "-0RWZT_miFs_420.flac"


def test_a_twentieth_of_train_is_val(folder):
  ids = [f"{i:011d}" for i in range(400)]
  rows = (f'{i}, 0.000, 10.000, "{"/m/0dgw9r" if n % 4 else "/m/09x0r"}"\n'
          for n, i in enumerate(ids))  # fmt: skip
  (folder / "balanced_train_segments.csv").write_text(COMMENTS + "".join(rows))
  add(folder / "audio", *(f"{i}.wav" for i in ids), "12345678901.wav")
  source = audioset.read_audioset(folder, audio_dir=folder / "audio")
  counts = collections.Counter((c.split, c.labels) for c in source.clips)
  assert counts == {
    ("train", (0,)): 95,
    ("train", (2,)): 285,
    ("val", (0,)): 5,
    ("val", (2,)): 15,
    ("eval", (1,)): 1,
  }
  assert audioset.read_audioset(folder, audio_dir=folder / "audio") == source


@pytest.mark.parametrize(
  ("row", "reason"),
  [
    (
      'x0000000000, 0.000, 10.000, "/m/none"',
      "has label '/m/none', which class_labels_indices.csv lacks",
    ),
    (
      "x0000000000, 0.000, 10.000",
      "has label '', which class_labels_indices.csv lacks",
    ),
    (
      "x0000000000, 0.000, 10.000, /m/09x0r,/m/0dgw9r",
      "has more fields than the header: quote those that hold commas",
    ),
    (
      'x0000000000, now, 10.000, "/m/09x0r"',
      "has start 'now', which is not a number",
    ),
    (
      'x0000000000, nan, 10.000, "/m/09x0r"',
      "has start 'nan', which is not a number",
    ),
  ],
)
def test_a_malformed_row_is_rejected(folder, row, reason):
  add(folder, "x0000000000_0.wav", "12345678901.wav")
  (folder / "eval_segments.csv").write_text(
    f"{COMMENTS}{row}\n{ROWS['eval_segments.csv']}"
  )
  source = audioset.read_audioset(folder, audio_dir=None)
  assert source.rejected == (Rejected("x0000000000", "eval", reason),)
  assert [clip.fname for clip in source.clips] == ["12345678901"]


def test_a_video_is_taken_once(folder):
  add(folder, "12345678901.wav")
  rows = ROWS["eval_segments.csv"]
  (folder / "eval_segments.csv").write_text(COMMENTS + 2 * rows)
  source = audioset.read_audioset(folder, audio_dir=None)
  assert [clip.fname for clip in source.clips] == ["12345678901"]


def test_links_that_lead_out_are_rejected(folder, tmp_path):
  add(folder, "12345678901.wav")
  (tmp_path / "x.wav").write_text("audio")
  os.symlink(tmp_path / "x.wav", folder / "-0RWZT_miFs.wav")
  source = audioset.read_audioset(folder, audio_dir=None)
  reason = "lies outside of the audio folder"
  assert source.rejected == (Rejected("-0RWZT_miFs.wav", "no split", reason),)
  assert len(source.clips) == 1


@pytest.mark.parametrize(
  ("file", "text", "message"),
  [
    (
      "class_labels_indices.csv",
      "index,mid\n0,/m/0\n",
      "its first line must name the columns index, mid, display_name",
    ),
    (
      "class_labels_indices.csv",
      "index,mid,display_name\n1,/m/09x0r,Speech\n",
      "class_labels_indices.csv, line 2: index '1' is not 0",
    ),
    (
      "class_labels_indices.csv",
      "index,mid,display_name\n0,/m/09x0r,Bark\n1,/m/0dgw9r,Bark\n",
      "class_labels_indices.csv: lines 2 and 3 are both 'Bark': give each class",
    ),
    (
      "class_labels_indices.csv",
      "index,mid,display_name\n",
      "class_labels_indices.csv: it has no classes: give AudioSet's class_labels",
    ),
    ("eval_segments.csv", COMMENTS, "has no clips: training needs some"),
  ],
)
def test_lists_of_no_use_are_refused(folder, file, text, message):
  add(folder, "12345678901.wav")
  (folder / file).write_text(text)
  with pytest.raises(UserError) as info:
    audioset.read_audioset(folder, audio_dir=None)
  assert message in str(info.value)
  assert "\n" not in str(info.value)


def test_folders_of_something_else_are_refused(folder, tmp_path):
  with pytest.raises(UserError, match="none cannot be listed"):
    audioset.read_audioset(folder, audio_dir=epath.Path(tmp_path) / "none")
  for name in ROWS:
    (folder / name).unlink()
  with pytest.raises(UserError, match=r"audioset lacks all of balanced_train_segments"):
    audioset.read_audioset(folder, audio_dir=None)
  with pytest.raises(UserError, match=r"class_labels_indices.csv cannot be read"):
    audioset.read_audioset(epath.Path(tmp_path), audio_dir=None)
