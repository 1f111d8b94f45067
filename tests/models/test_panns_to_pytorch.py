"""The export to PyTorch: PANNs' classes load it, bit for bit."""

import dataclasses
import os

import jax
import numpy as np
import panns_reference
import pytest
import tiny_models
import torch
import torch_cnn6

from audiotag_jax import model_directory
from audiotag_jax.errors import UserError
from audiotag_jax.models import panns, panns_from_pytorch, panns_to_pytorch
from audiotag_jax.models.create import model_fields
from audiotag_jax.panns.architectures import CNN_BLOCKS

pytestmark = pytest.mark.slow

SLIM = {"filters": (2, 3, 4, 5), "embedding_dim": 6}


def save_own(directory, num_classes, name="Cnn6", **widths):
  """A model directory of a model that was made here; returns its variables."""
  model = panns.create(name, num_classes=num_classes, **widths)
  variables = tiny_models.random_variables(model)
  description = model_directory.ModelDescription(
    architecture=name,
    fields=model_fields(model),
    front_end=dataclasses.asdict(model.front_end),
    class_names=[f"class {i}" for i in range(num_classes)],
    source={"run": "runs/cnn6"},
  )
  model_directory.save_model(directory, description, variables)
  return model, variables


@pytest.mark.parametrize("own_matrices", [True, False])
def test_there_and_back_is_bit_equal(own_matrices, tmp_path):
  expected = torch_cnn6.Cnn6(527).state_dict()
  for i, key in enumerate(expected):
    if key.endswith("num_batches_tracked"):
      expected[key] += 2**33 + i
    elif key.endswith("running_var"):
      expected[key] += 0.1 * i
    elif own_matrices and key == "logmel_extractor.melW":
      expected[key] *= 1.0001
  torch.save({"model": expected}, tmp_path / "cnn6.pth")
  panns_from_pytorch.convert_file(tmp_path / "cnn6.pth", tmp_path / "cnn6")
  assert (
    panns_to_pytorch.export_file(tmp_path / "cnn6", tmp_path / "back.pth") == "Cnn6"
  )
  back = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
  assert list(back) == list(panns_reference.shapes("Cnn6")) == list(expected)
  for key, tensor in expected.items():
    assert back[key].dtype == tensor.dtype, key
    assert torch.equal(back[key], tensor), key


def test_safetensors_there_and_back(tmp_path):
  import safetensors.torch

  torch.manual_seed(0)
  state_dict = torch_cnn6.Cnn6(3, **SLIM).state_dict()
  expected = {key: tensor.contiguous() for key, tensor in state_dict.items()}
  expected["bn0.num_batches_tracked"] += 2**33
  safetensors.torch.save_file(expected, tmp_path / "cnn6.safetensors")
  (tmp_path / "names.txt").write_text("a\nb\nc\n")
  panns_from_pytorch.convert_file(
    tmp_path / "cnn6.safetensors",
    tmp_path / "cnn6",
    class_names_file=str(tmp_path / "names.txt"),
  )
  panns_to_pytorch.export_file(tmp_path / "cnn6", tmp_path / "back.safetensors")
  back = safetensors.torch.load_file(tmp_path / "back.safetensors")
  assert back.keys() == expected.keys()
  for key, tensor in expected.items():
    assert back[key].dtype == tensor.dtype, key
    assert torch.equal(back[key], tensor), key


@pytest.mark.parametrize(("num_classes", "widths"), [(527, {}), (200, {}), (3, SLIM)])
def test_a_model_made_here_loads_strictly_and_scores_the_same(
  num_classes, widths, tmp_path
):
  model, variables = save_own(tmp_path / "cnn6", num_classes, **widths)
  panns_to_pytorch.export_file(tmp_path / "cnn6", tmp_path / "cnn6.pth")
  theirs = torch_cnn6.Cnn6(num_classes, **widths).eval()
  state_dict = torch.load(tmp_path / "cnn6.pth", weights_only=True)["model"]
  theirs.load_state_dict(state_dict, strict=True)
  waveforms = panns_reference.waveforms(32_000)
  with torch.no_grad():
    expected = theirs(torch.from_numpy(waveforms))["clipwise_output"].numpy()
  outputs = tiny_models.apply(model, variables, waveforms)
  scores = jax.nn.sigmoid(outputs["logits"])
  np.testing.assert_allclose(scores, expected, atol=1e-5)


@pytest.mark.parametrize("name", CNN_BLOCKS)
def test_other_widths_come_back_as_they_were(name, tmp_path):
  filters = tuple(range(2, 2 + CNN_BLOCKS[name]))
  _, variables = save_own(tmp_path / "own", 2, name, filters=filters, embedding_dim=6)
  panns_to_pytorch.export_file(tmp_path / "own", tmp_path / "x.pth")
  panns_from_pytorch.convert_file(
    tmp_path / "x.pth", tmp_path / "back", class_names_file=str(tmp_path / "own")
  )
  expected = model_directory.read_description(tmp_path / "own")
  description, back = model_directory.load_model(tmp_path / "back")
  assert dataclasses.replace(description, source=expected.source) == expected
  back.pop("pytorch")
  jax.tree.map(np.testing.assert_array_equal, back, variables)


def test_refuses_what_it_cannot_export(tmp_path):
  with pytest.raises(UserError, match="has no model.json"):
    panns_to_pytorch.export_file(tmp_path, tmp_path / "x.pth")
  model, variables = save_own(tmp_path / "cnn6", 4)
  description = model_directory.read_description(tmp_path / "cnn6")
  wrong = {"crnn": "is a crnn, not one of PANNs' Cnn6", "Cnn10": "is not of Cnn10: "}
  for name, message in wrong.items():
    other = dataclasses.replace(description, architecture=name)
    model_directory.save_model(tmp_path / name, other, variables)
    with pytest.raises(UserError, match=message):
      panns_to_pytorch.export_file(tmp_path / name, tmp_path / "x.pth")
  (tmp_path / "x.pth").write_text("mine")
  with pytest.raises(UserError, match="x.pth exists: give another --output, or --ove"):
    panns_to_pytorch.export_file(tmp_path / "cnn6", tmp_path / "x.pth")
  panns_to_pytorch.export_file(tmp_path / "cnn6", tmp_path / "x.pth", overwrite=True)
  assert sorted(os.listdir(tmp_path)) == ["Cnn10", "cnn6", "crnn", "x.pth"]
