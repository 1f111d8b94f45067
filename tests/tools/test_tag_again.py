"""Second runs of tools/tag.py: what they continue, try again and refuse."""

import csv
import dataclasses
import io
import json
import os
import shutil
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
import soundfile
import tiny_models
from conftest import chirp
from hypothesis import HealthCheck, given, settings

from audiotag_jax import names
from audiotag_jax.errors import UserError
from audiotag_jax.inference import made_by, tag_names, tag_output, tag_rows, tag_writer
from audiotag_jax.inference.events import Event
from audiotag_jax.inference.made_by import MadeBy
from audiotag_jax.inference.tag_output import Tagged, file_name

EVERY = ("jsonl", "csv", "dcase", "audacity", "raven")
ORIGIN = MadeBy(checkpoint="m", model="1" * 64, options={"threshold": 0.5})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  return tiny_models.write(tmp_path_factory.mktemp("again") / "model")


@pytest.fixture
def folder(tmp_path):
  folder = tmp_path / "recordings"
  folder.mkdir()
  for name in ("a.wav", "z.wav"):
    write_recording(folder / name)
  (folder / "later.wav").write_text("no audio yet\n")
  return folder


def write_recording(path):
  soundfile.write(path, chirp(0.3, rate_hz=8_000), 8_000, format="WAV")


def rows_of(path, file_format):
  """Returns the rows of an output."""
  text = path.read_bytes().decode()
  if file_format == "jsonl":
    return [json.loads(line) for line in text.split("\n")[:-1]]
  delimiter = "," if file_format == "csv" else "\t"
  return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))


@pytest.mark.slow
@pytest.mark.parametrize("file_format", tag_output.APPENDED_FORMATS)
def test_a_file_that_failed_is_tried_again(run, folder, tmp_path, file_format):
  output = tmp_path / "out"
  args = (f"--format={file_format}", f"--output={output}", "--threshold=0.01")
  assert run(folder, *args)[0] == 3
  # A run on other files leaves the row of the failed one.
  first = output.read_bytes()
  assert run(folder / "a.wav", *args)[0] == 0
  assert output.read_bytes() == first

  write_recording(folder / "later.wav")
  code, _, err = run(folder, *args)
  assert code == 0
  again = "" if file_format == "dcase" else "; 1 that failed are tried again"
  assert f"{output} has 2 of 3 files{again}\n" in err
  rows = rows_of(output, file_format)
  files = [Path(row.get("file") or row["filename"]).name for row in rows]
  assert set(files) == {"a.wav", "z.wav", "later.wav"}
  assert len(rows) == (3 if file_format == "jsonl" else 9)
  assert not any(row.get("error") for row in rows)
  whole = output.read_bytes()
  code, _, err = run(folder, *args)
  assert (code, err) == (0, f"{output} has 3 of 3 files\n")
  assert output.read_bytes() == whole


@pytest.mark.slow
@pytest.mark.parametrize(
  ("file_format", "before", "after", "said"),
  [
    ("jsonl", "", "--threshold=0.3", "without --threshold, not with --threshold=0.3"),
    ("csv", "--top_k=2", "--top_k=1", "with --top_k=2, not with --top_k=1"),
    ("csv", "--window_s=9", "", "with --window_s=9.0, not with --window_s=30.0"),
    ("jsonl", "--hop_s=9", "", "with --hop_s=9.0, not with --hop_s=30.0"),
    ("jsonl", "", "--pool=max", "with --pool=mean, not with --pool=max"),
    ("dcase", "--median_s=1", "", "with --median_s=1.0, not with --median_s=0.0"),
    (
      *("raven", "", "--min_duration_s=2"),
      "with --min_duration_s=0.0, not with --min_duration_s=2.0",
    ),
    (
      *("audacity", "--threshold=0.5", "--threshold=0.50000001"),
      "with --threshold=0.5, not with --threshold=0.50000001",
    ),
  ],
)
def test_rows_of_other_options_are_refused(
  run, folder, tmp_path, file_format, before, after, said
):
  output = tmp_path / "out"
  (folder / "later.wav").unlink()
  args = (folder, f"--format={file_format}", f"--output={output}")
  assert run(*args, *before.split())[0] == 0
  write_recording(folder / "new.wav")
  contents = read_all(tmp_path)
  code, _, _ = run(*args, *after.split())
  assert code == (
    f"error: {output} was made {said}: give another --output, or the option that made "
    "it"
  )
  assert read_all(tmp_path) == contents
  assert run(*args, *before.split())[0] == 0


