"""Kills, damage, changed data and full disks: nothing is lost, and one line says so."""

import contextlib
import csv
import errno
import fcntl
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from commands import REPOSITORY
from etils import epath

from audiotag_jax import config as config_lib
from audiotag_jax import files
from audiotag_jax.data import (
  builder,
  content,
  input_pipeline,
  log_mel_cache,
  shards,
  splits,
)
from audiotag_jax.data import dataset as dataset_lib
from audiotag_jax.data.clips import read_index
from audiotag_jax.data.sources import fsd50k
from audiotag_jax.errors import UserError


def prepare_set(source_dir, data_dir):
  return builder.prepare(
    fsd50k.read_source(epath.Path(source_dir)),
    data_dir=str(data_dir),
    sample_rate_hz=8_000,
    allow_missing=0,
  )


@pytest.fixture
def shards_of_five(monkeypatch):
  monkeypatch.setattr(shards, "SHARD_CLIPS", 5)


@pytest.fixture
def prepared(fsd50k_dir, tmp_path, shards_of_five):
  return prepare_set(fsd50k_dir, tmp_path / "data")


def contents(folder):
  """The bytes of the files below a folder, but for locks, which name a process."""
  return {
    str(path.relative_to(folder)): path.read_bytes()
    for path in sorted(Path(folder).rglob("*"))
    if path.is_file() and not path.name.endswith(".lock")
  }


def run_killing(*args):
  """Runs `tests/killing.py`; returns what it printed, in lines of words."""
  command = [sys.executable, "-W", "ignore", REPOSITORY / "tests/killing.py", *args]
  env = os.environ | {"PYTHONPATH": str(REPOSITORY), "TF_CPP_MIN_LOG_LEVEL": "3"}
  done = subprocess.run(
    list(map(str, command)), env=env, capture_output=True, text=True
  )
  assert not done.returncode, done.stderr
  return [line.split() for line in done.stdout.splitlines()], done.stderr


def check_kills(task, source, folder, events, times=()):
  """Kills a task at events and times, and compares with one that nobody killed."""
  moments = ["never", *events, *times]
  lines, stderr = run_killing(task, source, folder, *moments)
  killed = str(-signal.SIGKILL)
  expected = [["never", "0", "0"], *([str(event), killed, "0"] for event in events)]
  assert lines[: len(expected)] == expected, stderr
  assert [(moment, code) for moment, _, code in lines] == [
    (str(moment), "0") for moment in moments
  ]
  whole = contents(folder / "never")
  for moment in moments:
    assert contents(folder / str(moment)) == whole, moment


@pytest.mark.slow
@pytest.mark.parametrize(
  ("task", "events"),
  # The last events of a preparation, from 73 on, put the finished shards together.
  [
    ("prepare", [3, 14, 47, *range(73, 119, 8)]),
    pytest.param("cache", [137], marks=pytest.mark.exhaustive),
    ("synthesize", [8, 20]),
  ],
)
def test_a_kill_costs_nothing_but_time(task, events, fsd50k_dir, tmp_path):
  check_kills(task, fsd50k_dir, tmp_path / task, events)


@pytest.mark.exhaustive
@pytest.mark.parametrize(
  ("task", "events", "num_times"),
  [
    ("prepare", range(119), 200),
    ("cache", range(125, 230, 4), 20),
    ("synthesize", range(25), 50),
  ],
)
def test_a_kill_at_any_moment_costs_nothing_but_time(
  task, events, num_times, fsd50k_dir, tmp_path
):
  longest_s = {"prepare": 0.6, "cache": 6.0, "synthesize": 1.5}[task]
  draw = random.Random(0)
  times = [round(draw.uniform(0, longest_s), 6) for _ in range(num_times)]
  check_kills(task, fsd50k_dir, tmp_path / task, events, times)


