"""The part `recipe` of benchmark.py: preparation, log-mels and training steps."""

import functools
import resource
import tempfile
from pathlib import Path
from typing import Any

import jax
import librosa
import ml_collections
import numpy as np
from benchmarks.report import report, timed

from audiotag_jax import parallel, recipes
from audiotag_jax.data import builder, input_pipeline
from audiotag_jax.data.clips import ClipIndex, read_index, read_waveform
from audiotag_jax.data.inputs import clip_samples, inputs_shape
from audiotag_jax.data.sources import fsd50k
from audiotag_jax.models.create import create_model
from audiotag_jax.training import finetune, optim, steps

NUM_STEPS = 10


def benchmark(recipe: Path, source_dir: Path) -> None:
  """Measures the stages of a recipe on a data set in FSD50K's layout."""
  config = recipes.read_recipe(recipe)
  print(f"{'':<34}{'ours':>10}{'peer':>10}{'ratio':>8}")
  with tempfile.TemporaryDirectory() as data_dir:
    clips = benchmark_prepare(config, source_dir, data_dir)
    benchmark_log_mel(config, clips)
  benchmark_train(config, clips.num_classes)
  peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
  print(f"{'peak memory, GiB':<34}{peak_gb:10.2f}")


def benchmark_prepare(
  config: ml_collections.ConfigDict, source_dir: Path, data_dir: str
) -> ClipIndex:
  """Measures preparation, against librosa.load clip by clip on one core."""
  rate_hz = config.frontend.sample_rate_hz
  source = fsd50k.read_source(source_dir)
  clips = source.clips[:: max(1, len(source.clips) // 100)]
  librosa.load(clips[0].audio, sr=rate_hz)
  peer_s, peer = timed(
    lambda: [librosa.load(clip.audio, sr=rate_hz)[0] for clip in clips]
  )
  peer_audio_s = sum(map(len, peer)) / rate_hz
  prepare = functools.partial(
    builder.prepare,
    data_dir=data_dir,
    sample_rate_hz=rate_hz,
    allow_missing=len(source.clips),
  )
  ours_s, prepared = timed(prepare, source)
  all_clips, _ = read_index(prepared.folder)
  audio_s = all_clips.num_samples.sum() / rate_hz
  report(
    "prepare: × real time", audio_s / ours_s, peer_audio_s / peer_s, "librosa.load"
  )
  print(f"{'prepare: clips/s':<34}{len(all_clips) / ours_s:10.1f}")
  return all_clips


def benchmark_log_mel(config: ml_collections.ConfigDict, clips: ClipIndex) -> None:
  """Measures batches of log-mels, against librosa on the same clips."""

  def ours() -> int:
    batches = input_pipeline.eval_batches(
      clips, config, process=input_pipeline.Process()
    )
    return sum(batch["mask"].sum() for batch in batches)

  ours()
  ours_s, num_clips = timed(ours)
  frontend = config.frontend
  length = clip_samples(config)
  some = range(0, len(clips), max(1, len(clips) // 100))
  waveforms = [
    np.resize(read_waveform(clips, clip, config.data), length) for clip in some
  ]

  def log_mel(waveform: np.ndarray) -> np.ndarray:
    return librosa.power_to_db(
      librosa.feature.melspectrogram(
        y=waveform,
        sr=frontend.sample_rate_hz,
        n_fft=frontend.fft_samples,
        win_length=frontend.window_samples,
        hop_length=frontend.hop_samples,
        n_mels=frontend.num_mels,
        fmin=frontend.f_min_hz,
        fmax=frontend.f_max_hz,
        pad_mode="reflect",
      )
    )

  log_mel(waveforms[0])
  peer_s, _ = timed(lambda: [log_mel(waveform) for waveform in waveforms])
  name = f"log-mel: {config.data.clip_s:g}-s clips/s"
  report(name, num_clips / ours_s, len(waveforms) / peer_s, "librosa, audio in memory")


def benchmark_train(config: ml_collections.ConfigDict, num_classes: int) -> None:
  """Measures training steps on a random batch that is in memory."""
  shape = inputs_shape(config)
  model = create_model(config, num_classes=num_classes, axis_name=parallel.AXIS)
  scales = finetune.learning_rate_scales(model, config, (1, *shape))
  tx = optim.create_optimizer(config.train, scales)
  with_ema = config.train.ema_decay > 0
  state = steps.create_state(model, tx, config.seed, (1, *shape), with_ema=with_ema)
  state = parallel.replicate(state)
  rng = np.random.default_rng(0)
  size = config.train.batch_size
  inputs = rng.normal(-40, 15, (size, *shape)).astype(np.float32)
  labels = (rng.random((size, num_classes)) < 0.1).astype(np.float32)
  train_step = parallel.pmap(
    steps.create_train_step(config, model, tx, scales, labels, parallel.AXIS)
  )
  batch = parallel.shard({"inputs": inputs, "labels": labels})

  def run(num_steps: int) -> dict[str, Any]:
    current = state
    for _ in range(num_steps):
      current, metrics = train_step(current, batch)
    return jax.block_until_ready(metrics)

  compile_s, _ = timed(run, 2)
  seconds, _ = timed(run, NUM_STEPS)
  print(f"{'train: steps/s':<34}{NUM_STEPS / seconds:10.2f}")
  print(f"{'train: clips/s':<34}{NUM_STEPS * size / seconds:10.1f}")
  print(f"{'train: seconds to compile':<34}{compile_s:10.1f}")
