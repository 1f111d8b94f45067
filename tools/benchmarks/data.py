"""The part `data` of benchmark.py: from audio files to batches, at scale."""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ml_collections
import numpy as np
import soundfile
from benchmarks import report as report_lib
from benchmarks.report import report, report_ours, timed

if TYPE_CHECKING:
  from audiotag_jax.data.clips import ClipIndex

NUM_WORKERS = 2
INDEX_CLASSES = 527
BATCH_SIZE = 64


def benchmark(num_clips: int, largest_index: int) -> list[dict[str, Any]]:
  """Measures each stage in a new process, so that its peak memory is its own.

  Args:
    num_clips: number of audio clips that are made and read.
    largest_index: number of clips of the largest simulated set.

  Returns:
    The figures that were printed.
  """
  with tempfile.TemporaryDirectory() as scratch:
    folder = Path(scratch)
    hours = write_clips(folder / "source", num_clips)
    print(f"{num_clips} clips of 44.1 kHz, {hours:.2f} hours")
    in_new_process(benchmark_prepare, folder)
    in_new_process(benchmark_log_mel, folder)
    in_new_process(benchmark_cached_log_mels, folder)
  print(f"{'index of':<14}{'first batch':>13}{'resumed':>10}{'clips/s':>10}{'GiB':>8}")
  sizes = [10**n for n in range(3, 7) if 10**n < largest_index]
  for size in [*sizes, largest_index]:
    in_new_process(benchmark_index, size)
  return report_lib.take_figures()


def in_new_process(function: Callable, *args: Any) -> None:
  context = multiprocessing.get_context("spawn")
  with ProcessPoolExecutor(1, mp_context=context) as pool:
    report_lib.figures += pool.submit(figures_of, function, *args).result()


def figures_of(function: Callable, *args: Any) -> list[dict[str, Any]]:
  function(*args)
  return report_lib.take_figures()


def peak_gib() -> float:
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def write_clips(folder: Path, num_clips: int) -> float:
  """Writes noise as long as FSD50K's clips, in its layout; returns the hours."""
  rng = np.random.default_rng(0)
  # 0.3 to 30 s, 7.6 s on average, like FSD50K's clips.
  seconds = np.clip(rng.lognormal(1.45, 1.15, num_clips), 0.3, 30.0)
  noise = rng.normal(0, 0.1, 44_100 * 31).astype(np.float32)
  for part in ("dev_audio", "eval_audio", "ground_truth"):
    (folder / f"FSD50K.{part}").mkdir(parents=True)
  rows = []
  for number, length_s in enumerate(seconds):
    path = folder / f"FSD50K.dev_audio/{number}.wav"
    start = rng.integers(1000)
    waveform = noise[start : start + round(length_s * 44_100)]
    soundfile.write(path, waveform, 44_100, subtype="PCM_16")
    rows.append(f"{number},A,/m/a,{'val' if number % 10 == 0 else 'train'}\n")
  truth = folder / "FSD50K.ground_truth"
  (truth / "dev.csv").write_text("fname,labels,mids,split\n" + "".join(rows))
  (truth / "eval.csv").write_text("fname,labels,mids\n")
  (truth / "vocabulary.csv").write_text("0,A,/m/a\n")
  return seconds.sum() / 3600


def create_config(folder: Path) -> ml_collections.ConfigDict:
  from audiotag_jax import config as config_lib

  config = config_lib.get_config()
  config.data.source_dir = str(folder / "source")
  config.data.data_dir = str(folder / "data")
  config.evaluation.batch_size = BATCH_SIZE
  config.train.batch_size = BATCH_SIZE
  return config