@pytest.mark.slow
def test_of_two_at_once_the_second_waits_and_takes_over(prepared, fsd50k_dir, tmp_path):
  folder, killed = tmp_path / "together", str(-signal.SIGKILL)
  lines, stderr = run_killing(
    "together", "prepare", fsd50k_dir, folder, "never", 30, 103
  )
  assert lines == [["never", "0", "0"], ["30", killed, "0"], ["103", killed, "0"]]
  assert stderr.count("3.0.0 is in use by process ") == 3
  assert stderr.count(": waiting until it ends.") == 3
  whole = contents(tmp_path / "data/audio_tags")
  for moment, _, _ in lines:
    assert contents(folder / moment / "audio_tags") == whole


def positions(index, clip):
  """A byte in each part of a clip's record: length, its sum, audio, sum."""
  start, size = int(index.records.start[clip]), int(index.records.num_bytes[clip])
  return [
    start - 12,
    start - 2,
    start,
    start + size // 2,
    start + size - 1,
    start + size,
  ]


def flip(path, position, bit=3):
  with open(path, "r+b") as file:
    file.seek(position)
    byte = file.read(1)[0]
    file.seek(position)
    file.write(bytes([byte ^ 1 << bit]))


def test_a_flipped_bit_in_a_shard_is_named_and_the_shard_made_again(
  prepared, fsd50k_dir, tmp_path
):
  whole = contents(prepared.folder)
  index, _ = read_index(prepared.folder)
  clip = 7
  path = index.records.paths[index.records.file[clip]]
  for bit, position in enumerate(positions(index, clip)):
    flip(path, position, bit)
    with pytest.raises(UserError) as info:
      index.read(np.arange(25))
    message = str(info.value)
    assert message.startswith(f"{path} has a wrong ")
    assert f"clip {index.fname[clip]} is read: delete the file and start" in message
    assert "\n" not in message
    assert len(index.read(np.delete(np.arange(25), clip))) == 24
    os.unlink(path)
    assert prepare_set(fsd50k_dir, tmp_path / "data") == prepared
    assert contents(prepared.folder) == whole


def test_a_shard_that_is_cut_short_or_deleted_is_named(prepared):
  index, _ = read_index(prepared.folder)
  path = index.records.paths[0]
  end = int(index.records.start[2])
  for size in (end, end - 1, end + 1, end - 13):
    os.truncate(path, size)
    with pytest.raises(UserError, match=r"is cut short, where clip .* is read"):
      index.read(np.array([2]))
  assert len(index.read(np.array([0]))) == 1
  os.unlink(path)
  with pytest.raises(UserError, match=r"cannot be read \(No such file or directory\)"):
    index.read(np.array([0]))


def test_a_missing_shard_is_not_replaced_by_other_clips(prepared, fsd50k_dir, tmp_path):
  index, _ = read_index(prepared.folder)
  whole = contents(prepared.folder)
  path = index.records.paths[1]
  os.unlink(path)
  recording = fsd50k_dir / "FSD50K.dev_audio/1005.wav"
  stat, data = recording.stat(), recording.read_bytes()
  waveform, rate_hz = soundfile.read(recording)
  soundfile.write(recording, waveform[::-1], rate_hz)
  assert recording.stat().st_size == stat.st_size
  os.utime(recording, (stat.st_atime, stat.st_mtime))
  with pytest.raises(UserError, match="does not give its clips as they were: restore"):
    prepare_set(fsd50k_dir, tmp_path / "data")
  recording.write_bytes(data)
  os.utime(recording, (stat.st_atime, stat.st_mtime))
  prepare_set(fsd50k_dir, tmp_path / "data")
  assert contents(prepared.folder) == whole


@pytest.mark.parametrize("name", ["clips.csv", "rejected.csv", "dataset_info.json"])
def test_a_damaged_list_is_named(name, prepared, fsd50k_dir, tmp_path):
  flip(prepared.folder / name, 3)
  with pytest.raises(
    UserError, match=rf"{name} is missing or damaged: delete .*3.0.0 "
  ):
    prepare_set(fsd50k_dir, tmp_path / "data")
  (prepared.folder / name).unlink()
  with pytest.raises(UserError, match=rf"{name} is missing or damaged"):
    prepare_set(fsd50k_dir, tmp_path / "data")


