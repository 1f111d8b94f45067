"""Conversion to Flax and back, recognition, and refused state_dicts."""

import numpy as np
import panns_reference
import pytest

from audiotag_jax.errors import UserError
from audiotag_jax.panns import convert, tables
from audiotag_jax.panns.architectures import CNN_BLOCKS

# One architecture of each family, with all kinds of layers.
SMALL = (
  *("Cnn6", "Cnn10", "MobileNetV1", "MobileNetV2", "LeeNet11", "LeeNet24", "DaiNet19"),
  "ResNet22",
)
# Architectures that only a file's name tells apart.
SAME_AS_CNN14 = ("Cnn14", "Cnn14_DecisionLevelMax", "Cnn14_DecisionLevelAvg")


def state_dict(name: str, num_classes: int = 527) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  return {
    entry.key: (
      np.asarray(rng.integers(2**40))
      if entry.kind == "counter"
      else rng.standard_normal(entry.shape, np.float32)
    )
    for entry in tables.TABLES[name](num_classes)
  }


@pytest.mark.parametrize("name", SMALL)
def test_there_and_back_is_bit_equal(name):
  expected = state_dict(name)
  table = tables.TABLES[name](527)
  variables, rest = convert.to_flax(expected.items(), table)
  assert sorted(variables) == ["batch_stats", "params"]
  assert {entry.key for entry in table if not entry.path} == rest.keys()
  back = convert.to_pytorch(variables, table, rest)
  assert list(back) == list(expected)
  for key, array in expected.items():
    assert back[key].dtype == array.dtype
    np.testing.assert_array_equal(back[key], array)


def test_kernels_turn_from_out_in_window_to_window_in_out():
  table = tables.TABLES["Cnn6"](3)
  arrays = state_dict("Cnn6", num_classes=3)
  params = convert.to_flax(arrays.items(), table)[0]["params"]
  key, kernel = "conv_block2.conv1.weight", params["conv_block2"]["conv1"]["kernel"]
  assert kernel.shape == (5, 5, 64, 128)
  assert kernel[1, 2, 3, 4] == arrays[key][4, 3, 1, 2]
  kernel = params["fc_audioset"]["kernel"]
  assert kernel.shape == (512, 3)
  assert kernel[5, 2] == arrays["fc_audioset.weight"][2, 5]


@pytest.mark.parametrize("num_classes", [527, 200])
@pytest.mark.parametrize("name", tables.TABLES)
def test_recognizes_the_architecture(name, num_classes):
  shapes = panns_reference.shapes(name)
  for key in shapes:
    if key.startswith(("fc_audioset", "att_block")) and shapes[key]:
      shapes[key] = (num_classes, *shapes[key][1:])
  assert convert.num_classes(shapes) == num_classes
  names = convert.recognize(shapes)
  assert names == (list(SAME_AS_CNN14) if name in SAME_AS_CNN14 else [name])


@pytest.mark.parametrize("name", CNN_BLOCKS)
def test_recognizes_other_widths_and_reads_them_off(name):
  filters = tuple(range(2, 2 + CNN_BLOCKS[name]))
  widths = {"filters": filters, "embedding_dim": 7}
  shapes = {entry.key: entry.shape for entry in tables.TABLES[name](5, **widths)}
  assert convert.recognize(shapes) == [name]
  assert convert.find_widths(shapes, name) == widths
  others = tables.TABLES.keys() - {name}
  assert not any(convert.find_widths(shapes, other) for other in others)


def test_other_widths_with_a_fault_are_told_as_before():
  filters = (2, 3, 4, 5)
  table = tables.TABLES["Cnn6"](5, filters=filters, embedding_dim=7)
  shapes = {entry.key: entry.shape for entry in table}
  shapes["conv_block2.conv1.weight"] = (3, 2, 5, 3)
  with pytest.raises(UserError, match="of the 26 architectures; compared with Cnn6"):
    convert.recognize(shapes)
  assert convert.find_widths(shapes, "Cnn6") == {}


@pytest.mark.parametrize("name", tables.TABLES)
def test_an_architecture_s_own_widths_are_none_of_its(name):
  assert convert.find_widths(panns_reference.shapes(name), name) == {}


def test_what_is_nearly_an_architecture_is_told_the_difference():
  shapes = panns_reference.shapes("Cnn10")
  del shapes["bn0.bias"]
  shapes["extra.weight"] = (1,)
  shapes["fc1.weight"] = (512, 100)
  with pytest.raises(UserError) as error:
    convert.recognize(shapes)
  message = str(error.value)
  assert "with Cnn10, the nearest: missing bn0.bias, unexpected extra.weight" in message
  assert message.endswith("fc1.weight is [512, 100], not [512, 512]")


def test_of_many_faults_some_are_listed_and_the_others_counted():
  shapes = {"fc_audioset.weight": (527, 512)} | {f"x{i}": (1,) for i in range(30)}
  with pytest.raises(UserError, match=r"missing .* and \d+ more$") as error:
    convert.recognize(shapes)
  assert "\n" not in str(error.value)


def test_what_has_no_classifier_is_not_of_panns():
  with pytest.raises(UserError, match="lack a classifier .* not a PANNs model"):
    convert.recognize({"conv1.weight": (64, 3, 7, 7)})


def test_variables_of_another_model_are_refused():
  table = tables.TABLES["Cnn6"](527)
  variables, rest = convert.to_flax(state_dict("Cnn6").items(), table)
  del variables["params"]["bn0"]["bias"]
  variables["params"]["new"] = {"bias": np.zeros(3)}
  variables["params"]["fc1"]["bias"] = np.zeros(4)
  with pytest.raises(UserError) as error:
    convert.to_pytorch(variables, table, rest)
  assert str(error.value) == (
    "the parameters differ: missing params/bn0/bias, unexpected params/new/bias, "
    "fc1.bias is [4], not [512]"
  )


def test_counters_of_a_model_that_was_never_in_pytorch_are_zero():
  table = tables.TABLES["LeeNet11"](527)
  variables, _ = convert.to_flax(state_dict("LeeNet11").items(), table)
  back = convert.to_pytorch(variables, table, {})
  counter = back["conv_block1.bn1.num_batches_tracked"]
  assert (counter.dtype, counter.shape, int(counter)) == (np.int64, (), 0)
