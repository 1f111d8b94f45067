"""PANNs' entries are found under the names that other programs give them."""

import pytest

from audiotag_jax.errors import UserError
from audiotag_jax.panns import convert, entry_names, tables

SLIM = {"filters": (2, 3, 4, 5), "embedding_dim": 6}


def network(prefix="", num_classes=527):
  """The shapes of a slim Cnn6, behind a prefix."""
  table = tables.TABLES["Cnn6"](num_classes, **SLIM)
  return {prefix + entry.key: entry.shape for entry in table}


def layer(name, num_classes=3):
  return {f"{name}.weight": (num_classes, 6), f"{name}.bias": (num_classes,)}


def named(shapes):
  """The shapes under PANNs' names, and the notes."""
  keys, notes = entry_names.find(shapes)
  return {name: shapes[key] for key, name in keys.items()}, notes


@pytest.mark.parametrize(
  "prefix",
  [
    "",
    "module.",
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.",
    "net._orig_mod.module.",
    "encoder.panns.0.",
  ],
)
def test_a_prefix_common_to_all_keys_is_taken_off(prefix):
  assert named(network(prefix)) == (network(), [])


@pytest.mark.parametrize("name", tables.TABLES)
def test_every_architecture_is_found_behind_a_prefix(name):
  shapes = {entry.key: entry.shape for entry in tables.TABLES[name](9)}
  found, notes = named({f"model.{key}": shape for key, shape in shapes.items()})
  assert (found, notes) == (shapes, [])


@pytest.mark.parametrize("around", ["", "module.", "model._orig_mod."])
def test_panns_template_for_fine_tuning(around):
  shapes = network(f"{around}base.") | layer(f"{around}fc_transfer")
  found, notes = named(shapes)
  assert found == network(num_classes=3)
  assert notes == [
    f"{around}base.fc_audioset, of 527 classes, is left out, because "
    f"{around}fc_transfer, of 3 classes, takes its place"
  ]


def without_classifier(prefix=""):
  return {k: x for k, x in network(prefix).items() if "fc_audioset" not in k}


@pytest.mark.parametrize(
  "shapes",
  [
    without_classifier() | layer("fc"),
    without_classifier("module.") | layer("module.classifier.1"),
    without_classifier("model.backbone.") | layer("model.head"),
    network() | layer("fc_transfer"),
    network("base.", 5) | layer("head"),
  ],
)
def test_the_one_other_layer_is_the_classifier(shapes):
  assert named(shapes)[0] == network(num_classes=3)


@pytest.mark.parametrize(
  ("shapes", "layers"),
  [
    (
      network("base.") | layer("first") | layer("second", 4),
      r"base.fc_audioset \(527 classes\), first \(3 classes\), second \(4 classes\)",
    ),
    (network(num_classes=5) | layer("fc2"), r"fc_audioset \(5 cl.*, fc2 \(3 classes\)"),
    (without_classifier() | layer("a") | layer("b"), r"a \(3 cl.*, b \(3 classes\)"),
  ],
)
def test_several_layers_that_may_be_the_classifier_are_refused(shapes, layers):
  message = f"may be the classifier, {layers}: save a state_dict with one of them"
  with pytest.raises(UserError, match=message):
    entry_names.find(shapes)


def test_attention_gives_way_to_no_other_layer():
  table = tables.TABLES["Cnn14_DecisionLevelAtt"](9)
  shapes = {f"base.{entry.key}": entry.shape for entry in table}
  shapes |= {"fc_transfer.weight": (3, 2048), "fc_transfer.bias": (3,)}
  with pytest.raises(UserError, match=r"fc_transfer \(3 classes\), base.att_block \(9"):
    entry_names.find(shapes)


def test_losses_metrics_and_other_front_ends_are_left_out():
  others = {
    "loss_fn.pos_weight": (3,),
    "train_metrics.f1.tp": (3,),
    "mel.spectrogram.window": (512,),
    "mel.mel_scale.fb": (257, 64),
    "spectrogram_extractor.stft.conv_real.weight": (513, 1, 1024),
    "n_averaged": (),
  }
  found, notes = named(network("model.", 3) | others)
  assert found == network(num_classes=3)
  assert notes == [
    "left out, because PANNs do not have them: "
    + ", ".join(list(others)[:5])
    + " and 1 more"
  ]


@pytest.mark.parametrize(
  ("others", "faults"),
  [
    # A layer without bias, a norm before the classifier, and a classifier of two layers
    # take part in the outputs.
    ({"fc_transfer.weight": (3, 6)}, ["unexpected fc_transfer.weight"]),
    ({"norm.weight": (6,)}, ["unexpected norm.weight"]),
    (layer("head.0", 9) | {"head.2.weight": (3, 9)}, ["unexpected head.2.weight"]),
    ({"bn0.weight": (64,)}, ["unexpected bn0.weight outside of base."]),
  ],
)
def test_layers_that_panns_lack_are_faults(others, faults):
  found, _ = named(network("base.") | others)
  table = tables.TABLES["Cnn6"](convert.num_classes(found), **SLIM)
  assert convert.find_faults(found, table) == faults


def test_several_networks_are_refused():
  message = "several networks, behind the prefixes 'model.', 'ema.module.': save the"
  with pytest.raises(UserError, match=message):
    entry_names.find(network("model.") | network("ema.module."))
  with pytest.raises(UserError, match="prefixes '', 'ema.': save"):
    entry_names.find(network() | network("ema."))


def test_what_is_missing_is_named_as_panns_name_it():
  shapes = network("module.")
  del shapes["module.bn0.bias"]
  found, _ = named(shapes)
  table = tables.TABLES["Cnn6"](527, **SLIM)
  assert convert.find_faults(found, table) == ["missing bn0.bias"]


def test_a_key_of_a_million_parts_takes_no_time():
  assert named({"a." * 1_000_000: (1,)})[0] == {"a." * 1_000_000: (1,)}