@pytest.fixture
def config(fsd50k_dir, tmp_path, shards_of_five):
  config = config_lib.get_config()
  config.data.source_dir, config.data.data_dir = str(fsd50k_dir), str(tmp_path / "data")
  config.data.clip_s = 0.5
  config.frontend.sample_rate_hz, config.frontend.f_max_hz = 8_000, 4_000.0
  config.train.batch_size = config.evaluation.batch_size = 4
  config.train.num_steps = 6
  return config


def all_batches(clips, config):
  process = input_pipeline.Process()
  yield from input_pipeline.eval_batches(clips["train"], config, process=process)
  yield from input_pipeline.train_batches(
    clips["train"], config, first_step=0, process=process
  )


def test_damage_ends_the_pipeline_with_the_users_error(config):
  clips = dataset_lib.load_splits(config)
  index = clips["train"]
  flip(index.records.paths[index.records.file[5]], int(index.records.start[5]) + 99)
  with pytest.raises(UserError, match="has a wrong checksum after a record") as info:
    list(all_batches(clips, config))
  assert "\n" not in str(info.value)


def test_damage_in_cached_log_mels_is_named_and_made_again(config, monkeypatch):
  monkeypatch.setattr(log_mel_cache, "CHUNK_FRAMES", 10)
  config.data.cache_log_mels = True
  clips = dataset_lib.load_splits(config)
  batches = list(all_batches(clips, config))
  cached = clips["train"].log_mels
  cache = epath.Path(cached.paths[0]).parent
  whole = contents(cache)
  for clip, place in itertools.product((0, 1, 11), (0.0, 0.5, 1.0)):
    position = cached.start[clip] + round(place * (cached.num_bytes[clip] - 1))
    path = cached.paths[cached.file[clip]]
    flip(path, int(position))
    fname = clips["train"].fname[clip]
    read = np.array([clip]), np.array([0]), cached.num_bytes[[clip]]
    with pytest.raises(UserError, match=f"has a wrong checksum, where clip {fname} is"):
      clips["train"].read_log_mels(*read)
    os.unlink(path)
    clips = dataset_lib.load_splits(config)
    assert contents(cache) == whole
  for again, before in zip(all_batches(clips, config), batches, strict=True):
    np.testing.assert_array_equal(again["inputs"], before["inputs"])
  flip(cached.paths[0], 77)
  with pytest.raises(UserError, match="has a wrong checksum, where clip"):
    list(all_batches(clips, config))


def test_parts_of_cached_log_mels_are_read_and_checked(config, monkeypatch):
  monkeypatch.setattr(log_mel_cache, "CHUNK_FRAMES", 7)
  config.data.cache_log_mels = True
  clips = dataset_lib.load_splits(config)["train"]
  clip = int(np.argmax(clips.num_samples))
  size = int(clips.log_mels.num_bytes[clips.record[clip]])
  (whole,) = clips.read_log_mels(np.array([clip]), np.array([0]), np.array([size]))
  for start, count in itertools.product((0, 1, 896, 897, size - 1), (1, 896, 5_000)):
    count = min(count, size - start)
    part = clips.read_log_mels(np.array([clip]), np.array([start]), np.array([count]))
    assert part == [whole[start : start + count]]


def test_a_cache_of_an_older_version_is_made_again(config, caplog):
  caplog.set_level("INFO", logger="absl")
  config.data.cache_log_mels = True
  clips = dataset_lib.load_splits(config)["train"]
  cache = epath.Path(clips.log_mels.paths[0]).parent
  whole = contents(cache)
  for path in cache.glob("*.crc32c"):
    path.unlink()
  caplog.clear()
  dataset_lib.load_splits(config)
  assert "Computing the log-mels of 25 clips" in caplog.text
  assert contents(cache) == whole
  (cache / "00000.f16.crc32c").write_bytes(b"short")
  with pytest.raises(UserError, match=r"00000.f16.crc32c has 5 bytes, not \d+: delete"):
    dataset_lib.load_splits(config)


def load(config, record):
  """Opens a data set as a run does."""
  clips = dataset_lib.load_splits(config)
  content.check_unchanged(record, clips)
  content.write_record(record, clips)
  return clips


