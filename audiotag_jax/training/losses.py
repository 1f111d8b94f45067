"""Losses of multi-label classification."""

import jax
import optax


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Mean over the classes of the binary cross-entropy on logits.

  Args:
    logits: <float32>[batch, classes].
    labels: <float32>[batch, classes] in [0, 1].

  Returns:
    <float32>[batch], in nats.
  """
  return optax.sigmoid_binary_cross_entropy(logits, labels).mean(axis=-1)
