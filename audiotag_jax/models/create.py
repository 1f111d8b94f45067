"""From a config to a model."""

import flax.linen as nn
import jax.numpy as jnp
import ml_collections

from audiotag_jax.models import crnn


def create_model(
  config: ml_collections.ConfigDict, *, num_classes: int, axis_name: str | None
) -> nn.Module:
  """Returns the model that `config.model.name` names.

  Args:
    config: a validated config.
    num_classes: number of classes.
    axis_name: the pmap axis that BatchNorm is synchronised over in training.
  """
  models = {"crnn": (crnn.CRNN, config.crnn)}
  model, fields = models[config.model.name]
  return model(
    num_classes=num_classes,
    axis_name=axis_name,
    dtype=jnp.dtype(config.model.dtype),
    **fields,
  )
