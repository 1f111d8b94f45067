"""Exports to ONNX, by jax2onnx."""

import contextlib
import logging
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval

from audiotag_jax import files
from audiotag_jax.frontend import log_mel_jax, mel
from audiotag_jax.inference.exported_model import (
  OUTPUTS,
  Runner,
  input_spec,
  score_batch,
)
from audiotag_jax.inference.tagger import Tagger

# JAX's primitives that call a function, and the parameter that holds the function.
CALLS = {
  "jit": "jaxpr",
  "custom_jvp_call": "call_jaxpr",
  "custom_vjp_call": "call_jaxpr",
}
# Newest operator set that runtimes of 2023 and later support.
ONNX_OPSET = 18


def write_onnx(tagger: Tagger, inputs: str, path: Path) -> None:
  """Writes an ONNX model; see `export.export`."""
  import jax2onnx

  spec = input_spec(tagger, inputs)
  # While jax2onnx traces, it replaces functions of Flax and jax.numpy by ones that take
  # fewer arguments; and it cannot read jax 0.12's calls. So it gets only primitives,
  # and of them only those that an output needs.
  with nn.intercept_methods(_by_matrix_products(tagger.front_end)):
    closed = jax.make_jaxpr(lambda x: score_batch(tagger, tagger.variables, x))(spec)
  needed = [True] * len(closed.jaxpr.outvars)
  jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, needed, instantiate=True)
  score = _inlined(core.ClosedJaxpr(jaxpr, closed.consts))
  with _mended_jax2onnx():
    model = jax2onnx.to_onnx(
      lambda x: tuple(score(x)),  # A dict's leaves come in the order of its keys.
      [spec],
      model_name="audiotag_jax",
      opset=ONNX_OPSET,
      input_names=[inputs],
      output_names=OUTPUTS,
    )
  # One file: jax2onnx itself would write the weights to another file.
  files.write_whole(path, lambda new: new.write_bytes(model.SerializeToString()))


def _inlined(closed: core.ClosedJaxpr) -> Callable[..., list[jax.Array]]:
  """Returns a jaxpr as a function without calls, in the bodies of its scans too."""

  def run(*args: jax.Array) -> list[jax.Array]:
    values = dict(zip(closed.jaxpr.constvars, closed.consts))
    values |= zip(closed.jaxpr.invars, args)

    def value(atom: core.Var | core.Literal) -> Any:
      return atom.val if isinstance(atom, core.Literal) else values[atom]

    for eqn in closed.jaxpr.eqns:
      inputs, params = [value(atom) for atom in eqn.invars], dict(eqn.params)
      outputs: Any
      if eqn.primitive.name in CALLS:
        outputs = _inlined(params[CALLS[eqn.primitive.name]])(*inputs)
      else:
        if eqn.primitive.name == "scan":
          body = params["jaxpr"]
          params["jaxpr"] = jax.make_jaxpr(_inlined(body))(*body.in_avals)
        outputs = eqn.primitive.bind(*inputs, **params)
      if not eqn.primitive.multiple_results:
        outputs = [outputs]
      values |= zip(eqn.outvars, outputs)
    return [value(atom) for atom in closed.jaxpr.outvars]

  return run


def _as_in_jax_0_10(scan: core.JaxprEqn) -> types.SimpleNamespace:
  """Returns a scan with the parameters of jax 0.10, which jax2onnx 0.13.0 reads.

  A scan's inputs are constants, carried values and sequences; its outputs are carried
  values and sequences. The body has the items of a sequence, which have one axis less.
  """

  def num_sequences(whole: Sequence[Any], items: Sequence[Any]) -> int:
    return sum(x.aval.ndim > item.aval.ndim for x, item in zip(whole, items))

  body = scan.params["jaxpr"]
  names = ("constvars", "invars", "outvars", "eqns")
  jaxpr = types.SimpleNamespace(**{name: getattr(body.jaxpr, name) for name in names})
  num_carry = len(scan.outvars) - num_sequences(scan.outvars, jaxpr.outvars)
  num_xs = num_sequences(scan.invars, jaxpr.invars)
  params = {
    "jaxpr": types.SimpleNamespace(jaxpr=jaxpr, consts=body.consts),
    "length": scan.params["length"],
    "reverse": scan.params["reverse"],
    "num_carry": num_carry,
    "num_consts": len(scan.invars) - num_carry - num_xs,
  }
  return types.SimpleNamespace(
    primitive=scan.primitive, params=params, invars=scan.invars, outvars=scan.outvars
  )


@contextlib.contextmanager
def _mended_jax2onnx() -> Iterator[None]:
  """Makes jax2onnx 0.13.0 read the scans of later JAX, and silences its warnings."""
  loggers = [logging.getLogger(name) for name in ("jax2onnx", "onnx_ir")]
  levels = [logger.level for logger in loggers]
  for logger in loggers:
    logger.setLevel(logging.CRITICAL)
  try:
    with warnings.catch_warnings():
      warnings.simplefilter("ignore", DeprecationWarning)
      from jax2onnx.plugins.jax.lax.scan import ScanPlugin

      lower = ScanPlugin.lower

      def mended(plugin: ScanPlugin, context: Any, scan: core.JaxprEqn) -> None:
        lower(plugin, context, _as_in_jax_0_10(scan))

      with mock.patch.object(ScanPlugin, "lower", mended):
        yield
  finally:
    for logger, level in zip(loggers, levels, strict=True):
      logger.setLevel(level)


def _by_matrix_products(front_end: mel.LogMelParams) -> Callable[..., jax.Array]:
  """Computes a model's log-mels without an FFT: see nn.intercept_methods.

  jax2onnx has no FFT for a batch of any size.
  """
  basis = np.fft.rfft(np.eye(front_end.fft_samples))
  real, imaginary = basis.real.astype(np.float32), basis.imag.astype(np.float32)

  def power(frames: jax.Array) -> jax.Array:
    return jnp.square(frames @ real) + jnp.square(frames @ imaginary)

  def intercept(next_fun: Callable, args: Any, kwargs: Any, context: Any) -> jax.Array:
    if context.method_name != "log_mel" or args[0].ndim != 2:
      return next_fun(*args, **kwargs)
    return log_mel_jax.log_mel(args[0], front_end, power)

  return intercept


def load_onnx(path: Path) -> Runner:
  """Loads an export in ONNX Runtime, on the CPU."""
  import onnxruntime

  options = onnxruntime.SessionOptions()
  options.log_severity_level = 3  # errors
  session = onnxruntime.InferenceSession(
    str(path), options, providers=["CPUExecutionProvider"]
  )
  (name,) = (each.name for each in session.get_inputs())
  return lambda x: dict(zip(OUTPUTS, session.run(OUTPUTS, {name: x}), strict=True))