def benchmark_prepare(folder: Path) -> None:
  """Measures preparation of audio files, against librosa.load clip by clip."""
  from audiotag_jax.data import dataset as dataset_lib

  config = create_config(folder)
  paths = sorted((folder / "source/FSD50K.dev_audio").iterdir())
  audio_s = sum(soundfile.info(path).duration for path in paths)
  ours_s, _ = timed(dataset_lib.prepare, config)
  memory = peak_gib()

  import librosa

  rate_hz = config.frontend.sample_rate_hz
  some = paths[:: max(1, len(paths) // 60)]
  some_s = sum(soundfile.info(path).duration for path in some)
  librosa.load(some[0], sr=rate_hz)
  peer_s, _ = timed(lambda: [librosa.load(path, sr=rate_hz) for path in some])
  report("prepare: × real time", audio_s / ours_s, some_s / peer_s, "librosa.load")
  report_ours("prepare: clips/s", len(paths) / ours_s)
  report_ours("prepare: peak memory, GiB", memory, decimals=2)


def benchmark_log_mel(folder: Path) -> None:
  """Measures batches of 10-s log-mels of waveforms, against PyTorch's DataLoader."""
  from benchmarks import pytorch_loader

  config = create_config(folder)
  clips = train_clips(config)
  # Each clip is read about five times.
  config.train.num_steps = max(2, 5 * len(clips) // BATCH_SIZE)
  paths = write_wavs(folder / "wavs", clips, config)
  loader = pytorch_loader.create_loader(paths, BATCH_SIZE, NUM_WORKERS)
  report_clips_per_second(
    "log-mel of waveforms: 10-s clips/s",
    lambda: count_batched(clips, config),
    lambda: sum(len(batch) for batch in loader),
    f"torchlibrosa, DataLoader, {NUM_WORKERS} workers",
  )


def report_clips_per_second(
  name: str, ours: Callable[[], int], peer: Callable[[], int], peer_name: str
) -> None:
  """Reports the pace of two functions that return how many clips they have read.

  Each is called twice, and its second call is measured.
  """
  ours()
  ours_s, num_ours = timed(ours)
  peer()
  peer_s, num_peer = timed(peer)
  report(name, num_ours / ours_s, num_peer / peer_s, peer_name)


def count_batched(clips: ClipIndex, config: ml_collections.ConfigDict) -> int:
  """Makes the batches of a training run; returns how many clips they have."""
  from audiotag_jax.data import input_pipeline

  batches = input_pipeline.train_batches(
    clips, config, first_step=0, process=input_pipeline.Process()
  )
  return sum(len(batch["inputs"]) for batch in batches)


def train_clips(config: ml_collections.ConfigDict) -> ClipIndex:
  """Returns the train split of the prepared set, which has no eval split."""
  from audiotag_jax.data import dataset as dataset_lib

  clips, split = dataset_lib.load_clips(dataset_lib.prepare(config), config)
  return clips.select(split == "train")


def write_wavs(
  folder: Path, clips: ClipIndex, config: ml_collections.ConfigDict
) -> list[Path]:
  """Writes the clips that the peer reads: 32 kHz, 10 s. Returns their files."""
  from audiotag_jax.data.clips import read_waveform
  from audiotag_jax.data.inputs import clip_samples

  folder.mkdir()
  length = clip_samples(config)
  paths = [folder / f"{clip}.wav" for clip in range(len(clips))]
  for clip, path in enumerate(paths):
    waveform = read_waveform(clips, clip, config.data).numpy()
    soundfile.write(path, np.resize(waveform, length), 32_000)
  return paths


def benchmark_cached_log_mels(folder: Path) -> None:
  """Measures batches of cached log-mels, against tf.data that reads their bytes."""
  import tensorflow as tf

  from audiotag_jax.data import records
  from audiotag_jax.data.inputs import inputs_shape

  config = create_config(folder)
  config.data.cache_log_mels = True
  clips = train_clips(config)
  config.train.num_steps = max(2, 60 * len(clips) // BATCH_SIZE)
  shape = inputs_shape(config)
  rows = np.random.default_rng(0).normal(-40, 15, (len(clips), *shape))
  rows = rows.astype(np.float16)
  paths = [str(folder / f"{i}.tfrecord") for i in range(4)]
  for i, path in enumerate(paths):
    records.write_records(Path(path), [row.tobytes() for row in rows[i::4]])

  def peer() -> int:
    dataset = tf.data.TFRecordDataset(paths, num_parallel_reads=NUM_WORKERS)
    dataset = dataset.repeat(50).batch(BATCH_SIZE).prefetch(2)
    return sum(len(batch) for batch in dataset)

  report_clips_per_second(
    "cached log-mels: 10-s clips/s",
    lambda: count_batched(clips, config),
    peer,
    "TFRecord, bytes alone",
  )


def benchmark_index(num_clips: int) -> None:
  """Measures a set's first batch, a batch in its middle, and the rate there."""
  with tempfile.TemporaryDirectory() as scratch:
    folder = Path(scratch)
    write_simulated_set(folder, num_clips)
    from audiotag_jax.data import input_pipeline
    from audiotag_jax.data.clips import read_index

    config = create_config(folder)
    config.data.features, config.data.clip_s = "waveform", 0.001
    config.train.num_steps = 2 * num_clips // BATCH_SIZE + 2_000

    def first_batch(first_step: int) -> Iterator[dict[str, np.ndarray]]:
      clips, _ = read_index(folder)
      batches = input_pipeline.train_batches(
        clips, config, first_step=first_step, process=input_pipeline.Process()
      )
      next(batches)
      return batches

    from_start_s, _ = timed(first_batch, 0)
    middle_s, batches = timed(first_batch, num_clips // BATCH_SIZE // 2)
    take(batches, 100)
    num_batches = 1_000
    seconds, _ = timed(take, batches, num_batches)
    rate = num_batches * BATCH_SIZE / seconds
    print(
      f"{num_clips:<14,}{from_start_s:11.1f} s{middle_s:8.1f} s{rate:10.0f}"
      f"{peak_gib():8.2f}"
    )
    report_lib.figures.append(
      {
        "name": f"index of {num_clips}",
        "first_batch_s": from_start_s,
        "resumed_s": middle_s,
        "clips_per_s": rate,
      }
    )


def take(batches: Iterator, count: int) -> None:
  for _ in range(count):
    next(batches)


def write_simulated_set(folder: Path, num_clips: int) -> None:
  """Writes a prepared set of clips of a millisecond, with AudioSet's classes."""
  import tensorflow_datasets as tfds

  from audiotag_jax.data import prepared_set, records, shards

  features = shards.clip_features([f"class {i}" for i in range(INDEX_CLASSES)])
  audio = shards.quantized(np.full(32, 0.5, np.float32), features)
  record = features.serialize_example({**audio, "labels": [1], "fname": "Y" * 11})
  num_shards = max(1, num_clips // 100_000)
  lengths = [len(part) for part in np.array_split(np.empty(num_clips), num_shards)]
  for i, length in enumerate(lengths):
    path = folder / f"simulated-train.tfrecord-{i:05d}-of-{num_shards:05d}"
    records.write_records(path, (record for _ in range(length)))
  drawn = np.random.default_rng(0).integers(0, INDEX_CLASSES, (num_clips, 2))
  with (folder / prepared_set.CLIPS_FILE).open("w") as file:
    file.write(",".join(prepared_set.CLIPS_HEADER) + "\n")
    for i, (a, b) in enumerate(drawn):
      file.write(f"Y{i:010d},train,32,{a} {b},{len(record)}\n")
  template = tfds.core.ShardedFileTemplate(
    dataset_name="simulated",
    data_dir=folder,
    split="train",
    filetype_suffix="tfrecord",
    template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
  )
  split = tfds.core.SplitInfo(
    name="train", shard_lengths=lengths, num_bytes=0, filename_template=template
  )
  tfds.folder_dataset.write_metadata(
    data_dir=folder, features=features, split_infos=[split], filename_template=template
  )
