"""Audio files of any length, block by block, in constant memory."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from audiotag_jax.audio import waveforms
from audiotag_jax.audio.decoders import decoding
from audiotag_jax.audio.opening import AudioError


class AudioStream:
  """The mono waveform of an audio file; each iteration decodes the file.

  Attributes:
    path: the file.
    sample_rate_hz: the rate wanted; see `waveforms.resample`.
    duration_s: seconds read so far; the file's length once it is read to the end.
  """

  def __init__(self, path: Path, sample_rate_hz: int):
    """Opens nothing yet."""
    self.path = path
    self.sample_rate_hz = sample_rate_hz
    self.duration_s = 0.0

  def __iter__(self) -> Iterator[np.ndarray]:
    """Yields blocks <float32>[samples], full scale at 1, in total at least one sample.

    Raises:
      AudioError: the file is missing, unreadable or empty, of a rate that no recording
        has, or its samples are not finite. Some blocks may come before the error.
    """
    self.duration_s = 0.0
    with decoding(self.path) as decoded:
      mono = self._mix(decoded.blocks, decoded.rate_hz)
      yield from waveforms.resample_blocks(mono, decoded.rate_hz, self.sample_rate_hz)

  def _mix(self, blocks: Iterator[np.ndarray], rate_hz: int) -> Iterator[np.ndarray]:
    """Checks blocks <float32>[samples, channels], and mixes them to mono."""
    num_samples = 0
    for channels in blocks:
      fault = waveforms.find_fault(channels)
      if fault:
        raise AudioError(fault)
      num_samples += len(channels)
      self.duration_s = num_samples / rate_hz
      yield channels.mean(axis=1)
    if not num_samples:
      raise AudioError("has no samples")
