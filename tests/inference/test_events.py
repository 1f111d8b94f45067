import numpy as np
import pytest
from scipy import ndimage

from audiotag_jax.inference.events import Event, find_events
from audiotag_jax.inference.tagger import Frames

HOP_S = 0.1


def frames(rows, first=0):
  """Frames of scores, centred half a hop after their starts."""
  values = np.asarray(rows, np.float32)
  times_s = (first + np.arange(len(values)) + 0.5) * HOP_S
  return Frames(values, times_s.astype(np.float32))


def find(scores, thresholds=(0.5,), sizes=None, **options):
  """Events of scores [frames] or [frames, classes], handed over in parts."""
  scores = np.asarray(scores, np.float32).reshape(len(scores), -1)
  bounds = np.cumsum([0, *(sizes or [len(scores)])])
  parts = [
    frames(scores[start:end], start)
    for start, end in zip(bounds[:-1], bounds[1:], strict=True)
  ]
  found = find_events(parts, np.asarray(thresholds, np.float32), HOP_S, **options)
  return [
    (round(event.start_s, 3), round(event.end_s, 3), event.class_index)
    for event in sorted(found)
  ]


def test_runs_from_the_threshold_on_are_events():
  scores = [0.1, 0.5, 0.9, 0.4, 0.6, 0.49]
  assert find(scores) == [(0.1, 0.3, 0), (0.4, 0.5, 0)]
  (event, _) = find_events([frames(np.c_[scores])], np.array([0.5]), HOP_S)
  assert isinstance(event, Event)
  assert event.score == pytest.approx(0.9)


def test_events_at_the_ends_are_whole():
  assert find([0.9, 0.9]) == [(0.0, 0.2, 0)]
  assert find([0.9, 0.1, 0.9]) == [(0.0, 0.1, 0), (0.2, 0.3, 0)]
  assert find([0.1]) == []


def test_each_class_has_its_threshold():
  scores = [[0.3, 0.3], [0.6, 0.6], [0.3, 0.9]]
  assert find(scores, (0.5, 0.7)) == [(0.1, 0.2, 0), (0.2, 0.3, 1)]


def test_the_median_drops_bursts_and_closes_gaps():
  scores = [0, 1, 0, 0, 0, 1, 1, 0, 1, 1, 0, 0]
  assert find(scores, median_s=0.3) == [(0.5, 1.0, 0)]
  # A width of less than two frames is rounded to one frame.
  assert len(find(scores, median_s=0.19)) == 3
  # The outermost frames are repeated beyond the ends.
  assert find([1, 0, 0, 0, 0], median_s=0.5) == [(0.0, 0.1, 0)]


def test_the_median_is_of_the_scores():
  scores = np.random.default_rng(0).random((200, 3)).astype(np.float32)
  median = ndimage.median_filter(scores, (5, 1), mode="nearest")
  thresholds = (0.4, 0.5, 0.6)
  assert find(scores, thresholds, median_s=0.5) == find(median, thresholds)


def test_short_events_are_dropped():
  scores = [1, 0, 1, 1, 0, 1, 1, 1]
  assert find(scores, min_duration_s=0.2) == [(0.2, 0.4, 0), (0.5, 0.8, 0)]
  assert find(scores, min_duration_s=0.3) == [(0.5, 0.8, 0)]


@pytest.mark.parametrize("median_s", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("sizes", [[1] * 60, [7, 20, 33], [59, 1], [2, 58]])
def test_parts_change_nothing(sizes, median_s):
  rng = np.random.default_rng(1)
  scores = np.repeat(rng.random((20, 4)), 3, axis=0)
  expected = find(scores, [0.5] * 4, median_s=median_s)
  assert len(expected) > 3
  assert find(scores, [0.5] * 4, sizes, median_s=median_s) == expected


def test_a_score_goes_over_parts():
  parts = [frames([[0.9]]), frames([[0.6]], 1), frames([[0.7]], 2)]
  (event,) = find_events(parts, np.array([0.5]), HOP_S)
  assert tuple(event) == pytest.approx((0.0, 0.3, 0, 0.9), abs=1e-6)


def test_nothing_has_no_events():
  assert not list(find_events([], np.array([0.5]), HOP_S))


@pytest.mark.parametrize("hop_s", [0.01, 0.0125, 320 / 22_050, 0.5, 5512 / 11_025])
@pytest.mark.parametrize("centre", [0.0, 0.5])
def test_times_after_ten_hours_are_on_the_grid(hop_s, centre):
  """Ten hours of frames without activity, then five frames with two events."""
  num_frames = round(36_000 / hop_s)
  silence = np.zeros((num_frames, 1), np.float32)
  # Times as float32 has them, in steps of 4 ms at this place.
  times_s = np.float32((np.arange(num_frames + 5) + centre) * hop_s)
  sound = np.float32([[1], [0], [1], [1], [0]])
  parts = [
    Frames(silence, times_s[:num_frames]),
    Frames(sound, times_s[num_frames:]),
  ]
  found = list(find_events(parts, np.array([0.5]), hop_s, min_duration_s=hop_s))
  first = num_frames + centre - 0.5
  expected = [(first, first + 1), (first + 2, first + 4)]
  times = [(event.start_s, event.end_s) for event in found]
  np.testing.assert_allclose(times, np.array(expected) * hop_s, rtol=0, atol=1e-10)
  # Neither six decimals nor DCASE's empty, merge or turn round an event.
  ends = [f"{x:.6f}" for event in times for x in event]
  assert ends == sorted(set(ends), key=float)
