"""Trained models for other runtimes: StableHLO, TensorFlow's SavedModel and ONNX.

An export holds weights, model and, if it takes waveforms, front-end. Its input has any
batch size, and any length from a second on: shorter clips must be padded. Its outputs
are `scores` <float32>[batch, classes], in [0, 1], and `embedding` <float32>[batch,
dim]. `export.json` beside the export describes the inputs and the scores.
"""

import contextlib
import dataclasses
import importlib
import itertools
import logging
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.extend.mlir.dialects import stablehlo
from jax.interpreters import partial_eval
from tqdm import tqdm

from audiotag_jax import files
from audiotag_jax.audio import waveforms
from audiotag_jax.errors import INSTALL_TENSORFLOW, WITH_TENSORFLOW, UserError
from audiotag_jax.frontend import log_mel_jax, mel
from audiotag_jax.inference.tagger import Tagger

OUTPUTS = ("embedding", "scores")
# Least length of an input, in seconds.
MIN_S = 1.0
# Platforms that a StableHLO export and a SavedModel run on.
PLATFORMS = ("cpu", "cuda", "tpu")
# StableHLO version of TensorFlow 2.21, the oldest release that the package supports.
TENSORFLOW_STABLEHLO = "1.13.7"
# JAX's primitives that call a function, and the parameter that holds the function.
CALLS = {
  "jit": "jaxpr",
  "custom_jvp_call": "call_jaxpr",
  "custom_vjp_call": "call_jaxpr",
}
# Newest operator set that runtimes of 2023 and later support.
ONNX_OPSET = 18

Outputs = dict[str, np.ndarray]
# Maps a batch of inputs to the outputs, in a runtime.
Runner = Callable[[np.ndarray], Outputs]


class Format(NamedTuple):
  """A format of export.

  Attributes:
    file: name of its file, or folder.
    needs: the libraries that it needs beside JAX.
    write: writes a tagger's model for a kind of inputs to a path.
    load: loads a path in the format's own runtime.
  """

  file: str
  needs: tuple[str, ...]
  write: Callable[[Tagger, str, Path], None]
  load: Callable[[Path], Runner]


def export(
  tagger: Tagger, directory: Path, formats: Sequence[str], inputs: str
) -> dict[str, Path]:
  """Writes a model's exports, each whole or not at all, and their `export.json`.

  Args:
    tagger: the trained model.
    directory: folder to write to; existing exports in it are replaced.
    formats: names of `FORMATS`.
    inputs: "waveform" <float32>[batch, samples], full scale at 1, at the model's rate;
      or "log_mel" <float32>[batch, frames, mels] in dB, of its front-end.

  Returns:
    The path of each format's export.

  Raises:
    UserError: the model cannot take these inputs, or a format's library is not
      installed or fails.
  """
  for library in itertools.chain.from_iterable(FORMATS[name].needs for name in formats):
    _check_installed(library)
  paths = {name: directory / FORMATS[name].file for name in formats}
  for name, path in tqdm(paths.items(), desc="exporting", unit="format", disable=None):
    with refusing(name):
      FORMATS[name].write(tagger, inputs, path)
  description = _description(tagger, inputs)
  files.write_json(directory / "export.json", description, ensure_ascii=False)
  return paths


def _check_installed(library: str) -> None:
  try:
    importlib.import_module(library)
  except ImportError as error:
    install = "pip install -e '.[export]' installs it"
    if library in WITH_TENSORFLOW:
      install = INSTALL_TENSORFLOW
    raise UserError(
      f"this format needs {library} ({install}): leave the format out of --formats, "
      "or install it"
    ) from error


@contextlib.contextmanager
def refusing(name: str) -> Iterator[None]:
  """Turns a failure of a format's libraries into one line with their versions.

  Raises:
    UserError: the libraries failed.
  """
  try:
    yield
  except (UserError, OSError):
    raise
  except Exception as error:
    distributions = metadata.packages_distributions()
    versions = [
      f"{library} {metadata.version(distributions[library][0])}"
      for library in ("jax", *FORMATS[name].needs)
    ]
    first_line, *_ = [*str(error).splitlines(), ""]
    raise UserError(
      f"the {name} export fails with {', '.join(versions)} "
      f"({type(error).__name__}: {first_line:.200}): leave it out of --formats, or "
      "install other versions"
    ) from error


def _description(tagger: Tagger, inputs: str) -> dict[str, Any]:
  """Describes an export's inputs and scores to its user."""
  description = {
    "inputs": inputs,
    "sample_rate_hz": tagger.sample_rate_hz,
    "min_samples": _min_samples(tagger.front_end),
    "front_end": dataclasses.asdict(tagger.front_end),
    "class_names": list(tagger.class_names),
    "threshold": tagger.threshold,
    "thresholds": [float(x) for x in tagger.thresholds],
  }
  if inputs == "log_mel":
    # An export that takes waveforms normalises them itself.
    description["normalize"] = tagger.normalize
  return description


