"""Exports, loaded in their own runtimes, against the Tagger."""

import copy
import dataclasses
import functools
import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny_models
from conftest import chirp

from audiotag_jax.errors import UserError
from audiotag_jax.inference import Tagger, export, exported_model
from audiotag_jax.panns.architectures import ARCHITECTURES
from configs import crnn_demo

pytestmark = pytest.mark.slow

RATE_HZ = 8_000
MODELS = ("crnn", "Cnn6", "LeeNet11")
# The last one is between two neighbouring float32.
THRESHOLDS = {"global": 0.25, "per_class": [0.5, 0.125, 1 - 1.5 * 2**-24]}


@pytest.fixture(scope="module")
def load(tmp_path_factory):
  """Returns the Tagger of one of the models."""
  folder = tmp_path_factory.mktemp("models")

  @functools.cache
  def load_tagger(name):
    fields = tiny_models.FIELDS[name]
    if name == "crnn":
      fields = fields | {"pooling": "attention"}
    tiny_models.write(folder / name, name, fields=fields, thresholds=THRESHOLDS)
    return Tagger.load(folder / name)

  return load_tagger


def clips(num, seconds):
  """A batch of waveforms <float32>[num, samples], each 20 dB below the last one."""
  return np.float32([0.1**i * chirp(seconds, i, RATE_HZ) for i in range(num)])


def check_outputs(outputs, batch, tagger):
  """A format's outputs are the Tagger's, within 1e-4, and tell clips apart."""
  scores = np.stack([tagger.tag(clip, RATE_HZ) for clip in batch])
  embeddings = np.stack([tagger.embed(clip, RATE_HZ) for clip in batch])
  assert sorted(outputs) == ["embedding", "scores"]
  assert outputs["scores"].dtype == outputs["embedding"].dtype == np.float32
  np.testing.assert_allclose(outputs["scores"], scores, atol=1e-4)
  np.testing.assert_allclose(outputs["embedding"], embeddings, rtol=1e-4, atol=1e-4)
  assert np.ptp(scores, axis=0).max() > 1e-3


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", export.FORMATS)
def test_waveforms_score_as_the_tagger_scores_them(name, model, load, tmp_path):
  tagger = load(model)
  (path,) = export.export(tagger, tmp_path, [name], "waveform").values()
  assert sorted(os.listdir(tmp_path)) == sorted([path.name, "export.json"])
  run = export.FORMATS[name].load(path)
  batch = clips(3, 1.0)
  check_outputs(run(batch), batch, tagger)
  # Another batch size, and a length that the hop does not divide.
  batch = clips(2, 2.3457)
  check_outputs(run(batch), batch, tagger)


@pytest.mark.parametrize("name", export.FORMATS)
def test_log_mels_score_as_their_waveforms(name, load, tmp_path):
  tagger = load("crnn")
  (path,) = export.export(tagger, tmp_path, [name], "log_mel").values()
  batch = clips(3, 1.0)
  log_mels = [exported_model.model_inputs(tagger, clip, "log_mel") for clip in batch]
  check_outputs(export.FORMATS[name].load(path)(np.stack(log_mels)), batch, tagger)


def recipe_tagger(name, tmp_path):
  """The Tagger of crnn_demo's network, or of a CNN14 with an eighth of the filters."""
  if name == "crnn":
    config = crnn_demo.get_config()
    fields, front_end = config.crnn.to_dict(), config.frontend.to_dict()
  else:
    fields = {"filters": [8, 16, 32, 64, 128, 256], "embedding_dim": 256}
    front_end = dict(ARCHITECTURES[name].front_end)
  tiny_models.write(tmp_path / "model", name, fields=fields, front_end=front_end)
  return Tagger.load(tmp_path / "model")


@pytest.mark.parametrize("model", ["crnn", "Cnn14"])
def test_exports_at_a_recipes_size_score_as_the_model_op_by_op(model, tmp_path):
  tagger = recipe_tagger(model, tmp_path)
  batch = np.float32([0.5 * chirp(6.0, i, tagger.sample_rate_hz) for i in range(2)])
  with jax.disable_jit():
    outputs = tagger.model.apply(tagger.variables, batch, train=False)
    scores = jax.nn.sigmoid(outputs["logits"])
  assert np.ptp(scores, axis=0).max() > 1e-3
  paths = export.export(tagger, tmp_path / "out", list(export.FORMATS), "waveform")
  for name, path in paths.items():
    got = export.FORMATS[name].load(path)(batch)
    np.testing.assert_allclose(got["scores"], scores, atol=1e-4, err_msg=name)
    np.testing.assert_allclose(
      got["embedding"], outputs["embedding"], rtol=1e-4, atol=1e-4, err_msg=name
    )


