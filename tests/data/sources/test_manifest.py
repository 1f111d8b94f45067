import collections
import logging as std_logging
import os

import numpy as np
import pytest
from etils import epath

from audiotag_jax.data.sources import manifest, paths
from audiotag_jax.data.sources.source import Rejected
from audiotag_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
  """A folder with clips a.wav, b.wav and sub/c.wav, whose contents do not matter."""
  folder = tmp_path / "set"
  (folder / "sub").mkdir(parents=True)
  for name in ("a.wav", "b.wav", "sub/c.wav"):
    (folder / name).write_text("audio")
  return epath.Path(folder)


def read(folder, text, audio_dir=None, label_separator=";"):
  path = folder / "clips.csv"
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return manifest.read_manifest(
    path, audio_dir=audio_dir, label_separator=label_separator
  )


def described(source):
  """Maps fname to (file below the folder, labels, split, start, end)."""
  return {
    clip.fname: (
      str(clip.audio.relative_to(source.place.parent)),
      tuple(source.classes[i] for i in clip.labels),
      clip.split,
      clip.start_s,
      clip.end_s,
    )
    for clip in source.clips
  }


FULL = """path,labels,split,start_s,end_s
a.wav,Rain;Bell,train,,
b.wav,Bell,val,1.50,3
b.wav,Rain,val,3,
sub/c.wav,"Bell, church",eval,,2.25
"""
DESCRIBED = {
  "a.wav": ("a.wav", ("Bell", "Rain"), "train", 0.0, None),
  "b.wav:1.5-3": ("b.wav", ("Bell",), "val", 1.5, 3.0),
  "b.wav:3-": ("b.wav", ("Rain",), "val", 3.0, None),
  "sub/c.wav:0-2.25": ("sub/c.wav", ("Bell, church",), "eval", 0.0, 2.25),
}


def test_a_manifest_names_clips_parts_labels_and_splits(folder):
  source = read(folder, FULL)
  assert source.dataset == "manifest"
  assert source.place == folder / "clips.csv"
  assert source.classes == ("Bell", "Bell, church", "Rain")
  assert source.rejected == ()
  assert described(source) == DESCRIBED
  assert all(clip.labels == tuple(sorted(clip.labels)) for clip in source.clips)


@pytest.mark.parametrize(
  ("old", "new"),
  [
    ("path", "\ufeffpath"),
    ("\n", "\r\n"),
    ("\n", "\n\n"),
    ("path,labels,", '"path", labels ,'),
    ("a.wav,Rain;Bell", '"a.wav","Rain;Bell"'),
    ("Rain;Bell", " Rain ;; Bell;Rain"),
    ("Bell, church", "Bell,   church"),
    (",val,", ",Valid,"),
    (",val,", ", validation ,"),
    (",eval,", ",TEST,"),
    (",3,", ", 3.0 ,"),
    ("train,,", "train"),
    ("end_s\n", "end_s,note\n"),
    ("end_s\n", "end_s,,\n"),
    ("train,,\n", "train,,,, \n"),
    ("\n", "\n,,,,\n , \t,\u00a0,,\n"),
    ("path,", "\n,,\npath,"),
    ("\n", "\r"),
    ("path,labels,split", "Path,LABELS,Split"),
    ("Rain;Bell", "\u00a0Rain\u200b;\ufeffBell\u00a0"),
    ("a.wav,", "\ufeff a.wav\u00a0,"),
    (",train,", ",\u00a0train\u200b,"),
    ("split", "\u200bsplit\u00a0"),
    ('"Bell, church"', ' "Bell, church"'),
    ("Bell, church", "Bell,\u00a0church"),
  ],
)
def test_spelling_does_not_matter(folder, old, new):
  assert old in FULL
  assert described(read(folder, FULL.replace(old, new))) == DESCRIBED


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_of_other_programs_are_read(folder, delimiter, code):
  text = FULL.replace(";", "|").replace(",", delimiter)
  text = text.replace(f"Bell{delimiter} church", "Bell, church")
  source = read(folder, text.encode(code), label_separator="|")
  assert described(source) == DESCRIBED