def read_all(folder):
  return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_rows_of_another_model_are_refused(run, folder, tmp_path, model):
  output = tmp_path / "out.jsonl"
  args = (folder / "a.wav", "--format=jsonl", f"--output={output}")
  run(*args)
  # Another place, and another source of the same weights, are the same model.
  copy = tmp_path / "copy"
  shutil.copytree(model, copy)
  description = json.loads((copy / "model.json").read_text())
  description["source"] = {"file": "elsewhere"}
  (copy / "model.json").write_text(json.dumps(description))
  assert run(*args, checkpoint=copy)[0] == 0
  run(folder / "z.wav", *args[1:], checkpoint=copy)
  rows = output.read_bytes()
  others = (
    tiny_models.write(tmp_path / "weights", "Cnn6", bias=(1.0, 2.0, 3.0)),
    tiny_models.write(tmp_path / "tuned", thresholds={"global": 0.1}),
  )
  before = f"{copy} ({made_by.fingerprint(copy)[:8]})"
  for other in others:
    code, _, _ = run(*args, checkpoint=other)
    after = f"{other} ({made_by.fingerprint(other)[:8]})"
    assert code == (
      f"error: {output} was made by the model {before}, not by the model {after}: give "
      "another --output"
    )
  assert output.read_bytes() == rows


@pytest.mark.slow
def test_the_weights_alone_make_another_model(tmp_path):
  folders = [
    tiny_models.write(tmp_path / name, "Cnn6", bias=(bias, 0.0, 0.0))
    for name, bias in (("a", 1.0), ("b", 1.0), ("c", 1.5))
  ]
  same, again, other = map(made_by.fingerprint, folders)
  assert same == again != other
  # Weights of version 0.2 have no checksums: the files tell.
  for folder in folders:
    path = folder / "checkpoints/0/_CHECKPOINT_METADATA"
    metadata = json.loads(path.read_text())
    del metadata["custom_metadata"]["crc32c"]
    path.write_text(json.dumps(metadata))
  assert len(set(map(made_by.fingerprint, folders))) == 3


def output_of(file_format, path, found, origin=ORIGIN, root=None):
  paths = [str(root or found[0].parent)]
  return tag_writer.Output(file_format, str(path), paths, found, origin)


def tagged(path):
  """Results of a file, with what a name of a class may hold."""
  labels = ("Bell", "Heavy\nrain\u2028")
  events = tuple((x, Event(0.0, 0.5, i, 0.9)) for i, x in enumerate(labels))
  tags = tuple((x, 0.5) for x in labels)
  return Tagged(file_name(path), 1.0, tags, events, highest_hz=4_000.0)


@pytest.mark.parametrize("file_format", tag_output.APPENDED_FORMATS)
def test_rows_without_a_record_are_refused(tmp_path, file_format):
  path, found = tmp_path / "out", [tmp_path / "a.wav"]
  output = output_of(file_format, path, found)
  output.start()
  output.add(tagged(found[0]))
  record = tmp_path / "out.made_by.json"
  record.unlink()
  rows = path.read_bytes()
  with pytest.raises(UserError) as error:
    output_of(file_format, path, found)
  assert str(error.value) == (
    f"{path} has rows, and no made_by.json that says which model and options made "
    "them: give another --output, or move that one"
  )
  assert read_all(tmp_path) == {path: rows}
  record.write_text("{")
  with pytest.raises(UserError, match="is not valid JSON .*: give another --output"):
    output_of(file_format, path, found)


