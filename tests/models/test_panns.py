"""The PANNs architectures against the numbers of the PyTorch reference."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import panns_reference
import pytest
import tiny_models
from tiny_models import apply

from audiotag_jax.errors import UserError
from audiotag_jax.models import layers, panns
from audiotag_jax.panns import convert, tables
from audiotag_jax.panns.architectures import ARCHITECTURES

pytestmark = pytest.mark.slow

# Small architectures, one of each kind of input.
ON_LOG_MEL = ("Cnn6", "MobileNetV2")
ON_WAVEFORM = ("LeeNet11", "DaiNet19")


@pytest.fixture(scope="module", autouse=True)
def _forget_weights():
  """The weights of all architectures, which share many, are 1.5 GB."""
  yield
  panns_reference.weight.cache_clear()


def reference_variables(name: str):
  """Flax's variables with the reference's weights."""
  entries = [e for e in tables.TABLES[name](527) if e.kind != "fixed"]
  arrays = ((e.key, panns_reference.weight(e.key, e.shape)) for e in entries)
  return convert.to_flax(arrays, entries)[0]


def init_shapes(model, inputs):
  """Shapes of a model's variables, without computing them."""
  return jax.tree.map(lambda x: x.shape, output_shapes(model, inputs)[1])


def output_shapes(model, inputs):
  """Shapes of a model's outputs and variables, without computing them."""
  return jax.eval_shape(
    lambda x: model.init_with_output(jax.random.key(0), x, train=False), inputs
  )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_agrees_with_the_reference(name):
  model = panns.create(name, num_classes=527)
  inputs = panns_reference.waveforms(model.front_end.sample_rate_hz)
  variables = reference_variables(name)
  assert init_shapes(model, inputs) == jax.tree.map(jnp.shape, variables)
  num_params = sum(x.size for x in jax.tree.leaves(variables["params"]))
  assert num_params == panns_reference.DESCRIPTIONS[name]["parameters"]

  ours = apply(model, variables, inputs)
  assert all(x.dtype == np.float32 for x in ours.values())
  assert ours["embedding"].shape == (2, model.embedding_dim)
  ours["clipwise_output"] = jax.nn.sigmoid(ours["logits"])
  ours["framewise_output"] = ours.get("framewise")
  expected = panns_reference.outputs(name)
  assert ("framewise" in ours) == ("framewise_output" in expected)
  for key, theirs in expected.items():
    difference = np.abs(ours[key] - theirs).max() / max(1.0, np.abs(theirs).max())
    assert difference <= 1e-4, (key, difference)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_front_end_is_the_references(name):
  theirs = panns_reference.DESCRIPTIONS[name]
  front_end = panns.create(name, num_classes=527).front_end
  assert dataclasses.astuple(front_end) == (
    *(theirs["sample_rate"], theirs["window_size"], theirs["window_size"]),
    *(theirs["hop_size"], theirs["mel_bins"], theirs["fmin"], theirs["fmax"]),
  )


def test_a_waveform_and_its_log_mel_give_the_same():
  model = panns.create("Cnn14_DecisionLevelMax", num_classes=3, filters=(8, 8, 8))
  waveform = panns_reference.waveforms(32_000)
  log_mel = model.log_mel(waveform)
  variables = tiny_models.random_variables(model)
  outputs = [apply(model, variables, inputs) for inputs in (waveform, log_mel)]
  for key in ("logits", "embedding", "framewise"):
    np.testing.assert_allclose(outputs[0][key], outputs[1][key], atol=1e-5)


@pytest.mark.parametrize("clip_s", [0.05, 0.3, 1.0, 60.0])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_shapes_of_clips_of_any_length(name, clip_s):
  model = panns.create(name, num_classes=5)
  num_samples = int(clip_s * model.front_end.sample_rate_hz)
  waveform = jax.ShapeDtypeStruct((1, num_samples), jnp.float32)
  outputs = jax.tree.map(lambda x: x.shape, output_shapes(model, waveform)[0])
  framewise = outputs.pop("framewise", None)
  assert outputs == {"logits": (1, 5), "embedding": (1, model.embedding_dim)}
  if framewise is not None:
    assert framewise == (1, model.front_end.num_frames(num_samples), 5)


