import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tag
import tiny_models
from conftest import chirp

from audiotag_jax.inference import Tagger, tag_output
from audiotag_jax.inference.tag_files import FileTagger

pytestmark = pytest.mark.slow

RATE_HZ = 8_000
# Thresholds that all scores reach, and that no score reaches.
LOW, HIGH = [0.01] * 3, [0.99] * 3


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  folder = tmp_path_factory.mktemp("tag") / "model"
  return tiny_models.write(folder, thresholds={"global": 0.01, "per_class": LOW})


@pytest.fixture
def folder(tmp_path):
  """Three recordings of 0.3, 1 and 2 s, a text named .wav, and files to skip."""
  folder = tmp_path / "recordings"
  (folder / "more").mkdir(parents=True)
  files = (
    ("b.wav", "WAV", 0.3),
    ("more/a.FLAC", "FLAC", 1.0),
    ("c, é #1.ogg", "OGG", 2.0),
  )
  for name, file_format, seconds in files:
    waveform = chirp(seconds, rate_hz=16_000)
    soundfile.write(folder / name, waveform, 16_000, format=file_format)
  (folder / "bad.wav").write_text("no audio\n" * 50)
  (folder / "notes.txt").write_text("no audio")
  (folder / "._b.wav").write_bytes(b"\0\5\x16\7")
  return folder


def jsonl(text):
  return [json.loads(line) for line in text.splitlines()]


def test_jsonl_has_a_line_a_file(run, folder, model):
  code, out, err = run(folder, "--format=jsonl")
  assert code == tag.SOME_NOT_TAGGED == 3
  assert "bad.wav: cannot be decoded" in err
  assert "1 files were not tagged" in err
  rows = {row["file"]: row for row in jsonl(out)}
  assert list(rows) == [
    str(folder / name) for name in ("b.wav", "bad.wav", "c, é #1.ogg", "more/a.FLAC")
  ]
  assert rows[str(folder / "bad.wav")].keys() == {"file", "error"}
  row = rows[str(folder / "more/a.FLAC")]
  assert row.keys() == {"file", "duration_s", "tags"}
  assert row["duration_s"] == 1.0
  waveform, rate_hz = soundfile.read(folder / "more/a.FLAC")
  scores = Tagger.load(model).tag(waveform, rate_hz)
  assert [tag["label"] for tag in row["tags"]] == [
    tiny_models.CLASSES[i] for i in np.argsort(-scores)
  ]
  np.testing.assert_allclose(
    [tag["score"] for tag in row["tags"]], -np.sort(-scores), atol=2e-5
  )


def test_folders_as_they_are(run, folder, tmp_path):
  (folder / "bad.wav").unlink()
  for name in (".Trash-1000/files/deleted.wav", "@eaDir/b.wav/b.wav", "more/.h/x.wav"):
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_bytes((folder / "b.wav").read_bytes())
  (folder / "b.wav.asd").write_bytes(b"ableton")
  (folder / "loop").symlink_to("..")
  (folder / "gone").symlink_to("/no/such/disk")
  code, out, err = run(folder, "--format=jsonl")
  assert [os.path.relpath(row["file"], folder) for row in jsonl(out)] == [
    *("b.wav", "c, é #1.ogg", "gone", "more/a.FLAC")
  ]
  assert code == 3
  line = f"{folder}/gone: is a link to /no/such/disk, which does not exist"
  assert err.splitlines() == [line, "1 files were not tagged"]
  assert run(folder / ".Trash-1000", "--format=jsonl")[0] == 0


def test_a_folder_that_cannot_be_listed_is_named(run, folder, monkeypatch):
  scandir = os.scandir

  def refuse(path):
    if Path(path).name == "more":
      raise PermissionError(13, "Permission denied", str(path))
    return scandir(path)

  monkeypatch.setattr(os, "scandir", refuse)
  _, out, err = run(folder, "--format=csv")
  line = f"{folder}/more: is a folder that cannot be listed: change its permissions"
  assert line in err.splitlines()
  assert "/b.wav" in out


def test_names_that_begin_with_a_hyphen(run, folder, monkeypatch):
  monkeypatch.chdir(folder)
  Path("b.wav").rename("-0jf8HRxOI_30.wav")
  code, out, _ = run("-0jf8HRxOI_30.wav", "c, é #1.ogg", "--format=jsonl")
  assert code == 0
  assert [row["file"] for row in jsonl(out)] == ["-0jf8HRxOI_30.wav", "c, é #1.ogg"]