def test_labels_of_others_in_the_folder_are_left_alone(tmp_path):
  mine = tmp_path / "labels/b.wav.txt"
  mine.parent.mkdir()
  mine.write_text("mine")
  with pytest.raises(UserError) as error:
    output_of("audacity", mine.parent, [tmp_path / "b.wav"])
  assert str(error.value) == (
    f"{mine} exists, and made_by.json of its folder does not say that it was made by "
    "this command: give another --output"
  )
  assert list(read_all(tmp_path)) == [mine]


@pytest.mark.parametrize("file_format", tag_output.APPENDED_FORMATS)
def test_an_output_cut_off_anywhere_becomes_whole(tmp_path, file_format):
  found = [
    tmp_path / name for name in ("a\nb.wav", 'c".wav', "é\u2028.wav", "d,\t.wav")
  ]

  def finish(path):
    output = output_of(file_format, path, found)
    output.start()
    for file in found:
      if file_name(file) not in output.done:
        output.add(tagged(file))
    return path.read_bytes()

  whole = finish(tmp_path / "whole")
  record = (tmp_path / "whole.made_by.json").read_text()
  (tmp_path / "cut.made_by.json").write_text(record)
  for length in range(0, len(whole), 1 + len(whole) // 50):
    (tmp_path / "cut").write_bytes(whole[:length])
    at_a_row = file_format != "jsonl" and whole[:length].endswith(b"\n")
    again = finish(tmp_path / "cut")
    # A file system may cut between two rows of a file, which nothing tells.
    assert again == whole or at_a_row
    assert {row.file for row in read_rows(tmp_path / "cut", file_format)} == {
      row.file for row in read_rows(tmp_path / "whole", file_format)
    }


def read_rows(path, file_format):
  rows, rest = tag_rows.read_rows(path, file_format)
  assert not rest
  return rows


@pytest.mark.parametrize("file_format", EVERY)
def test_a_kill_before_any_write_leaves_what_a_second_run_continues(
  tmp_path, file_format, monkeypatch
):
  found = [tmp_path / f"{i}.wav" for i in range(3)]
  writes, limit = 0, 0

  def counted(write):
    def counting(*args, **kwargs):
      nonlocal writes
      if writes == limit:
        raise InterruptedError
      writes += 1
      return write(*args, **kwargs)

    return counting

  monkeypatch.setattr(tag_writer.files, "write_text", counted(made_by.files.write_text))
  monkeypatch.setattr(tag_writer.Output, "_write", counted(tag_writer.Output._write))

  def finish(path):
    nonlocal writes
    writes = 0
    output = output_of(file_format, path, found)
    output.start()
    for file in found:
      if file_name(file) not in output.done:
        output.add(tagged(file))

  other = dataclasses.replace(ORIGIN, options={"threshold": 0.4})
  for killed_at in range(4):
    path = tmp_path / f"out{killed_at}"
    limit = killed_at
    with pytest.raises(InterruptedError):
      finish(path)
    limit = 100
    finish(path)
    assert output_of(file_format, path, found).done == {*map(file_name, found)}
    with pytest.raises(UserError, match=r"with --threshold=0\.5, not with"):
      output_of(file_format, path, found, other)


NAME = st.one_of(
  st.binary(min_size=1, max_size=60).map(os.fsdecode),
  st.text("\u2028\u2029\x85\r\n\v\f\x1c\x1d\x1e\t\"',;\\ =+-@|(!a.é\ufeff", min_size=1),
  st.sampled_from(["\udce9", r"\udce9", "\\\udce9", r"\\udce9", "x" * 250, "é" * 120]),
).filter(lambda name: not {"/", "\0"} & {*name} and name not in (".", ".."))


def check_names(folder, file_format, chosen):
  found = [Path(folder, "in", name) for name in chosen]
  found[0].parent.mkdir()
  path = folder / "out"
  for count in (len(found) // 2, len(found)):
    output = output_of(file_format, path, found)
    output.start()
    for file in found[:count]:
      if file_name(file) not in output.done:
        output.add(tagged(file))
  output = output_of(file_format, path, found)
  assert output.done == {*map(file_name, found)}
  assert len(output.done) == len({*output.names.values()}) == len(found)
  if file_format in tag_output.APPENDED_FORMATS:
    rows = rows_of(path, file_format)
    read = [row.get("file") or row["filename"] for row in rows]
    restore = names.from_spreadsheet if file_format == "csv" else str
    assert {*map(restore, read)} == {*output.names.values()}
    assert len(rows) == len(found) * (1 if file_format == "jsonl" else 2)
  else:
    assert sum(x.is_file() for x in path.rglob("*")) == len(found) + 1


def names_with(folder, file_format, num_examples):
  """Checks lists of names; returns the number of lists."""
  numbers = iter(range(num_examples * 100))

  @settings(
    max_examples=num_examples,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
  )
  @given(st.lists(NAME, min_size=1, max_size=5, unique=True))
  def check(chosen):
    inner = folder / str(next(numbers))
    inner.mkdir()
    check_names(inner, file_format, chosen)

  check()
  return next(numbers)


@pytest.mark.parametrize("file_format", EVERY)
def test_names_of_any_bytes_come_through_two_runs(tmp_path, file_format):
  assert names_with(tmp_path, file_format, 15) >= 15


@pytest.mark.exhaustive
@pytest.mark.parametrize("file_format", EVERY)
def test_many_names_of_any_bytes_come_through_two_runs(tmp_path, file_format):
  assert names_with(tmp_path, file_format, 1_000) >= 1_000


@pytest.mark.slow
@pytest.mark.parametrize("file_format", tag_output.FORMATS)
def test_a_name_that_is_not_utf8_stops_no_other(
  run, folder, tmp_path, file_format, monkeypatch
):
  write_recording(os.fsencode(folder / "later") + b"\xe9.wav")
  (folder / "later.wav").unlink()
  args = (folder, f"--format={file_format}", "--threshold=0.01")
  if file_format not in tag_output.FOLDER_FORMATS:
    piped = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with monkeypatch.context() as patch:
      patch.setattr(sys, "stdout", piped)
      assert run(*args)[0] == 0
    piped.flush()
    out = piped.buffer.getvalue().decode()
    places = [out.find(name) for name in ("a.wav", "udce9.wav", "z.wav")]
    assert -1 < places[0] < places[1] < places[2]
  output = tmp_path / "out"
  assert run(*args, f"--output={output}")[0] == 0
  if file_format in EVERY:
    assert run(*args, f"--output={output}")[2] == f"{output} has 3 of 3 files\n"


@pytest.mark.parametrize(
  ("flag", "expected"),
  [
    ("--threshold=nan", "nan is not a number from 0 to 1"),
    ("--threshold=1.5", "1.5 is not a number from 0 to 1"),
    ("--hop_s=0", "0 is not a number above 0"),
    ("--window_s=inf", "inf is not a number above 0"),
    ("--median_s=-1", "-1 is not a number of at least 0"),
    ("--top_k=-1", "-1 is not a whole number of at least 0"),
    ("--top_k=x", "x is not a whole number of at least 0"),
  ],
)
def test_a_number_out_of_range_is_one_line(run, flag, expected):
  code, _, err = run("a.wav", flag)
  assert code == 2
  assert err == (
    f"error: argument {flag.partition('=')[0]}: {expected}; --help lists what tag.py "
    "takes\n"
  )


def test_dcase_names_are_base_names_where_these_are_unique(tmp_path):
  def names_of(*paths):
    found = [tmp_path / path for path in paths]
    naming = tag_names.of_labels([str(tmp_path)], found, "dcase", tmp_path, None)
    return list(naming.names.values())

  assert names_of("a/1.wav", "b/c/2.wav") == ["1.wav", "2.wav"]
  assert names_of("a/1.wav", "b/1.wav", "2.wav") == ["a/1.wav", "b/1.wav", "2.wav"]
  # Two paths of one file have one name.
  assert names_of("a/1.wav", "a/../a/1.wav") == ["1.wav", "1.wav"]


def test_raven_names_have_no_ending_where_that_is_unique(tmp_path):
  def tables_of(*paths):
    found = [tmp_path / path for path in paths]
    output = output_of("raven", tmp_path / "out", found, root=tmp_path)
    output.start()
    for file in found:
      output.add(tagged(file))
    tables = sorted((tmp_path / "out").rglob("*.txt"))
    shutil.rmtree(tmp_path / "out")
    return [str(path.relative_to(tmp_path / "out")) for path in tables]

  end = ".Table.1.selections.txt"
  assert tables_of("a/1.wav", "b/1.wav") == [f"a/1{end}", f"b/1{end}"]
  assert tables_of("1.flac", "1.wav") == [f"1.flac{end}", f"1.wav{end}"]


@pytest.mark.parametrize("file_format", ["dcase", "audacity", "raven"])
def test_a_name_never_changes_its_file(tmp_path, file_format):
  out, first, second = tmp_path / "out", tmp_path / "1/x.wav", tmp_path / "2/x.wav"
  for file in (first, second):
    file.parent.mkdir()
  output = output_of(file_format, out, [first])
  output.start()
  output.add(tagged(first))
  before = read_all(tmp_path)
  name = "x" if file_format == "raven" else "x.wav"
  for found in ([second], [first, second]):
    if file_format == "dcase":
      with pytest.raises(UserError) as error:
        output_of(file_format, out, found, root=tmp_path)
      assert str(error.value) == (
        f"{out} holds 1/x.wav as x.wav, and beside the files that are given now its "
        "name is 1/x.wav: give another --output, or the same files"
      )
    else:  # Labels keep their names.
      output = output_of(file_format, out, found, root=tmp_path)
      assert list(output.names.values()) == [name, f"2/{name}"][-len(found) :]
      assert output.done == {str(x) for x in found} - {str(second)}
  assert read_all(tmp_path) == before
  # Other files with names of their own may be added.
  third = tmp_path / "2/y.wav"
  output = output_of(file_format, out, [third])
  output.start()
  output.add(tagged(third))
  assert output_of(file_format, out, [first]).done == {str(first)}


def test_raven_tables_are_what_raven_opens():
  file = Tagged("x", 2.0, (), (("Heavy\train", Event(0.25, 2.25, 0, 0.9)),), "", 4_000)
  header, row = tag_output.as_raven(file).splitlines()
  assert header.split("\t") == [
    *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)"),
    *("Low Freq (Hz)", "High Freq (Hz)", "Annotation"),
  ]
  assert row.split("\t") == [
    *("1", "Spectrogram 1", "1", "0.250000", "2.000000", "0.0", "4000.0"),
    "Heavy\\train",
  ]
  assert tag_output.as_raven(file._replace(events=())).count("\n") == 1


@pytest.mark.parametrize(
  ("seconds", "text"),
  [
    (0.0, "0.000"),
    (0.3, "0.300"),
    (36_000.00625, "36000.00625"),
    (2_480_625 * 320 / 22_050, "36000.000"),
    (2_480_626 * 320 / 22_050, "36000.014512"),
  ],
)
def test_dcase_times_have_the_decimals_that_the_hop_needs(seconds, text):
  file = Tagged("x", 40_000.0, (), (("Bell", Event(seconds, seconds + 1, 0, 0.9)),))
  assert tag_output.as_dcase(file).split("\t")[1] == text