def test_names_are_one_in_either_normal_form(folder):
  nfc, nfd = "café", "cafe\u0301"
  for name in (f"{nfd}.wav", f"{nfc} 2.wav", f"{nfc} 3.wav", f"{nfd} 3.wav"):
    (folder / name).write_text("audio")
  (folder / nfd).mkdir()
  (folder / f"{nfd}/d.wav").write_text("audio")
  paths = [f"{nfc}.wav", f"{nfd} 2.wav", f"{nfc} 3.wav", f"{nfd} 3.wav", f"{nfc}/d.wav"]
  paths += [f"{nfd} 4.wav"]
  labels = (nfc, nfd) * 3
  rows = "".join(f"{p},{x},train\n" for p, x in zip(paths, labels, strict=True))
  source = read(folder, f"path,labels,split\n{rows}a.wav,{nfd} ,val\n")
  assert source.classes == (nfc,)
  files = [f"{nfd}.wav", f"{nfc} 2.wav", f"{nfc} 3.wav", f"{nfd} 3.wav", f"{nfd}/d.wav"]
  # The last file is missing, under its own name.
  files += [f"{nfd} 4.wav", "a.wav"]
  assert [str(clip.audio) for clip in source.clips] == [f"{folder}/{f}" for f in files]
  assert [clip.fname for clip in source.clips[:-1]] == paths
  source = read(
    folder, f"path,labels,split\n{nfc}.wav,x,train\n{nfd}.wav,x,val\na.wav,x,val\n"
  )
  assert source.rejected[0].reason == "comes more than once (lines 2 and 3)"


def test_a_file_whose_name_has_spaces_around_it_is_found(folder):
  (folder / " d.wav ").write_text("audio")
  source = read(folder, "path,labels,split\n d.wav ,Bell,train\na.wav,Bell,val\n")
  assert source.clips[0].fname == "d.wav"
  assert source.clips[0].audio == folder / " d.wav "


def test_paths_may_be_absolute_or_of_another_folder(folder, tmp_path):
  text = f"path,labels,split\n{folder}/a.wav,Bell,train\nsub/../b.wav,Rain,val\n"
  source = read(epath.Path(tmp_path), text, audio_dir=folder)
  assert [clip.fname for clip in source.clips] == [f"{folder}/a.wav", "sub/../b.wav"]
  assert [clip.audio for clip in source.clips] == [folder / "a.wav", folder / "b.wav"]


def test_a_folder_that_is_itself_a_link_does_not_lead_out(folder, tmp_path):
  link = tmp_path / "link"
  link.symlink_to(folder)
  text = f"path,labels,split\na.wav,Bell,train\n{folder}/b.wav,Bell,val\n"
  source = read(epath.Path(link), text)
  assert len(source.clips) == 2
  assert source.rejected == ()


def test_unicode_and_spaces_in_names_and_labels(folder):
  name = "crow, café & 烏 – clip #1 (a).wav"
  source = read(folder, f'path,labels\n"{name}",Krähe;烏\na.wav,烏\nb.wav,烏\n')
  assert source.clips[0].fname == name
  assert source.clips[0].audio == folder / name
  assert source.classes == ("Krähe", "烏")


@pytest.mark.parametrize("separator", [",", "|", " & "])
def test_labels_have_the_separator_of_the_config(folder, separator):
  text = f'path,labels,split\na.wav,"Rain{separator}Bell",train\nb.wav,Bell,val\n'
  source = read(folder, text, label_separator=separator)
  assert source.classes == ("Bell", "Rain")


HEADER = "path,labels,split,start_s,end_s\n"
GOOD = "a.wav,Bell,train,,\nb.wav,Bell,val,,\n"
OUTSIDE = "lies outside of the audio folder"


