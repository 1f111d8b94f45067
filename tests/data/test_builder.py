"""Sources prepared as sets: archives, kills, Beam, file systems, written files."""

import csv
import dataclasses
import shutil
import zipfile

import numpy as np
import pytest
import soundfile
import tensorflow as tf
from apache_beam.options.pipeline_options import PipelineOptions
from etils import epath

from audiotag_jax import config as config_lib
from audiotag_jax.data import builder, input_pipeline, prepared_set, shards
from audiotag_jax.data import dataset as dataset_lib
from audiotag_jax.data.clips import read_index
from audiotag_jax.data.sources import fsd50k, manifest
from audiotag_jax.data.sources.source import Clip, Rejected
from audiotag_jax.errors import UserError


def prepare_set(source_dir, data_dir, **options):
  return builder.prepare(
    fsd50k.read_source(source_dir),
    data_dir=str(data_dir),
    sample_rate_hz=8_000,
    allow_missing=0,
    **options,
  )


def contents(folder):
  """The bytes of a set's shards and lists, by name."""
  folder = epath.Path(folder)
  return {
    path.name: path.read_bytes()
    for path in folder.iterdir()
    if "tfrecord" in path.name or path.name.endswith(".csv")
  }


def zip_part(folder, name):
  """Replaces a part of FSD50K by its archive."""
  with zipfile.ZipFile(folder / f"FSD50K.{name}.zip", "w") as archive:
    for path in sorted((folder / f"FSD50K.{name}").iterdir()):
      archive.write(path, f"FSD50K.{name}/{path.name}")
  shutil.rmtree(folder / f"FSD50K.{name}")


def test_archives_and_folders_in_any_mix_give_the_same_set(fsd50k_dir, tmp_path):
  from_folders = contents(prepare_set(fsd50k_dir, tmp_path / "folders").folder)
  assert len(from_folders) == 5
  for i, name in enumerate(("dev_audio", "ground_truth", "eval_audio")):
    zip_part(fsd50k_dir, name)
    mixed = prepare_set(fsd50k_dir, tmp_path / f"mix-{i}").folder
    assert contents(mixed) == from_folders


def test_a_clip_that_its_archive_lacks_is_missing(fsd50k_dir, tmp_path):
  (fsd50k_dir / "FSD50K.dev_audio/1003.wav").unlink()
  zip_part(fsd50k_dir, "dev_audio")
  with pytest.raises(UserError, match=r"1 clips are missing .*\(1003\)"):
    prepare_set(fsd50k_dir, tmp_path / "data")


def test_a_preparation_that_was_killed_goes_on(fsd50k_dir, tmp_path, monkeypatch):
  whole = contents(prepare_set(fsd50k_dir, tmp_path / "whole").folder)
  monkeypatch.setattr(shards, "SHARD_CLIPS", 4)
  in_shards = contents(prepare_set(fsd50k_dir, tmp_path / "in_shards").folder)
  decode, decoded = shards.audio_files.read_audio, []

  def die_at_the_tenth(audio, *args):
    decoded.append(audio.name)
    if len(decoded) == 10:
      raise KeyboardInterrupt
    return decode(audio, *args)

  with monkeypatch.context() as patch:
    patch.setattr(shards.audio_files, "read_audio", die_at_the_tenth)
    with pytest.raises(KeyboardInterrupt):
      prepare_set(fsd50k_dir, tmp_path / "killed")
  assert not list((tmp_path / "killed").rglob("dataset_info.json"))

  def count(audio, *args):
    decoded.append(audio.name)
    return decode(audio, *args)

  decoded.clear()
  monkeypatch.setattr(shards.audio_files, "read_audio", count)
  assert contents(prepare_set(fsd50k_dir, tmp_path / "killed").folder) == in_shards
  # The two shards of four that were whole are not decoded again.
  assert len(decoded) == 25 - 8
  assert not list((tmp_path / "killed").rglob("*.partial"))
  assert whole["clips.csv"] == in_shards["clips.csv"]


