"""A picture of a recording: its log-mel over the activity of its tags."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import jax
import numpy as np
from matplotlib.backend_bases import FigureCanvasBase
from matplotlib.figure import Figure

from audiotag_jax import files
from audiotag_jax.audio.waveforms import windows
from audiotag_jax.errors import UserError
from audiotag_jax.frontend import log_mel_jax, mel
from audiotag_jax.inference.tagger import Tagger
from audiotag_jax.names import for_figure

# Largest number of columns in a picture.
MAX_COLUMNS = 2048
MAX_TAGS = 12
# Frames of each part in which the log-mel is computed, and the range of its colours.
PART_FRAMES = 2048
RANGE_DB = 80.0


class Columns:
  """The largest values over time, in a bounded number of columns."""

  def __init__(self, step_s: float):
    """Takes the time from one added row to the next one."""
    self._step_s = step_s
    self._rows_per_column = 1
    self._num_rows = 0
    self._columns = np.zeros((0, 0), np.float32)

  def add(self, values: np.ndarray) -> None:
    """Adds rows <float32>[rows, values] that follow the rows before."""
    index = self._num_rows + np.arange(len(values))
    self._num_rows += len(values)
    while -(-self._num_rows // self._rows_per_column) > MAX_COLUMNS:
      self._rows_per_column *= 2
      self._columns = _largest(self._columns, np.arange(len(self._columns)) // 2)
    index //= self._rows_per_column
    new = _largest(values, index - index[0])
    if len(self._columns) > index[0]:  # the last column is not full yet
      new[0] = np.maximum(new[0], self._columns[-1])
    old = self._columns[: index[0]]
    self._columns = np.concatenate([old, new]) if len(old) else new

  @property
  def values(self) -> np.ndarray:
    """<float32>[columns, values]."""
    return self._columns

  @property
  def end_s(self) -> float:
    """End of the last column, which may be later than the last row's."""
    return len(self._columns) * self._rows_per_column * self._step_s


def _largest(values: np.ndarray, index: np.ndarray) -> np.ndarray:
  """Returns the maximum of the rows of each index; indices ascend by 0 or 1."""
  if not len(values):
    return values
  return np.maximum.reduceat(values, np.flatnonzero(np.diff(index, prepend=-1)))


def log_mels(
  blocks: Iterable[np.ndarray], params: mel.LogMelParams
) -> Iterator[np.ndarray]:
  """Yields a recording's log-mel <float32>[frames, mels], part by part.

  Args:
    blocks: the recording <float32>[samples], block by block.
    params: the front-end's parameters.
  """
  part_samples = PART_FRAMES * params.hop_samples
  compute = jax.jit(lambda x: log_mel_jax.log_mel(x, params))
  done = 0
  for start, samples, is_last in windows(
    blocks, part_samples, part_samples, params.hop_samples
  ):
    first = done - start // params.hop_samples
    num_frames = len(samples) // params.hop_samples + is_last
    padded = np.pad(samples, (0, part_samples - len(samples)))
    part = np.asarray(compute(padded))[first:num_frames]
    done += len(part)
    yield part


def check_ending(path: Path) -> None:
  """Raises `UserError` if the ending of a path is not a format of pictures."""
  known = FigureCanvasBase.get_supported_filetypes()
  if path.suffix.lower().lstrip(".") not in known:
    raise UserError(
      f"{path} does not end like a picture: give it an ending, such as .png"
    )


def plot(
  path: Path, title: str, read: Callable[[], Iterable[np.ndarray]], tagger: Tagger
) -> None:
  """Draws a recording of any length in constant memory; see `draw`.

  Args:
    path: the picture.
    title: name of the recording.
    read: reads the recording from its start: blocks <float32>[samples] at the tagger's
      rate.
    tagger: scores the activity of the tags.
  """
  params = tagger.front_end
  num_samples = 0

  def counted() -> Iterator[np.ndarray]:
    nonlocal num_samples
    for block in read():
      num_samples += len(block)
      yield block

  log_mel = Columns(params.hop_samples / params.sample_rate_hz)
  for part in log_mels(counted(), params):
    log_mel.add(part)
  activity = Columns(tagger.frame_hop_s)
  for frames in tagger.score_frames(read()):
    activity.add(frames.values)
  duration_s = num_samples / params.sample_rate_hz
  draw(path, title, log_mel, activity, tagger.class_names, params, duration_s)


def draw(
  path: Path,
  title: str,
  log_mel: Columns,
  activity: Columns,
  class_names: tuple[str, ...],
  params: mel.LogMelParams,
  duration_s: float,
) -> None:
  """Draws the log-mel over the activity of the most active tags, on one time axis.

  Args:
    path: the picture, in the format of its ending: see `check_ending`.
    title: name of the recording.
    log_mel: the recording's log-mel.
    activity: scores of the classes.
    class_names: names of the classes.
    params: the front-end's parameters.
    duration_s: end of the time axis.
  """
  peaks = activity.values.max(axis=0)
  shown = np.argsort(-peaks, kind="stable")[:MAX_TAGS]
  figure = Figure(figsize=(10, 3.2 + 0.25 * len(shown)), layout="constrained")
  top, bottom = figure.subplots(
    2, 1, sharex=True, height_ratios=[2.6, 0.25 * len(shown)]
  )
  loudest = log_mel.values.max()
  image = top.imshow(
    log_mel.values.T,
    origin="lower",
    aspect="auto",
    interpolation="nearest",
    extent=(0, log_mel.end_s, -0.5, params.num_mels - 0.5),
    vmin=loudest - RANGE_DB,
    vmax=loudest,
    cmap="magma",
  )
  figure.colorbar(image, ax=top, label="dB", pad=0.01)
  bands = np.linspace(0, params.num_mels - 1, 5).round().astype(int)
  top.set_yticks(bands, [_hertz(_centre_hz(params, band)) for band in bands])
  top.set_ylabel("mel band, centre in Hz")
  top.set_title(for_figure(title), parse_math=False)
  image = bottom.imshow(
    activity.values[:, shown].T,
    aspect="auto",
    interpolation="nearest",
    extent=(0, activity.end_s, len(shown) - 0.5, -0.5),
    vmin=0,
    vmax=1,
    cmap="viridis",
  )
  figure.colorbar(image, ax=bottom, label="score", pad=0.01)
  names = [for_figure(class_names[i].replace("_", " ")) for i in shown]
  bottom.set_yticks(range(len(shown)), names, parse_math=False)
  bottom.set_xlabel("seconds")
  bottom.set_xlim(0, duration_s)
  ending = path.suffix.lower().lstrip(".")
  files.write_whole(
    path, lambda partial: figure.savefig(partial, format=ending, dpi=120)
  )


def _centre_hz(params: mel.LogMelParams, band: int) -> float:
  """Returns the frequency at which a band's weight is largest."""
  bin_hz = params.sample_rate_hz / params.fft_samples
  return float(mel.mel_matrix(params)[:, band].argmax() * bin_hz)


def _hertz(frequency_hz: float) -> str:
  return (
    f"{frequency_hz / 1000:.1f}k" if frequency_hz >= 1000 else f"{frequency_hz:.0f}"
  )
