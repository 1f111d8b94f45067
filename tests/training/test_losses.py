import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiotag_jax import config as config_lib
from audiotag_jax.training import losses

# p: 1/2, 3/4 and 1/5, 1/2
LOGITS = jnp.array([[0.0, np.log(3.0)], [-np.log(4.0), 0.0]])
LABELS = jnp.array([[1.0, 0.0], [0.0, 1.0]])
TRAIN_LABELS = np.array([[1, 0], [1, 0], [1, 0], [1, 1]], np.uint8)


def test_binary_cross_entropy_by_hand():
  expected = [(np.log(2) + np.log(4)) / 2, (np.log(5 / 4) + np.log(2)) / 2]
  loss = losses.binary_cross_entropy(LOGITS, LABELS)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_focal_by_hand():
  # (1 - p_t)^2 with p_t 1/2, 1/4, 4/5, 1/2
  expected = [
    (np.log(2) / 4 + np.log(4) * 9 / 16) / 2,
    (np.log(5 / 4) / 25 + np.log(2) / 4) / 2,
  ]
  np.testing.assert_allclose(
    losses.focal(LOGITS, LABELS, gamma=2.0), expected, rtol=1e-5
  )


def test_asymmetric_by_hand():
  loss = losses.asymmetric(
    LOGITS, LABELS, gamma_positive=1.0, gamma_negative=2.0, margin=0.05
  )
  # The negatives' p of 3/4 and 1/5 become 0.7 and 0.15.
  expected = [
    (0.5 * np.log(2) - 0.7**2 * np.log(0.3)) / 2,
    (-(0.15**2) * np.log(0.85) + 0.5 * np.log(2)) / 2,
  ]
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_asymmetric_gives_easy_negatives_no_loss_and_no_gradient():
  logits = jnp.array([[-4.0]])  # p = 0.018, below the margin
  fields = {"gamma_positive": 0.0, "gamma_negative": 4.0, "margin": 0.05}
  loss = lambda x: losses.asymmetric(x, jnp.zeros((1, 1)), **fields).sum()  # noqa: E731
  assert loss(logits) == 0.0
  assert jax.grad(loss)(logits) == 0.0


def test_focal_and_asymmetric_without_their_powers_are_binary_cross_entropy():
  expected = losses.binary_cross_entropy(LOGITS, LABELS)
  focal = losses.focal(LOGITS, LABELS, gamma=0.0)
  np.testing.assert_allclose(focal, expected, rtol=1e-6)
  fields = {"gamma_positive": 0.0, "gamma_negative": 0.0, "margin": 0.0}
  asymmetric = losses.asymmetric(LOGITS, LABELS, **fields)
  np.testing.assert_allclose(asymmetric, expected, rtol=1e-6)


def test_class_weights_by_hand():
  # beta 1/2: (1/2) / (1 - 1/16) = 8/15 for four clips, 1 for a single one.
  weights = losses.effective_number_weights(np.array([4, 1]), beta=0.5)
  np.testing.assert_allclose(weights, np.array([8 / 15, 1]) / (23 / 30), rtol=1e-6)
  loss = losses.class_balanced(LOGITS, LABELS, weights=weights)
  expected = (weights[0] * np.log(2) + weights[1] * np.log(4)) / 2
  np.testing.assert_allclose(loss[0], expected, rtol=1e-6)


def test_class_weights_of_beta_0_are_equal_and_near_1_are_the_inverse():
  counts = np.array([1000, 10, 0])
  np.testing.assert_allclose(losses.effective_number_weights(counts, 0.0), 1.0)
  weights = losses.effective_number_weights(counts, 0.9999999)
  np.testing.assert_allclose(weights / weights[2], [1 / 1000, 1 / 10, 1], rtol=1e-3)


def test_smoothed_labels():
  smoothed = losses.smooth(jnp.array([0.0, 1.0, 0.5]), 0.2)
  np.testing.assert_allclose(smoothed, [0.1, 0.9, 0.5], rtol=1e-6)


@pytest.mark.parametrize("name", ["bce", "focal", "asymmetric", "class_balanced"])
def test_the_recipe_s_loss_is_finite_on_extreme_logits(name):
  config = config_lib.get_config().loss
  config.name = name
  loss = losses.create_loss(config, TRAIN_LABELS)
  logits = jnp.array([[300.0, -300.0], [-300.0, 300.0]])
  value, grads = jax.value_and_grad(lambda x: loss(x, LABELS).mean())(logits)
  assert loss(logits, LABELS).shape == (2,)
  assert np.isfinite(value)
  assert np.isfinite(grads).all()


def test_the_recipe_s_loss_smooths_labels():
  config = config_lib.get_config().loss
  config.label_smoothing = 0.2
  loss = losses.create_loss(config, TRAIN_LABELS)(LOGITS, LABELS)
  smoothed = jnp.array([[0.9, 0.1], [0.1, 0.9]])
  expected = losses.binary_cross_entropy(LOGITS, smoothed)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_binary_cross_entropy_of_extreme_logits(sign):
  logits = jnp.full((1, 2), 300.0 * sign)
  loss = losses.binary_cross_entropy(logits, jnp.array([[0.0, 1.0]]))
  np.testing.assert_allclose(loss, [150.0])