def swap_labels(folder):
  """Swaps the labels of clips 1001 and 1002."""
  path = folder / "FSD50K.ground_truth/dev.csv"
  with path.open(newline="") as file:
    header, *rows = csv.reader(file)
  one, other = (next(row for row in rows if row[0] == x) for x in ("1001", "1002"))
  one[1:3], other[1:3] = other[1:3], one[1:3]
  with path.open("w", newline="") as file:
    csv.writer(file).writerows([header, *rows])


def replace_recording(path):
  """Replaces a recording by another of the same name, size and length."""
  waveform, rate_hz = soundfile.read(path)
  stat = path.stat()
  soundfile.write(path, -waveform, rate_hz)
  assert path.stat().st_size == stat.st_size
  os.utime(path, (stat.st_atime, stat.st_mtime + 2))


def test_a_run_refuses_other_labels_and_other_audio(config, fsd50k_dir, tmp_path):
  record = tmp_path / "run/dataset.json"
  load(config, record)
  load(config, record)
  swap_labels(fsd50k_dir)
  was_made = f"{record.parent} was made with other data: "
  with pytest.raises(UserError) as info:
    load(config, record)
  assert str(info.value) == (
    f"{was_made}the labels of train changed (labels: 1001, 1002). Restore the data, or "
    "give another --workdir"
  )
  swap_labels(fsd50k_dir)
  load(config, record)
  replace_recording(fsd50k_dir / "FSD50K.eval_audio/1020.wav")
  with pytest.raises(
    UserError, match=r"the audio of eval changed \(audio: 1020\)\. Res"
  ):
    load(config, record)
  (fsd50k_dir / "FSD50K.eval_audio/1020.wav").unlink()
  config.data.allow_missing = 1
  with pytest.raises(
    UserError, match=r"clips of eval changed \(in one set alone: 1020"
  ):
    load(config, record)


def test_the_same_data_elsewhere_are_the_same(config, fsd50k_dir, tmp_path):
  record = tmp_path / "run/dataset.json"
  load(config, record)
  shutil.copytree(fsd50k_dir, tmp_path / "moved", copy_function=shutil.copyfile)
  os.utime(tmp_path / "moved/FSD50K.dev_audio/1001.wav", (1, 1))
  config.data.source_dir = str(tmp_path / "moved")
  config.data.data_dir = str(tmp_path / "other")
  clips = load(config, record)
  assert str(tmp_path / "other") in json.loads(record.read_text())["prepared_set"]
  shutil.rmtree(tmp_path / "data")
  shutil.rmtree(tmp_path / "other")
  replace_recording(tmp_path / "moved/FSD50K.dev_audio/1001.wav")
  with pytest.raises(UserError, match=r"the audio of train changed\. Restore the data"):
    load(config, record)
  assert len(clips["train"]) == 12


def make_old(folder):
  """Makes a prepared set one of version 0.2.0, without hashes."""
  (folder / "sha256sums.txt").unlink()
  path = folder / "clips.csv"
  lines = path.read_text().splitlines()
  path.write_text("".join(f"{line.rpartition(',')[0]}\n" for line in lines))


def test_sets_and_runs_of_older_versions_open(config, fsd50k_dir, tmp_path):
  record = tmp_path / "run/dataset.json"
  load(config, record)
  new = json.loads(record.read_text())
  (folder,) = (tmp_path / "data").glob("audio_tags/*/3.0.0")
  make_old(folder)
  old_set = contents(folder)
  load(config, record)
  assert json.loads(record.read_text()) == new
  old = {"classes": new["classes"], "splits": {}}
  for name, split in new["splits"].items():
    old["splits"][name] = {key: split[key] for key in ("num_clips", "sha256")}
  files.write_json(record, old)
  load(config, record)
  assert json.loads(record.read_text()) == old
  assert contents(folder) == old_set
  swap_labels(fsd50k_dir)
  load(config, record)


