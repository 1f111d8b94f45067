"""Functions of JAX evaluated by their definition: op by op, in numpy.

A compiled program fuses operations, and computes some of them twice. Here numpy
computes each operation once and alone, in float64 or in float32. JAX computes the
operations that numpy lacks (random bits, window poolings), also one by one.
"""

import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

# Functions that draw different numbers if their type is float64.
DRAWS = ("bernoulli", "beta", "randint", "uniform")


def evaluate(function: Callable, *args: Any, dtype: Any = np.float64) -> Any:
  """Returns function(*args), computed in `dtype` in place of float32.

  Convolutions of Flax are sums of products. Random draws are those of float32.

  Args:
    function: a pure function of trees of arrays.
    *args: its arguments; their float32 arrays become `dtype`.
    dtype: np.float64 or np.float32.
  """
  is_wide = dtype == np.float64
  args = jax.tree.map(lambda x: _cast(x, dtype), args)
  with (
    jax.enable_x64(is_wide),
    mock.patch.multiple(jax.random, **_draws_of_float32()),
    nn.intercept_methods(_conv_by_products),
  ):
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    outputs = _evaluate(jaxpr.jaxpr, jaxpr.consts, jax.tree.leaves(args))
    outputs = [np.asarray(x) for x in outputs]
  return jax.tree.unflatten(jax.tree.structure(shapes), outputs)


def _cast(x: Any, dtype: Any) -> np.ndarray:
  x = np.asarray(x)
  return x.astype(dtype) if x.dtype == np.float32 else x


def _draws_of_float32() -> dict[str, Callable]:
  def wrap(draw: Callable) -> Callable:
    def draw_float32(*args: Any, **kwargs: Any) -> jax.Array:
      with jax.enable_x64(False):
        return draw(*args, **kwargs)

    return draw_float32

  return {name: wrap(getattr(jax.random, name)) for name in DRAWS}


def _conv_by_products(
  next_fun: Callable, args: Any, kwargs: Any, context: Any
) -> jax.Array:
  """Computes a Flax convolution as a sum over its kernel: see nn.intercept_methods."""
  layer = context.module
  is_conv = isinstance(layer, nn.Conv) and context.method_name == "__call__"
  if not (is_conv and layer.has_variable("params", "kernel")):
    return next_fun(*args, **kwargs)
  kernel = layer.get_variable("params", "kernel")
  window = kernel.shape[:-2]

  def for_each_axis(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple | list) else [value] * len(window)

  strides = [stride or 1 for stride in for_each_axis(layer.strides)]
  dilations = [dilation or 1 for dilation in for_each_axis(layer.kernel_dilation)]
  padding = {"VALID": 0, "SAME": [size // 2 for size in window]}.get(
    layer.padding if isinstance(layer.padding, str) else None, layer.padding
  )
  padding = [(p, p) if isinstance(p, int) else p for p in for_each_axis(padding)]
  x = jnp.pad(args[0], [(0, 0), *padding, (0, 0)])
  spans = [
    dilation * (size - 1) for size, dilation in zip(window, dilations, strict=True)
  ]
  y = 0.0
  for position in np.ndindex(window):
    starts = np.multiply(position, dilations)
    ends = np.array(x.shape[1:-1]) - spans + starts
    shifted = x[:, *map(slice, starts, ends, strides)]
    weights = kernel[position]  # [in, out], or [1, channels] of a depthwise one
    depthwise = layer.feature_group_count > 1
    y = y + (shifted * weights[0] if depthwise else shifted @ weights)
  return y + layer.get_variable("params", "bias") if layer.use_bias else y


def _evaluate(jaxpr: core.Jaxpr, consts: list, args: list) -> list[Any]:
  """Evaluates a jaxpr; frees values that are no longer needed."""
  values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args], strict=True))
  last_use = {var: i for i, eqn in enumerate(jaxpr.eqns) for var in _variables(eqn)}
  kept = {var for var in jaxpr.outvars if not isinstance(var, core.Literal)}

  def read(var: Any) -> Any:
    return var.val if isinstance(var, core.Literal) else values[var]

  for i, eqn in enumerate(jaxpr.eqns):
    outputs = _apply(eqn, [read(var) for var in eqn.invars])
    values.update(zip(eqn.outvars, outputs, strict=True))
    for var in _variables(eqn):
      if last_use[var] == i and var not in kept:
        del values[var]
  return [read(var) for var in jaxpr.outvars]