@pytest.mark.parametrize("clip_s", [0.05, 0.3, 1.0, 60.0])
@pytest.mark.parametrize("name", ["Cnn6", "LeeNet11"])
def test_scores_of_clips_of_any_length_are_finite(name, clip_s):
  model = panns.create(name, num_classes=527)
  outputs = apply(
    model, reference_variables(name), panns_reference.waveforms(32_000, clip_s, 1)
  )
  assert all(np.isfinite(x).all() for x in outputs.values())


def test_a_short_clip_is_padded_with_zeros():
  model = panns.create("Cnn6", num_classes=527)
  variables = reference_variables("Cnn6")
  short = panns_reference.waveforms(32_000, 0.05)
  padded = np.pad(short, ((0, 0), (0, 15 * 320 - short.shape[1])))
  ours, expected = (apply(model, variables, x)["logits"] for x in (short, padded))
  np.testing.assert_array_equal(ours, expected)


def test_logits_of_pooled_probabilities_do_not_saturate():
  # This is above float32's largest probability below 1.
  model = panns.create("Cnn14_DecisionLevelAvg", num_classes=2, filters=(4,) * 6)
  waveform = panns_reference.waveforms(32_000)
  variables = tiny_models.random_variables(model)
  variables["params"]["fc_audioset"]["kernel"] *= 0
  variables["params"]["fc_audioset"]["bias"] = jnp.asarray([50.0, -50.0])
  logits = apply(model, variables, waveform)["logits"]
  np.testing.assert_allclose(logits, [[50.0, -50.0]] * 2, rtol=1e-5)


@pytest.mark.parametrize("name", ON_LOG_MEL)
def test_refuses_a_log_mel_that_does_not_fit(name):
  model = panns.create(name, num_classes=5)
  with pytest.raises(UserError, match="takes 64 mel bands, not 128"):
    init_shapes(model, jnp.zeros((1, 100, 128)))
  with pytest.raises(UserError, match="at least (16|32) frames, not 6: pad the wav"):
    init_shapes(model, jnp.zeros((1, 6, 64)))


@pytest.mark.parametrize("name", [*ON_WAVEFORM, "Res1dNet31", "Wavegram_Cnn14"])
def test_a_model_on_waveforms_refuses_a_log_mel(name):
  model = panns.create(name, num_classes=5)
  with pytest.raises(UserError, match=r"only waveforms \[batch, samples\], not .*64"):
    init_shapes(model, jnp.zeros((1, 100, 64)))


