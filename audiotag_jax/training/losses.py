"""Losses of multi-label classification on logits, one value per clip."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def create_loss(loss: ml_collections.ConfigDict, train_labels: np.ndarray) -> Loss:
  """Returns the loss of a recipe.

  Args:
    loss: `config.loss`.
    train_labels: <uint8>[clips, classes] of the training clips.

  Returns:
    A map from logits and labels <float32>[batch, classes] to <float32>[batch].
  """
  choices: dict[str, Callable[[], Callable]] = {
    "bce": lambda: binary_cross_entropy,
    "focal": lambda: functools.partial(focal, gamma=loss.focal_gamma),
    "asymmetric": lambda: functools.partial(
      asymmetric,
      gamma_positive=loss.asl_gamma_positive,
      gamma_negative=loss.asl_gamma_negative,
      margin=loss.asl_margin,
    ),
    "class_balanced": lambda: functools.partial(
      class_balanced,
      weights=effective_number_weights(train_labels.sum(axis=0), loss.class_beta),
    ),
  }
  loss_fn = choices[loss.name]()
  return lambda logits, labels: loss_fn(logits, smooth(labels, loss.label_smoothing))


def smooth(labels: jax.Array, smoothing: float) -> jax.Array:
  """Moves labels towards one half: 0 to smoothing / 2, 1 to 1 - smoothing / 2.

  Label smoothing (Szegedy et al. 2016, section 7) of two outcomes, for each class.
  """
  return labels * (1.0 - smoothing) + 0.5 * smoothing


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Mean over the classes of the binary cross-entropy on logits.

  Args:
    logits: <float32>[batch, classes].
    labels: <float32>[batch, classes] in [0, 1].

  Returns:
    <float32>[batch], in nats.
  """
  return optax.sigmoid_binary_cross_entropy(logits, labels).mean(axis=-1)


def focal(logits: jax.Array, labels: jax.Array, *, gamma: float) -> jax.Array:
  """Focal loss (Lin et al. 2017, equation 4), mean over the classes.

  The binary cross-entropy times (1 - p_t)^gamma, where p_t is the probability of the
  true outcome. Shapes as in `binary_cross_entropy`.
  """
  return optax.sigmoid_focal_loss(logits, labels, gamma=gamma).mean(axis=-1)


def asymmetric(
  logits: jax.Array,
  labels: jax.Array,
  *,
  gamma_positive: float,
  gamma_negative: float,
  margin: float,
) -> jax.Array:
  """Asymmetric loss (Ridnik et al. 2021, equations 4 to 7), mean over the classes.

  Positives: -(1 - p)^gamma_positive log p. Negatives: -q^gamma_negative log(1 - q) with
  q = max(p - margin, 0). Shapes as in `binary_cross_entropy`; labels between 0 and 1
  weigh the two terms.
  """
  p = nn.sigmoid(logits)
  shifted = nn.relu(p - margin)
  positive = _power(1.0 - p, gamma_positive) * nn.log_sigmoid(logits)
  # Without a margin, log(1 - p) of a large logit would underflow.
  log_not_shifted = jnp.log1p(-shifted) if margin else nn.log_sigmoid(-logits)
  negative = _power(shifted, gamma_negative) * log_not_shifted
  return -(labels * positive + (1.0 - labels) * negative).mean(axis=-1)


def _power(x: jax.Array, exponent: float) -> jax.Array:
  """Returns x^exponent for x in [0, 1], with a finite gradient at 0."""
  return jnp.where(x > 1e-8, x, 1e-8) ** exponent if exponent else jnp.ones_like(x)


def class_balanced(
  logits: jax.Array, labels: jax.Array, *, weights: np.ndarray
) -> jax.Array:
  """Mean over the classes of the weighted binary cross-entropy.

  `weights` is <float32>[classes]; other shapes as in `binary_cross_entropy`.
  """
  losses = optax.sigmoid_binary_cross_entropy(logits, labels)
  return (weights * losses).mean(axis=-1)


def effective_number_weights(num_clips: np.ndarray, beta: float) -> np.ndarray:
  """Weights of classes by their effective number of clips (Cui et al. 2019, eq. 3).

  (1 - beta) / (1 - beta^n), scaled to a mean of 1; a class without clips has the weight
  of a class with one clip.

  Args:
    num_clips: <int>[classes], positives in the training split.
    beta: 0 for equal weights; towards 1, weights as the inverse of `num_clips`.

  Returns:
    <float32>[classes].
  """
  weights = (1.0 - beta) / (1.0 - beta ** np.maximum(num_clips, 1).astype(np.float64))
  return (weights / weights.mean()).astype(np.float32)
