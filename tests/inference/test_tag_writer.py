"""What a second run continues, and under which names; see also tools/test_tag_again."""

import dataclasses
import errno
import io
import json
import os
from pathlib import Path

import pytest

from audiotag_jax.errors import UserError
from audiotag_jax.inference import made_by, tag_output, tag_writer
from audiotag_jax.inference.events import Event
from audiotag_jax.inference.tag_files import TagOptions
from audiotag_jax.inference.tag_output import Tagged, file_name

FORMATS = ["jsonl", "csv", "dcase"]


def origin(file_format, model="1", **options):
  options = {"format": file_format, "threshold": None, "top_k": 5, **options}
  return made_by.MadeBy(checkpoint=f"runs/{model}", model=model, options=options)


def open_output(path, found, file_format="jsonl", given=None, **others):
  found = list(map(Path, found))
  given = given or [str(x) for x in found]
  return tag_writer.Output(
    file_format, str(path), given, found, origin(file_format, **others)
  )


def tag(path, found, file_format="jsonl", failing=(), given=None, **others):
  """Tags files as tools/tag.py does; returns those that were tagged now."""
  output = open_output(path, found, file_format, given, **others)
  left = [x for x in map(Path, found) if file_name(x) not in output.done]
  output.start()
  for x in left:
    if str(x) in failing:
      output.add(Tagged(file_name(x), error="is empty"))
      continue
    event = ("Bell", Event(0.25, 0.75, 0, 0.9))
    output.add(Tagged(file_name(x), 1.0, (("Bell", 0.9), ("Rain", 0.8)), (event,)))
  output.finish()
  return [str(x) for x in left]


@pytest.mark.parametrize("file_format", [*FORMATS, "audacity", "raven"])
def test_rows_of_another_origin_are_refused_with_both_named(tmp_path, file_format):
  found, path = ["a.wav", "b.wav"], tmp_path / "out"
  tag(path, found, file_format)
  before = {x: x.read_bytes() for x in tmp_path.rglob("*") if x.is_file()}
  remedy = "give another --output"
  for others, words in (
    ({"top_k": 3}, "with --top_k=5, not with --top_k=3"),
    ({"threshold": 0.5}, "without --threshold, not with --threshold=0.5"),
    ({"window_s": 10.0}, "without --window_s, not with --window_s=10.0"),
  ):
    with pytest.raises(UserError) as info:
      open_output(path, found, file_format, **others)
    expected = f"{path} was made {words}: {remedy}, or the option that made it"
    assert str(info.value) == expected
  with pytest.raises(UserError) as info:
    open_output(path, found, file_format, model="2")
  assert str(info.value) == (
    f"{path} was made by the model runs/1 (1), not by the model runs/2 (2): {remedy}"
  )
  same_kind = FORMATS if file_format in FORMATS else ["audacity", "raven"]
  for other in set(same_kind) - {file_format}:
    with pytest.raises(UserError, match=f"--format={file_format}, not .*={other}: "):
      open_output(path, found, other)
  assert before == {x: x.read_bytes() for x in tmp_path.rglob("*") if x.is_file()}
  # The same model elsewhere is the same.
  moved = dataclasses.replace(origin(file_format), checkpoint="/elsewhere")
  output = tag_writer.Output(file_format, str(path), found, [*map(Path, found)], moved)
  assert output.done == {"a.wav", "b.wav"}


def test_every_option_that_rows_depend_on_is_in_the_record():
  options = {field.name for field in dataclasses.fields(TagOptions)}
  recorded = {"format", *made_by.TAG_OPTIONS, *made_by.EVENT_OPTIONS}
  assert options - recorded == {"plot"}


def test_rows_without_a_record_are_refused_and_empty_outputs_continued(tmp_path):
  path = tmp_path / "out"
  tag(path, ["a.wav"])
  Path(f"{path}.made_by.json").unlink()
  with pytest.raises(UserError) as info:
    open_output(path, ["a.wav"])
  assert str(info.value) == (
    f"{path} has rows, and no made_by.json that says which model and options made "
    "them: give another --output, or move that one"
  )
  for file_format in FORMATS:
    for text in ("", tag_output.HEADERS.get(file_format, "")):
      path.write_text(text)
      assert tag(path, ["a.wav"], file_format, top_k=7) == ["a.wav"]
      Path(f"{path}.made_by.json").unlink()
  # A record whose output was removed says nothing.
  tag(path := tmp_path / "gone", ["a.wav"])
  path.unlink()
  assert tag(path, ["a.wav"], model="2") == ["a.wav"]


def test_another_file_under_the_name_of_an_output_stays(tmp_path):
  for file_format in FORMATS:
    path = tmp_path / f"{file_format}.txt"
    tag(path, ["a.wav"], file_format)
    for notes in ("my notes", "my notes\n", "f,i,l,e\n", "{}\n", "[1]\n", '{"file"'):
      path.write_text(notes)
      if file_format == "jsonl" and notes == '{"file"':
        continue  # The start of a row.
      with pytest.raises(UserError, match=f"and is not in --format={file_format}"):
        open_output(path, ["a.wav"], file_format)
      assert path.read_text() == notes


