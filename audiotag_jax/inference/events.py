"""Events from scores over time: each class that sounds, from its start to its end."""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from audiotag_jax.inference.tagger import Frames


class Event(NamedTuple):
  """A class that is present for a while.

  Attributes:
    start_s: when it begins.
    end_s: when it ends.
    class_index: the class.
    score: the largest of its frames' scores.
  """

  start_s: float
  end_s: float
  class_index: int
  score: float


def find_events(
  parts: Iterable[Frames],
  thresholds: np.ndarray,
  frame_hop_s: float,
  *,
  median_s: float = 0.0,
  min_duration_s: float = 0.0,
) -> Iterator[Event]:
  """Finds when classes are present; holds little more than one part of the scores.

  A frame is active from its class's threshold on. A median filter over time then
  drops short bursts and closes short gaps; runs of active frames that remain are
  events, which last from half a hop before their first frame's centre to half a hop
  after their last one's. Times are counted in frames from the first part's first time,
  so that they stay on the grid of frames for any length.

  Args:
    parts: scores <float32>[frames, classes], in parts that follow each other.
    thresholds: <float64>[classes].
    frame_hop_s: time from one frame's centre to the next one's.
    median_s: width of the median filter, rounded to an odd number of frames; 0 for no
      filter.
    min_duration_s: least duration of an event; shorter ones are dropped.

  Yields:
    Events, as they end.
  """
  parts = iter(parts)
  head = next(parts, None)
  if head is None:
    return
  # Centres are on whole frames or halfway between two: counted in half frames.
  offset = round(2 * float(head.times_s[0]) / frame_hop_s) - 1
  runs = _Runs(len(thresholds))
  scores = (frames.values for frames in itertools.chain([head], parts))
  for smooth in _smooth(scores, thresholds, int(median_s / frame_hop_s / 2 + 1e-6)):
    for class_index, first, end, score in runs.add(*smooth):
      start_s = max(0, 2 * first + offset) * frame_hop_s / 2
      end_s = (2 * end + offset) * frame_hop_s / 2
      # The tolerance keeps events that only rounding makes too short.
      if end_s - start_s >= min_duration_s - 1e-6:
        yield Event(start_s, end_s, class_index, score)


def _smooth(
  parts: Iterable[np.ndarray], thresholds: np.ndarray, half: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields scores and, after a median over 2 `half` + 1 frames, activity <bool>.

  The threshold comes before the median, which over an odd number of frames gives the
  same result as after it: the median then is a majority. The first and the last frame
  are repeated beyond the ends. A final frame without activity ends open events.
  """
  held = None  # (scores, active), with `half` frames already yielded
  for scores in parts:
    active = scores >= thresholds
    if held is None:
      held = tuple(np.repeat(x[:1], half, axis=0) for x in (scores, active))
    held = tuple(
      np.concatenate([x, y]) for x, y in zip(held, (scores, active), strict=True)
    )
    yield _majority(*held, half=half)
    held = tuple(x[max(0, len(x) - 2 * half) :] for x in held)
  if held is None:
    return
  if half:
    after = [np.repeat(x[-1:], half, axis=0) for x in held]
    yield _majority(*map(np.concatenate, zip(held, after, strict=True)), half=half)
  end = np.zeros((1, len(thresholds)), bool)
  yield np.zeros(end.shape, np.float32), end


def _majority(
  scores: np.ndarray, active: np.ndarray, *, half: int
) -> tuple[np.ndarray, np.ndarray]:
  """Drops `half` frames at each end; the others take their neighbours' majority."""
  num_frames = max(0, len(active) - 2 * half)
  counts = np.cumsum(np.pad(active, [(1, 0), (0, 0)]), axis=0, dtype=np.int32)
  counts = counts[2 * half + 1 :] - counts[:num_frames]
  return scores[half : half + num_frames], counts > half


class _Runs:
  """Runs of active frames, which may extend from one part to the next."""

  def __init__(self, num_classes: int):
    self._was_active = np.zeros((1, num_classes), bool)
    self._open: dict[int, tuple[int, float]] = {}  # class: first frame, score
    self._num_frames = 0

  def add(
    self, scores: np.ndarray, active: np.ndarray
  ) -> Iterator[tuple[int, int, int, float]]:
    """Yields runs that end: class, first frame, the frame behind the last, score."""
    done = self._num_frames
    before = np.concatenate([self._was_active, active[:-1]])[: len(active)]
    changed = active != before
    for class_index in np.flatnonzero((changed | active).any(axis=0)).tolist():
      bounds = [0, *np.flatnonzero(changed[:, class_index]).tolist(), len(active)]
      for first, end in zip(bounds[:-1], bounds[1:], strict=True):
        if first == end:
          continue
        if active[first, class_index]:
          start, score = self._open.get(class_index, (done + first, 0.0))
          score = max(score, float(scores[first:end, class_index].max()))
          self._open[class_index] = (start, score)
        elif class_index in self._open:
          start, score = self._open.pop(class_index)
          yield class_index, start, done + first, score
    if len(active):
      self._was_active = active[-1:]
      self._num_frames += len(active)