@pytest.mark.parametrize(
  ("row", "fname", "split", "reason"),
  [
    (",Bell,train", "line 4", "train", "has no path"),
    (" ,Bell,train", "line 4", "train", "has no path"),
    ("sub/,Bell,train", "sub/", "train", "names no file"),
    ("..,Bell,train", "..", "train", "names no file"),
    ("../x.wav,Bell,train", "../x.wav", "train", OUTSIDE),
    ("sub/../../x.wav,Bell,train", "sub/../../x.wav", "train", OUTSIDE),
    ("/etc/passwd,Bell,train", "/etc/passwd", "train", OUTSIDE),
    ("out.wav,Bell,train", "out.wav", "train", OUTSIDE),
    ("outdoors/x.wav,Bell,train", "outdoors/x.wav", "train", OUTSIDE),
    ("a.wav,Rain,train", "a.wav", "train", "comes more than once (lines 2 and 4)"),
    ("./a.wav,Rain,val", "./a.wav", "val", "comes more than once (lines 2 and 4)"),
    ("in.wav,,eval", "in.wav", "eval", "has no label"),
    ("in.wav, ; ,eval", "in.wav", "eval", "has no label"),
    ("in.wav", "in.wav", "", "has no label"),
    (
      "in.wav,Bell,dev",
      "in.wav",
      "dev",
      "has split 'dev', which is not train, val or eval",
    ),
    ("in.wav,Bell", "in.wav", "", "has split '', which is not train, val or eval"),
    (
      "in.wav,Bell,train,x",
      "in.wav",
      "train",
      "has start_s 'x', which is not a number of seconds",
    ),
    (
      "in.wav,Bell,train,-1",
      "in.wav",
      "train",
      "has start_s '-1', which is not a number of seconds",
    ),
    (
      "in.wav,Bell,train,0,nan",
      "in.wav",
      "train",
      "has end_s 'nan', which is not a number of seconds",
    ),
    (
      "in.wav,Bell,train,0,inf",
      "in.wav",
      "train",
      "has end_s 'inf', which is not a number of seconds",
    ),
    (
      "in.wav,Bell,train,2,2",
      "in.wav",
      "train",
      "has end_s 2.0, which is not after start_s 2.0",
    ),
    (
      "in.wav,Bell,train,2,1.5",
      "in.wav",
      "train",
      "has end_s 1.5, which is not after start_s 2.0",
    ),
    (
      "in.wav,Bell,train,,,Rain",
      "in.wav",
      "train",
      "has more fields than the header: quote those that hold commas",
    ),
  ],
)
def test_a_row_of_no_usable_clip_is_rejected(
  folder, tmp_path, row, fname, split, reason
):
  (tmp_path / "x.wav").write_text("audio")
  os.symlink(tmp_path / "x.wav", folder / "out.wav")
  os.symlink("a.wav", folder / "in.wav")
  os.symlink(tmp_path, folder / "outdoors")
  source = read(folder, f"{HEADER}{GOOD}{row}\n")
  assert source.rejected == (Rejected(fname, split, reason),)
  assert [clip.fname for clip in source.clips] == ["a.wav", "b.wav"]
  assert source.classes == ("Bell",)


def test_links_that_stay_inside_and_missing_files_are_clips(folder):
  os.symlink("sub/c.wav", folder / "in.wav")
  source = read(folder, f"{HEADER}{GOOD}in.wav,Bell,eval\nno/file.wav,Bell,eval\n")
  assert [clip.fname for clip in source.clips[2:]] == ["in.wav", "no/file.wav"]
  assert source.rejected == ()


def test_parts_of_a_file_differ_by_their_times(folder):
  rows = "a.wav,Bell,train,1,2\na.wav,Bell,train,1.0,2.00\na.wav,Bell,val,1,2.5\n"
  source = read(folder, f"{HEADER}{rows}")
  assert [clip.fname for clip in source.clips] == ["a.wav:1-2", "a.wav:1-2.5"]
  assert source.rejected[0].reason == "comes more than once (lines 2 and 3)"


NO_HEADER = (
  ": its first line must name the columns path, labels, separated by commas, but is"
)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("", f"{NO_HEADER} ''"),
    ("file,labels\na.wav,Bell\n", f"{NO_HEADER} 'file,labels'"),
    ("path|labels\na.wav|Bell\n", f"{NO_HEADER} 'path|labels'"),
    ("path,labels,Labels\na.wav,Bell,\n", ": its first line names the column labels "
     "twice: keep one"),
    ("path,labels\n", " has no clips: training needs some"),
    ("path,labels\n\n\n", " has no clips: training needs some"),
    ("path,labels\na.wav,\nb.wav,\n", " has no usable clip: all 2 are rejected, "
     "the first because a.wav has no label"),
    ("path,labels\na.wav,Bell\n", " has too few train files to draw eval from: add "
     "some, or give the splits"),
    (b"path,labels\na.wav,Bell\nb.wav,Kr\xe4he\n", ", line 3: is not UTF-8: save the "
     "file as UTF-8 text"),
    ("path,labels\na.wav,Bell\n".encode("utf-16-le"), ", line 1: holds a NUL byte: "
     "save the file as UTF-8 text"),
    (b"\xff\xfe" + "path,labels\na.wav,\ud800\n".encode("utf-16-le", "surrogatepass"),
     ", line 2: is not UTF-16: save the file as UTF-8 text"),
    ("path,labels\na.wav,Be\0ll\n", ", line 2: holds a NUL byte: save the file as "
     "UTF-8 text"),
    (f"path,labels\na.wav,{'x' * 140_000}\n", ", line 2: field larger than field "
     "limit (131072): correct its quotes and commas"),
    ('path,labels\na.wav,"Bell\nb.wav,Rain\n', ", line 3: unexpected end of data: "
     "correct its quotes and commas"),
    ('path,labels\na.wav,"Be"ll\n', ", line 2: ',' expected after '\"': correct its "
     "quotes and commas"),
  ],
)  # fmt: skip
def test_a_csv_file_of_no_use_is_refused(folder, text, message):
  with pytest.raises(UserError) as info:
    read(folder, text)
  assert str(info.value) == f"{folder}/clips.csv{message}"


