"""The conversion of PANNs' files: reading, refusing, writing."""

import collections
import dataclasses
import hashlib
import json
import os
from pathlib import Path

import jax
import numpy as np
import panns_reference
import pytest
import tiny_models
import torch

from audiotag_jax import model_directory
from audiotag_jax.errors import UserError
from audiotag_jax.frontend import mel
from audiotag_jax.models import panns, panns_from_pytorch
from audiotag_jax.panns import class_names


@pytest.fixture(scope="module")
def cnn6():
  """A Cnn6 in PyTorch with the generated weights."""
  import torch_cnn6

  model = torch_cnn6.Cnn6(527).eval()
  for key, tensor in model.state_dict().items():
    if not key.startswith(("spectrogram_extractor", "logmel_extractor")):
      value = panns_reference.weight(key, tuple(tensor.shape))
      tensor.copy_(torch.from_numpy(value))
  return model


def save(path: Path, content, **options) -> Path:
  torch.save(content, path, **options)
  return path


def scores(directory: Path) -> np.ndarray:
  """The scores that a model directory's model gives the reference's waveforms."""
  description, variables = model_directory.load_model(directory)
  front_end = mel.LogMelParams(**description.front_end)
  model = panns.create(description.architecture, num_classes=527, front_end=front_end)
  variables.pop("pytorch")
  waveforms = panns_reference.waveforms(model.front_end.sample_rate_hz)
  outputs = tiny_models.apply(model, variables, waveforms)
  return np.asarray(jax.nn.sigmoid(outputs["logits"]))


