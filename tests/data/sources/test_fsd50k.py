import csv
import json
import os
import shutil

import numpy as np
import pytest
import soundfile
import soxr

from audiotag_jax.data import builder, prepared_set, shards
from audiotag_jax.data.clips import read_index
from audiotag_jax.data.sources import fsd50k
from audiotag_jax.errors import UserError


def prepare(source, tmp_path, allow_missing=0, rate_hz=16_000):
  return builder.prepare(
    fsd50k.read_source(source),
    data_dir=str(tmp_path / "data"),
    sample_rate_hz=rate_hz,
    allow_missing=allow_missing,
  )


def edit(path, old, new):
  text = path.read_text()
  assert old in text
  path.write_text(text.replace(old, new, 1))


def decoded(index, clip):
  return index.features.deserialize_example(index.read(np.array([clip]))[0])


def test_every_clip_is_stored_at_full_length_in_csv_order(fsd50k_dir, tmp_path):
  index, official = read_index(prepare(fsd50k_dir, tmp_path).folder)
  assert index.classes == ("Bell", "Rain", "Siren")
  assert index.fname.tolist() == [str(n) for n in range(1000, 1025)]
  assert official.tolist() == ["train"] * 12 + ["val"] * 6 + ["eval"] * 7
  for clip, fname in enumerate(index.fname):
    part = "eval" if official[clip] == "eval" else "dev"
    wav, _ = soundfile.read(fsd50k_dir / f"FSD50K.{part}_audio/{fname}.wav")
    expected = soxr.resample(wav, 44_100, 16_000)
    example = decoded(index, clip)
    audio, scale = example["audio"].numpy(), example["scale"].numpy()
    assert audio.dtype == np.int16
    assert len(audio) == index.num_samples[clip] == len(expected)
    assert len(scale) == -(-len(audio) // 256)
    waveform = audio * np.repeat(scale, 256)[: len(audio)]
    np.testing.assert_allclose(waveform, expected, atol=2e-5)
    assert example["fname"].numpy().decode() == fname
    labels = np.flatnonzero(index.labels[[clip]].toarray())
    assert example["labels"].numpy().tolist() == labels.tolist()


def test_labels_are_those_of_the_csv_files(fsd50k_dir, tmp_path):
  index, _ = read_index(prepare(fsd50k_dir, tmp_path).folder)
  expected = {}
  for name in ("dev", "eval"):
    with (fsd50k_dir / f"FSD50K.ground_truth/{name}.csv").open() as file:
      expected |= {
        row["fname"]: row["labels"].split(",") for row in csv.DictReader(file)
      }
  for fname, labels in zip(index.fname, index.labels.toarray(), strict=True):
    assert {index.classes[i] for i in np.flatnonzero(labels)} == set(expected[fname])


def test_the_set_opens_as_any_tfds_set(fsd50k_dir, tmp_path):
  folder = prepare(fsd50k_dir, tmp_path).folder
  info = json.loads((folder / "dataset_info.json").read_text())
  assert info["name"] == "audio_tags"
  lengths = {s["name"]: sum(map(int, s["shardLengths"])) for s in info["splits"]}
  assert lengths == {"train": 12, "val": 6, "eval": 7}


def test_it_is_prepared_once_for_each_source_and_rate(fsd50k_dir, tmp_path):
  first = prepare(fsd50k_dir, tmp_path)
  written = os.stat(first.folder / "clips.csv").st_mtime_ns
  assert prepare(fsd50k_dir, tmp_path) == first
  assert os.stat(first.folder / "clips.csv").st_mtime_ns == written
  assert prepare(fsd50k_dir, tmp_path, rate_hz=22_050).folder != first.folder
  edit(fsd50k_dir / "FSD50K.ground_truth/eval.csv", "Bell", "Rain")
  assert prepare(fsd50k_dir, tmp_path).folder != first.folder


def test_a_replaced_audio_file_is_noticed(fsd50k_dir, tmp_path):
  first = prepare(fsd50k_dir, tmp_path)
  path = fsd50k_dir / "FSD50K.dev_audio/1001.wav"
  soundfile.write(path, np.sin(np.arange(9_000)), 44_100)
  assert prepare(fsd50k_dir, tmp_path).folder != first.folder


def test_missing_and_broken_clips_are_named_and_may_be_allowed(fsd50k_dir, tmp_path):
  (fsd50k_dir / "FSD50K.dev_audio/1003.wav").unlink()
  (fsd50k_dir / "FSD50K.eval_audio/1020.wav").write_text("no audio")
  message = r"2 clips .*\(1003, 1020\), more than the 1 allowed: repair them"
  with pytest.raises(UserError, match=message) as info:
    prepare(fsd50k_dir, tmp_path, allow_missing=1)
  assert "--allow_missing=2" in str(info.value)
  prepared = prepare(fsd50k_dir, tmp_path, allow_missing=2)
  index, _ = read_index(prepared.folder)
  assert len(index) == 23
  assert not {"1003", "1020"} & set(index.fname)
  assert decoded(index, 3)["fname"].numpy() == b"1004"
  text = prepared_set.describe(prepared)
  assert "clips     23 (train 11, val 6, eval 6)" in text
  assert "rejected  2" in text
  assert "1: is missing" in text


def test_a_preparation_that_was_interrupted_is_begun_anew(
  fsd50k_dir, tmp_path, monkeypatch
):
  def interrupt(waveform):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(shards.waveforms, "quantize", interrupt)
    with pytest.raises(KeyboardInterrupt):
      prepare(fsd50k_dir, tmp_path)
  assert not list((tmp_path / "data").rglob("clips.csv"))
  assert len(read_index(prepare(fsd50k_dir, tmp_path).folder)[0]) == 25


@pytest.mark.parametrize(
  ("file", "old", "new", "message"),
  [
    ("dev", ",split", ",part", "must name the columns fname, labels, split, sep"),
    ("vocabulary", "1,Rain", "7,Rain", "line 2: '7,Rain,/m/06mb1' is not 1,label,mid"),
    ("vocabulary", "1,Rain", "1,Bell ", "lines 1 and 2 are both 'Bell': give each"),
    ("vocabulary", "1,Rain", "1,", "line 2: its name is empty: give each class a"),
    (
      "dev",
      "mids,",
      "labels,",
      "its first line names the column labels twice",
    ),
  ],
)
def test_wrong_csv_files_are_refused(fsd50k_dir, file, old, new, message):
  edit(fsd50k_dir / f"FSD50K.ground_truth/{file}.csv", old, new)
  with pytest.raises(UserError) as info:
    fsd50k.read_source(fsd50k_dir)
  assert message in str(info.value)
  assert "\n" not in str(info.value)


@pytest.mark.parametrize(
  ("file", "old", "new", "fname", "reason"),
  [
    ("dev", "1002,Bell", "1002,Belfry", "1002", "has the label 'Belfry', which is not"),
    ("dev", "1002,", "1001,", "1001", "comes more than once in the csv files"),
    ("eval", "1020,", "1001,", "1001", "comes more than once in the csv files"),
    ("dev", "1002,", "../1002,", "../1002", "must be a file's name, with no path"),
    ("dev", "1002,", "C:\\1002,", "C:\\1002", "must be a file's name, with no path"),
    ("dev", "1002,", ",", "", "must be a file's name, with no path"),
    (
      "dev",
      ",train",
      ",test",
      "1000",
      "has the split 'test', which must be train or val",
    ),
  ],
)
def test_a_row_of_no_usable_clip_is_rejected_and_the_others_prepared(
  fsd50k_dir, tmp_path, file, old, new, fname, reason
):
  edit(fsd50k_dir / f"FSD50K.ground_truth/{file}.csv", old, new)
  source = fsd50k.read_source(fsd50k_dir)
  [rejected] = source.rejected
  assert rejected.fname == fname
  assert reason in rejected.reason
  with pytest.raises(UserError, match="1 clips are missing or unusable"):
    prepare(fsd50k_dir, tmp_path)
  index, _ = read_index(prepare(fsd50k_dir, tmp_path, allow_missing=1).folder)
  assert len(index) == 24


def test_a_folder_of_something_else_is_refused(tmp_path):
  with pytest.raises(
    UserError, match=r"FSD50K.dev_audio does not exist, nor does FSD50K.dev_audio.zip"
  ):
    fsd50k.read_source(tmp_path)


def test_a_byte_order_mark_and_crlf_do_no_harm(fsd50k_dir):
  path = fsd50k_dir / "FSD50K.ground_truth/dev.csv"
  plain = fsd50k.read_source(fsd50k_dir)
  path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
  assert fsd50k.read_source(fsd50k_dir) == plain


def test_tables_are_read_as_meant(fsd50k_dir):
  plain = fsd50k.read_source(fsd50k_dir)
  truth = fsd50k_dir / "FSD50K.ground_truth"
  for name in ("dev", "eval", "vocabulary"):
    text = (truth / f"{name}.csv").read_text()
    text = text.replace("\n1,Rain", "\n 1 ,\u00a0Rain\u200b").replace(
      ",train", ", train "
    )
    text = text.replace(",Siren", ",\ufeffSiren ").replace("\n", "\n,,,\n")
    (truth / f"{name}.csv").write_text(text, "utf-16")
  assert fsd50k.read_source(fsd50k_dir) == plain


def test_classes_and_files_are_found_in_either_normal_form(fsd50k_dir):
  nfc, nfd = "café", "cafe\u0301"
  truth = fsd50k_dir / "FSD50K.ground_truth"
  for name in ("dev", "eval", "vocabulary"):
    path = truth / f"{name}.csv"
    bell = nfd if name == "vocabulary" else nfc
    text = path.read_text().replace("Bell", bell).replace("1002,", f"{nfc},")
    path.write_text(text, "utf-8")
  audio = fsd50k_dir / "FSD50K.dev_audio"
  (audio / "1002.wav").rename(audio / f"{nfd}.wav")
  source = fsd50k.read_source(fsd50k_dir)
  assert source.classes[0] == nfc
  assert source.rejected == ()
  clip = source.clips[2]
  assert (clip.fname, clip.audio.name) == (nfc, f"{nfd}.wav")
  shutil.make_archive(audio, "zip", fsd50k_dir, audio.name)
  shutil.rmtree(audio)
  assert fsd50k.read_source(fsd50k_dir).clips[2].audio.read_bytes()


def test_fields_beyond_the_header_are_refused(fsd50k_dir):
  path = fsd50k_dir / "FSD50K.ground_truth/eval.csv"
  path.write_text(path.read_text() + "1024x,Bell,Rain,/m/0395lw,/m/06mb1\n")
  [rejected] = fsd50k.read_source(fsd50k_dir).rejected
  assert rejected.fname == "1024x"
  assert rejected.reason.startswith("has more fields than the header: quote those")


def test_large_sources_are_cut_into_shards(fsd50k_dir, tmp_path, monkeypatch):
  monkeypatch.setattr(shards, "SHARD_CLIPS", 5)
  folder = prepare(fsd50k_dir, tmp_path).folder
  assert len(list(folder.glob("*train*tfrecord*"))) == 3
  index, _ = read_index(folder)
  assert [decoded(index, i)["fname"].numpy().decode() for i in range(25)] == list(
    index.fname
  )