def test_missing_files_and_folders_are_refused(folder):
  path = folder / "none.csv"
  with pytest.raises(UserError, match=r"none.csv cannot be read \(No such file"):
    manifest.read_manifest(path, audio_dir=None, label_separator=";")
  with pytest.raises(UserError, match=r"sub cannot be read \(Is a directory\)"):
    manifest.read_manifest(folder / "sub", audio_dir=None, label_separator=";")
  with pytest.raises(UserError, match="none is not a folder: give the folder"):
    read(folder, FULL, audio_dir=folder / "none")
  with pytest.raises(UserError, match="label_separator is empty"):
    read(folder, FULL, label_separator="")


def many_rows(num_files, parts=1):
  """A tenth of the files has the class Owl, the others have Bell or Rain."""
  for i in range(num_files):
    label = "Owl" if i % 10 == 0 else ("Bell", "Rain")[i % 2]
    for part in range(parts):
      yield f"{i}.wav,{label},{part},{part + 1}\n"


def test_without_splits_a_tenth_is_drawn_for_val_and_for_eval(folder):
  text = "path,labels,start_s,end_s\n" + "".join(many_rows(200, parts=3))
  source = read(folder, text)
  assert collections.Counter(clip.split for clip in source.clips) == {
    "train": 480,
    "val": 60,
    "eval": 60,
  }
  splits_of = collections.defaultdict(set)
  for clip in source.clips:
    splits_of[clip.audio].add(clip.split)
  assert {len(splits) for splits in splits_of.values()} == {1}
  owl = source.classes.index("Owl")
  owls = collections.Counter(c.split for c in source.clips if owl in c.labels)
  assert owls == {"train": 48, "val": 6, "eval": 6}
  assert read(folder, text) == source
  assert [clip.fname for clip in source.clips[:2]] == ["0.wav:0-1", "0.wav:1-2"]


@pytest.fixture
def log(caplog):
  """The messages that the package logs."""
  with caplog.at_level(std_logging.INFO, logger="absl"):
    yield lambda: [record.getMessage() for record in caplog.records]


def test_without_val_a_tenth_of_train_s_files_is_drawn(folder, log):
  rows = [row.replace("\n", ",train\n") for row in many_rows(100, parts=2)]
  rows += ["x.wav,Bell,,,eval\n", "y.wav,Rain,,,eval\n"]
  source = read(folder, "path,labels,start_s,end_s,split\n" + "".join(rows))
  assert collections.Counter(clip.split for clip in source.clips) == {
    "train": 180,
    "val": 20,
    "eval": 2,
  }
  assert {c.fname for c in source.clips if c.split == "eval"} == {"x.wav", "y.wav"}
  assert log() == [
    f"{folder}/clips.csv has no val: a tenth of train's files is drawn for it."
  ]


def test_three_files_are_enough_to_draw_from(folder):
  source = read(folder, "path,labels\na.wav,Bell\nb.wav,Bell\nsub/c.wav,Bell\n")
  assert sorted(clip.split for clip in source.clips) == ["eval", "train", "val"]