FORMS = {
  "as released": lambda sd: {"iteration": 1, "model": sd},
  "bare": lambda sd: sd,
  "DataParallel": lambda sd: {"model": {f"module.{key}": sd[key] for key in sd}},
  "bare DataParallel": lambda sd: collections.OrderedDict(
    (f"module.{key}", sd[key]) for key in sd
  ),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_reads_the_forms_of_a_file(form, cnn6, tmp_path):
  path = save(tmp_path / "Cnn6_mAP=0.343.pth", form(cnn6.state_dict()))
  description = panns_from_pytorch.convert_file(path, tmp_path / "models" / "cnn6")
  assert (description.architecture, description.normalize) == ("Cnn6", "none")
  assert description == model_directory.read_description(tmp_path / "models" / "cnn6")
  assert os.listdir(tmp_path / "models") == ["cnn6"]


def test_what_is_written(cnn6, tmp_path):
  # PANNs' own files have the format of PyTorch before 1.6.
  path = save(
    tmp_path / "Cnn6_mAP=0.343.pth",
    {"model": cnn6.state_dict()},
    _use_new_zipfile_serialization=False,
  )
  output = tmp_path / "cnn6"
  panns_from_pytorch.convert_file(path, output)
  assert sorted(os.listdir(output)) == ["checkpoints", "model.json"]
  description = json.loads((output / "model.json").read_text())
  assert description == {
    "architecture": "Cnn6",
    "fields": {
      "conv_dropout": 0.2,
      "convs_per_block": 1,
      "dropout": 0.5,
      "embedding_dim": 512,
      "filters": [64, 128, 256, 512],
      "kernel_size": 5,
      "pooling": "clip",
    },
    "front_end": dataclasses.asdict(panns.FRONT_END),
    "class_names": class_names.audioset_class_names(),
    "source": {
      "file": "Cnn6_mAP=0.343.pth",
      "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    },
    "thresholds": None,
    "normalize": "none",
  }
  expected = panns_reference.outputs("Cnn6")["clipwise_output"]
  np.testing.assert_allclose(scores(output), expected, atol=1e-6)


def test_another_number_of_classes_needs_their_names(tmp_path):
  import torch_cnn6

  path = save(tmp_path / "mine.pth", torch_cnn6.Cnn6(3).state_dict())
  with pytest.raises(UserError, match="3 classes, not AudioSet's 527: give their nam"):
    panns_from_pytorch.convert_file(path, tmp_path / "out")
  names = tmp_path / "names.txt"
  names.write_text("Rain\nWind\n")
  with pytest.raises(UserError, match="names.txt has 2 names for 3 classes"):
    panns_from_pytorch.convert_file(path, tmp_path / "out", class_names_file=str(names))
  with pytest.raises(UserError, match="none.txt is not a file or a model directory"):
    panns_from_pytorch.convert_file(path, tmp_path / "out", class_names_file="none.txt")
  assert not (tmp_path / "out").exists()
  names.write_text("\ufeffRain\n\nWind \nThunder\n\n", "utf-8")
  description = panns_from_pytorch.convert_file(
    path, tmp_path / "out", class_names_file=str(names)
  )
  assert description.class_names == ["Rain", "Wind", "Thunder"]


def faulty(state_dict, fault):
  """A state_dict with a fault, and the expected message."""
  state_dict = dict(state_dict)
  if fault == "missing":
    del state_dict["bn0.bias"], state_dict["conv_block2.bn1.running_var"]
    return state_dict, "missing bn0.bias, missing conv_block2.bn1.running_var"
  if fault == "unexpected":
    state_dict["fc2.weight"] = torch.zeros(2)
    return state_dict, "unexpected fc2.weight"
  state_dict["fc1.weight"] = torch.zeros(4, 512)
  return state_dict, r"fc1.weight is \[4, 512\], not \[512, 512\]"


@pytest.mark.parametrize("model", [None, "Cnn6"])
@pytest.mark.parametrize("fault", ["missing", "unexpected", "wrongly shaped"])
def test_lists_faults_and_writes_nothing(fault, model, cnn6, tmp_path):
  state_dict, message = faulty(cnn6.state_dict(), fault)
  path = save(tmp_path / "x.pth", state_dict)
  with pytest.raises(UserError, match=f"x.pth.* Cnn6.*{message}"):
    panns_from_pytorch.convert_file(path, tmp_path / "out", model=model)
  assert os.listdir(tmp_path) == ["x.pth"]


def test_the_file_is_not_what_it_is_said_to_be(cnn6, tmp_path):
  path = save(tmp_path / "x.pth", cnn6.state_dict())
  with pytest.raises(UserError, match="x.pth is not of Cnn10: missing conv_block1.c"):
    panns_from_pytorch.convert_file(path, tmp_path / "out", model="Cnn10")
  with pytest.raises(UserError, match="--model=Cnn7: choose from Cnn6, Cnn10"):
    panns_from_pytorch.convert_file(path, tmp_path / "out", model="Cnn7")


class Harm:
  """An object whose pickle runs code when it is loaded."""

  def __reduce__(self):
    return os.mkdir, ("harm",)


def test_refuses_a_pickle_that_wants_more(cnn6, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  path = save(tmp_path / "x.pth", {"model": cnn6.state_dict(), "extra": Harm()})
  with pytest.raises(UserError, match=r"holds more than weights \((posix|nt).mkdir\)"):
    panns_from_pytorch.convert_file(path, tmp_path / "out")
  assert os.listdir(tmp_path) == ["x.pth"]


def test_refuses_anything_but_a_state_dict(cnn6, tmp_path):
  contents = {
    "text.pth": b"<!DOCTYPE html>",
    "empty.pth": b"",
    "cut.pth": save(tmp_path / "x.pth", cnn6.state_dict()).read_bytes()[:100_000],
  }
  for name, content in contents.items():
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} is not a PyTorch file, or it is dam"):
      panns_from_pytorch.convert_file(tmp_path / name, tmp_path / "out")
  for content in ([1, 2], {}, {"model": {}}):
    path = save(tmp_path / "x.pth", content)
    with pytest.raises(UserError, match="x.pth has no state_dict, alone or under"):
      panns_from_pytorch.convert_file(path, tmp_path / "out")
  path = save(tmp_path / "x.pth", {"epoch": 3, "weights": {}})
  with pytest.raises(UserError, match="is not a state_dict: it holds epoch, weights"):
    panns_from_pytorch.convert_file(path, tmp_path / "out")
  with pytest.raises(UserError, match="none.pth is not a file: give the .pth or .saf"):
    panns_from_pytorch.convert_file(tmp_path / "none.pth", tmp_path / "out")


SLIM = {"filters": (2, 3, 4, 5), "embedding_dim": 6}


@pytest.fixture(scope="module")
def slim():
  """The state_dict of a slim Cnn6 of AudioSet's classes."""
  import torch_cnn6

  torch.manual_seed(0)
  return torch_cnn6.Cnn6(527, **SLIM).state_dict()


def write_names(folder):
  (folder / "names.txt").write_text("Rain\nWind\nThunder\n")
  return str(folder / "names.txt")


def test_panns_template_for_fine_tuning(slim, tmp_path, caplog):
  content = {f"module.base.{key}": value for key, value in slim.items()}
  transfer = torch.nn.Linear(6, 3)
  for key, value in transfer.state_dict().items():
    content[f"module.fc_transfer.{key}"] = value
  sampler = {"pointer": 3, "indexes": np.arange(9)}
  path = save(
    tmp_path / "x.pth", {"iteration": 3, "model": content, "sampler": sampler}
  )
  with pytest.raises(UserError, match="3 classes, not AudioSet's 527: give their nam"):
    panns_from_pytorch.convert_file(path, tmp_path / "out")
  panns_from_pytorch.convert_file(
    path, tmp_path / "out", class_names_file=write_names(tmp_path)
  )
  assert (
    f"{path}: module.base.fc_audioset, of 527 classes, is left out, because "
    "module.fc_transfer, of 3 classes, takes its place."
  ) in caplog.text
  description, variables = model_directory.load_model(tmp_path / "out")
  assert description.class_names == ["Rain", "Wind", "Thunder"]
  head = variables["params"]["fc_audioset"]
  np.testing.assert_array_equal(head["kernel"], transfer.weight.detach().numpy().T)
  np.testing.assert_array_equal(head["bias"], transfer.bias.detach().numpy())
  fc1 = variables["params"]["fc1"]["kernel"]
  np.testing.assert_array_equal(fc1, slim["fc1.weight"].numpy().T)


def test_a_checkpoint_of_lightning(slim, tmp_path, caplog):
  content = {
    "epoch": 3,
    "global_step": 900,
    "pytorch-lightning_version": "2.6.0",
    "state_dict": {f"net._orig_mod.{key}": value for key, value in slim.items()}
    | {"loss.pos_weight": torch.ones(527)},
    "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.4)}},
    "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}}],
    "lr_schedulers": [{"base_lrs": [1e-3]}],
    "hyper_parameters": {"lr": 1e-3, "classes": ("a", "b")},
  }
  path = save(tmp_path / "epoch=3.ckpt", content)
  description = panns_from_pytorch.convert_file(path, tmp_path / "out")
  assert description.architecture == "Cnn6"
  assert "left out, because PANNs do not have them: loss.pos_weight." in caplog.text


@pytest.mark.parametrize(
  ("form", "dtype"),
  [
    ("pth", torch.float16),
    ("pth", torch.bfloat16),
    ("pth", torch.float64),
    ("safetensors", torch.bfloat16),
    ("through", torch.float16),  # and stored as float32
    ("partly", torch.bfloat16),
    ("all", torch.float16),  # the counters too
  ],
)
def test_values_of_other_types_become_float32_without_a_warning(
  form, dtype, slim, tmp_path, caplog
):
  def cast(key, value):
    is_cast = value.is_floating_point() and (form != "partly" or "conv" in key)
    value = value.to(dtype) if is_cast or form == "all" else value
    return value.float() if form == "through" else value

  content = {key: cast(key, value) for key, value in slim.items()}
  if form == "safetensors":
    import safetensors.torch

    path = tmp_path / "Cnn6.safetensors"
    arrays = {key: value.contiguous() for key, value in content.items()}
    safetensors.torch.save_file(arrays, path)
  else:
    path = save(tmp_path / "Cnn6.pth", {"model": content})
  panns_from_pytorch.convert_file(path, tmp_path / "out")
  assert caplog.text == ""
  variables = model_directory.load_model(tmp_path / "out")[1]
  for leaf in jax.tree.leaves(variables["params"]):
    assert leaf.dtype == np.float32
  expected = content["conv_block1.conv1.weight"].float().numpy().transpose(2, 3, 1, 0)
  np.testing.assert_array_equal(
    variables["params"]["conv_block1"]["conv1"]["kernel"], expected
  )
  assert variables["pytorch"].keys() == {k for k in slim if "num_batches" in k}


def test_a_count_of_steps_that_float16_cannot_hold_starts_again(slim, tmp_path):
  content = {k: v.half() for k, v in slim.items()}
  content["bn0.num_batches_tracked"] = torch.tensor(600_000).half()
  path = save(tmp_path / "x.pth", content)
  panns_from_pytorch.convert_file(path, tmp_path / "out")
  rest = model_directory.load_model(tmp_path / "out")[1]["pytorch"]
  assert "bn0.num_batches_tracked" not in rest
  assert rest["conv_block1.bn1.num_batches_tracked"] == 0


def test_reports_another_front_end_of_a_shorter_type(slim, tmp_path, caplog):
  content = {k: v.half() if v.is_floating_point() else v for k, v in slim.items()}
  content["logmel_extractor.melW"] *= 1.1
  path = save(tmp_path / "x.pth", content)
  panns_from_pytorch.convert_file(path, tmp_path / "out", model="Cnn6")
  assert "it was trained with another front-end, and scores will differ" in caplog.text


@pytest.mark.parametrize(
  ("file", "expected", "warns"),
  [
    ("Cnn14_mAP=0.431.pth", "Cnn14", False),
    ("cnn14_decisionlevelmax_mAP=0.385.pth", "Cnn14_DecisionLevelMax", False),
    ("Cnn14_DecisionLevelAvg.pth", "Cnn14_DecisionLevelAvg", False),
    ("weights.pth", "Cnn14", True),
  ],
)
def test_the_name_of_a_file_tells_what_its_entries_do_not(
  file, expected, warns, caplog
):
  shapes = panns_reference.shapes("Cnn14")
  assert panns_from_pytorch.choose_architecture(shapes, None, Path(file)) == expected
  assert ("taken for Cnn14" in caplog.text) == warns


@pytest.mark.parametrize(
  ("change", "said"),
  [(1e-8, "by up to 1e-08: rounding"), (0.01, "0.01: it was trained with another fr")],
)
def test_reports_another_front_end_and_keeps_it(change, said, cnn6, tmp_path, caplog):
  state_dict = dict(cnn6.state_dict())
  mel_matrix = state_dict["logmel_extractor.melW"].clone()
  mel_matrix[0, 0] = change
  path = save(tmp_path / "x.pth", state_dict | {"logmel_extractor.melW": mel_matrix})
  panns_from_pytorch.convert_file(path, tmp_path / "out")
  assert f"logmel_extractor.melW differs from ours by up to {change:.2g}" in caplog.text
  assert said in caplog.text
  kept = model_directory.load_model(tmp_path / "out")[1]["pytorch"]
  np.testing.assert_array_equal(kept["logmel_extractor.melW"], mel_matrix)


def test_an_output_is_overwritten_only_when_asked(cnn6, tmp_path):
  path = save(tmp_path / "x.pth", cnn6.state_dict())
  output = tmp_path / "out"
  panns_from_pytorch.convert_file(path, output)
  (output / "mine.txt").write_text("")
  with pytest.raises(UserError, match="out exists: give another --output, or --overw"):
    panns_from_pytorch.convert_file(path, output)
  assert (output / "mine.txt").exists()
  panns_from_pytorch.convert_file(path, output, overwrite=True)
  assert sorted(os.listdir(output)) == ["checkpoints", "model.json"]
  assert sorted(os.listdir(tmp_path)) == ["out", "x.pth"]
  other = tmp_path / "other"
  other.mkdir()
  with pytest.raises(UserError, match="other is not a model directory, and is not ov"):
    panns_from_pytorch.convert_file(path, other, overwrite=True)


def test_nothing_is_left_of_a_write_that_fails(cnn6, tmp_path, monkeypatch):
  path = save(tmp_path / "x.pth", cnn6.state_dict())

  def fail(*_, **__):
    raise OSError("disk full")

  monkeypatch.setattr(json, "dumps", fail)
  with pytest.raises(OSError, match="disk full"):
    panns_from_pytorch.convert_file(path, tmp_path / "out")
  assert os.listdir(tmp_path) == ["x.pth"]


def test_a_model_directory_that_is_none(tmp_path):
  with pytest.raises(UserError, match="has no model.json: give a model directory"):
    model_directory.load_model(tmp_path)
  (tmp_path / "model.json").write_text('{"architecture": "Cnn6"}')
  with pytest.raises(UserError, match="model.json does not describe a model"):
    model_directory.load_model(tmp_path)
