import matplotlib.image
import numpy as np
import pytest
import tiny_models

from audiotag_jax.frontend import log_mel_jax
from audiotag_jax.inference import timeline


def test_columns_are_the_largest_values(monkeypatch):
  monkeypatch.setattr(timeline, "MAX_COLUMNS", 8)
  values = np.random.default_rng(0).random((37, 2)).astype(np.float32)
  columns = timeline.Columns(0.5)
  start = 0
  for size in (1, 6, 3, 1, 20, 6):
    columns.add(values[start : start + size])
    start += size
    rows_per_column = 1
    while -(-start // rows_per_column) > 8:
      rows_per_column *= 2
    expected = [
      values[:start][i : i + rows_per_column].max(axis=0)
      for i in range(0, start, rows_per_column)
    ]
    np.testing.assert_array_equal(columns.values, expected)
    assert columns.end_s == len(expected) * rows_per_column * 0.5


@pytest.mark.parametrize("num_samples", [1, 79, 80, 8_000, 8_001, 20_000, 24_560])
def test_log_mels_in_parts_are_the_whole_s(monkeypatch, num_samples):
  monkeypatch.setattr(timeline, "PART_FRAMES", 100)
  params = tiny_models.FRONT_END
  x = np.random.default_rng(0).uniform(-0.5, 0.5, num_samples).astype(np.float32)
  blocks = [x[i : i + 3_000] for i in range(0, num_samples, 3_000)]
  ours = np.concatenate(list(timeline.log_mels(blocks, params)))
  expected = np.asarray(log_mel_jax.log_mel(x, params))
  assert ours.shape == expected.shape
  # The parts' first and last frames lack neighbours on one side.
  far = np.arange(len(expected)) % 100
  inner = (far > 1) & (far < 98) & (np.arange(len(expected)) < len(expected) - 3)
  np.testing.assert_allclose(ours[inner], expected[inner], atol=1e-3)


def test_draws_a_picture(tmp_path):
  log_mel, activity = timeline.Columns(0.01), timeline.Columns(0.5)
  rng = np.random.default_rng(0)
  log_mel.add(rng.uniform(-80, 0, (501, 16)).astype(np.float32))
  activity.add(rng.random((10, 3)).astype(np.float32))
  path = tmp_path / "new" / "out.png"
  timeline.draw(
    path,
    "costs $5 & $6_x.wav",
    log_mel,
    activity,
    tiny_models.CLASSES,
    tiny_models.FRONT_END,
    5.0,
  )
  picture = matplotlib.image.imread(path)
  assert picture.shape[0] > 300
  assert picture.shape[1] == 1200
  assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 100