def test_the_home_folder(run, folder, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.chdir(folder)
  assert run("~/recordings/b.wav", "--format=csv", "--output=~/new/x.csv")[0] == 0
  assert f"{folder}/b.wav" in (tmp_path / "new/x.csv").read_text()
  assert not (folder / "~").exists()


def test_a_file_that_asks_for_too_much_memory_does_not_end_the_folder(
  run, folder, monkeypatch
):
  tags = FileTagger._tags

  def greedy(self, blocks):
    found = tags(self, blocks)
    if len(found) and folder.joinpath("b.wav").exists():
      folder.joinpath("b.wav").unlink()  # the first file
      raise MemoryError
    return found

  monkeypatch.setattr(FileTagger, "_tags", greedy)
  soundfile.write(folder / "slow.wav", np.ones(2**16), 1)
  code, out, _ = run(folder, "--format=jsonl")
  assert code == 3
  errors = {Path(row["file"]).name: row.get("error") for row in jsonl(out)}
  assert errors["b.wav"] == "cannot be tagged (there is not enough memory)"
  assert errors["slow.wav"] == "has a rate of 1 Hz, which is not from 100 to 10000000"
  assert errors["a.FLAC"] is None


def test_every_file_tagged_is_exit_code_0(run, folder):
  code, out, _ = run(folder / "b.wav", "--format=json")
  assert code == 0
  (row,) = json.loads(out)
  assert len(row["tags"]) == 3


def test_thresholds_and_top_k(run, folder, tmp_path):
  file = folder / "b.wav"

  def labels(*args, **kwargs):
    code, out, _ = run(file, "--format=jsonl", *args, **kwargs)
    assert code == 0
    return [tag["label"] for tag in jsonl(out)[0]["tags"]]

  everything = labels()
  assert labels("--top_k=2") == everything[:2]
  assert labels("--threshold=0.99") == []
  assert labels("--threshold=0.99", "--top_k=2") == []
  strict = tiny_models.write(
    tmp_path / "strict", thresholds={"global": 0.5, "per_class": HIGH}
  )
  assert labels(checkpoint=strict) == []
  assert labels("--top_k=3", checkpoint=strict) == everything
  _, out, _ = run(file, checkpoint=strict)
  assert "no tag reaches its threshold" in out


def test_the_table_is_for_people(run, folder):
  code, out, err = run(folder / "c, é #1.ogg", folder / "bad.wav")
  assert code == 3
  lines = out.splitlines()
  assert lines[0] == f"{folder}/c, é #1.ogg (2.00 s)"
  assert "Heavy rain" in out
  assert len(lines) == 4
  assert err.startswith(f"{folder}/bad.wav: cannot be decoded")


def test_windows_of_a_long_file(run, tmp_path, model):
  waveform = np.concatenate(
    [0.001 * chirp(3.0, rate_hz=RATE_HZ), chirp(2.0, seed=1, rate_hz=RATE_HZ)]
  )
  path = tmp_path / "long.wav"
  soundfile.write(path, waveform, RATE_HZ, subtype="FLOAT")
  tagger = Tagger.load(model)
  parts = [
    tagger.tag(waveform[s * RATE_HZ :][: 2 * RATE_HZ], RATE_HZ) for s in (0, 2, 3)
  ]
  for pool in ("mean", "max"):
    _, out, _ = run(path, "--format=jsonl", "--window_s=2", f"--pool={pool}")
    scores = {tag["label"]: tag["score"] for tag in jsonl(out)[0]["tags"]}
    expected = np.max(parts, axis=0)
    if pool == "mean":  # The last window adds one second of two.
      expected = np.average(parts, axis=0, weights=[1, 1, 0.5])
    np.testing.assert_allclose(
      [scores[name] for name in tiny_models.CLASSES], expected, atol=2e-5
    )
  code, _, _ = run(path, "--window_s=2", "--hop_s=3")
  assert code == (
    "error: windows of 2 s, 3 s apart: give a window of at most 30 s, and a hop above "
    "0 that leaves no gaps"
  )


@pytest.mark.parametrize("file_format", tag_output.APPENDED_FORMATS)
def test_a_second_run_goes_on_where_the_first_stopped(
  run, folder, tmp_path, monkeypatch, file_format
):
  output = tmp_path / "new" / "tags"
  args = (folder, f"--format={file_format}", f"--output={output}", "--threshold=0.01")
  code, out, _ = run(*args)
  assert (code, out) == (3, "")
  whole = output.read_bytes()
  assert run(*args)[0] == 3
  # The failed file was tried again: its row is dropped, and comes last.
  tried = output.read_bytes()
  assert sorted(tried.splitlines()) == sorted(whole.splitlines())
  assert (tried == whole) == (file_format == "dcase")

  lines = whole.splitlines(keepends=True)
  first = 1 if file_format == "jsonl" else 4
  output.write_bytes(b"".join(lines[:first]) + "é".encode()[:1])
  tagged = []
  tag_file = FileTagger.tag

  def watch(self, path, bar):
    tagged.append(path.name)
    return tag_file(self, path, bar)

  monkeypatch.setattr(FileTagger, "tag", watch)
  assert run(*args)[0] == 3
  # A table of several rows for a file may have been cut between two of them.
  again = ["bad.wav", "c, é #1.ogg", "a.FLAC"]
  assert tagged == (again if file_format == "jsonl" else ["b.wav", *again])
  assert output.read_bytes() == whole


def test_a_run_that_stopped_before_its_first_result_goes_on(run, folder, tmp_path):
  output = tmp_path / "tags.csv"
  args = (folder / "b.wav", "--format=csv", f"--output={output}")
  assert str(run(*args, "--hop_s=40")[0]).startswith("error: windows of 30 s")
  assert output.read_text() == tag_output.HEADERS["csv"]
  assert run(*args)[0] == 0
  assert output.read_text().count("duration_s") == 1


def test_results_are_there_as_they_come(run, folder, tmp_path, monkeypatch):
  output = tmp_path / "tags.jsonl"
  seen = []
  tag_file = FileTagger.tag

  def watch(self, path, bar):
    seen.append(len(output.read_text().splitlines()) if output.exists() else 0)
    return tag_file(self, path, bar)

  monkeypatch.setattr(FileTagger, "tag", watch)
  run(folder, "--format=jsonl", f"--output={output}")
  assert seen == [0, 1, 2, 3]


def test_another_output_is_left_alone(run, folder, tmp_path):
  output = tmp_path / "notes"
  for notes in ("my notes\n", "my notes", '["file", 1]\nand more'):
    output.write_text(notes)
    for file_format in tag_output.APPENDED_FORMATS:
      code, _, _ = run(folder, f"--format={file_format}", f"--output={output}")
      assert code == (
        f"error: {output} exists and is not in --format={file_format}: give another "
        "--output"
      )
    assert output.read_text() == notes


def test_an_output_that_is_not_a_file_is_not_replaced(run, folder, tmp_path):
  pipe = tmp_path / "pipe"  # stands in for a device, such as /dev/null
  os.mkfifo(pipe)
  for file_format in ("json", "table"):
    code, _, _ = run(folder, f"--format={file_format}", f"--output={pipe}")
    assert code == f"error: --output={pipe} is not a file: give a file"
  assert pipe.is_fifo()


def test_csv_has_a_row_a_tag(run, folder):
  _, out, _ = run(folder, "--format=csv")
  rows = list(csv.DictReader(io.StringIO(out)))
  assert [row["label"] == "" for row in rows] == [False] * 3 + [True] + [False] * 6
  assert rows[3]["error"].startswith("cannot be decoded")
  assert float(rows[0]["duration_s"]) == 0.3


def test_events_for_dcase(run, folder, model):
  _, out, _ = run(folder, "--format=dcase")
  rows = list(csv.DictReader(io.StringIO(out), delimiter="\t"))
  assert tuple(rows[0]) == ("filename", "onset", "offset", "event_label")
  # All scores are above the threshold, so an event of each class lasts throughout.
  ends = {(row["filename"], float(row["onset"]), float(row["offset"])) for row in rows}
  lengths = {"b.wav": 0.3, "c, é #1.ogg": 2.0, "more/a.FLAC": 1.0}
  assert ends == {(Path(name).name, 0.0, length) for name, length in lengths.items()}
  assert len(rows) == 9
  code, out, _ = run(folder / "b.wav", "--format=dcase", "--min_duration_s=0.4")
  assert code == 0
  assert out.splitlines()[1:] == ["b.wav\t\t\t"]


def test_label_tracks_for_audacity(run, folder, tmp_path, monkeypatch):
  code, out, _ = run(folder / "b.wav", "--format=audacity", "--median_s=0.1")
  assert code == 0
  assert sorted(out.splitlines()) == [
    f"0.000000\t0.300000\t{name}" for name in sorted(tiny_models.CLASSES)
  ]
  code, _, _ = run(folder, "--format=audacity")
  assert code == (
    "error: --format=audacity of 4 files needs --output=FOLDER, for the labels of "
    "each file"
  )
  output = tmp_path / "tracks"
  assert run(folder, "--format=audacity", f"--output={output}")[0] == 3
  tracks = {str(path.relative_to(output)) for path in output.rglob("*.txt")}
  assert tracks == {"b.wav.txt", "c, é #1.ogg.txt", "more/a.FLAC.txt"}
  track = output / "b.wav.txt"
  assert sorted(track.read_text().splitlines()) == sorted(out.splitlines())
  # A second run resumes the output, in whatever folder it is started.
  track.write_text("mine")
  (output / "more/a.FLAC.txt").unlink()
  monkeypatch.chdir(folder / "more")
  assert run("..", "--format=audacity", f"--output={output}")[0] == 3
  assert track.read_text() == "mine"
  assert {str(path.relative_to(output)) for path in output.rglob("*.txt")} == tracks


def test_a_picture_of_one_file(run, folder, tmp_path):
  picture = tmp_path / "out.png"
  code, out, _ = run(folder / "more/a.FLAC", f"--plot={picture}")
  assert code == 0
  assert picture.read_bytes().startswith(b"\x89PNG")
  assert "Bell" in out
  code, _, _ = run(folder, f"--plot={picture}")
  assert code == "error: --plot draws one file, not 4"
  code, _, _ = run(folder / "b.wav", f"--plot={tmp_path}/b")
  assert code == (
    f"error: {tmp_path}/b does not end like a picture: give it an ending, such as .png"
  )


def test_mistakes_are_one_line(run, folder, tmp_path):
  code, _, _ = run(folder, checkpoint=tmp_path)
  assert code.startswith(f"error: {tmp_path} has no model.json")
  (tmp_path / "empty").mkdir()
  code, _, _ = run(tmp_path / "empty")
  assert code == f"error: no audio files in {tmp_path}/empty: give files, or a folder"
  for file_format in ("table", "jsonl"):
    code, _, _ = run(folder, f"--format={file_format}", f"--output={tmp_path}")
    assert code == f"error: --output={tmp_path} is a folder: give a file"
  code, out, err = run(tmp_path / "none.wav")
  assert code == 3
  assert f"{tmp_path}/none.wav: is missing" in err


def test_runs_as_a_command_without_tensorflow(launch_tool, folder, model, tmp_path):
  result = launch_tool("tag.py", str(folder / "b.wav"), f"--checkpoint={model}")
  assert result.returncode == 0, result.stderr
  assert result.stdout.startswith(f"{folder}/b.wav (0.30 s)\n")
  assert result.stderr == ""
  done = subprocess.run(
    [sys.executable, "-c", "import sys, tag; print('tensorflow' in sys.modules)"],
    cwd=os.path.dirname(tag.__file__),
    env=os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(tag.__file__))},
    capture_output=True,
    text=True,
    check=True,
  )
  assert done.stdout == "False\n"