def _variables(eqn: core.JaxprEqn) -> set:
  return {var for var in eqn.invars if not isinstance(var, core.Literal)}


def _apply(eqn: core.JaxprEqn, args: list) -> list[Any]:
  """Computes an operation, or the operations of a called function."""
  name, params = eqn.primitive.name, eqn.params
  if name == "scan":
    return _scan(eqn, args)
  if name == "random_bits":
    return [_random_bits(params, *args)]
  for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
    if key in params:
      called = params[key]
      return _evaluate(called.jaxpr, called.consts, args)
  if name in OPERATIONS and not any(map(_is_key, args)):
    outputs = OPERATIONS[name](params, *map(np.asarray, args))
    return [np.asarray(outputs, eqn.outvars[0].aval.dtype)]
  outputs = eqn.primitive.bind(*args, **params)
  return outputs if eqn.primitive.multiple_results else [outputs]


def _is_key(x: Any) -> bool:
  return jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)


def _random_bits(params: dict, keys: jax.Array) -> np.ndarray:
  """Draws bits as the start of a longer draw: most shapes share a compiled program.

  JAX's partitionable Threefry computes each draw from the key and its position.
  """
  assert jax.config.jax_threefry_partitionable
  size = math.prod(params["shape"])
  longer, dtype = 1 << max(20, (size - 1).bit_length()), f"uint{params['bit_width']}"
  bits = [
    np.asarray(jax.random.bits(key, longer, dtype))[:size] for key in keys.ravel()
  ]
  return np.reshape(bits, (*keys.shape, *params["shape"]))


def _scan(eqn: core.JaxprEqn, args: list) -> list[np.ndarray]:
  """Runs a loop over the first axis of the sequences among its inputs.

  Inputs are constants, carried values and sequences; outputs are carried values and
  sequences. A sequence has one axis more than its items, the loop's body has the items.
  Releases of jax have different names for the counts.
  """

  def num_sequences(whole: list, items: list) -> int:
    return sum(x.aval.ndim > item.aval.ndim for x, item in zip(whole, items))

  params, body = eqn.params, eqn.params["jaxpr"]
  num_xs = num_sequences(eqn.invars, body.jaxpr.invars)
  num_carry = len(eqn.outvars) - num_sequences(eqn.outvars, body.jaxpr.outvars)
  num_consts = len(args) - num_carry - num_xs
  consts, carry = args[:num_consts], args[num_consts : num_consts + num_carry]
  xs = args[num_consts + num_carry :]
  steps = range(params["length"])
  ys = []
  for i in reversed(steps) if params["reverse"] else steps:
    row = [np.asarray(x)[i] for x in xs]
    outputs = _evaluate(body.jaxpr, body.consts, [*consts, *carry, *row])
    carry = outputs[:num_carry]
    ys.append(outputs[num_carry:])
  if params["reverse"]:
    ys.reverse()
  return [*carry, *(np.stack(y) for y in zip(*ys, strict=True))]


def _dot_general(params: dict, a: np.ndarray, b: np.ndarray) -> np.ndarray:
  (contract_a, contract_b), (batch_a, batch_b) = params["dimension_numbers"]
  free_a = [i for i in range(a.ndim) if i not in (*contract_a, *batch_a)]
  free_b = [i for i in range(b.ndim) if i not in (*contract_b, *batch_b)]
  sizes = [a.shape[i] for i in (*batch_a, *free_a)] + [b.shape[i] for i in free_b]
  a = a.transpose(*batch_a, *free_a, *contract_a)
  b = b.transpose(*batch_b, *contract_b, *free_b)
  batch, size = a.shape[: len(batch_a)], math.prod(a.shape[a.ndim - len(contract_a) :])
  product = a.reshape(*batch, -1, size) @ b.reshape(*batch, size, -1)
  return product.reshape(sizes)


