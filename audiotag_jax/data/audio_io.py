"""Audio files to mono waveforms at the rate a model wants."""

import contextlib
import io
import math
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from audiotag_jax.data.archives import Member
from audiotag_jax.data.source import AudioFile

INT16_MAX = 2**15 - 1
MAX_CLIP_S = 600.0
# Samples times channels, 1 GiB as float32: `MAX_CLIP_S` of stereo at 192 kHz fits.
MAX_VALUES = 2**28
# Some files hold 32-bit integers as floats; what is larger still is no audio.
MAX_PEAK = 2.0**32
# What libsndfile gives for a length that the header lacks (SF_COUNT_MAX).
UNKNOWN_LENGTH = 2**63 - 1
FFMPEG_TIMEOUT_S = 120.0
# Decoders are sent this far before a part's start: those of mp3 and aac begin with
# silence or worse where they are sent to.
RUN_UP_S = 2.0


class AudioError(ValueError):
  """A file that gives no usable waveform; the message is the reason, in one line."""


class _UnknownFormatError(Exception):
  """libsndfile does not read the file; ffmpeg may."""


def decode(
  audio: AudioFile, start_s: float = 0.0, end_s: float | None = None
) -> tuple[np.ndarray, int]:
  """Decodes a file, or a part of it.

  Of a local file only the part is read. What libsndfile does not know goes to the
  program ffmpeg, if there is one on the PATH; a part may then lie some milliseconds
  off, where the format keeps its times no better (webm, ac3; tens of them in wma).

  Args:
    audio: a file that libsndfile or ffmpeg reads.
    start_s: where the part starts.
    end_s: where the part ends; None for the file's end, which it may lie beyond.

  Returns:
    Its channels <float32>[samples, channels], full scale at 1, at least one sample,
    and their rate in Hz.

  Raises:
    AudioError: the file is missing, unreadable or empty, longer than `MAX_CLIP_S`, or
      its samples are not finite; or the part is none of the file.
  """
  if not 0 <= start_s < math.inf:
    raise AudioError(f"has start_s {start_s}, which is not 0 or more")
  if end_s is not None and not end_s > start_s:
    raise AudioError(f"has end_s {end_s}, which is not after start_s {start_s}")
  try:
    with _open(audio) as file:
      channels, rate_hz = _decode_file(file, audio, start_s, end_s)
  except AudioError:
    raise
  except FileNotFoundError as error:
    raise AudioError("is missing") from error
  except OSError as error:
    reason = one_line(error.strerror or error)
    raise AudioError(f"cannot be read ({reason})") from error
  except (RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
    raise AudioError(f"cannot be decoded ({one_line(error)})") from error
  _check_samples(channels)
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
    sample_rate_hz: the rate wanted; soxr's HQ low-pass keeps what lies above half of
      it from folding back.
    start_s: where the part starts.
    end_s: where the part ends; None for the file's end.

  Returns:
    <float32>[samples], full scale at 1, at least one sample.

  Raises:
    AudioError: see `decode`.
  """
  channels, rate_hz = decode(audio, start_s, end_s)
  waveform = channels.mean(axis=1)
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


@contextlib.contextmanager
def _open(audio: AudioFile) -> Iterator[BinaryIO]:
  """Opens a local file, or one in memory that holds what another place has."""
  if isinstance(audio, Member) or "://" in str(audio):
    yield io.BytesIO(audio.read_bytes())
    return
  # A pipe would block, and a device never end.
  if os.path.exists(audio) and not os.path.isfile(audio):
    raise AudioError("is not a file")
  # By its descriptor: soundfile takes a file called x.raw for one without a header.
  with open(os.open(audio, os.O_RDONLY), "rb") as file:
    yield file


def _decode_file(
  file: BinaryIO, audio: AudioFile, start_s: float, end_s: float | None
) -> tuple[np.ndarray, int]:
  if not file.read(1):
    raise AudioError("is empty")
  file.seek(0)
  try:
    return _decode_with_libsndfile(file, start_s, end_s)
  except _UnknownFormatError as error:
    reason = str(error)
  program = shutil.which("ffmpeg")
  if not program:
    raise AudioError(
      f"cannot be decoded (libsndfile: {reason}; installing ffmpeg may help)"
    )
  try:
    with _path_of(file, audio) as path:
      return _decode_with_ffmpeg(program, path, start_s, end_s)
  except subprocess.CalledProcessError as error:
    cause = one_line(error.stderr.decode(errors="replace"))
  except subprocess.TimeoutExpired:
    cause = f"takes more than {FFMPEG_TIMEOUT_S:.0f} s"
  raise AudioError(f"cannot be decoded (libsndfile: {reason}; ffmpeg: {cause})")


def _decode_with_libsndfile(
  file: BinaryIO, start_s: float, end_s: float | None
) -> tuple[np.ndarray, int]:
  try:
    sound = soundfile.SoundFile(file)
  except soundfile.LibsndfileError as error:
    raise _UnknownFormatError(one_line(error.error_string)) from error
  with sound:
    if sound.frames == UNKNOWN_LENGTH:
      raise _UnknownFormatError("the header gives no length")
    rate_hz = sound.samplerate
    stop = sound.frames
    if end_s is not None:
      stop = round(min(stop, end_s * rate_hz))
    start = round(start_s * rate_hz)
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
    # In one go: after each read soundfile seeks, and another run-up would be needed.
    channels = sound.read(run_up + stop - start, dtype="float32", always_2d=True)
    return channels[run_up:], rate_hz


def _decode_with_ffmpeg(
  program: str, path: str, start_s: float, end_s: float | None
) -> tuple[np.ndarray, int]:
  """Decodes the first audio stream of a file at its own rate and channels."""
  skipped_s = max(0.0, start_s - RUN_UP_S)
  longest_s = MAX_CLIP_S + 1
  if end_s is not None:
    longest_s = min(longest_s, end_s - start_s)
  command = [program, "-nostdin", "-v", "error", "-protocol_whitelist", "file"]
  if skipped_s:  # 0 would bring in what the encoder put before the start
    command += ["-ss", f"{skipped_s:.6f}"]
  command += ["-i", f"file:{path}", "-map", "0:a:0"]
  command += ["-ss", f"{start_s - skipped_s:.6f}", "-t", f"{longest_s:.6f}"]
  command += ["-fs", str(5 * MAX_VALUES), "-c:a", "pcm_f32be", "-f", "au", "pipe:1"]
  done = subprocess.run(
    command,
    stdin=subprocess.DEVNULL,
    capture_output=True,
    timeout=FFMPEG_TIMEOUT_S,
    check=True,
  )
  with soundfile.SoundFile(io.BytesIO(done.stdout)) as sound:
    rate_hz = sound.samplerate
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
  """Where a file lies on disk, for as long as it is needed there."""
  if not isinstance(file, io.BytesIO):
    yield os.path.abspath(audio)
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


def _check_samples(channels: np.ndarray) -> None:
  fault = find_fault(channels) if channels.size else "holds no samples"
  if fault:
    raise AudioError(fault)


def find_fault(samples: np.ndarray) -> str:
  """Says what makes samples no audio, as what follows "the waveform", or nothing."""
  peak = float(max(samples.max(), -samples.min()))  # NaN if any sample is
  if not np.isfinite(peak):
    num_bad = samples.size - np.isfinite(samples).sum()
    return f"has {num_bad} samples that are not finite"
  if peak > MAX_PEAK:
    return f"has samples as large as {peak:.1g}, where full scale is 1"
  return ""


def one_line(reason: object) -> str:
  """The first line of a message, without ffmpeg's addresses or a full stop."""
  lines = str(reason).splitlines() or [type(reason).__name__]
  return re.sub(r"^(\[[^\]]* @ 0x[^\]]*\] )*", "", lines[0]).rstrip(". ")