def test_programs_are_kept_for_the_next_run(
  launch_tool, folder, model, tmp_path, monkeypatch
):
  monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  launch_tool("tag.py", str(folder / "b.wav"), f"--checkpoint={model}")
  kept = list((tmp_path / "audiotag_jax").iterdir())
  assert kept


def test_a_reader_that_goes_away_is_quiet(folder, model):
  read_end, write_end = os.pipe()
  os.close(read_end)
  script = Path(tag.__file__)
  env = os.environ | {"PYTHONPATH": str(script.parents[1]), "PYTHONUNBUFFERED": ""}
  command = [sys.executable, script, folder / "b.wav", f"--checkpoint={model}"]
  done = subprocess.run(
    [*command, "--format=csv"], stdout=write_end, stderr=subprocess.PIPE, env=env
  )
  os.close(write_end)
  assert (done.returncode, done.stderr) == (141, b"")


def test_a_reader_that_goes_away_leaves_the_output_whole(
  run, folder, tmp_path, monkeypatch
):
  def leave(*args, **kwargs):
    raise BrokenPipeError

  monkeypatch.setattr(tag.tqdm, "write", leave)  # of what is wrong with bad.wav
  output = tmp_path / "tags.csv"
  code, out, err = run(folder, "--format=csv", f"--output={output}")
  assert (code, out, err) == (141, "", "")
  rows = list(csv.DictReader(io.StringIO(output.read_text())))
  assert [Path(row["file"]).name for row in rows] == ["b.wav"] * 3 + ["bad.wav"]
  assert output.read_text().endswith("\n")