def test_a_table_of_20000_rows_lists_each_folder_once(folder, monkeypatch):
  for name in ("0", "1", "2"):
    (folder / name).mkdir()
  listed = []
  scandir = os.scandir
  monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or scandir(path))
  rows = (f"{i % 3}/{i}.wav,Bell,train\n" for i in range(20_000))
  source = read(folder, "path,labels,split\n" + "".join(rows) + "a.wav,Bell,val\n")
  assert len(source.clips) == 20_001
  assert sorted(listed) == [f"{folder}/{name}" for name in ("", "0", "1", "2")]


def test_remote_paths_stay_below_their_folder():
  fence = paths.Fence(epath.Path("gs://bucket/set"))
  assert fence.place("a/b.wav") == "a/b.wav"
  assert fence.place("a/../b.wav") == "b.wav"
  assert fence.place("gs://bucket/set/a/b.wav") == "a/b.wav"
  for path in ("../b.wav", "/a/b.wav", "gs://bucket/other/b.wav", "gs://bucket/setx/b"):
    assert fence.place(path) is None


def write(folder, *names):
  for name in names:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("audio")


def test_a_folder_for_each_class(tmp_path):
  folder = epath.Path(tmp_path) / "set"
  names = [f"{name}/{i}.wav" for name in ("Bell", "Rain") for i in range(20)]
  write(folder, *names, "Rain/wet day/x.m4a", "Rain/no ending")
  write(
    folder, "Bell/._1.wav", ".git/y.wav", "Bell/notes.TXT", "index.csv", "Bell/i.jpg"
  )
  source = manifest.read_folders(folder)
  assert source.dataset == "folders"
  assert source.place == folder
  assert source.classes == ("Bell", "Rain")
  assert source.rejected == ()
  expected = sorted([*names, "Rain/wet day/x.m4a", "Rain/no ending"])
  assert [clip.fname for clip in source.clips] == expected
  for clip in source.clips:
    assert clip.audio == folder / clip.fname
    assert source.classes[clip.labels[0]] == clip.fname.split("/")[0]
  counts = collections.Counter(clip.split for clip in source.clips)
  assert counts == {"train": 34, "val": 4, "eval": 4}


def test_splits_on_top_are_known_by_their_names(tmp_path):
  folder = epath.Path(tmp_path)
  write(folder, "Train/Bell/a.wav", "Train/Rain/b.wav", "validation/Bell/c.wav")
  write(folder, "test/Rain/deep/d.wav", "test/e.wav")
  source = manifest.read_folders(folder)
  assert {clip.fname: clip.split for clip in source.clips} == {
    "Train/Bell/a.wav": "train",
    "Train/Rain/b.wav": "train",
    "test/Rain/deep/d.wav": "eval",
    "validation/Bell/c.wav": "val",
  }
  assert source.classes == ("Bell", "Rain")
  assert source.rejected == (
    Rejected("test/e.wav", "eval", "lies in no class's folder"),
  )


def test_a_class_may_be_called_train(tmp_path):
  folder = epath.Path(tmp_path)
  write(folder, "train/a.wav", "train/b.wav", "Bus/c.wav")
  assert manifest.read_folders(folder).classes == ("Bus", "train")


def test_links_and_lone_files_of_a_folder_are_rejected(tmp_path):
  folder = epath.Path(tmp_path) / "set"
  write(folder, "Bell/a.wav", "Bell/b.wav", "Bell/c.wav", "lone.wav")
  write(epath.Path(tmp_path), "x.wav", "far/y.wav")
  for link, target in [
    ("Bell/in.wav", "a.wav"),
    ("Bell/out.wav", tmp_path / "x.wav"),
    ("Bell/far", tmp_path / "far"),
    ("Bell/loop", folder),
    ("Bell/circle.wav", "circle.wav"),
  ]:
    os.symlink(target, folder / link)
  source = manifest.read_folders(folder)
  names = ["Bell/a.wav", "Bell/b.wav", "Bell/c.wav", "Bell/circle.wav", "Bell/in.wav"]
  assert [clip.fname for clip in source.clips] == names
  linked = "is a link to a folder, which is not followed"
  assert source.rejected == (
    Rejected("Bell/far", "no split", linked),
    Rejected("Bell/loop", "no split", linked),
    Rejected("Bell/out.wav", "no split", OUTSIDE),
    Rejected("lone.wav", "no split", "lies in no class's folder"),
  )


