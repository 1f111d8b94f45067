"""Background noise from a folder of recordings, for training."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from audiotag_jax.audio import folders, perturb
from audiotag_jax.audio.files import AudioError, read_audio
from audiotag_jax.audio.waveforms import INT16_SCALE, normalize, to_int16
from audiotag_jax.errors import UserError

SUFFIXES = (".aif", ".aiff", ".flac", ".mp3", ".ogg", ".opus", ".wav")


def read_folder(folder: str, sample_rate_hz: int) -> np.ndarray:
  """Reads a folder's recordings, as `folders.find` finds them, into one waveform.

  Each is scaled to full scale first, so that a quiet one keeps its quality in 16 bits;
  `add_noise` sets the level.

  Args:
    folder: the folder.
    sample_rate_hz: the rate to resample to.

  Returns:
    <int16>[samples], which stays in memory: an hour at 32 kHz takes 230 MB.

  Raises:
    UserError: the folder has no recordings, or one cannot be read.
  """
  paths = folders.find(Path(folder).expanduser(), SUFFIXES, set())
  if not paths:
    raise UserError(
      f"config.augment.noise_dir {folder} has no recordings "
      f"({', '.join(SUFFIXES)}): give a folder with recordings, or leave it empty"
    )
  waveforms = []
  for path in tqdm(paths, "reading noise", leave=False, disable=None):
    try:
      waveform = read_audio(path, sample_rate_hz)
      waveforms.append(to_int16(normalize(waveform, "peak")))
    except AudioError as error:
      raise UserError(
        f"config.augment.noise_dir: {path} {error}: remove or replace it"
      ) from error
  return np.concatenate(waveforms)


def add_noise(
  waveform: tf.Tensor,
  recordings: np.ndarray,
  key: tf.Tensor,
  share: float,
  snr_db: tuple[float, float],
) -> tf.Tensor:
  """Mixes a window of the recordings into a share of the clips.

  Args:
    waveform: <float32>[samples].
    recordings: <int16>[samples] of `read_folder`; a window that reaches the end
      continues at the beginning.
    key: <int64>[2], the key of the draws.
    share: the share of clips that get noise.
    snr_db: least and largest ratio of the clip's mean power to the noise's.

  Returns:
    <float32>[samples].
  """
  chosen, place, level = tf.unstack(tf.random.stateless_uniform([3], key))
  length = waveform.shape[0]
  low, high = snr_db

  def mix(waveform: np.ndarray, place: np.ndarray, snr_db: np.ndarray) -> np.ndarray:
    start = int(np.float64(place) * len(recordings))
    window = recordings.take(np.arange(start, start + length), mode="wrap")
    return perturb.mix(waveform, window * INT16_SCALE, np.float64(snr_db))

  def noisy() -> tf.Tensor:
    inputs = [waveform, place, low + level * (high - low)]
    return tf.ensure_shape(tf.numpy_function(mix, inputs, tf.float32), [length])

  return tf.cond(chosen < share, noisy, lambda: waveform)