def test_clips_are_scaled_to_a_peak_as_in_training(load, tmp_path):
  tagger = copy.copy(load("crnn"))
  tagger.normalize = "peak"
  for inputs in ("waveform", "log_mel"):
    paths = export.export(tagger, tmp_path / inputs, ["stablehlo"], inputs)
    run = export.load_stablehlo(paths["stablehlo"])
    loud, quiet = (
      run(exported_model.model_inputs(tagger, gain * clips(1, 1.0)[0], inputs)[None])[
        "scores"
      ]
      for gain in (1.0, 0.01)
    )
    np.testing.assert_allclose(loud, quiet, atol=1e-4)
    told = json.loads((tmp_path / inputs / "export.json").read_text())
    assert told.get("normalize") == {"waveform": None, "log_mel": "peak"}[inputs]
  silence = export.load_stablehlo(tmp_path / "waveform/model.stablehlo")(
    np.zeros((1, RATE_HZ), np.float32)
  )
  assert np.isfinite(silence["scores"]).all()


def test_the_description_tells_what_goes_in_and_what_the_scores_are_of(load, tmp_path):
  export.export(load("crnn"), tmp_path, [], "waveform")
  assert json.loads((tmp_path / "export.json").read_text()) == {
    "inputs": "waveform",
    "sample_rate_hz": RATE_HZ,
    "min_samples": RATE_HZ,
    "front_end": dataclasses.asdict(tiny_models.FRONT_END),
    "class_names": list(tiny_models.CLASSES),
    "threshold": 0.25,
    "thresholds": THRESHOLDS["per_class"],
  }


def test_an_export_replaces_the_one_that_was_there(load, tmp_path):
  for name in ("crnn", "LeeNet11"):
    export.export(load(name), tmp_path, ["tensorflow"], "waveform")
  run = export.load_saved_model(tmp_path / "saved_model")
  check_outputs(run(clips(3, 1.0)), clips(3, 1.0), load("LeeNet11"))
  assert sorted(os.listdir(tmp_path)) == ["export.json", "saved_model"]


def test_a_model_of_waveforms_alone_has_no_export_of_log_mels(load, tmp_path):
  with pytest.raises(UserError, match="takes only waveforms .*, not inputs of shape"):
    export.export(load("LeeNet11"), tmp_path / "out", ["onnx"], "log_mel")
  assert not list(tmp_path.rglob("*.onnx"))


def test_tensorflow_and_onnx_are_imported_when_they_are_needed():
  code = "import sys; from audiotag_jax.inference import export; print(*sys.modules)"
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
  assert "audiotag_jax.inference.export" in done.stdout.split()
  assert not {"tensorflow", "jax2onnx", "onnxruntime"} & set(done.stdout.split())


def test_a_library_that_is_not_installed_is_named(load, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "jax2onnx", None)
  with pytest.raises(UserError, match="needs jax2onnx .pip install -e"):
    export.export(load("Cnn6"), tmp_path, ["stablehlo", "onnx"], "waveform")
  assert not list(tmp_path.iterdir())


def test_libraries_that_fail_are_named_with_their_versions(load, tmp_path, monkeypatch):
  def fail(*args):
    raise TypeError("no such parameter\nand more")

  monkeypatch.setitem(
    export.FORMATS, "onnx", export.FORMATS["onnx"]._replace(write=fail)
  )
  with pytest.raises(UserError) as refused:
    export.export(load("Cnn6"), tmp_path, ["onnx"], "waveform")
  message = str(refused.value)
  assert re.match(
    r"the onnx export fails with jax [\d.]+, jax2onnx [\d.]+, onnxruntime [\d.]+ "
    r"\(TypeError: no such parameter\): leave it out of --formats",
    message,
  )
  assert "\n" not in message
  with (
    pytest.raises(UserError, match=r"with jax [\d.]+, tensorflow [\d.]+ \(KeyError: "),
    export.refusing("tensorflow"),
  ):
    raise KeyError("x")
