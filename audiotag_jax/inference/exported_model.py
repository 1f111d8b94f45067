"""The function that an export computes, and its inputs."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from audiotag_jax.audio import waveforms
from audiotag_jax.frontend import log_mel_jax, mel
from audiotag_jax.inference.tagger import Tagger

OUTPUTS = ("embedding", "scores")
# Least length of an input, in seconds.
MIN_S = 1.0

Outputs = dict[str, np.ndarray]
# Maps a batch of inputs to the outputs, in a runtime.
Runner = Callable[[np.ndarray], Outputs]


def model_inputs(tagger: Tagger, waveform: np.ndarray, inputs: str) -> np.ndarray:
  """Turns a mono waveform <float32>[samples] at the model's rate into export inputs."""
  if inputs == "waveform":
    return waveform
  waveform = waveforms.normalize(waveform, tagger.normalize)
  return np.asarray(log_mel_jax.log_mel(jnp.asarray(waveform), tagger.front_end))


def min_samples(front_end: mel.LogMelParams) -> int:
  """Returns the least length of a waveform, in samples."""
  return round(MIN_S * front_end.sample_rate_hz)


def input_spec(tagger: Tagger, inputs: str) -> jax.ShapeDtypeStruct:
  """Describes the inputs: any batch size, and any length from the least on."""
  least = min_samples(tagger.front_end)
  shape, constraint = "batch, samples", f"samples >= {least}"
  if inputs == "log_mel":
    shape = f"batch, frames, {tagger.front_end.num_mels}"
    constraint = f"frames >= {tagger.front_end.num_frames(least)}"
  dims = jax.export.symbolic_shape(shape, constraints=[constraint])
  return jax.ShapeDtypeStruct(dims, np.float32)


def score_batch(
  tagger: Tagger, variables: dict[str, Any], x: jax.Array
) -> dict[str, jax.Array]:
  """Returns the outputs for a batch of either kind of inputs.

  Args:
    tagger: the trained model.
    variables: its variables.
    x: a waveform <float32>[batch, samples] or a log-mel <float32>[batch, frames, mels].
  """
  if x.ndim == 2 and tagger.normalize == "peak":
    peak = jnp.abs(x).max(axis=1, keepdims=True)
    x = x / jnp.where(peak > 0, peak, 1.0)
  outputs: Any = tagger.model.apply(variables, x, train=False)
  return {"scores": nn.sigmoid(outputs["logits"]), "embedding": outputs["embedding"]}
