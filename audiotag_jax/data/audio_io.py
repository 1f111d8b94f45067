"""Audio files to mono waveforms at the rate a model wants."""

from pathlib import Path

import numpy as np
import soundfile
import soxr

INT16_MAX = 2**15 - 1


class AudioError(ValueError):
  """A file that gives no usable waveform; the message is the reason, in one line."""


def read_audio(path: Path, sample_rate_hz: int) -> np.ndarray:
  """Decodes a file, mixes it to mono and resamples it.

  Args:
    path: a file that libsndfile reads.
    sample_rate_hz: the rate wanted; soxr's HQ low-pass keeps what lies above half of
      it from folding back.

  Returns:
    <float32>[samples], full scale at 1, at least one sample.

  Raises:
    AudioError: the file is missing, unreadable or empty, or its samples are not
      finite.
  """
  try:
    channels, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
  except (OSError, RuntimeError) as error:
    reason = "is missing" if not path.exists() else _first_line(error, path)
    raise AudioError(reason) from error
  if not len(channels):
    raise AudioError("holds no samples")
  waveform = channels.mean(axis=1)
  num_bad = len(waveform) - np.isfinite(waveform).sum()
  if num_bad:
    raise AudioError(f"has {num_bad} samples that are not finite")
  if rate_hz != sample_rate_hz:
    waveform = soxr.resample(waveform, rate_hz, sample_rate_hz, quality="HQ")
  # A clip shorter than the low-pass may come out empty: it stays one sample long.
  return waveform if len(waveform) else channels.mean(keepdims=True)[0]


def to_int16(waveform: np.ndarray) -> np.ndarray:
  """Quantises a waveform <float32>[samples] to <int16>[samples].

  One beyond full scale (float files, or the ringing of a resampled square wave) is
  scaled down to it as a whole, so that nothing is clipped.
  """
  peak = max(1.0, float(np.abs(waveform).max()))
  return np.rint(waveform * (INT16_MAX / peak)).astype(np.int16)


def _first_line(error: Exception, path: Path) -> str:
  text = str(error).replace(repr(str(path)), "the file").splitlines()
  return f"cannot be decoded ({text[0] if text else type(error).__name__})"
