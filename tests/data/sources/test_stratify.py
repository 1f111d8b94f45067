import numpy as np
import pytest

from audiotag_jax.data.sources import stratify


def random_labels(num_clips, num_classes=10):
  rng = np.random.default_rng(0)
  share = np.geomspace(0.4, 0.02, num_classes)
  return (rng.random((num_clips, num_classes)) < share).astype(np.uint8)


@pytest.mark.parametrize("size", [1, 100, 1_999])
def test_exactly_so_many_are_drawn_and_none_twice(size):
  labels = random_labels(2_000)
  drawn = stratify.draw_stratified(labels, size, seed=0)
  assert len(set(drawn.tolist())) == len(drawn) == size
  assert 0 <= drawn.min() <= drawn.max() < 2_000


def test_classes_keep_their_shares():
  labels = random_labels(2_000)
  drawn = stratify.draw_stratified(labels, 200, seed=0)
  np.testing.assert_allclose(labels[drawn].sum(0), labels.sum(0) / 10, atol=1.5)


def test_a_draw_depends_on_its_seed_only():
  labels = random_labels(500)
  first = stratify.draw_stratified(labels, 50, seed=3)
  np.testing.assert_array_equal(first, stratify.draw_stratified(labels, 50, seed=3))
  assert set(first) != set(stratify.draw_stratified(labels, 50, seed=4))


@pytest.mark.parametrize("labels", [np.ones((20, 1)), np.eye(20)[:, :1]])
def test_a_single_class_will_do(labels):
  assert len(set(stratify.draw_stratified(labels.astype(np.uint8), 4, seed=0))) == 4


def test_label_lists_are_drawn_as_their_matrix_is():
  labels = random_labels(300)
  lists = [tuple(np.flatnonzero(row).tolist()) for row in labels]
  np.testing.assert_array_equal(
    stratify.stratified_sample(lists, 10, 30, seed=0),
    stratify.draw_stratified(labels, 30, seed=0),
  )


def test_very_many_are_drawn_at_random():
  num_clips = stratify.MAX_STRATIFIED + 1
  # A matrix with so many classes would not fit into memory.
  drawn = stratify.stratified_sample(
    [(i,) for i in range(num_clips)], 10**9, 5_000, seed=0
  )
  assert len(set(drawn.tolist())) == 5_000
  assert abs(drawn.mean() / num_clips - 0.5) < 0.02