def _broadcast(params: dict, x: np.ndarray) -> np.ndarray:
  shape = np.ones(len(params["shape"]), int)
  shape[list(params["broadcast_dimensions"])] = x.shape
  return np.broadcast_to(x.reshape(shape), params["shape"])


def _pad(params: dict, x: np.ndarray, value: np.ndarray) -> np.ndarray:
  """Pads; a negative width cuts off."""
  config = params["padding_config"]
  sizes = [
    max(low, 0) + max(high, 0) + size + max(size - 1, 0) * inner
    for size, (low, high, inner) in zip(x.shape, config, strict=True)
  ]
  padded = np.full(sizes, value, x.dtype)
  padded[
    tuple(
      slice(max(low, 0), max(low, 0) + size + max(size - 1, 0) * inner, inner + 1)
      for size, (low, high, inner) in zip(x.shape, config, strict=True)
    )
  ] = x
  return padded[
    tuple(
      slice(max(-low, 0), size - max(-high, 0))
      for size, (low, high, _) in zip(sizes, config, strict=True)
    )
  ]


def _slice(params: dict, x: np.ndarray) -> np.ndarray:
  strides = params["strides"] or (1,) * x.ndim
  return x[tuple(map(slice, params["start_indices"], params["limit_indices"], strides))]


def _elementwise(function: Callable) -> Callable:
  return lambda params, *args: function(*args)


def _reduction(function: Callable) -> Callable:
  return lambda params, x: function(x, axis=tuple(params["axes"]))


def _logistic(x: np.ndarray) -> np.ndarray:
  return 0.5 * (1.0 + np.tanh(0.5 * x))


def _select(which: np.ndarray, *cases: np.ndarray) -> np.ndarray:
  return np.choose(which.astype(int), cases)


OPERATIONS = {
  **{
    name: _elementwise(function)
    for name, function in {
      "add": np.add,
      "add_any": np.add,
      "and": np.bitwise_and,
      "copy": np.array,
      "div": np.divide,
      "eq": np.equal,
      "exp": np.exp,
      "ge": np.greater_equal,
      "gt": np.greater,
      "is_finite": np.isfinite,
      "le": np.less_equal,
      "log": np.log,
      "log1p": np.log1p,
      "logistic": _logistic,
      "lt": np.less,
      "max": np.maximum,
      "min": np.minimum,
      "mul": np.multiply,
      "ne": np.not_equal,
      "neg": np.negative,
      "not": np.invert,
      "or": np.bitwise_or,
      "pow": np.power,
      "rsqrt": lambda x: 1.0 / np.sqrt(x),
      "select_n": _select,
      "sign": np.sign,
      "sqrt": np.sqrt,
      "square": np.square,
      "sub": np.subtract,
      "tanh": np.tanh,
    }.items()
  },
  **{
    name: _reduction(function)
    for name, function in {
      "reduce_and": np.all,
      "reduce_max": np.max,
      "reduce_or": np.any,
      "reduce_sum": np.sum,
    }.items()
  },
  "argmax": lambda params, x: np.argmax(x, axis=params["axes"][0]),
  "broadcast_in_dim": _broadcast,
  "concatenate": lambda params, *xs: np.concatenate(xs, axis=params["dimension"]),
  "convert_element_type": lambda params, x: x.astype(params["new_dtype"]),
  "dot_general": _dot_general,
  "integer_pow": lambda params, x: x ** float(params["y"]),
  "pad": _pad,
  "reshape": lambda params, x: x.reshape(params["new_sizes"]),
  "rev": lambda params, x: np.flip(x, params["dimensions"]),
  "slice": _slice,
  "squeeze": lambda params, x: np.squeeze(x, tuple(params["dimensions"])),
  "stop_gradient": lambda params, x: x,
  "transpose": lambda params, x: x.transpose(params["permutation"]),
}