def contents(path):
  if path.is_file():
    # A row that was tried again comes last.
    return sorted(path.read_text().split("\n"))
  return {str(x.relative_to(path)): x.read_text() for x in path.rglob("*.txt")}


def test_a_full_disk_leaves_whole_rows(tmp_path, monkeypatch):
  found, path = ["a.wav", "b.wav"], tmp_path / "out.csv"
  tag(path, ["a.wav"], "csv")
  before = path.read_text()
  write = io.FileIO.write

  class Full(io.FileIO):
    def write(self, data):
      if self.tell() > len(before):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
      return write(self, data[: data.index(b"\n") + 1])

  with monkeypatch.context() as patch:
    patch.setattr(Path, "open", lambda self, mode, **_: Full(self, mode))
    with pytest.raises(OSError, match="No space left"):
      tag(path, found, "csv")
  assert path.read_text() == before
  assert tag(path, found, "csv") == ["b.wav"]


def test_names_are_those_of_files_wherever_a_run_starts(tmp_path, monkeypatch):
  output = tmp_path / "out"
  for name in ("a", "b"):
    (tmp_path / name).mkdir()
  monkeypatch.chdir(tmp_path / "a")
  tag(output, ["x.wav"])
  # The same file by another path is the same file.
  assert tag(output, [tmp_path / "a/x.wav"]) == []
  monkeypatch.chdir(tmp_path / "b")
  assert tag(output, ["../a/x.wav", "y.wav"]) == ["y.wav"]
  # Another file of the same name is not.
  with pytest.raises(UserError) as info:
    open_output(output, ["x.wav"])
  assert str(info.value) == (
    f"{output} holds a/x.wav as x.wav, which is now the name of b/x.wav: give another "
    "--output"
  )
  assert [json.loads(x)["file"] for x in output.read_text().splitlines()] == [
    "x.wav",
    "y.wav",
  ]


def dcase_names(path):
  return [line.split("\t")[0] for line in path.read_text().splitlines()[1:]]


def test_a_dcase_table_has_base_names_where_they_are_unique(tmp_path):
  output = tmp_path / "out.tsv"
  found = [tmp_path / name for name in ("a/x.wav", "b/y.wav", "z.wav")]
  tag(output, found, "dcase", given=[str(tmp_path)])
  assert dcase_names(output) == ["x.wav", "y.wav", "z.wav"]
  # Names stay while new ones fit; then a table with two kinds of names is refused.
  tag(output, [tmp_path / "b/w.wav"], "dcase")
  assert dcase_names(output) == ["x.wav", "y.wav", "z.wav", "w.wav"]
  for more in (found + [tmp_path / "b/x.wav"], [tmp_path / "b/x.wav"]):
    with pytest.raises(UserError) as info:
      open_output(output, more, "dcase")
    assert str(info.value) == (
      f"{output} holds a/x.wav as x.wav, and beside the files that are given now its "
      "name is a/x.wav: give another --output, or the same files"
    )


def test_a_dcase_table_has_paths_where_base_names_come_twice(tmp_path):
  output = tmp_path / "out.tsv"
  (tmp_path / "r/a").mkdir(parents=True)
  found = [tmp_path / name for name in ("r/a/x.wav", "r/b/x.wav", "r/z.wav")]
  tag(output, found, "dcase", given=[str(tmp_path / "r")])
  assert dcase_names(output) == ["a/x.wav", "b/x.wav", "z.wav"]
  tag(output, [tmp_path / "r/a/w.wav"], "dcase")
  assert dcase_names(output)[3:] == ["a/w.wav"]


def test_labels_in_a_folder_keep_their_names(tmp_path):
  output, folder = tmp_path / "out", tmp_path / "r"
  (folder / "a").mkdir(parents=True)
  found = [folder / "a/x.wav", folder / "a/y.wav"]
  tag(output, found, "raven", given=[str(folder)])
  names = {"a/x.Table.1.selections.txt", "a/y.Table.1.selections.txt"}
  assert contents(output).keys() == names
  assert tag(output, found, "raven", given=[str(folder / "a")]) == []
  new = [folder / "a/x.flac", folder / "n.wav"]
  tag(output, found + new, "raven", given=[str(folder)])
  added = {"a/x.flac.Table.1.selections.txt", "n.wav.Table.1.selections.txt"}
  assert contents(output).keys() == names | added
  # Labels that others made are not replaced.
  (output / "m.wav.Table.1.selections.txt").write_text("mine")
  with pytest.raises(
    UserError, match=r"m.wav.Table.*txt exists, and made_by.json of it"
  ):
    open_output(output, [*found, *new, folder / "m.wav"], "raven", [str(folder)])


@pytest.mark.parametrize("threshold", [-1.0, 1e9, float("inf")])
def test_a_record_holds_every_threshold(tmp_path, threshold):
  path = tmp_path / "out"
  tag(path, ["a.wav"], threshold=threshold)
  assert tag(path, ["a.wav", "b.wav"], threshold=threshold) == ["b.wav"]
