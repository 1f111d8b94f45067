"""Cost of a model: parameters, and multiply-adds and time per clip."""

import math
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.extend.core as jex
import ml_collections
import numpy as np

from audiotag_jax.data.inputs import inputs_shape

# Seconds that the forward pass is timed for; the last repetition may run beyond.
TIME_LIMIT_S = 5.0


def measure(
  model: nn.Module, variables: dict[str, Any], config: ml_collections.ConfigDict
) -> dict[str, Any]:
  """Measures the cost of scoring clips of `config.data.clip_s`.

  Args:
    model: the model.
    variables: `params` and `batch_stats`, on the host.
    config: the config.

  Returns:
    `params`; `multiply_adds_per_clip`: see `multiply_adds`; `clips_per_second` of the
    compiled forward pass on one device, for a batch of `evaluation.batch_size` inputs
    (log-mels or waveforms) in the device's memory; `clip_s`; `device`, the device's
    name.
  """

  def forward(variables: dict[str, Any], inputs: jax.Array) -> Any:
    return model.apply(variables, inputs, train=False)

  device = jax.local_devices()[0]
  inputs = _random_inputs(config)
  counted = multiply_adds(jax.make_jaxpr(forward)(variables, inputs[:1]).jaxpr)
  on_device = jax.device_put((variables, inputs), device)
  compiled = jax.jit(forward).lower(*on_device).compile()
  batch_s = _median_s(lambda: jax.block_until_ready(compiled(*on_device)))
  return {
    "params": sum(x.size for x in jax.tree.leaves(variables["params"])),
    "multiply_adds_per_clip": counted,
    "clips_per_second": len(inputs) / batch_s,
    "clip_s": config.data.clip_s,
    "device": _describe(device),
  }


def multiply_adds(jaxpr: jex.Jaxpr) -> int:
  """Counts the multiply-adds of all matrix products and convolutions.

  XLA's own `cost_analysis` counts a scan's body once, however often it runs, so that a
  recurrence counts as nearly nothing. Here, the body counts `length` times. The most
  expensive of several branches counts. A convolution's padding counts as input.
  Elementwise operations, and the FFT of a front-end inside the model, are left out.

  Raises:
    ValueError: a loop with an unknown number of rounds contains products.
  """
  return sum(_multiply_adds_of(equation) for equation in jaxpr.eqns)


def _multiply_adds_of(equation: jex.JaxprEqn) -> int:
  name, params = equation.primitive.name, equation.params
  inputs: list[Any] = [atom.aval for atom in equation.invars]
  outputs: list[Any] = [atom.aval for atom in equation.outvars]
  if name == "dot_general":
    (contracted, _), _ = params["dimension_numbers"]
    shape = inputs[0].shape
    return outputs[0].size * math.prod(shape[i] for i in contracted)
  if name == "conv_general_dilated":
    # The kernel's axes are the filters, a group's input channels, and its sides.
    kernel = inputs[1]
    num_filters = kernel.shape[params["dimension_numbers"].rhs_spec[0]]
    return outputs[0].size * kernel.size // num_filters
  inner = [multiply_adds(jaxpr) for jaxpr in _inner_jaxprs(params)]
  if name == "cond":
    return max(inner)
  if name == "while" and any(inner):
    raise ValueError("the multiply-adds of a while loop cannot be counted")
  return sum(inner) * params.get("length", 1)


def _inner_jaxprs(params: dict[str, Any]) -> Iterator[jex.Jaxpr]:
  """Yields the jaxprs that an equation calls."""
  for value in params.values():
    for part in value if isinstance(value, tuple | list) else (value,):
      if isinstance(part, jex.ClosedJaxpr):
        yield part.jaxpr
      elif isinstance(part, jex.Jaxpr):
        yield part


def _random_inputs(config: ml_collections.ConfigDict) -> np.ndarray:
  """Draws a batch of inputs with the levels of log-mels (in dB) or of waveforms."""
  level, spread = {"log_mel": (-40, 15), "waveform": (0, 0.1)}[config.data.features]
  shape = (config.evaluation.batch_size, *inputs_shape(config))
  rng = np.random.default_rng(0)
  return level + spread * rng.standard_normal(shape, dtype=np.float32)


def _median_s(function: Callable) -> float:
  """The median of a function's seconds over `TIME_LIMIT_S`, after one untimed call."""
  function()
  seconds: list[float] = []
  while sum(seconds) < TIME_LIMIT_S:
    start_s = time.perf_counter()
    function()
    seconds.append(time.perf_counter() - start_s)
  return statistics.median(seconds)


def _describe(device: jax.Device) -> str:
  if device.platform == "cpu":
    return f"cpu, {os.cpu_count()} cores"
  return device.device_kind