def test_beam_writes_what_the_local_path_writes(fsd50k_dir, tmp_path, monkeypatch):
  monkeypatch.setattr(shards, "SHARD_CLIPS", 5)
  (fsd50k_dir / "FSD50K.eval_audio/1020.wav").write_text("no audio")
  local = builder.prepare(
    fsd50k.read_source(fsd50k_dir),
    data_dir=str(tmp_path / "local"),
    sample_rate_hz=8_000,
    allow_missing=1,
  )
  on_beam = builder.prepare(
    fsd50k.read_source(fsd50k_dir),
    data_dir=str(tmp_path / "beam"),
    sample_rate_hz=8_000,
    allow_missing=1,
    download_config=builder.tfds.download.DownloadConfig(
      beam_runner="DirectRunner", beam_options=PipelineOptions([])
    ),
  )
  assert contents(on_beam.folder) == contents(local.folder)
  assert len(contents(local.folder)) == 3 + 2 + 2 + 2


def test_tf_data_reads_the_shards_as_tfrecord(fsd50k_dir, tmp_path):
  folder = prepare_set(fsd50k_dir, tmp_path / "data").folder
  index, _ = read_index(folder)
  paths = list(index.records.paths)
  assert [record.numpy() for record in tf.data.TFRecordDataset(paths)] == index.read(
    np.arange(25)
  )


def test_data_in_a_bucket_is_prepared_and_read_there(fsd50k_dir, tmp_path, bucket):
  zip_part(fsd50k_dir, "eval_audio")
  shutil.copytree(fsd50k_dir, bucket / "FSD50K")
  here = prepare_set(fsd50k_dir, tmp_path / "data").folder
  there = prepare_set("gs://bucket/FSD50K", "gs://bucket/data").folder
  assert str(there).startswith("gs://bucket/data/audio_tags/fsd50k-8000hz-")
  assert contents(there) == contents(here)

  config = config_lib.get_config()
  config.frontend.sample_rate_hz, config.frontend.f_max_hz = 8_000, 4_000.0
  config.data.clip_s, config.data.cache_log_mels = 1.0, True
  config.train.batch_size, config.train.num_steps = 8, 2
  batches = []
  for root in (str(fsd50k_dir), "gs://bucket/FSD50K"):
    config.data.source_dir = root
    config.data.data_dir = (
      "gs://bucket/data" if root.startswith("gs") else str(tmp_path / "data")
    )
    clips = dataset_lib.load_splits(config)["train"]
    batches.append(
      list(
        input_pipeline.train_batches(
          clips, config, first_step=0, process=input_pipeline.Process()
        )
      )
    )
  for ours, theirs in zip(*batches, strict=True):
    np.testing.assert_array_equal(ours["inputs"], theirs["inputs"])
  assert list(bucket.rglob("*.f16"))


def test_rejected_rows_stand_in_the_report_and_all_adds_up(fsd50k_dir, tmp_path):
  source = fsd50k.read_source(fsd50k_dir)
  rejected = Rejected("x", "train", "comes more than once")
  broken = Clip("1", epath.Path("/nowhere/1.wav"), (0,), "val")
  source = dataclasses.replace(
    source, clips=(*source.clips, broken), rejected=(rejected,)
  )
  prepared = builder.prepare(
    source, data_dir=str(tmp_path), sample_rate_hz=8_000, allow_missing=2
  )
  with (prepared.folder / "rejected.csv").open() as file:
    rows = list(csv.reader(file))
  assert rows == [
    ["fname", "split", "reason"],
    ["x", "train", "comes more than once"],
    ["1", "val", "is missing"],
  ]
  assert len((prepared.folder / "clips.csv").read_text().splitlines()) == 1 + 25
  text = prepared_set.describe(prepared)
  assert "clips     25 (train 12, val 6, eval 7)" in text
  assert "rejected  2" in text


