"""Audio files of any length, block by block, in constant memory."""

import contextlib
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from audiotag_jax.data.audio_io import AudioError, find_fault, one_line

# Values of all channels that are decoded at once.
BLOCK_VALUES = 2**20


class AudioStream:
  """The mono waveform of an audio file.

  Iterating it decodes the file, once, by libsndfile or, what that does not know, by the
  program ffmpeg, if there is one on the PATH.

  Attributes:
    path: the file.
    sample_rate_hz: the rate wanted: see `waveforms.to_mono`.
    duration_s: how much of it has been read; its length when iterated to the end.
  """

  def __init__(self, path: Path, sample_rate_hz: int):
    """Opens nothing yet."""
    self.path = path
    self.sample_rate_hz = sample_rate_hz
    self.duration_s = 0.0

  def __iter__(self) -> Iterator[np.ndarray]:
    """Yields blocks <float32>[samples], full scale at 1, in all at least one sample.

    Raises:
      AudioError: the file is missing, unreadable or empty, or its samples are not
        finite; before or after some blocks.
    """
    self.duration_s = 0.0
    try:
      # A pipe would block, and a device never end.
      if self.path.exists() and not self.path.is_file():
        raise AudioError("is not a file")
      with open(self.path, "rb", buffering=0) as file, contextlib.ExitStack() as stack:
        yield from self._resample(*_open(file, stack))
    except FileNotFoundError as error:
      raise AudioError("is missing") from error
    except OSError as error:
      reason = one_line(error.strerror or error)
      raise AudioError(f"cannot be read ({reason})") from error
    except soundfile.LibsndfileError as error:
      raise AudioError(f"cannot be decoded ({one_line(error)})") from error

  def _resample(
    self, rate_hz: int, blocks: Iterator[np.ndarray]
  ) -> Iterator[np.ndarray]:
    """Maps blocks <float32>[samples, channels] to mono at the rate wanted."""
    same = rate_hz == self.sample_rate_hz
    resampler = soxr.ResampleStream(rate_hz, self.sample_rate_hz, 1, quality="HQ")
    num_samples, num_given, total = 0, 0, 0.0
    for channels in blocks:
      fault = find_fault(channels)
      if fault:
        raise AudioError(fault)
      mono = channels.mean(axis=1)
      num_samples += len(mono)
      total += float(mono.sum())
      self.duration_s = num_samples / rate_hz
      block = mono if same else resampler.resample_chunk(mono)
      num_given += len(block)
      yield block
    if not num_samples:
      raise AudioError("holds no samples")
    if not same:
      block = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
      num_given += len(block)
      yield block
    # A clip shorter than the low-pass may come out empty: it stays one sample long.
    if not num_given:
      yield np.array([total / num_samples], np.float32)


def _open(
  file: BinaryIO, stack: contextlib.ExitStack
) -> tuple[int, Iterator[np.ndarray]]:
  """Returns a file's rate and its blocks <float32>[samples, channels]."""
  if not file.read(1):
    raise AudioError("is empty")
  file.seek(0)
  try:
    # By its descriptor: by its name, soundfile takes x.raw for a file without a header.
    sound = stack.enter_context(soundfile.SoundFile(file.fileno(), closefd=False))
  except soundfile.LibsndfileError as error:
    reason = f"libsndfile: {one_line(error.error_string)}"
  else:
    return sound.samplerate, _read_libsndfile(sound)
  program = shutil.which("ffmpeg")
  if not program:
    raise AudioError(f"cannot be decoded ({reason}; installing ffmpeg may help)")
  return _open_with_ffmpeg(program, os.path.abspath(file.name), reason, stack)


def _read_libsndfile(sound: soundfile.SoundFile) -> Iterator[np.ndarray]:
  num_frames = max(1, BLOCK_VALUES // sound.channels)
  while True:
    block = sound.read(num_frames, dtype="float32", always_2d=True)
    if not len(block):
      return
    yield block


def _open_with_ffmpeg(
  program: str, path: str, reason: str, stack: contextlib.ExitStack
) -> tuple[int, Iterator[np.ndarray]]:
  """Decodes the first audio stream of a file, at its own rate and channels."""
  command = [program, "-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe"]
  command += ["-i", f"file:{path}", "-map", "0:a:0"]
  command += ["-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
  messages = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
  process = stack.enter_context(
    subprocess.Popen(
      command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=messages
    )
  )
  # One that is still decoding when its reader has had enough would wait for ever.
  stack.callback(process.kill)

  def check() -> None:
    if process.wait():
      messages.seek(0)
      cause = one_line(messages.read().decode(errors="replace"))
      raise AudioError(f"cannot be decoded ({reason}; ffmpeg: {cause})")

  header = process.stdout.read(24)
  if len(header) < 24:
    check()
    raise AudioError("holds no samples")
  # Of Sun's format: magic, offset of the samples, their size, type, rate, channels.
  _, offset, _, _, rate_hz, num_channels = struct.unpack(">6I", header)
  process.stdout.read(offset - 24)

  def blocks() -> Iterator[np.ndarray]:
    num_bytes = 4 * num_channels * max(1, BLOCK_VALUES // num_channels)
    while data := process.stdout.read(num_bytes):
      values = np.frombuffer(data[: len(data) // 4 * 4], ">f4").astype(np.float32)
      whole = len(values) // num_channels * num_channels
      yield values[:whole].reshape(-1, num_channels)
    check()

  return rate_hz, blocks()