@pytest.mark.parametrize(
  ("names", "message"),
  [
    ([], "set cannot be listed (No such file or directory): give a folder of "
     "recordings"),
    (["notes.txt"], "set has no clips: training needs some"),
    (["Bell/a.wav"], "set has too few train files to draw eval from: add some, or give "
     "the splits"),
    (["train/a.wav"], "set has no usable clip: all 1 are rejected, the first because "
     "train/a.wav lies in no class's folder"),
  ],
)  # fmt: skip
def test_a_folder_of_no_use_is_refused(tmp_path, names, message):
  write(epath.Path(tmp_path) / "set", *names)
  with pytest.raises(UserError) as info:
    manifest.read_folders(epath.Path(tmp_path) / "set")
  assert str(info.value) == f"{tmp_path}/{message}"


def test_times_in_names_tell_parts_apart(folder):
  times = np.array([36_000.123, 36_000.124])
  rows = "".join(f"a.wav,Bell,train,{t},{t + 1}\n" for t in times)
  source = read(folder, f"{HEADER}{rows}b.wav,Bell,val\n")
  assert source.clips[0].fname == "a.wav:36000.123-36001.123"
  assert source.rejected == ()


def test_blank_rows_of_a_spreadsheet_are_passed_over(folder):
  """The case manifest_blank_rows: 6 clips, two rows of `,,` after them."""
  clips = "".join(
    f"{i}.wav,{'bird' if i % 2 else 'car'},{split}\n"
    for i, split in enumerate(("train", "val", "eval") * 2)
  )
  source = read(folder, f"path,labels,split\n{clips},,\n,,\n")
  assert len(source.clips) == 6
  assert source.rejected == ()
  assert source == read(folder, f"path,labels,split\n{clips}")


def test_a_folder_is_a_class_in_either_normal_form(tmp_path):
  folder = epath.Path(tmp_path)
  write(folder, "café/a.wav", "café/b.wav", "cafe\u0301/c.wav")
  source = manifest.read_folders(folder)
  assert source.classes == ("café",)
  assert [clip.fname for clip in source.clips] == [
    "cafe\u0301/c.wav",
    "café/a.wav",
    "café/b.wav",
  ]
  assert source.clips[0].audio == folder / "cafe\u0301/c.wav"


def test_what_storage_and_editors_keep_never_becomes_a_class(tmp_path):
  """The case folders_nas: 12 recordings, among what a NAS, Audacity and Live keep."""
  folder = epath.Path(tmp_path)
  write(folder, *(f"{name}/{i}.wav" for name in ("bird", "car") for i in range(6)))
  write(folder, "bird/0.wav.asd", "bird/p.aup3", "@eaDir/SYNOFILE_THUMB")
  write(folder, "bird/@eaDir/0.wav/SYNOINDEX_MEDIA_INFO", ".Trash-1000/files/x.wav")
  write(folder, "Thumbs.db", "car/.hidden/y.wav", "$RECYCLE.BIN/z.wav", "car/._0.wav")
  source = manifest.read_folders(folder)
  assert source.classes == ("bird", "car")
  assert source.rejected == ()
  counts = collections.Counter(clip.split for clip in source.clips)
  assert counts == {"train": 10, "val": 1, "eval": 1}


def test_leftovers_beside_splits_do_not_hide_them(tmp_path):
  folder = epath.Path(tmp_path)
  write(folder, "train/Bell/a.wav", "val/Bell/b.wav", "@eaDir/train/c.wav")
  source = manifest.read_folders(folder)
  assert {clip.fname: clip.split for clip in source.clips} == {
    "train/Bell/a.wav": "train",
    "val/Bell/b.wav": "val",
  }


def test_names_that_are_not_utf_8_are_rejected_by_name(tmp_path):
  folder = epath.Path(tmp_path)
  names = [b"Bell/a.wav", b"Bell/caf\xe9.wav", b"Bell/z.wav", b"caf\xe9/b.wav"]
  for name in names:
    path = os.path.join(os.fsencode(folder), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
      file.write(b"audio")
  write(folder, "Rain/c.wav")
  source = manifest.read_folders(folder)
  assert source.classes == ("Bell", "Rain")
  assert [c.fname for c in source.clips] == ["Bell/a.wav", "Bell/z.wav", "Rain/c.wav"]
  reason = "has a name that is not UTF-8"
  assert source.rejected == (
    Rejected("Bell/caf\\udce9.wav", "no split", reason),
    Rejected("caf\\udce9", "no split", reason),
  )
