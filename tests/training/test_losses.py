import jax.numpy as jnp
import numpy as np
import pytest

from audiotag_jax.training import losses


def test_binary_cross_entropy_by_hand():
  logits = jnp.array([[0.0, np.log(3.0)], [-np.log(4.0), 0.0]])  # p: 1/2, 3/4, 1/5, 1/2
  labels = jnp.array([[1.0, 0.0], [0.0, 1.0]])
  expected = [
    (np.log(2) + np.log(4)) / 2,
    (np.log(5 / 4) + np.log(2)) / 2,
  ]
  loss = losses.binary_cross_entropy(logits, labels)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_it_stays_finite_on_extreme_logits(sign):
  logits = jnp.full((1, 2), 300.0 * sign)
  loss = losses.binary_cross_entropy(logits, jnp.array([[0.0, 1.0]]))
  np.testing.assert_allclose(loss, [150.0])