def write_recordings(folder):
  """Recordings of many kinds, good and broken; returns the good ones' names."""
  rng = np.random.default_rng(0)

  def write(name, seconds=0.5, rate_hz=16_000, channels=1, **options):
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    noise = rng.uniform(-0.5, 0.5, (round(seconds * rate_hz), channels))
    soundfile.write(path, noise, rate_hz, **options)
    return path

  good = {
    "plain.wav": {},
    "sous dossier/été – 雨.flac": {},
    "UPPER.WAV": {},
    "192khz.wav": {"rate_hz": 192_000},
    "5.1.wav": {"channels": 6},
    "float.wav": {"subtype": "FLOAT"},
    "one sample.wav": {"seconds": 1 / 16_000},
    "flac called.wav": {"format": "FLAC"},
    "vorbis.ogg": {},
    "8-bit.wav": {"subtype": "PCM_U8"},
  }
  for name, options in good.items():
    write(name, **options)
  whole = write("whole.flac").read_bytes()
  (folder / "cut.flac").write_bytes(whole[: len(whole) // 2])
  (folder / "whole.flac").unlink()
  (folder / "cut header.wav").write_bytes((folder / "plain.wav").read_bytes()[:30])
  (folder / "empty.wav").touch()
  (folder / "text.wav").write_text("no audio")
  (folder / "folder.wav").mkdir()
  write("no samples.wav", seconds=0)
  soundfile.write(folder / "nan.wav", np.array([0.1, np.nan]), 16_000, subtype="FLOAT")
  with soundfile.SoundFile(folder / "eleven minutes.wav", "w", 8_000, 1) as file:
    file.write(np.zeros(660 * 8_000, np.int16))
  (folder.parent / "outside.wav").write_bytes((folder / "plain.wav").read_bytes())
  (folder / "link.wav").symlink_to(folder.parent / "outside.wav")
  return list(good)


def test_of_good_and_broken_recordings_the_good_are_prepared(tmp_path):
  folder = tmp_path / "recordings"
  folder.mkdir()
  good = write_recordings(folder)
  broken = {
    "cut.flac": "cannot be decoded",
    "cut header.wav": "cannot be decoded",
    "empty.wav": "is empty",
    "text.wav": "Format not recognised",
    "folder.wav": "is not a file",
    "no samples.wav": "has no samples",
    "nan.wav": "1 samples that are not finite",
    "eleven minutes.wav": "is 660.0 s long, more than 600",
    "link.wav": "lies outside of the audio folder",
    "../outside.wav": "lies outside of the audio folder",
    "gone.wav": "is missing",
  }
  rows = [[name, "a;b"] for name in (*good, *broken)]
  rows += [["plain.wav", "a"], ["", "a"], ["UPPER.WAV", ""]]
  splits_ = [("train", "val", "eval")[i % 3] for i in range(len(rows))]
  rows = [[*row, split] for row, split in zip(rows, splits_, strict=True)]
  rows.append(["vorbis.ogg", "a", "testing"])
  with (folder / "clips.csv").open("w", encoding="utf-8-sig", newline="") as file:
    csv.writer(file).writerows([["path", "labels", "split"], *rows])
  source = manifest.read_manifest(
    epath.Path(folder / "clips.csv"), audio_dir=None, label_separator=";"
  )
  prepared = builder.prepare(
    source, data_dir=str(tmp_path), sample_rate_hz=16_000, allow_missing=len(rows)
  )
  with (prepared.folder / "clips.csv").open(encoding="utf-8") as file:
    assert sorted(row["fname"] for row in csv.DictReader(file)) == sorted(good)
  with (prepared.folder / "rejected.csv").open(encoding="utf-8") as file:
    rejected = list(csv.DictReader(file))
  assert len(rows) == len(good) + len(rejected) == 25
  reasons = {row["fname"]: row["reason"] for row in rejected}
  for name, reason in broken.items():
    assert reason in reasons[name]
    assert "\n" not in reasons[name]
  assert "comes more than once" in reasons["plain.wav"]
  assert f"rejected  {len(rejected)}" in prepared_set.describe(prepared)
