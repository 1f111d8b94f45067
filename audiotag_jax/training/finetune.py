"""Fine-tuning: loads a model directory, and selects the layers to train."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import logging

from audiotag_jax import checkpoint
from audiotag_jax.errors import UserError
from audiotag_jax.frontend.mel import LogMelParams
from audiotag_jax.models.create import create_model, load_model, model_fields
from audiotag_jax.panns.architectures import CNN_BLOCKS, WIDTHS
from audiotag_jax.training.steps import TrainState

# Layers whose shapes depend on the number of classes.
HEAD = ("fc_audioset", "att_block", "classifier", "attention")


def load_backbone(state: TrainState, config: ml_collections.ConfigDict) -> TrainState:
  """Replaces an initial state, except its head, by a model directory's weights.

  Args:
    state: the initial state, on the host.
    config: the config; `init_from` is the model directory.

  Raises:
    UserError: `init_from` is not a model directory, or it has another architecture,
      other shapes or another front-end.
  """
  directory = Path(config.init_from)
  description, saved = load_model(directory)
  if description.architecture != config.model.name:
    raise UserError(
      f"config.init_from {directory} is of {description.architecture}, not "
      f"{config.model.name}: give --config.model.name={description.architecture}"
    )
  _check_widths(description.fields, config)
  _check_front_end(description.front_end, config)
  params = _take(saved["params"], state.params, directory)
  batch_stats = _take(saved["batch_stats"], state.batch_stats, directory)
  source = description.source.get("file") or directory
  for name, layer in params.items():
    num_params = sum(x.size for x in jax.tree.leaves(layer))
    origin = "new" if name in HEAD else f"from {source}"
    logging.info("%s: %d parameters, %s.", name, num_params, origin)
  ema = {"params": params, "batch_stats": batch_stats} if state.ema else {}
  return dataclasses.replace(state, params=params, batch_stats=batch_stats, ema=ema)


def _check_front_end(
  theirs: Mapping[str, Any], config: ml_collections.ConfigDict
) -> None:
  ours = dataclasses.asdict(LogMelParams(**config.frontend))
  _check_section("frontend", ours, theirs, config.init_from)


def _check_widths(theirs: Mapping[str, Any], config: ml_collections.ConfigDict) -> None:
  if config.model.name in CNN_BLOCKS:
    model = create_model(config, num_classes=1, axis_name=None)
    ours = {key: model_fields(model)[key] for key in WIDTHS}
    _check_section("panns", ours, theirs, config.init_from)


def _check_section(
  section: str, ours: Mapping[str, Any], theirs: Mapping[str, Any], init_from: str
) -> None:
  """Raises `UserError` if a model directory was made with other values than `ours`."""
  differing = [key for key in ours if ours[key] != theirs.get(key)]
  if differing:
    listed = ", ".join(f"{key} {ours[key]}, not {theirs.get(key)}" for key in differing)
    flags = " ".join(
      f"--config.{section}.{key}={_as_flag(theirs.get(key))}" for key in differing
    )
    raise UserError(
      f"config.{section} differs from what {init_from} was trained with: "
      f"{listed}; give {flags}"
    )


def _as_flag(value: Any) -> str:
  """Returns a value as the command line takes it."""
  return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _take(saved: Mapping[str, Any], new: Mapping[str, Any], directory: Path) -> Any:
  """Returns the layers of `saved` and the head of `new`, in the order of `new`."""
  backbone = {name: layer for name, layer in saved.items() if name not in HEAD}
  expected = {name: layer for name, layer in new.items() if name not in HEAD}
  checkpoint.check_same_shapes(backbone, expected, str(directory))
  return {
    name: layer if name in HEAD else jax.tree.map(np.asarray, backbone[name])
    for name, layer in new.items()
  }


def learning_rate_scales(
  model: nn.Module, config: ml_collections.ConfigDict, inputs_shape: tuple[int, ...]
) -> dict[str, float]:
  """Returns the share of the learning rate that each layer gets; 0 if it is frozen.

  Blocks are counted from the classifier back, in the order the model calls them.

  Args:
    model: the model.
    config: the config.
    inputs_shape: shape of a batch of inputs.
  """
  finetune = config.finetune
  names = layers_in_order(model, inputs_shape)
  blocks = [name for name in names if name not in HEAD]
  distance = {name: len(blocks) - i for i, name in enumerate(blocks)}
  distance |= {name: 0 for name in names if name in HEAD}
  scale = {
    "full": lambda distance: 1.0,
    "linear": lambda distance: float(distance == 0),
    "last_blocks": lambda distance: float(distance <= finetune.num_blocks),
    "layerwise": lambda distance: finetune.layer_decay**distance,
  }[finetune.mode]
  return {name: scale(distance[name]) for name in names}


def layers_in_order(model: nn.Module, inputs_shape: tuple[int, ...]) -> list[str]:
  """Returns the names of a model's layers with parameters, as they are called."""
  names = []

  def init() -> None:
    inputs = jnp.zeros(inputs_shape, jnp.float32)
    # The names are read here, before JAX sorts them.
    names.extend(model.init(jax.random.key(0), inputs, train=False)["params"])

  jax.eval_shape(init)
  return names
