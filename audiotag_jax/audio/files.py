"""Audio files, decoded: whole, in part or, in `streams`, block by block.

libsndfile decodes a file; the program ffmpeg, if it is on the PATH, decodes what
libsndfile does not know.
"""

import contextlib
import io
import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import BinaryIO, Protocol

import numpy as np
import soundfile

from audiotag_jax.audio import waveforms

MAX_CLIP_S = 600.0
# Samples times channels, 1 GiB as float32: `MAX_CLIP_S` of stereo at 192 kHz fits.
MAX_VALUES = 2**28
# libsndfile's value for a length that the header lacks (SF_COUNT_MAX).
UNKNOWN_LENGTH = 2**63 - 1
FFMPEG_TIMEOUT_S = 120.0
# Decoding starts this long before a part, because decoders of mp3 and aac give silence
# or worse right after a seek.
RUN_UP_S = 2.0


class AudioFile(Protocol):
  """A path on any file system that etils reads, or an object that is read like one."""

  @property
  def name(self) -> str: ...

  def read_bytes(self) -> bytes: ...


class AudioError(ValueError):
  """A file that gives no usable waveform; the message is the reason, in one line."""


class UnknownFormatError(Exception):
  """libsndfile does not read the file, but ffmpeg may; the message is the reason."""


def decode(
  audio: AudioFile, start_s: float = 0.0, end_s: float | None = None
) -> tuple[np.ndarray, int]:
  """Decodes a file, or a part of it.

  If the file is local, only the part is read. A part that ffmpeg decodes may be shifted
  by some milliseconds if the format stores times coarsely (webm, ac3; by tens of
  milliseconds in wma).

  Args:
    audio: a file that libsndfile or ffmpeg reads.
    start_s: where the part starts.
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
  with opened(audio) as file:
    try:
      channels, rate_hz = _decode_with_libsndfile(file, start_s, end_s)
    except UnknownFormatError as error:
      program = find_ffmpeg(error)
      with _path_of(file, audio) as path:
        channels, rate_hz = _decode_with_ffmpeg(program, path, start_s, end_s, error)
  fault = waveforms.find_fault(channels) if channels.size else "has no samples"
  if fault:
    raise AudioError(fault)
  return channels, rate_hz


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
    start_s: where the part starts.
    end_s: where the part ends; None for the file's end.

  Returns:
    <float32>[samples], full scale at 1, at least one sample.

  Raises:
    AudioError: see `decode`.
  """
  channels, rate_hz = decode(audio, start_s, end_s)
  return waveforms.resample(channels.mean(axis=1), rate_hz, sample_rate_hz)


@contextlib.contextmanager
def opened(audio: AudioFile) -> Iterator[BinaryIO]:
  """Opens a local file, or a copy in memory of any other file.

  Raises:
    AudioError: the file cannot be opened or is empty, or the block ends with an error
      of reading or decoding, or for want of memory.
  """
  try:
    with _open(audio) as file:
      if not file.read(1):
        raise AudioError("is empty")
      file.seek(0)
      yield file
  except AudioError:
    raise
  except FileNotFoundError as error:
    raise AudioError("is missing") from error
  except OSError as error:
    reason = one_line(error.strerror or error)
    raise AudioError(f"cannot be read ({reason})") from error
  except (RuntimeError, ValueError) as error:
    raise AudioError(f"cannot be decoded ({one_line(error)})") from error
  except MemoryError as error:
    raise AudioError("cannot be decoded (there is not enough memory)") from error


@contextlib.contextmanager
def _open(audio: AudioFile) -> Iterator[BinaryIO]:
  if not isinstance(audio, os.PathLike) or "://" in str(audio):
    yield io.BytesIO(audio.read_bytes())
    return
  # A pipe would block, and a device would never end.
  if os.path.exists(audio) and not os.path.isfile(audio):
    raise AudioError("is not a file")
  # Opened by descriptor, because soundfile assumes that a file x.raw has no header.
  with open(os.open(audio, os.O_RDONLY), "rb") as file:
    yield file


class _Seekable:
  """A file for libsndfile, which seeks to where a damaged header points.

  An exception in its callback would print a traceback, and decoding would continue.
  """

  def __init__(self, file: BinaryIO):
    self._file = file
    self.read, self.tell = file.read, file.tell
    self.readinto = file.readinto  # type: ignore[attr-defined]

  def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
    """Moves to a place, or stays if a file cannot have it, as C's fseek does."""
    with contextlib.suppress(OSError, ValueError, OverflowError):
      return self._file.seek(offset, whence)
    return -1


def open_sound(file: BinaryIO) -> soundfile.SoundFile:
  """Opens a file in libsndfile; raises `UnknownFormatError` if libsndfile refuses."""
  try:
    return soundfile.SoundFile(_Seekable(file))
  except soundfile.LibsndfileError as error:
    raise UnknownFormatError(one_line(error.error_string)) from error


def check_rate(rate_hz: int) -> None:
  """Raises `AudioError` for a rate that no recording has."""
  fault = waveforms.find_rate_fault(rate_hz)
  if fault:
    raise AudioError(fault)


