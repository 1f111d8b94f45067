"""Masks padding, so that a padded input gives the clip's own outputs.

A program is compiled for each length of input, so clips of many lengths share a few
lengths. The padding behind a clip would reach the clip's outputs through layers that
look beyond a frame: convolutions, recurrences and poolings over all frames. Each of
these layers gets zeros there, as beyond the end of an input, or the frames that count.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from audiotag_jax.models.layers import BiGRU

# Methods of the models that pool over all frames, and take the frames that count.
POOL_ALL = ("clip_outputs", "segment_outputs")
POOL_NEIGHBOURS = ("pool",)

Interceptor = Callable[..., Any]


def count_frames(model: nn.Module, variables: Any, num_samples: int) -> np.ndarray:
  """Counts the frames of a clip at each layer that looks beyond a frame.

  Args:
    model: the model.
    variables: its variables.
    num_samples: length of the clip, at least `model.min_samples`.

  Returns:
    <int32>[layers], in the order in which the layers are called.
  """
  counts = []

  def apply(variables: Any, waveform: jax.Array) -> Any:
    with nn.intercept_methods(_intercept(lambda x: counts.append(x.shape[1]))):
      return model.apply(variables, waveform, train=False)

  waveform = jax.ShapeDtypeStruct((1, num_samples), np.float32)
  jax.eval_shape(apply, variables, waveform)
  return np.array(counts, np.int32)


def masked(counts: jax.Array) -> Interceptor:
  """Masks a model's frames beyond those that `count_frames` has counted.

  Args:
    counts: <int32>[layers].

  Returns:
    An argument of `flax.linen.intercept_methods`, for one call of the model.
  """
  remaining = iter(counts)
  return _intercept(lambda x: jnp.arange(x.shape[1]) < next(remaining))


def _intercept(valid_frames: Callable[[jax.Array], jax.Array | None]) -> Interceptor:
  """Calls layers with only the frames that count.

  Args:
    valid_frames: maps a layer's input <float>[batch, frames, …] to the frames that
      count <bool>[frames], or to None if all count.
  """

  def intercept(next_fun: Callable, args: Any, kwargs: Any, context: Any) -> Any:
    layer, method = context.module, context.method_name
    is_call = method == "__call__"
    takes_valid = method in POOL_ALL or (is_call and isinstance(layer, BiGRU))
    looks_beyond = method in POOL_NEIGHBOURS or (is_call and isinstance(layer, nn.Conv))
    if not (takes_valid or looks_beyond):
      return next_fun(*args, **kwargs)
    x, *rest = args
    valid = valid_frames(x)
    if takes_valid:
      kwargs = kwargs | {"valid": valid}
    return next_fun(_clear(x, valid), *rest, **kwargs)

  return intercept


def _clear(x: jax.Array, valid: jax.Array | None) -> jax.Array:
  """Sets the frames of <float>[batch, frames, …] that do not count to zero."""
  if valid is None:
    return x
  return jnp.where(jnp.expand_dims(valid, range(1, x.ndim - 1)), x, 0.0)
