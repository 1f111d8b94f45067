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
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.mlir.dialects import stablehlo
from tqdm import tqdm

from audiotag_jax import files
from audiotag_jax.errors import INSTALL_TENSORFLOW, WITH_TENSORFLOW, UserError
from audiotag_jax.inference.export_onnx import load_onnx, write_onnx
from audiotag_jax.inference.exported_model import (
  Outputs,
  Runner,
  input_spec,
  min_samples,
  score_batch,
)
from audiotag_jax.inference.tagger import Tagger

# Platforms that a StableHLO export and a SavedModel run on.
PLATFORMS = ("cpu", "cuda", "tpu")
# StableHLO version of TensorFlow 2.21, the oldest release that the package supports.
TENSORFLOW_STABLEHLO = "1.13.7"


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
    "min_samples": min_samples(tagger.front_end),
    "front_end": dataclasses.asdict(tagger.front_end),
    "class_names": list(tagger.class_names),
    "threshold": tagger.threshold,
    "thresholds": [float(x) for x in tagger.thresholds],
  }
  if inputs == "log_mel":
    # An export that takes waveforms normalises them itself.
    description["normalize"] = tagger.normalize
  return description


def write_stablehlo(tagger: Tagger, inputs: str, path: Path) -> None:
  """Writes a file that `jax.export.deserialize` reads; see `export`."""
  score = jax.jit(lambda x: score_batch(tagger, tagger.variables, x))
  exported = jax.export.export(score, platforms=PLATFORMS)(input_spec(tagger, inputs))
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
  score = jax.jit(lambda variables, x: score_batch(tagger, variables, x))
  exported = jax.export.export(score, platforms=PLATFORMS)(
    variables, input_spec(tagger, inputs)
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


FORMATS = {
  "stablehlo": Format("model.stablehlo", (), write_stablehlo, load_stablehlo),
  "tensorflow": Format(
    "saved_model", ("tensorflow",), write_saved_model, load_saved_model
  ),
  "onnx": Format("model.onnx", ("jax2onnx", "onnxruntime"), write_onnx, load_onnx),
}
