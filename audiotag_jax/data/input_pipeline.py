"""tf.data pipelines: read -> normalise -> fix length -> noise -> log-mel -> batch.

The training stream at a step is a function of (seed, step) alone, so a resumed run
starts its stream at its step, at no cost. Evaluation yields every clip once.
"""

import dataclasses
from collections.abc import Callable, Iterator

import ml_collections
import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

from audiotag_jax.data import noise, sampling, splits
from audiotag_jax.frontend import logmel_tf, mel

INT16_SCALE = 2.0**-15


@dataclasses.dataclass(frozen=True)
class Process:
  """Which of the processes that read a data set together this one is."""

  index: int = 0
  count: int = 1

  def slice(self, batch_size: int) -> slice:
    """This process's part of a global batch."""
    local_size = batch_size // self.count
    return slice(self.index * local_size, (self.index + 1) * local_size)


def train_batches(
  clips: splits.ClipIndex,
  config: ml_collections.ConfigDict,
  *,
  first_step: int,
  process: Process,
) -> Iterator[dict[str, np.ndarray]]:
  """Yields the training batches of steps `first_step` to `config.train.num_steps`.

  Which clips they hold is `data.sampling`'s matter. A longer clip's window lies
  anywhere in it; a shorter clip lies anywhere in its window.

  Args:
    clips: the clips of the split.
    config: the config.
    first_step: steps already taken.
    process: the part of the batch to read.

  Yields:
    `inputs`, by `data.features` log-mels <float32>[local_batch, frames, mels] or
    waveforms <float32>[local_batch, samples], and `labels` <float32>[local_batch,
    classes].
  """
  batch_size, seed = config.train.batch_size, config.seed
  sample = sampling.create_sampler(config.data.sampling, clips.labels, seed)

  def rows(step: int) -> tuple[np.ndarray, np.ndarray]:
    part = process.slice(batch_size)
    positions = step * batch_size + np.arange(part.start, part.stop)
    return sample(positions), positions

  def window_start(position: tf.Tensor, excess: tf.Tensor) -> tf.Tensor:
    key = (tf.constant(seed, tf.int64), position)
    low, high = tf.minimum(excess, 0), tf.maximum(excess, 0)
    return tf.random.stateless_uniform([], key, low, high + 1, tf.int64)

  steps = range(first_step, config.train.num_steps)
  dataset = _batches(
    clips, config, rows, steps, window_start, mix_noise=_noise_mixer(config)
  )
  for inputs, labels, _, _ in dataset.as_numpy_iterator():
    yield {"inputs": inputs, "labels": labels}


