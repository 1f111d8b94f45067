import os

import pytest

from audiotag_jax.audio import folders

WAV = {".wav", ".au"}


def write(top, *names):
  for name in names:
    (top / name).parent.mkdir(parents=True, exist_ok=True)
    (top / name).write_bytes(b"audio")


def find(top, seen=None):
  found = folders.find(top, WAV, set() if seen is None else seen)
  return [str(path.relative_to(top)) for path in found]


@pytest.mark.parametrize(
  "name",
  [
    *(".Trash-1000", ".git", ".@__thumb", "@eaDir", "@EADIR", "#recycle", "#Snapshot"),
    *("$RECYCLE.BIN", "RECYCLER", "System Volume Information", "lost+found"),
    *("__MACOSX", "FOUND.000", "@Recycle", "Network Trash Folder", "Song_Data"),
  ],
)
def test_folders_passed_by_and_what_is_in_them(name, tmp_path):
  write(tmp_path, f"bird/{name}/x.wav", "bird/a.wav", "bird/song.aup")
  assert find(tmp_path) == ["bird/a.wav"]
  assert folders.taken([name, "car"], ["song.aup"]) == (["car"], [])


@pytest.mark.parametrize(
  "name",
  [
    *("._x.wav", ".DS_Store", "Thumbs.db", "desktop.ini", "Desktop.INI", "0.wav.asd"),
    *("p.AUP3", "p.aup3-wal", "x.pkf", "x.wav.reapeaks", "x.sfk", "x.peak", "x.cue"),
    *(
      "x.m3u8",
      "x.nfo",
      "x.tmp",
      "x.wav.part",
      "x.wav.crdownload",
      "x.wav~",
      "~$x.doc",
    ),
    *(
      "notes.txt",
      "labels.TextGrid",
      "cover.jpeg",
      "Icon\r",
      "x.wav.bak",
      "x.wav:Zone.Identifier",
    ),
  ],
)
def test_files_passed_by(name):
  assert folders.taken([], [name, "x.wav"]) == ([], ["x.wav"])


def test_names_that_only_look_alike_are_taken():
  names = ["eaDir", "bird.tmp", "recycling", "founded", "song_data", "a~b", "@mention"]
  assert folders.taken(names, ["x.wav", "x", "x.xyz"]) == (
    names,
    ["x.wav", "x", "x.xyz"],
  )


def test_a_named_folder_is_searched_whatever_its_name(tmp_path):
  write(tmp_path, ".Trash-1000/files/x.wav", ".Trash-1000/.hidden/y.wav")
  assert find(tmp_path / ".Trash-1000") == ["files/x.wav"]


def test_links_are_followed_once(tmp_path):
  write(tmp_path, "in/z.wav", "in/deep/b.wav", "out/o.wav", "out/.h/x.wav", "lone.WAV")
  top = tmp_path / "in"
  for name, target in {
    "a.wav": "z.wav",  # the file itself is found, under its own name
    "deep/up": "../../in",
    "other": "../out",
    "other_again": "../out",
    "single.wav": "../lone.WAV",
    "single_again.wav": "../lone.WAV",
  }.items():
    (top / name).symlink_to(target)
  assert find(top) == ["deep/b.wav", "other/o.wav", "single.wav", "z.wav"]
  seen = {os.path.realpath(tmp_path / "out")}
  assert find(top, seen) == ["deep/b.wav", "single.wav", "z.wav"]


def test_a_link_above_the_folder_ends(tmp_path):
  write(tmp_path, "in/z.wav", "y.wav")
  (tmp_path / "in/loop").symlink_to("..")
  assert find(tmp_path / "in") == ["loop/y.wav", "z.wav"]


def test_what_cannot_be_opened_is_found_to_be_named(tmp_path, monkeypatch):
  write(tmp_path, "a.wav", "shut/x.wav")
  (tmp_path / "gone.wav").symlink_to("nowhere.wav")
  (tmp_path / "disk").symlink_to("/no/such/disk")
  (tmp_path / "self.wav").symlink_to("self.wav")
  (tmp_path / "list.m3u").symlink_to("nowhere.m3u")
  os.mkfifo(tmp_path / "pipe.wav")
  scandir = os.scandir

  def refuse(path):
    if path.name == "shut":
      raise PermissionError(13, "Permission denied", str(path))
    return scandir(path)

  monkeypatch.setattr(os, "scandir", refuse)
  assert find(tmp_path) == ["a.wav", "disk", "gone.wav", "self.wav", "shut"]