def model_inputs(tagger: Tagger, waveform: np.ndarray, inputs: str) -> np.ndarray:
  """Turns a mono waveform <float32>[samples] at the model's rate into export inputs."""
  if inputs == "waveform":
    return waveform
  waveform = waveforms.normalize(waveform, tagger.normalize)
  return np.asarray(log_mel_jax.log_mel(jnp.asarray(waveform), tagger.front_end))


def _min_samples(front_end: mel.LogMelParams) -> int:
  return round(MIN_S * front_end.sample_rate_hz)


def _input_spec(tagger: Tagger, inputs: str) -> jax.ShapeDtypeStruct:
  least = _min_samples(tagger.front_end)
  shape, constraint = "batch, samples", f"samples >= {least}"
  if inputs == "log_mel":
    shape = f"batch, frames, {tagger.front_end.num_mels}"
    constraint = f"frames >= {tagger.front_end.num_frames(least)}"
  dims = jax.export.symbolic_shape(shape, constraints=[constraint])
  return jax.ShapeDtypeStruct(dims, np.float32)


def _score(
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


def write_stablehlo(tagger: Tagger, inputs: str, path: Path) -> None:
  """Writes a file that `jax.export.deserialize` reads; see `export`."""
  score = jax.jit(lambda x: _score(tagger, tagger.variables, x))
  exported = jax.export.export(score, platforms=PLATFORMS)(_input_spec(tagger, inputs))
  files.write_whole(path, lambda new: new.write_bytes(exported.serialize()))


def load_stablehlo(path: Path) -> Runner:
  """Loads an export in JAX, without this package's code or Flax."""
  call = jax.jit(jax.export.deserialize(bytearray(path.read_bytes())).call)
  return lambda x: jax.tree.map(np.asarray, call(x))


def write_saved_model(tagger: Tagger, inputs: str, path: Path) -> None:
  """Writes a SavedModel with the signature `serving_default`; see `export`."""
  import tensorflow as tf
  from tensorflow.compiler.tf2xla.python import xla

  variables = jax.tree.map(np.asarray, tagger.variables)
  score = jax.jit(lambda variables, x: _score(tagger, variables, x))
  exported = jax.export.export(score, platforms=PLATFORMS)(
    variables, _input_spec(tagger, inputs)
  )
  stablehlo_module = stablehlo.serialize_portable_artifact_str(
    exported.mlir_module(), TENSORFLOW_STABLEHLO
  )
  module = tf.Module()
  # TensorFlow tracks the variables that are attributes of a module, and no others.
  module.variables_ = tf.nest.map_structure(tf.Variable, variables)

  def call(x: tf.Tensor) -> dict[str, tf.Tensor]:
    arrays = [*tf.nest.flatten(module.variables_), x]
    outputs = xla.call_module(
      [arrays[i] for i in exported.module_kept_var_idx],
      version=exported.calling_convention_version,
      module=stablehlo_module,
      Tout=[tf.float32 for _ in exported.out_avals],
      Sout=[[None, *aval.shape[1:]] for aval in exported.out_avals],
      platforms=[platform.upper() for platform in exported.platforms],
    )
    return jax.tree.unflatten(exported.out_tree, outputs)

  sizes = [None, None, tagger.front_end.num_mels][: 2 if inputs == "waveform" else 3]
  module.score = tf.function(
    call,
    input_signature=[tf.TensorSpec(sizes, tf.float32, name=inputs)],
    autograph=False,
  )
  with files.replaced_folder(path) as new:
    tf.saved_model.save(module, str(new), signatures=module.score)


def load_saved_model(path: Path) -> Runner:
  """Loads an export in TensorFlow, without JAX."""
  import tensorflow as tf

  module = tf.saved_model.load(str(path))

  def run(x: np.ndarray) -> Outputs:
    outputs = module.signatures["serving_default"](tf.constant(x))
    return {name: output.numpy() for name, output in outputs.items()}

  return run


def write_onnx(tagger: Tagger, inputs: str, path: Path) -> None:
  """Writes an ONNX model; see `export`."""
  import jax2onnx

  spec = _input_spec(tagger, inputs)
  # While jax2onnx traces, it replaces functions of Flax and jax.numpy by ones that take
  # fewer arguments; and it cannot read jax 0.12's calls. So it gets only primitives,
  # and of them only those that an output needs.
  with nn.intercept_methods(_by_matrix_products(tagger.front_end)):
    closed = jax.make_jaxpr(lambda x: _score(tagger, tagger.variables, x))(spec)
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


FORMATS = {
  "stablehlo": Format("model.stablehlo", (), write_stablehlo, load_stablehlo),
  "tensorflow": Format(
    "saved_model", ("tensorflow",), write_saved_model, load_saved_model
  ),
  "onnx": Format("model.onnx", ("jax2onnx", "onnxruntime"), write_onnx, load_onnx),
}
