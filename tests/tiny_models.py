"""Model directories of models so narrow that they compile in a second."""

import dataclasses
import zlib
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np

from audiotag_jax import model_directory
from audiotag_jax.frontend.mel import LogMelParams
from audiotag_jax.models import panns
from audiotag_jax.models.create import create_from_description

CLASSES = ("Bell", "Rain", "Heavy_rain")
FRONT_END = LogMelParams(8_000, 256, 256, 80, 16, 50.0, 4_000.0)
FIELDS = {
  "crnn": {
    "filters": [8, 8],
    "time_pooling": [2, 2],
    "mel_pooling": [2, 2],
    "kernel_size": 3,
    "gru_units": [8],
    "pooling": "linear_softmax",
    "conv_dropout": 0.0,
    "dropout": 0.0,
  },
  "Cnn6": {"filters": [8, 8], "embedding_dim": 6},
  "Cnn14_DecisionLevelAtt": {"filters": [8, 8], "embedding_dim": 6},
  "LeeNet11": {"filters": [6] * 9, "embedding_dim": 6},
}
# Narrow widths of PANNs' CNNs, and a length that models of waveforms can take.
NARROW = (8, 16, 16, 16, 24, 24)
NUM_BLOCKS = {"Cnn6": 4, "Cnn10": 4}
WAVEFORM_SAMPLES = {
  "LeeNet": 3**9,
  "DaiNet": 4**7,
  "Res1dNet": 5 * 4**7,
  "Wavegram": 5 * 4**6,
}


def describe(architecture: str, **others) -> model_directory.ModelDescription:
  """Describes a model of three classes, as narrow as its architecture allows."""
  description = model_directory.ModelDescription(
    architecture=architecture,
    fields=FIELDS.get(architecture, {}),
    front_end=dataclasses.asdict(FRONT_END),
    class_names=list(CLASSES),
    source={},
  )
  return dataclasses.replace(description, **others)


def narrow_panns(name: str, **fields) -> tuple[nn.Module, tuple[int, ...]]:
  """Returns a PANNs model, as narrow as its architecture allows, and an input shape.

  The inputs are log-mels, or waveforms if the model takes only waveforms.
  """
  if name.startswith("Cnn"):
    fields["filters"] = NARROW[: NUM_BLOCKS.get(name, 6)]
  model = panns.create(name, **fields)
  for prefix, num_samples in WAVEFORM_SAMPLES.items():
    if name.startswith(prefix):
      return model, (4, num_samples)
  return model, (4, 70, model.front_end.num_mels)


def random_variables(model):
  """Variables without zeros, so that every one of them affects the outputs."""
  waveform = jax.ShapeDtypeStruct((1, model.front_end.sample_rate_hz), np.float32)
  shapes = jax.eval_shape(
    lambda x: model.init(jax.random.key(0), x, train=False), waveform
  )

  def value(path, leaf):
    key = jax.tree_util.keystr(path, simple=True, separator=".")
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    gain = 0.1 if "fc_audioset" in key or "classifier" in key or "cla." in key else 1
    scale = np.float32(gain * np.sqrt(2 / max(1, np.prod(leaf.shape[:-1]))))
    values = scale * rng.standard_normal(leaf.shape, np.float32)
    if "scale" in key or key.endswith("var"):
      values = 1 + 0.1 * np.abs(values)
    if "norm.var" in key or "stats.bn0.var" in key:  # of the log-mel, in dB
      values = 400 * values
    if "norm.mean" in key or "stats.bn0.mean" in key:
      values = values - 30
    return np.float32(values)

  return jax.tree_util.tree_map_with_path(value, shapes)


def quick_jit(function):
  """Compiles a function for one call: in less time, to a slower program."""
  return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def apply(model, variables, inputs):
  """Returns the outputs of a model in evaluation, as numpy arrays."""
  outputs = quick_jit(lambda v, x: model.apply(v, x, train=False))(variables, inputs)
  return jax.tree.map(np.asarray, outputs)


def apply_in_training(model, variables, inputs, seed=0):
  """Returns the outputs of a training step, and the updated batch statistics."""

  def step(variables, inputs, key):
    rngs, mutable = {"dropout": key}, ["batch_stats"]
    return model.apply(variables, inputs, train=True, rngs=rngs, mutable=mutable)

  outputs, updates = quick_jit(step)(variables, inputs, jax.random.key(seed))
  return outputs, updates["batch_stats"]


def write(
  directory: Path,
  architecture: str = "crnn",
  bias: tuple[float, ...] | None = None,
  **others,
) -> Path:
  """Writes a model directory and returns it.

  Args:
    directory: the folder to write.
    architecture: one of `FIELDS`, or another of PANNs' architectures.
    bias: bias of the classifier of PANNs' models, for each class.
    **others: other fields of the description.
  """
  description = describe(architecture, **others)
  variables = random_variables(create_from_description(description))
  if bias:
    variables["params"]["fc_audioset"]["bias"] = np.float32(bias)
  model_directory.save_model(directory, description, variables)
  return directory