def eval_batches(
  clips: splits.ClipIndex,
  config: ml_collections.ConfigDict,
  *,
  process: Process,
  perturb: Callable[[np.ndarray, str], np.ndarray] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
  """Yields every clip once, in one window or in several, padded to whole batches.

  Args:
    clips: the clips of the split.
    config: the config.
    process: the part of each batch to read.
    perturb: maps a recording <float32>[samples], before it is normalised and cut, and
      its fname to what is heard of it, as long as `clips.num_samples` says.

  Yields:
    `inputs` and `labels` as in training, `clip` <int32>[local_batch] (position in
    `clips`) and `mask` <float32>[local_batch], 0 where a row is padding.
  """
  batch_size = config.evaluation.batch_size
  clip, start = eval_windows(clips, config)
  part = process.slice(batch_size)

  def rows(step: int) -> tuple[np.ndarray, np.ndarray]:
    window = step * batch_size + np.arange(part.start, part.stop)
    window[window >= len(clip)] = -1
    return clip[window], window

  def window_start(window: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    return tf.gather(start, tf.maximum(window, 0))

  steps = range(num_eval_batches(clips, config))
  dataset = _batches(clips, config, rows, steps, window_start, perturb=perturb)
  for inputs, labels, clip_of_row, window in dataset.as_numpy_iterator():
    mask = (window >= 0).astype(np.float32)
    clip_of_row = clip_of_row.astype(np.int32)
    yield {"inputs": inputs, "labels": labels, "clip": clip_of_row, "mask": mask}


def num_eval_batches(clips: splits.ClipIndex, config: ml_collections.ConfigDict) -> int:
  """The number of batches that `eval_batches` yields to each process."""
  return -(-len(eval_windows(clips, config)[0]) // config.evaluation.batch_size)


def eval_windows(
  clips: splits.ClipIndex, config: ml_collections.ConfigDict
) -> tuple[np.ndarray, np.ndarray]:
  """Lists the windows that a split is scored in.

  Returns:
    clip <int64>[windows], position in `clips`, ascending; start <int64>[windows], in
    samples. With `evaluation.crop` "windows" they start `hop_s` apart, and the last
    of a clip ends where the clip does.
  """
  excess = np.maximum(clips.num_samples - clip_samples(config), 0)
  if config.evaluation.crop == "center":
    return np.arange(len(clips)), excess // 2
  hop = round(config.evaluation.hop_s * config.frontend.sample_rate_hz)
  counts = 1 + -(-excess // hop)
  clip = np.repeat(np.arange(len(clips)), counts)
  index_in_clip = np.arange(len(clip)) - np.repeat(counts.cumsum() - counts, counts)
  return clip, np.minimum(index_in_clip * hop, excess[clip])


def clip_samples(config: ml_collections.ConfigDict) -> int:
  """The length that clips are cropped or padded to, in samples."""
  return round(config.data.clip_s * config.frontend.sample_rate_hz)


def inputs_shape(config: ml_collections.ConfigDict) -> tuple[int, ...]:
  """(frames, mels), or (samples,), of a clip of the fixed length."""
  if config.data.features == "waveform":
    return (clip_samples(config),)
  params = mel.LogMelParams(**config.frontend)
  return params.num_frames(clip_samples(config)), params.num_mels


def _noise_mixer(config: ml_collections.ConfigDict) -> Callable | None:
  """Returns the map from (waveform, position in the stream) to the noisy waveform."""
  settings = config.augment
  if not settings.noise_dir:
    return None
  recordings = noise.read_folder(settings.noise_dir, config.frontend.sample_rate_hz)

  def mix(waveform: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    # Below zero, so that they are other draws than the window's.
    key = (tf.constant(config.seed, tf.int64), -1 - position)
    share, snr_db = settings.noise_share, settings.noise_snr_db
    return noise.add_noise(waveform, recordings, key, share, snr_db)

  return mix


def _batches(
  clips, config, rows, steps: range, window_start, *, perturb=None, mix_noise=None
) -> tf.data.Dataset:
  """Builds the pipeline that training and evaluation share.

  Args:
    clips: the clips of the split.
    config: the config.
    rows: maps a step to (clip <int64>[rows], draw <int64>[rows]).
    steps: the steps to yield.
    window_start: maps (draw, samples in excess of the fixed length) to where a row
      starts in its clip, in the graph.
    perturb: see `eval_batches`.
    mix_noise: maps (waveform, draw) to the waveform with background noise, if given.

  Returns:
    A dataset of (inputs, labels, clip, draw), a batch of rows each.
  """
  params = mel.LogMelParams(**config.frontend)

  def read(step):
    clip, draw = rows(int(step))
    return np.array(clips.read(clip), object), clips.labels[clip], clip, draw

  def perturb_clip(waveform, clip):
    return perturb(waveform, str(clips.fname[clip]))

  def transform(record, labels, clip, draw):
    waveform = decode(record, clips.features)
    if perturb is not None:
      waveform = tf.numpy_function(perturb_clip, [waveform, clip], tf.float32)
      waveform = tf.ensure_shape(waveform, [None])
    waveform = normalize(waveform, config.data)
    length = clip_samples(config)
    start = window_start(draw, tf.size(waveform, tf.int64) - length)
    waveform = fix_length(waveform, length, start, config.data.pad)
    if mix_noise:
      waveform = mix_noise(waveform, draw)
    if config.data.features == "log_mel":
      waveform = logmel_tf.log_mel(waveform, params)
    return waveform, labels, clip, draw

  types = (tf.string, tf.uint8, tf.int64, tf.int64)
  num_rows = len(rows(steps.start)[0])

  def read_batch(step):
    record, labels, clip, draw = tf.numpy_function(read, [step], types)
    labels = tf.cast(tf.ensure_shape(labels, [num_rows, clips.num_classes]), tf.float32)
    row_numbers = (tf.ensure_shape(x, [num_rows]) for x in (record, clip, draw))
    record, clip, draw = row_numbers
    return record, labels, clip, draw

  return (
    tf.data.Dataset.range(steps.start, steps.stop)
    .map(read_batch, num_parallel_calls=2)
    .unbatch()
    .map(transform, num_parallel_calls=tf.data.AUTOTUNE)
    .batch(num_rows, drop_remainder=True)
    .prefetch(2)
  )


def read_waveform(
  clips: splits.ClipIndex, clip: int, data: ml_collections.ConfigDict
) -> tf.Tensor:
  """Reads one clip's normalised waveform <float32>[samples] at full length."""
  recording = decode(clips.read(np.array([clip]))[0], clips.features)
  return normalize(recording, data)


def decode(record: tf.Tensor, features: tfds.features.FeaturesDict) -> tf.Tensor:
  """Decodes an example to its waveform <float32>[samples], full scale at 1."""
  audio = features.deserialize_example(record)["audio"]
  return tf.cast(audio, tf.float32) * INT16_SCALE


def normalize(waveform: tf.Tensor, data: ml_collections.ConfigDict) -> tf.Tensor:
  """Scales a waveform <float32>[samples] to a peak of 1, or leaves it as it is."""
  if data.normalize == "none":
    return waveform
  return tf.math.divide_no_nan(waveform, tf.reduce_max(tf.abs(waveform)))


def fix_length(
  waveform: tf.Tensor, length: int, start: tf.Tensor, pad: str
) -> tf.Tensor:
  """Takes a window of `length` samples of a waveform, filling what is beyond it.

  Args:
    waveform: <float32>[samples], at least one.
    length: samples wanted.
    start: <int64>[], where the window starts in the waveform; at most 0 for one
      shorter than `length`, which then begins that many samples into the window.
    pad: "repeat" to fill up with the waveform itself, "zero" with silence.

  Returns:
    <float32>[length].
  """
  late, start = tf.maximum(-start, 0), tf.maximum(start, 0)
  if pad == "repeat":
    waveform = tf.roll(waveform, late, axis=0)
    waveform = tf.tile(waveform, [1 + (length - 1) // tf.size(waveform)])
  else:
    waveform = tf.pad(waveform, [[late, 0]])
  waveform = waveform[start : start + length]
  waveform = tf.pad(waveform, [[0, length - tf.size(waveform)]])
  return tf.ensure_shape(waveform, [length])
