"""The optimizer of a recipe."""

from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import optax


def learning_rate_schedule(train: ml_collections.ConfigDict) -> optax.Schedule:
  """Linear warm-up from 0 over `warmup_share` of the steps, then a cosine to 0."""
  return optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=train.learning_rate,
    warmup_steps=round(train.warmup_share * train.num_steps),
    decay_steps=train.num_steps,
  )


def is_decayed(params: Any) -> Any:
  """Marks the parameters that weight decay acts on: kernels, not biases or norms."""
  return jax.tree_util.tree_map_with_path(
    lambda path, _: path[-1].key.endswith("kernel"), params
  )


def create_optimizer(
  train: ml_collections.ConfigDict, scales: Mapping[str, float]
) -> optax.GradientTransformation:
  """Gradient clipping, then AdamW (Loshchilov and Hutter 2019).

  Args:
    train: `config.train`.
    scales: the share of the learning rate that each layer of the model gets.
  """
  return optax.chain(
    optax.clip_by_global_norm(train.clip_norm),
    optax.adamw(
      learning_rate_schedule(train),
      weight_decay=train.weight_decay,
      mask=is_decayed,
    ),
    optax.stateless(lambda updates, _: _scale_layers(updates, scales)),
  )


def _scale_layers(updates: Mapping[str, Any], scales: Mapping[str, float]) -> Any:
  return {
    name: jax.tree.map(lambda x, scale=scales[name]: scale * x, layer)
    for name, layer in updates.items()
  }
