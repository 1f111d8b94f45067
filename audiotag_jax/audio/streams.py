"""Audio files of any length, block by block, in constant memory."""

import contextlib
import os
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from audiotag_jax.audio import files, waveforms

# Values of all channels that are decoded at once.
BLOCK_VALUES = 2**20


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
    with files.opened(self.path) as file, contextlib.ExitStack() as stack:
      rate_hz, blocks = _decode(file, self.path, stack)
      files.check_rate(rate_hz)
      mono = self._mix(blocks, rate_hz)
      yield from waveforms.resample_blocks(mono, rate_hz, self.sample_rate_hz)

  def _mix(self, blocks: Iterator[np.ndarray], rate_hz: int) -> Iterator[np.ndarray]:
    """Checks blocks <float32>[samples, channels], and mixes them to mono."""
    num_samples = 0
    for channels in blocks:
      fault = waveforms.find_fault(channels)
      if fault:
        raise files.AudioError(fault)
      num_samples += len(channels)
      self.duration_s = num_samples / rate_hz
      yield channels.mean(axis=1)
    if not num_samples:
      raise files.AudioError("has no samples")


def _decode(
  file: BinaryIO, path: Path, stack: contextlib.ExitStack
) -> tuple[int, Iterator[np.ndarray]]:
  """Returns a file's rate and its blocks <float32>[samples, channels]."""
  try:
    sound = stack.enter_context(files.open_sound(file))
  except files.UnknownFormatError as error:
    return _decode_with_ffmpeg(os.path.abspath(path), error, stack)
  return sound.samplerate, _read_libsndfile(sound)


def _read_libsndfile(sound: soundfile.SoundFile) -> Iterator[np.ndarray]:
  num_frames = max(1, BLOCK_VALUES // sound.channels)
  while True:
    block = sound.read(num_frames, dtype="float32", always_2d=True)
    if not len(block):
      return
    yield block


def _decode_with_ffmpeg(
  path: str, cause: files.UnknownFormatError, stack: contextlib.ExitStack
) -> tuple[int, Iterator[np.ndarray]]:
  command = files.ffmpeg_command(files.find_ffmpeg(cause), path)
  messages = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
  process = stack.enter_context(
    subprocess.Popen(
      command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages
    )
  )
  # Killed, because ffmpeg would wait for ever if the reader stops while it decodes.
  stack.callback(process.kill)

  def check() -> None:
    if process.wait():
      messages.seek(0)
      message = files.one_line(messages.read().decode(errors="replace"))
      raise files.ffmpeg_error(cause, message)

  output = process.stdout
  assert output is not None  # It is a pipe.
  header = output.read(24)
  if len(header) < 24:
    check()
    raise files.AudioError("has no samples")
  # Sun's header: magic, offset of the samples, their size, type, rate, channels.
  _, offset, _, _, rate_hz, num_channels = struct.unpack(">6I", header)
  output.read(offset - 24)

  def blocks() -> Iterator[np.ndarray]:
    num_bytes = 4 * num_channels * max(1, BLOCK_VALUES // num_channels)
    while data := output.read(num_bytes):
      values = np.frombuffer(data[: len(data) // 4 * 4], ">f4").astype(np.float32)
      whole = len(values) // num_channels * num_channels
      yield values[:whole].reshape(-1, num_channels)
    check()

  return rate_hz, blocks()
