"""Audio decoded by the program ffmpeg, and placed on the file's own timeline."""

import contextlib
import itertools
import os
import select
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from audiotag_jax.audio.opening import AudioError, one_line

# The longest wait for output.
TIMEOUT_S = 120.0
# Decoding starts this long before a part, because decoders of aac and opus give silence
# or worse right after a seek.
RUN_UP_S = 2.0
# The shortest gap between packets that is silence, as in ffmpeg's aresample. Times that
# are stored coarsely make shorter ones.
MIN_GAP_S = 0.1
# Bytes at the start of a file that tell its timeline.
HEAD_BYTES = 400
# Samples times channels of a block, unless one packet has more.
BLOCK_VALUES = 2**18

# Identifiers of Matroska's elements: those that contain others, and those to read.
MASTERS = {0x18538067, 0x1654AE6B, 0xAE, 0xE1, 0x1F43B675, 0xA0}
RATE, CHANNELS, CLUSTER_MS, BLOCKS = 0xB5, 0x9F, 0xE7, (0xA3, 0xA1)


# Matroska stores times to a millisecond. This factor makes that less than a sample.
FINER = 100


class Timeline(NamedTuple):
  """The meaning of the times that ffmpeg gives for a file.

  Attributes:
    has_gaps: whether the file stores times, so that a gap between packets is silence.
      Other files are mere sequences of packets, and may be several files joined.
    starts_at_0: whether the file starts at the time 0, and not with its first packet.
  """

  has_gaps: bool
  starts_at_0: bool


def find_timeline(head: bytes) -> Timeline:
  """Returns the timeline of a file that starts with these `HEAD_BYTES`."""
  is_mp4 = head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
  if is_mp4 or head.startswith(b"\x1aE\xdf\xa3"):  # or Matroska, WebM
    return Timeline(has_gaps=True, starts_at_0=True)
  is_transport_stream = any(
    head[first : first + 2 * step : step] == b"GG"
    for first, step in ((0, 188), (4, 192))
  )
  is_avi = head.startswith(b"RIFF") and head[8:12] == b"AVI "
  # Flash, Windows Media, MPEG's program streams
  others = (b"FLV", b"\x30\x26\xb2\x75", b"\0\0\1\xba")
  has_gaps = is_transport_stream or is_avi or head.startswith(others)
  return Timeline(has_gaps, starts_at_0=False)


def find_ffmpeg() -> str:
  """Returns the path of the PATH's ffmpeg, or else of imageio-ffmpeg's, or else ""."""
  program = shutil.which("ffmpeg")
  if program:
    return program
  import imageio_ffmpeg  # Imported here because few files need it.

  try:
    return shutil.which(imageio_ffmpeg.get_ffmpeg_exe()) or ""
  except RuntimeError:  # Its package has no program for this machine.
    return ""


class _Packet(NamedTuple):
  """Samples <float32>[samples, channels], and the time at which they start."""

  time_s: float
  channels: np.ndarray


