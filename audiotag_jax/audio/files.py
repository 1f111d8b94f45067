"""Whole audio files, or parts of them, in memory."""

import math

import numpy as np

from audiotag_jax.audio import waveforms
from audiotag_jax.audio.decoders import decoding
from audiotag_jax.audio.opening import AudioError, AudioFile

MAX_CLIP_S = 600.0
# Samples times channels, 1 GiB as float32: `MAX_CLIP_S` of stereo at 192 kHz fits.
MAX_VALUES = 2**28
CUT_IT = "cut it with start_s and end_s"


def decode(
  audio: AudioFile, start_s: float = 0.0, end_s: float | None = None
) -> tuple[np.ndarray, int]:
  """Decodes a file, or a part of it.

  If the file is local, only the part is read. A part that ffmpeg decodes may be shifted
  by some milliseconds if the format stores times coarsely (webm, ac3; by tens of
  milliseconds in wma).

  Args:
    audio: a file that libsndfile or ffmpeg reads.
    start_s: where the part starts, on the file's own timeline.
    end_s: where the part ends, perhaps beyond the file's end; None for the file's end.

  Returns:
    Its channels <float32>[samples, channels], full scale at 1, at least one sample,
    and their rate in Hz.

  Raises:
    AudioError: the file is missing, unreadable or empty, longer than `MAX_CLIP_S`, of
      a rate that no recording has, or its samples are not finite; or the file does not
      contain the part.
  """
  if not 0 <= start_s < math.inf:
    raise AudioError(f"has start_s {start_s}, which is not 0 or more")
  if end_s is not None and not end_s > start_s:
    raise AudioError(f"has end_s {end_s}, which is not after start_s {start_s}")
  with decoding(audio, start_s, math.inf if end_s is None else end_s) as decoded:
    rate_hz, num_channels, num_samples, blocks = decoded
    _check_length(num_samples or 0, rate_hz, num_channels, is_all=True)
    held, num_held = [], 0
    for block in blocks:
      held.append(block)
      num_held += len(block)
      _check_length(num_held, rate_hz, num_channels, is_all=False)
    if not num_held:
      raise AudioError("has no samples")
    channels = held[0] if len(held) == 1 else np.concatenate(held)
  fault = waveforms.find_fault(channels)
  if fault:
    raise AudioError(fault)
  return channels, rate_hz


def _check_length(
  num_samples: int, rate_hz: int, num_channels: int, *, is_all: bool
) -> None:
  """Raises `AudioError` if a clip, or the samples of it so far, are too many."""
  length_s = num_samples / rate_hz
  if length_s > MAX_CLIP_S:
    reason = f"is {length_s:.1f} s long, more than {MAX_CLIP_S:.0f}"
    if not is_all:
      reason = f"is more than {MAX_CLIP_S:.0f} s long"
    raise AudioError(f"{reason}: {CUT_IT}")
  num_values = num_samples * num_channels
  if num_values > MAX_VALUES:
    at_least = "" if is_all else "at least "
    raise AudioError(
      f"holds {at_least}{num_values} values in all its channels, more than "
      f"{MAX_VALUES}: {CUT_IT}"
    )


def read_audio(
  audio: AudioFile,
  sample_rate_hz: int,
  start_s: float = 0.0,
  end_s: float | None = None,
) -> np.ndarray:
  """Decodes a file, or a part of it, mixes it to mono and resamples it.

  Args:
    audio: a file that libsndfile or ffmpeg reads.
    sample_rate_hz: the rate wanted; see `waveforms.resample`.
    start_s: where the part starts, on the file's own timeline.
    end_s: where the part ends; None for the file's end.

  Returns:
    <float32>[samples], full scale at 1, at least one sample.

  Raises:
    AudioError: see `decode`.
  """
  channels, rate_hz = decode(audio, start_s, end_s)
  return waveforms.resample(channels.mean(axis=1), rate_hz, sample_rate_hz)
