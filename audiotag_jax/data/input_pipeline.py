"""tf.data pipelines: read -> normalise -> noise -> log-mel -> fix length -> batch.

The log-mel is computed for the whole clip; cropping and padding act on its frames, so
cached and computed log-mels agree. Waveforms, for models that take them, are cropped
and padded by samples.

The training stream at a step is a function of (seed, step) alone, so a resumed run
starts its stream at its step, at no cost. Evaluation yields every clip once.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import ml_collections
import numpy as np
import tensorflow as tf

from audiotag_jax.data import noise, sampling
from audiotag_jax.data.clips import ClipIndex, Errors, decode, normalize
from audiotag_jax.data.inputs import inputs_shape
from audiotag_jax.frontend import log_mel_tf, mel


@dataclasses.dataclass(frozen=True)
class Process:
  """This process's number among those that read a data set together."""

  index: int = 0
  count: int = 1

  def slice(self, batch_size: int) -> slice:
    """This process's part of a global batch."""
    local_size = batch_size // self.count
    return slice(self.index * local_size, (self.index + 1) * local_size)


class Rows(NamedTuple):
  """The clips and windows of a batch's rows.

  Attributes:
    clip: <int64>[rows], position in the split; padding repeats the last window.
    start: <int64>[rows], where the window starts in the clip, in frames of log-mels or
      samples of waveforms; below 0 if the clip starts that far into its window.
    draw: <int64>[rows], in training the key of a row's random draws, in evaluation the
      window's number, -1 for padding.
  """

  clip: np.ndarray
  start: np.ndarray
  draw: np.ndarray


def train_batches(
  clips: ClipIndex,
  config: ml_collections.ConfigDict,
  *,
  first_step: int,
  process: Process,
) -> Iterator[dict[str, np.ndarray]]:
  """Yields the training batches of steps `first_step` to `config.train.num_steps`.

  `data.sampling` chooses the clips. The window of a longer clip is drawn from anywhere
  in the clip; a shorter clip is put anywhere in its window.

  Args:
    clips: the clips of the split.
    config: the config.
    first_step: steps already taken.
    process: the part of the batch to read.

  Yields:
    `inputs`, by `data.features` log-mels <float32>[local_batch, frames, mels] (float16
    if they are cached) or waveforms <float32>[local_batch, samples], and `labels`
    <float32>[local_batch, classes].
  """
  batch_size, seed = config.train.batch_size, config.seed
  sample = sampling.create_sampler(config.data.sampling, clips.labels, seed)
  excess = _lengths(clips, config) - inputs_shape(config)[0]

  def rows(step: int) -> Rows:
    part = process.slice(batch_size)
    positions = step * batch_size + np.arange(part.start, part.stop)
    clip = sample(positions)
    start = [
      np.random.default_rng((seed, position)).integers(min(0, n), max(0, n) + 1)
      for position, n in zip(positions, excess[clip], strict=True)
    ]
    return Rows(clip, np.array(start), positions)

  steps = range(first_step, config.train.num_steps)
  for inputs, labels, *_ in _batches(clips, config, rows, steps, training=True):
    yield {"inputs": inputs, "labels": labels}