def test_a_run_of_other_clips_or_classes_is_refused(config, fsd50k_dir, tmp_path):
  record = tmp_path / "run/dataset.json"
  load(config, record)
  for name in ("vocabulary", "dev", "eval"):
    path = fsd50k_dir / f"FSD50K.ground_truth/{name}.csv"
    path.write_text(path.read_text().replace("Rain", "Snow").replace("1005", "1007"))
  config.data.allow_missing = 1
  with pytest.raises(UserError, match="other data: the classes, the clips of train ch"):
    load(config, record)


@contextlib.contextmanager
def files_of_at_most(num_bytes):
  """Lets no file grow larger, as on a full disk."""
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
  resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_costs_the_shard_being_written(prepared, fsd50k_dir, tmp_path):
  sizes = [p.stat().st_size for p in sorted(Path(prepared.folder).glob("*train*"))]
  assert sizes[2] < 60_000 < sizes[0]
  data = tmp_path / "full"
  with (
    files_of_at_most(60_000),
    pytest.raises(UserError, match=r"3.0.0 cannot be written \(File too large\): make"),
  ):
    prepare_set(fsd50k_dir, data)
  assert not list(data.rglob("3.0.0")) + list(data.rglob("incomplete.*"))
  assert not [path.name for path in data.rglob(".*.partial")]
  assert contents(prepare_set(fsd50k_dir, data).folder) == contents(prepared.folder)


def fill_up(function, name):
  """A disk on which a function finds no room for a file of that name."""

  def fails(path, *args, **kwargs):
    if os.path.basename(path).lstrip(".").startswith(name):
      raise OSError(errno.ENOSPC, "No space left on device")
    return function(path, *args, **kwargs)

  return fails


@pytest.mark.parametrize("name", ["clips.csv", "features.json", "sha256sums.txt"])
def test_a_full_disk_at_the_end_costs_no_shard(name, fsd50k_dir, tmp_path, monkeypatch):
  """A disk that fills up while the finished shards are put together."""
  whole = contents(prepare_set(fsd50k_dir, tmp_path / "whole").folder)
  with monkeypatch.context() as patch:
    patch.setattr(files, "sync", fill_up(files.sync, name))
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device"):
      prepare_set(fsd50k_dir, tmp_path / "data")
  decoded = []
  monkeypatch.setattr(shards.audio_files, "read_audio", decoded.append)
  assert contents(prepare_set(fsd50k_dir, tmp_path / "data").folder) == whole
  assert not decoded


def test_a_full_disk_costs_the_log_mels_being_written(config):
  prepared = dataset_lib.prepare(config)
  index, _ = read_index(prepared.folder)
  with (
    files_of_at_most(20_000),
    pytest.raises(UserError, match=r"log_mels-\w+ cannot be written \(File too large"),
  ):
    log_mel_cache.cache_log_mels(index, prepared.folder, config)
  assert not list(Path(prepared.folder).rglob(".*.partial"))
  log_mel_cache.cache_log_mels(index, prepared.folder, config)


@pytest.mark.parametrize("place", ["/proc/data", "a file"])
def test_a_folder_that_cannot_be_written_is_said_in_one_line(
  place, fsd50k_dir, tmp_path
):
  (tmp_path / "a file").write_text("")
  with pytest.raises(
    UserError, match=r"3.0.0 cannot be written \(.*\): make room"
  ) as info:
    prepare_set(fsd50k_dir, tmp_path / place)
  assert "\n" not in str(info.value)
  message = "study_split.csv cannot be written"
  dev = read_index(prepare_set(fsd50k_dir, tmp_path / "data").folder)[0]
  with pytest.raises(UserError, match=message):
    splits.study_splits(dev, epath.Path(tmp_path / place / "study_split.csv"))


def test_locks_that_a_file_system_lacks_stop_nothing(
  fsd50k_dir, tmp_path, monkeypatch, caplog
):
  def refuse(*_):
    raise OSError(errno.ENOLCK, "No locks available")

  monkeypatch.setattr(fcntl, "flock", refuse)
  folder = prepare_set(fsd50k_dir, tmp_path / "data").folder
  assert f"the set {folder} cannot be locked (No locks available)" in caplog.text