class Ffmpeg:
  """A running ffmpeg, which decodes the first audio track of a file.

  Attributes:
    rate_hz: the track's rate.
    num_channels: the number of its channels.
  """

  def __init__(
    self,
    path: str,
    cause: str,
    timeline: Timeline,
    stack: contextlib.ExitStack,
    start_s: float = 0.0,
  ):
    """Starts ffmpeg and waits for the first samples.

    Args:
      path: the file; ffmpeg fetches nothing from network addresses in it.
      cause: why libsndfile does not decode the file.
      timeline: the meaning of its times.
      stack: ends ffmpeg when it is closed.
      start_s: where the samples that are wanted start.

    Raises:
      AudioError: ffmpeg is not found, or it decodes nothing from `start_s` on.
    """
    program = find_ffmpeg()
    if not program:
      raise AudioError(
        f"cannot be decoded (libsndfile: {cause}; installing ffmpeg may help)"
      )
    self._cause = cause
    self._start_s = start_s
    self._timeline = timeline
    # Seeking in a sequence of packets is guesswork.
    self._from_s = max(0.0, start_s - RUN_UP_S) if timeline.has_gaps else 0.0
    self._messages = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
    self._process = stack.enter_context(
      subprocess.Popen(
        self._command(program, path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=self._messages,
        bufsize=0,
      )
    )
    # Killed, because ffmpeg would wait for ever if the reader stops while it decodes.
    stack.callback(self._process.kill)
    self._unread = bytearray()
    self.rate_hz, self.num_channels = 0, 0
    self._packets = self._parse()
    self._first = next(self._packets, None)
    if self._first is None:
      raise self._ends_early()

  def _command(self, program: str, path: str) -> list[str]:
    """Returns the command that writes float32 samples with their times to a pipe."""
    command = [program, "-nostdin", "-v", "error", "-protocol_whitelist", "file"]
    if self._timeline.starts_at_0:
      command += ["-copyts", "-seek_timestamp", "1", "-noaccurate_seek"]
    if self._from_s:  # -ss 0 would include the encoder's padding before the start.
      command += ["-ss", f"{self._from_s:.6f}"]
    command += ["-i", f"file:{path}", "-map", "0:a:0", "-c:a", "pcm_f32le"]
    command += ["-map_metadata", "-1", "-map_chapters", "-1"]
    command += ["-af", f"asetpts=PTS*{FINER}"]
    command += ["-f", "matroska", "pipe:1"]
    if self._timeline.has_gaps and not self._timeline.starts_at_0:
      # The file starts with the first packet of the tracks that are read.
      command += ["-map", "0:V?", "-map", "0:a", "-c", "copy", "-f", "null", "-"]
    return command

  def blocks(self, start: int) -> Iterator[np.ndarray]:
    """Yields <float32>[samples, channels], from a sample of the timeline on.

    Raises:
      AudioError: ffmpeg ends with an error, or gives nothing for `TIMEOUT_S`.
    """
    held: list[np.ndarray] = []
    num_values = 0
    for channels in self._placed(start):
      held.append(channels)
      num_values += channels.size
      if num_values >= BLOCK_VALUES:
        yield np.concatenate(held)
        held, num_values = [], 0
    if num_values:
      yield np.concatenate(held)

  def _placed(self, start: int) -> Iterator[np.ndarray]:
    """Yields packets and the silence between them, without what precedes `start`."""
    assert self._first is not None
    min_gap = MIN_GAP_S * self.rate_hz
    if self._timeline.starts_at_0:
      origin = 0
      at = min(start, round(self._first.time_s * self.rate_hz))
    else:
      origin = at = round(self._from_s * self.rate_hz)
    for packet in itertools.chain([self._first], self._packets):
      gap = origin + round(packet.time_s * self.rate_hz) - at
      is_late = packet is self._first and self._timeline.starts_at_0 and gap > 0
      if is_late or (self._timeline.has_gaps and gap > min_gap):
        for block in _silence(gap, self.num_channels):
          yield block[max(0, start - at) :]
          at += len(block)
      yield packet.channels[max(0, start - at) :]
      at += len(packet.channels)
    if at <= start and self._start_s:
      raise self._ends_early()

  def _parse(self) -> Iterator[_Packet]:
    """Yields what ffmpeg writes; sets the attributes before the first packet."""
    cluster_ms = 0
    for element, content in self._elements():
      if element == RATE:
        self.rate_hz = round(
          struct.unpack(">d" if len(content) == 8 else ">f", content)[0]
        )
      elif element == CHANNELS:
        self.num_channels = int.from_bytes(content)
      elif element == CLUSTER_MS:
        cluster_ms = int.from_bytes(content)
      elif element in BLOCKS:
        # One byte for the track, two for the time since the cluster's, one for flags.
        time_ms = cluster_ms + int.from_bytes(content[1:3], signed=True)
        channels = np.frombuffer(content, "<f4", offset=4).astype(np.float32)
        yield _Packet(time_ms / (1000 * FINER), channels.reshape(-1, self.num_channels))
    code = self._process.wait()
    if code:
      self._messages.seek(0)
      message = self._messages.read().decode(errors="replace")
      raise self._error(one_line(message or f"ended with the exit code {code}"))

  def _elements(self) -> Iterator[tuple[int, bytes]]:
    """Yields the identifier and the content of each element that has no elements."""
    while identifier := self._read(1):
      identifier += self._read(8 - identifier[0].bit_length())
      size = self._read(1)
      num_more = 8 - size[0].bit_length()
      num_bytes = size[0] - (128 >> num_more) << 8 * num_more
      num_bytes += int.from_bytes(self._read(num_more))
      if int.from_bytes(identifier) not in MASTERS:
        yield int.from_bytes(identifier), self._read(num_bytes)

  def _read(self, num_bytes: int) -> bytes:
    """Reads as many bytes of the output, or fewer at its end."""
    output = self._process.stdout
    assert output is not None  # It is a pipe.
    poll = select.poll()
    poll.register(output, select.POLLIN)
    while len(self._unread) < num_bytes:
      if not poll.poll(1000 * TIMEOUT_S):
        raise self._error(f"gives nothing for {TIMEOUT_S:g} s")
      data = os.read(output.fileno(), 2**16)
      if not data:
        break
      self._unread += data
    data = bytes(self._unread[:num_bytes])
    del self._unread[:num_bytes]
    return data

  def _ends_early(self) -> AudioError:
    reason = (
      f"ends before start_s {self._start_s}" if self._start_s else "has no samples"
    )
    return AudioError(reason)

  def _error(self, reason: str) -> AudioError:
    return AudioError(
      f"cannot be decoded (libsndfile: {self._cause}; ffmpeg: {reason})"
    )


def _silence(num_samples: int, num_channels: int) -> Iterator[np.ndarray]:
  """Yields zeros in blocks."""
  most = max(1, BLOCK_VALUES // num_channels)
  for start in range(0, num_samples, most):
    yield np.zeros((min(most, num_samples - start), num_channels), np.float32)
