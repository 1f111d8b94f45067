"""Creates models, from a config or from a model directory's description."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from audiotag_jax import model_directory
from audiotag_jax.errors import UserError, reason_of
from audiotag_jax.frontend.mel import LogMelParams
from audiotag_jax.model_directory import ModelDescription
from audiotag_jax.models import crnn, layers, panns
from audiotag_jax.panns.architectures import WIDTHS

# Length of the longest input of a model: a Tagger's.
LONGEST_INPUT_S = 30.0


def create_model(
  config: ml_collections.ConfigDict, *, num_classes: int, axis_name: str | None
) -> nn.Module:
  """Returns the model that `config.model.name` names.

  Args:
    config: a validated config.
    num_classes: number of classes.
    axis_name: the pmap axis that BatchNorm is synchronised over in training.

  Raises:
    UserError: the model does not exist.
  """
  create: Callable[..., nn.Module] = partial(panns.create, config.model.name)
  fields = panns_fields(config.panns)
  if config.model.name == "crnn":
    create, fields = crnn.CRNN, config.crnn
  return create(
    num_classes=num_classes,
    front_end=LogMelParams(**config.frontend),
    spec_augment=_spec_augment(config.augment),
    freeze_norm=config.finetune.mode in ("linear", "last_blocks"),
    axis_name=axis_name,
    dtype=jnp.dtype(config.model.dtype),
    **fields,
  )


def _spec_augment(augment: ml_collections.ConfigDict) -> layers.SpecAugment | None:
  if not (augment.time_stripes or augment.mel_stripes):
    return None
  names = [field.name for field in dataclasses.fields(layers.SpecAugment)]
  return layers.SpecAugment(**{name: augment[name] for name in names})


def panns_fields(section: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns `config.panns` as fields of a module, without widths that are not set."""
  return {key: value for key, value in section.items() if value or key not in WIDTHS}


def model_fields(model: nn.Module) -> dict[str, Any]:
  """Returns a model's fields for its description, in the types of JSON.

  Fields that are described elsewhere, or do not belong to a model, are left out.
  """
  elsewhere = {
    *("num_classes", "front_end", "spec_augment", "freeze_norm"),
    *("axis_name", "dtype", "parent", "name"),
  }
  names = {field.name for field in dataclasses.fields(model)} - elsewhere
  values = {name: getattr(model, name) for name in sorted(names)}
  return {
    name: list(value) if isinstance(value, tuple) else value
    for name, value in values.items()
  }


def create_from_description(description: ModelDescription) -> nn.Module:
  """Returns the module that a model directory describes.

  Raises:
    UserError: this version of the code has no such model.
  """
  what = f"the model directory's {description.architecture}"
  try:
    fields: dict[str, Any] = {
      key: tuple(value) if isinstance(value, list) else value
      for key, value in description.fields.items()
    }
    fields["num_classes"] = len(description.class_names)
    fields["front_end"] = LogMelParams(**description.front_end)
    if description.architecture == "crnn":
      return crnn.CRNN(**fields)
    return panns.create(description.architecture, **fields)
  except TypeError as error:
    raise UserError(f"{what} is of another version of the code: {error}") from error


def load_model(directory: Path) -> tuple[ModelDescription, dict[str, Any]]:
  """Reads a model directory whose weights are those of its module.

  Returns:
    The description, and the variables as numpy arrays; see
    `model_directory.load_model`.

  Raises:
    UserError: `directory` is not a model directory, or its parts do not fit together.
  """
  return model_directory.load_model(directory, _expected_shapes)


def _expected_shapes(description: ModelDescription) -> dict[str, Any]:
  """Returns the `params` and `batch_stats` of a described model, as shapes."""
  module = create_from_description(description)
  rate_hz = module.front_end.sample_rate_hz
  if not module.min_samples <= LONGEST_INPUT_S * rate_hz:
    raise UserError(
      f"the model directory's {description.architecture} takes no clip shorter than "
      f"{module.min_samples / rate_hz:g} s, more than {LONGEST_INPUT_S:g}: its "
      "front_end and its fields do not fit together"
    )
  waveform = jax.ShapeDtypeStruct((1, rate_hz), jnp.float32)
  init = partial(module.init, jax.random.key(0), train=False)
  try:
    return dict(jax.eval_shape(init, waveform))
  except Exception as error:  # Flax and JAX may raise anything.
    raise UserError(
      f"the model directory's {description.architecture} cannot be made, because its "
      f"front_end and its fields do not fit together ({reason_of(error)})"
    ) from error
