import numpy as np
import pytest
from scipy import sparse

from audiotag_jax.data import sampling

# Class 0 on eight clips, class 1 on two (one of them shared), class 2 on none.
LABELS = np.zeros((9, 3), np.uint8)
LABELS[:8, 0] = 1
LABELS[7:, 1] = 1
SPARSE = sparse.csr_array(LABELS)


def test_an_epoch_sees_every_clip_once_and_each_epoch_has_its_own_order():
  positions = np.arange(36)
  order = sampling.shuffled(positions, 12, seed=0).reshape(3, 12)
  for epoch in order:
    assert sorted(epoch) == list(range(12))
  assert not np.array_equal(order[0], order[1])
  other_seed = sampling.shuffled(positions, 12, seed=1).reshape(3, 12)
  assert not np.array_equal(order[0], other_seed[0])


def test_class_balanced_takes_each_class_once_a_round_and_its_clips_in_turn():
  clips = sampling.class_balanced(SPARSE, seed=0)(np.arange(2 * 80)).reshape(80, 2)
  first = [sorted(LABELS[pair].sum(axis=0).tolist()) for pair in clips]
  # A clip of class 0 and one of class 1; clip 7 is both.
  assert all(of_round in ([0, 1, 1], [0, 1, 2], [0, 2, 2]) for of_round in first)
  counts = np.bincount(clips.ravel(), minlength=9)
  # In 80 rounds, each of eight clips 10 times for class 0, each of two 40 for class 1.
  assert counts.tolist() == [10] * 7 + [50, 40]
  assert len({tuple(pair) for pair in clips}) > 10


def test_label_weighted_draws_by_the_sum_of_inverse_frequencies():
  weights = np.array([1 / 8] * 7 + [1 / 8 + 1 / 2, 1 / 2])
  num_draws = 9 * 4000
  clips = sampling.label_weighted(SPARSE, seed=0)(np.arange(num_draws))
  shares = np.bincount(clips, minlength=9) / num_draws
  np.testing.assert_allclose(shares, weights / weights.sum(), atol=0.01)


@pytest.mark.parametrize("name", ["uniform", "class_balanced", "label_weighted"])
def test_a_position_s_clip_hangs_on_seed_and_position_alone(name):
  sample = sampling.create_sampler(name, SPARSE, seed=3)
  whole = sample(np.arange(100))
  again = sampling.create_sampler(name, SPARSE, seed=3)
  parts = [again(np.arange(start, start + 10)) for start in range(90, -10, -10)]
  np.testing.assert_array_equal(np.concatenate(parts[::-1]), whole)
  other = sampling.create_sampler(name, SPARSE, seed=4)(np.arange(100))
  assert not np.array_equal(other, whole)
  assert whole.dtype == np.int64