def eval_batches(
  clips: ClipIndex,
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
      its fname to the perturbed recording, as long as `clips.num_samples` says.

  Yields:
    `inputs` and `labels` as in training, `clip` <int32>[local_batch] (position in
    `clips`) and `mask` <float32>[local_batch], 0 where a row is padding.
  """
  batch_size = config.evaluation.batch_size
  clip, start = eval_windows(clips, config)
  part = process.slice(batch_size)

  def rows(step: int) -> Rows:
    window = step * batch_size + np.arange(part.start, part.stop)
    window[window >= len(clip)] = -1
    return Rows(clip[window], start[window], window)

  steps = range(num_eval_batches(clips, config))
  batches = _batches(clips, config, rows, steps, perturb=perturb)
  for inputs, labels, clip_of_row, window in batches:
    mask = (window >= 0).astype(np.float32)
    clip_of_row = clip_of_row.astype(np.int32)
    yield {"inputs": inputs, "labels": labels, "clip": clip_of_row, "mask": mask}


def num_eval_batches(clips: ClipIndex, config: ml_collections.ConfigDict) -> int:
  """The number of batches that `eval_batches` yields to each process."""
  return -(-len(eval_windows(clips, config)[0]) // config.evaluation.batch_size)


def eval_windows(
  clips: ClipIndex, config: ml_collections.ConfigDict
) -> tuple[np.ndarray, np.ndarray]:
  """Lists the windows that a split is scored in.

  Returns:
    clip <int64>[windows], position in `clips`, ascending; start <int64>[windows], as in
    `Rows`. With `evaluation.crop` "windows", a clip's windows start `hop_s` apart, and
    its last window ends where the clip ends.
  """
  excess = np.maximum(_lengths(clips, config) - inputs_shape(config)[0], 0)
  if config.evaluation.crop == "center":
    return np.arange(len(clips)), excess // 2
  rate_hz = config.frontend.sample_rate_hz / _samples_per_unit(config)
  hop = max(1, round(config.evaluation.hop_s * rate_hz))
  counts = 1 + -(-excess // hop)
  clip = np.repeat(np.arange(len(clips)), counts)
  index_in_clip = np.arange(len(clip)) - np.repeat(counts.cumsum() - counts, counts)
  return clip, np.minimum(index_in_clip * hop, excess[clip])


def _samples_per_unit(config: ml_collections.ConfigDict) -> int:
  """Samples between neighbouring frames, or neighbouring samples, of the inputs."""
  return 1 if config.data.features == "waveform" else config.frontend.hop_samples


def _lengths(clips: ClipIndex, config: ml_collections.ConfigDict) -> np.ndarray:
  """Frames, or samples, of each clip <int64>[clips]."""
  if config.data.features == "waveform":
    return clips.num_samples
  return mel.LogMelParams(**config.frontend).num_frames(clips.num_samples)


def _noise_mixer(config: ml_collections.ConfigDict) -> Callable | None:
  """Returns the map from (waveform, position in the stream) to the noisy waveform."""
  settings = config.augment
  if not settings.noise_dir:
    return None
  recordings = noise.read_folder(settings.noise_dir, config.frontend.sample_rate_hz)

  def mix(waveform: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    # A negative key, so that the draws differ from the window's.
    key = (tf.constant(config.seed, tf.int64), -1 - position)
    share, snr_db = settings.noise_share, settings.noise_snr_db
    return noise.add_noise(waveform, recordings, key, share, snr_db)

  return mix


def _batches(
  clips: ClipIndex,
  config: ml_collections.ConfigDict,
  rows: Callable[[int], Rows],
  steps: range,
  *,
  training: bool = False,
  perturb: Callable | None = None,
) -> Iterator[tuple[np.ndarray, ...]]:
  """Yields (inputs, labels, clip, draw) of steps, in training and in evaluation.

  Args:
    clips: the clips of the split.
    config: the config.
    rows: maps a step to the rows of its batch.
    steps: the steps to yield.
    training: whether background noise is mixed in, if the config says so.
    perturb: see `eval_batches`.

  Raises:
    UserError: a clip is missing in the prepared set, or not what was written.
  """
  errors = Errors()
  # Without noise or perturbation, cached log-mels need no waveform.
  if clips.log_mels is not None and perturb is None:
    dataset = _from_log_mels(clips, config, rows, steps, errors)
  else:
    mix_noise = _noise_mixer(config) if training else None
    dataset = _from_waveforms(clips, config, rows, steps, errors, perturb, mix_noise)
  return errors.raised(dataset.prefetch(2).as_numpy_iterator())


def _from_log_mels(
  clips: ClipIndex,
  config: ml_collections.ConfigDict,
  rows: Callable[[int], Rows],
  steps: range,
  errors: Errors,
) -> tf.data.Dataset:
  length, num_mels = inputs_shape(config)
  num_frames = _lengths(clips, config)
  frame_bytes = 2 * num_mels

  def read(step: np.ndarray) -> tuple[np.ndarray, ...]:
    clip, start, draw = rows(int(step))
    first = np.maximum(start, 0)
    count = np.minimum(num_frames[clip], length)
    parts = clips.read_log_mels(clip, first * frame_bytes, count * frame_bytes)
    log_mels = np.empty((len(clip), length, num_mels), np.float16)
    for row, part, late in zip(log_mels, parts, np.maximum(-start, 0), strict=True):
      frames = np.frombuffer(part, np.float16).reshape(-1, num_mels)
      _fill(row, frames, late, config.data.pad)
    return log_mels, _labels(clips, clip), clip, draw

  types = (tf.float16, tf.float32, tf.int64, tf.int64)
  return tf.data.Dataset.range(steps.start, steps.stop).map(
    lambda step: tf.numpy_function(errors.kept(read), [step], types),
    num_parallel_calls=tf.data.AUTOTUNE,
  )


def _fill(row: np.ndarray, frames: np.ndarray, late: int, pad: str) -> None:
  """`fix_length` for log-mels in numpy: fills a row <float16>[length, mels]."""
  if len(frames) == len(row):
    row[:] = frames
  elif pad == "repeat":
    row[:] = frames[(np.arange(len(row)) - late) % len(frames)]
  else:
    row[:] = mel.MIN_DB
    row[late : late + len(frames)] = frames


def _labels(clips: ClipIndex, clip: np.ndarray) -> np.ndarray:
  return clips.labels[clip].toarray().astype(np.float32)


def _from_waveforms(
  clips: ClipIndex,
  config: ml_collections.ConfigDict,
  rows: Callable[[int], Rows],
  steps: range,
  errors: Errors,
  perturb: Callable | None,
  mix_noise: Callable | None,
) -> tf.data.Dataset:
  length = inputs_shape(config)[0]

  def read(step: np.ndarray) -> tuple[np.ndarray, ...]:
    clip, start, draw = rows(int(step))
    records = np.array(clips.read(clip), object)
    return records, _labels(clips, clip), clip, start, draw

  def transform(
    record: tf.Tensor,
    labels: tf.Tensor,
    clip: tf.Tensor,
    start: tf.Tensor,
    draw: tf.Tensor,
  ) -> tuple[tf.Tensor, ...]:
    waveform = decode(record, clips.features)
    if perturb is not None:
      waveform = tf.numpy_function(
        lambda waveform, clip: perturb(waveform, str(clips.fname[clip])),
        [waveform, clip],
        tf.float32,
      )
      waveform = tf.ensure_shape(waveform, [None])
    waveform = normalize(waveform, config.data)
    mix = (lambda x: mix_noise(x, draw)) if mix_noise else (lambda x: x)
    if config.data.features == "waveform":
      inputs = mix(fix_length(waveform, length, start, config.data.pad))
    else:
      inputs = _log_mel_window(waveform, start, config, mix)
    return inputs, labels, clip, draw

  types = (tf.string, tf.float32, tf.int64, tf.int64, tf.int64)
  num_rows = len(rows(steps.start).clip)

  def read_batch(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
    record, labels, *numbers = tf.numpy_function(errors.kept(read), [step], types)
    labels = tf.ensure_shape(labels, [num_rows, clips.num_classes])
    return tuple(
      [tf.ensure_shape(record, [num_rows]), labels]
      + [tf.ensure_shape(x, [num_rows]) for x in numbers]
    )

  return (
    tf.data.Dataset.range(steps.start, steps.stop)
    .map(read_batch, num_parallel_calls=2)
    .unbatch()
    .map(transform, num_parallel_calls=tf.data.AUTOTUNE)
    .batch(num_rows, drop_remainder=True)
  )


def _log_mel_window(
  waveform: tf.Tensor,
  start: tf.Tensor,
  config: ml_collections.ConfigDict,
  mix: Callable[[tf.Tensor], tf.Tensor],
) -> tf.Tensor:
  """Computes the window of a clip's log-mel <float32>[frames, mels] from `start` on."""
  params = mel.LogMelParams(**config.frontend)
  length = inputs_shape(config)[0]
  num_frames = params.num_frames(tf.size(waveform, tf.int64))
  first, count = tf.maximum(start, 0), tf.minimum(num_frames, length)
  log_mel = log_mel_tf.log_mel_frames(mix(waveform), params, first, count)
  return fix_length(
    log_mel, length, tf.minimum(start, 0), config.data.pad, silence=mel.MIN_DB
  )


def fix_length(
  x: tf.Tensor, length: int, start: tf.Tensor, pad: str, silence: float = 0.0
) -> tf.Tensor:
  """Takes a window of `length` samples or frames, and fills it beyond the clip.

  Args:
    x: <float32>[samples] or [frames, mels], at least one.
    length: samples or frames wanted.
    start: <int64>[], where the window starts in the clip; at most 0 for a clip shorter
      than `length`, which then begins that far into the window.
    pad: "repeat" to fill up with the clip itself, "zero" with silence.
    silence: the value of silence in `x`.

  Returns:
    <float32>[length] or [length, mels].
  """
  late, start = tf.maximum(-start, 0), tf.maximum(start, 0)
  others = [[0, 0]] * (len(x.shape) - 1)
  x = x[start : start + length]
  if pad == "repeat":
    x = tf.roll(x, late, axis=0)
    x = tf.tile(x, [1 + (length - 1) // tf.shape(x)[0]] + [1] * len(others))
    x = x[:length]
  else:
    x = tf.pad(x, [[late, 0], *others], constant_values=silence)
  missing = length - tf.shape(x)[0]
  x = tf.pad(x, [[0, missing], *others], constant_values=silence)
  return tf.ensure_shape(x, [length, *x.shape[1:]])