def _decode_with_libsndfile(
  file: BinaryIO, start_s: float, end_s: float | None
) -> tuple[np.ndarray, int]:
  with open_sound(file) as sound:
    if sound.frames == UNKNOWN_LENGTH:
      raise UnknownFormatError("the header gives no length")
    rate_hz = sound.samplerate
    check_rate(rate_hz)
    stop = sound.frames
    if end_s is not None:
      stop = round(min(stop, end_s * rate_hz))
    start = round(min(start_s * rate_hz, sound.frames))
    if start_s and start >= sound.frames:
      raise AudioError(
        f"is {sound.frames / rate_hz:.1f} s long and ends before start_s {start_s}"
      )
    length_s = (stop - start) / rate_hz
    if length_s > MAX_CLIP_S:
      raise AudioError(
        f"is {length_s:.1f} s long, more than {MAX_CLIP_S:.0f}: cut it with start_s "
        "and end_s"
      )
    _check_num_values((stop - start) * sound.channels)
    run_up = min(start, round(RUN_UP_S * rate_hz))
    sound.seek(start - run_up)
    # One call: soundfile seeks after each read, which would need another run-up.
    channels = sound.read(run_up + stop - start, dtype="float32", always_2d=True)
    return channels[run_up:], rate_hz


def find_ffmpeg(cause: UnknownFormatError) -> str:
  """Finds the program ffmpeg, for a file that libsndfile does not read.

  Raises:
    AudioError: ffmpeg is not on the PATH.
  """
  program = shutil.which("ffmpeg")
  if not program:
    raise AudioError(
      f"cannot be decoded (libsndfile: {cause}; installing ffmpeg may help)"
    )
  return program


def ffmpeg_command(
  program: str, path: str, before: Sequence[str] = (), after: Sequence[str] = ()
) -> list[str]:
  """Returns the command that writes a file's first audio stream to standard output.

  The output is in Sun's format, 32-bit float, at the stream's own rate and channels.

  Args:
    program: the path of ffmpeg.
    path: the file; ffmpeg fetches nothing from network addresses in it.
    before: the input's options.
    after: the output's options.
  """
  command = [program, "-nostdin", "-v", "error", "-protocol_whitelist", "file"]
  command += [*before, "-i", f"file:{path}", "-map", "0:a:0", *after]
  return [*command, "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]


def ffmpeg_error(cause: UnknownFormatError, reason: str) -> AudioError:
  """Words why neither libsndfile nor ffmpeg decodes a file."""
  return AudioError(f"cannot be decoded (libsndfile: {cause}; ffmpeg: {reason})")


def _decode_with_ffmpeg(
  program: str,
  path: str,
  start_s: float,
  end_s: float | None,
  cause: UnknownFormatError,
) -> tuple[np.ndarray, int]:
  skipped_s = max(0.0, start_s - RUN_UP_S)
  longest_s = MAX_CLIP_S + 1
  if end_s is not None:
    longest_s = min(longest_s, end_s - start_s)
  # -ss 0 would include the encoder's padding before the start.
  before = ["-ss", f"{skipped_s:.6f}"] if skipped_s else []
  after = ["-ss", f"{start_s - skipped_s:.6f}", "-t", f"{longest_s:.6f}"]
  after += ["-fs", str(5 * MAX_VALUES)]
  try:
    done = subprocess.run(
      ffmpeg_command(program, path, before, after),
      stdin=subprocess.DEVNULL,
      capture_output=True,
      timeout=FFMPEG_TIMEOUT_S,
      check=True,
    )
  except subprocess.CalledProcessError as error:
    message = one_line(error.stderr.decode(errors="replace"))
    raise ffmpeg_error(cause, message) from error
  except subprocess.TimeoutExpired as error:
    raise ffmpeg_error(cause, f"takes more than {FFMPEG_TIMEOUT_S:.0f} s") from error
  with soundfile.SoundFile(io.BytesIO(done.stdout)) as sound:
    rate_hz = sound.samplerate
    check_rate(rate_hz)
    if start_s and not sound.frames:
      raise AudioError(f"ends before start_s {start_s}")
    if sound.frames > MAX_CLIP_S * rate_hz:
      raise AudioError(
        f"is more than {MAX_CLIP_S:.0f} s long: cut it with start_s and end_s"
      )
    _check_num_values(len(done.stdout) // 4)
    return sound.read(dtype="float32", always_2d=True), rate_hz


@contextlib.contextmanager
def _path_of(file: BinaryIO, audio: AudioFile) -> Iterator[str]:
  """Yields a file's path on disk; one in memory is copied there for the block."""
  if not isinstance(file, io.BytesIO):
    yield os.path.abspath(str(audio))
    return
  with tempfile.NamedTemporaryFile(suffix=PurePosixPath(audio.name).suffix) as copy:
    copy.write(file.getbuffer())
    copy.flush()
    yield copy.name


def _check_num_values(num_values: int) -> None:
  if num_values > MAX_VALUES:
    raise AudioError(
      f"holds {num_values} values in all its channels, more than {MAX_VALUES}: cut it "
      "with start_s and end_s"
    )


def one_line(reason: object) -> str:
  """Returns a message's first line, without ffmpeg's addresses or a full stop."""
  lines = str(reason).splitlines() or [type(reason).__name__]
  return re.sub(r"^(\[[^\]]* @ 0x[^\]]*\] )*", "", lines[0]).rstrip(". ")