def test_refuses_an_unknown_architecture():
  with pytest.raises(UserError, match="'Cnn15' is not an architecture: choose from"):
    panns.create("Cnn15", num_classes=5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_computes_in_bfloat16_but_scores_in_float32(name):
  model = panns.create(name, num_classes=5, dtype=jnp.bfloat16)
  waveform = jax.ShapeDtypeStruct((1, 32_000), jnp.float32)
  outputs, variables = output_shapes(model, waveform)
  assert {x.dtype for x in jax.tree.leaves((outputs, variables))} == {
    jnp.dtype(jnp.float32)
  }


def test_dropout_after_fc1_is_the_embeddings_alone():
  model = panns.create("Cnn6", num_classes=4, filters=(8,) * 4)
  model = model.copy(conv_dropout=0.0)
  waveform = panns_reference.waveforms(32_000)
  variables = tiny_models.random_variables(model)

  def train_outputs(dropout, seed):
    model_ = model.copy(dropout=dropout)
    return tiny_models.apply_in_training(model_, variables, waveform, seed)[0]

  # About half of a pooled feature and of the embedding is dropped, the rest doubled.
  plain, dropped = train_outputs(0.0, 0), train_outputs(0.5, 0)
  assert (plain["embedding"] > 0).mean() > 0.3
  share = (dropped["embedding"] == 0).mean()
  assert 0.6 < share < 0.9
  assert not np.allclose(plain["logits"], dropped["logits"])
  again = train_outputs(0.5, 0)
  np.testing.assert_array_equal(dropped["logits"], again["logits"])
  assert not np.allclose(dropped["logits"], train_outputs(0.5, 1)["logits"])
  classifier = variables["params"]["fc_audioset"]
  for outputs, same in ((plain, True), (dropped, False)):
    logits = outputs["embedding"] @ classifier["kernel"] + classifier["bias"]
    assert np.allclose(logits, outputs["logits"], atol=1e-4) == same


@pytest.mark.parametrize(
  ("name", "fields", "unused"),
  [
    ("Wavegram_Cnn14", {}, ["bn0", "conv_block1/bn1", "conv_block1/bn2"]),
    ("Cnn14_DecisionLevelAtt", {"filters": (8,) * 6}, ["att_block/bn_att"]),
    ("DaiNet19", {}, ["conv_block1/bn_downsample"]),
  ],
)
def test_layers_that_the_reference_never_applies_keep_their_statistics(
  name, fields, unused
):
  model = panns.create(name, num_classes=3, **fields)
  waveform = panns_reference.waveforms(32_000, 0.4)
  shapes = output_shapes(model, waveform)[1]
  variables = jax.tree.map(lambda x: np.full(x.shape, 0.01, np.float32), shapes)
  _, stats = tiny_models.apply_in_training(model, variables, waveform)
  same = {
    jax.tree_util.keystr(path[:-1], simple=True, separator="/")
    for path, x in jax.tree_util.tree_leaves_with_path(stats)
    if path[-1].key == "mean" and (np.asarray(x) == np.float32(0.01)).all()
  }
  assert same == set(unused)


@pytest.mark.parametrize("spec_augment", [layers.SpecAugment(2, 64, 2, 8), None])
def test_spec_augment_is_for_training_and_can_be_turned_off(spec_augment):
  model = panns.create("Cnn6", num_classes=4, filters=(8,) * 4, dropout=0.0)
  model = model.copy(conv_dropout=0.0, spec_augment=spec_augment)
  waveform = panns_reference.waveforms(32_000)
  variables = tiny_models.random_variables(model)
  outputs = [
    tiny_models.apply_in_training(model, variables, waveform, seed)[0]["logits"]
    for seed in (0, 1)
  ]
  assert np.allclose(*outputs) == (not spec_augment)
  evaluated = [apply(model, variables, waveform)["logits"] for _ in range(2)]
  np.testing.assert_array_equal(*evaluated)


def test_batch_norm_is_synchronised_over_devices():
  fields = {"filters": (8,) * 4, "dropout": 0.0, "conv_dropout": 0.0}
  model = panns.create("Cnn6", num_classes=4, **fields)
  waveforms = panns_reference.waveforms(32_000, 0.3, 8)
  variables = tiny_models.random_variables(model)

  def step(model, waveforms):
    return model.apply(variables, waveforms, train=True, mutable=["batch_stats"])

  synced = model.copy(axis_name="devices")
  outputs, stats = jax.pmap(lambda x: step(synced, x), axis_name="devices")(
    waveforms[:, None]
  )
  expected, expected_stats = jax.jit(lambda x: step(model, x))(waveforms)
  np.testing.assert_allclose(outputs["logits"][:, 0], expected["logits"], atol=1e-4)
  for ours, theirs in zip(
    jax.tree.leaves(stats), jax.tree.leaves(expected_stats), strict=True
  ):
    for device in range(8):
      np.testing.assert_allclose(ours[device], theirs, rtol=1e-4, atol=1e-5)
