"""A training step of PANNs in Flax against the same step in PyTorch.

Dropout and SpecAugment are off, because the two sides draw different noise. Cnn14 is
the reference's own, from the package `panns-inference`; Cnn6 is ours.
"""

import sys
import warnings

import jax
import numpy as np
import optax
import panns_reference
import pytest
import torch
import torch_cnn6
from benchmarks import tag as benchmark_tag

from audiotag_jax.models import panns
from audiotag_jax.panns import convert, tables

pytestmark = pytest.mark.slow

NUM_CLIPS, CLIP_S = 4, 1.0
# Norm of the difference of a parameter's gradients, relative to the gradient's. The
# gradients agree within 1e-5, unless rounding decides the side of a ReLU: one such
# unit changes Cnn6's gradients by 1e-3.
GRADIENT_TOLERANCE = 5e-3


@pytest.fixture
def reference_cnn14(tmp_path, monkeypatch):
  """`panns_inference.models.Cnn14`, with dropout and SpecAugment off.

  The package reads a table of classes from the home folder when it is imported.
  """
  benchmark_tag.write_classes(tmp_path)
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.setenv("MPLBACKEND", "agg")
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from panns_inference import models

    model = models.Cnn14(32_000, 1024, 320, 64, 50, 14_000, 527)
  monkeypatch.setattr(models.F, "dropout", lambda x, p, training, **_: x)
  model.train()
  model.spec_augmenter.eval()
  yield model
  for name in [name for name in sys.modules if name.startswith("panns_inference")]:
    del sys.modules[name]


@pytest.fixture
def own_cnn6():
  return torch_cnn6.Cnn6(527).train()


def fill(model, name):
  """Puts the generated weights into a PyTorch model; returns them for Flax too."""
  state_dict = {
    key: torch.from_numpy(panns_reference.weight(key, shape))
    for key, shape in panns_reference.shapes(name).items()
    if not key.startswith(("spectrogram_extractor", "logmel_extractor"))
  }
  faults = model.load_state_dict(state_dict, strict=False)
  assert not faults.unexpected_keys
  arrays = ((key, tensor.numpy().copy()) for key, tensor in state_dict.items())
  return convert.to_flax(arrays, tables.TABLES[name](527))[0]


def torch_step(model, waveforms, labels):
  """Loss, gradients and state_dict of a PyTorch training step."""
  scores = model(torch.from_numpy(waveforms))["clipwise_output"]
  loss = torch.nn.functional.binary_cross_entropy(scores, torch.from_numpy(labels))
  loss.backward()
  named = model.named_parameters()
  grads = {key: x.grad.numpy() for key, x in named if x.requires_grad}
  return float(loss.detach()), grads, model.state_dict()


def flax_step(name, variables, waveforms, labels):
  """Loss, gradients, batch statistics and inputs of each norm, of a Flax step."""
  off = {"dropout": 0.0, "conv_dropout": 0.0}
  model = panns.create(name, num_classes=527, **off)

  def loss_fn(params):
    outputs, updates = model.apply(
      variables | {"params": params}, waveforms, train=True, mutable=["batch_stats"]
    )
    losses = optax.sigmoid_binary_cross_entropy(outputs["logits"], labels)
    return losses.mean(), updates["batch_stats"]

  step = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
  (loss, stats), grads = step(variables["params"])
  return float(loss), jax.tree.map(np.asarray, grads), jax.tree.map(np.asarray, stats)


def values_per_channel(name):
  """The number of values in a norm's variance: clips x frames x mel bands."""
  num_frames = panns.FRONT_END.num_frames(int(CLIP_S * 32_000))
  counts = {"bn0": NUM_CLIPS * num_frames}
  num_blocks = len(panns.create(name, num_classes=1).filters)
  for i in range(num_blocks):
    count = NUM_CLIPS * (num_frames // 2**i) * (64 // 2**i)
    counts |= {f"conv_block{i + 1}.bn{j}": count for j in (1, 2)}
  return counts


@pytest.mark.parametrize(
  ("name", "fixture"), [("Cnn6", "own_cnn6"), ("Cnn14", "reference_cnn14")]
)
def test_a_training_step_agrees_with_pytorch(name, fixture, request):
  model = request.getfixturevalue(fixture)
  variables = fill(model, name)
  waveforms = panns_reference.waveforms(32_000, CLIP_S, NUM_CLIPS)
  rng = np.random.RandomState(0)
  waveforms *= rng.uniform(0.1, 1.0, (NUM_CLIPS, 1)).astype(np.float32)
  labels = (rng.uniform(size=(NUM_CLIPS, 527)) < 0.1).astype(np.float32)

  their_loss, their_grads, their_state = torch_step(model, waveforms, labels)
  our_loss, our_grads, our_stats = flax_step(name, variables, waveforms, labels)
  assert our_loss == pytest.approx(their_loss, rel=1e-5)

  table = tables.TABLES[name](527)
  trained = [entry for entry in table if entry.path[:1] == ("params",)]
  stats = [entry for entry in table if entry.path[:1] == ("batch_stats",)]
  ours = convert.to_pytorch({"params": our_grads}, trained, {})
  assert ours.keys() == their_grads.keys()
  for key, theirs in their_grads.items():
    difference = np.linalg.norm(ours[key] - theirs) / np.linalg.norm(theirs)
    assert difference < GRADIENT_TOLERANCE, (key, difference)

  ours = convert.to_pytorch({"batch_stats": our_stats}, stats, {})
  counts = values_per_channel(name)
  for key, value in ours.items():
    theirs = their_state[key].numpy()
    if key.endswith("running_var"):
      # PyTorch averages the unbiased estimate of the variance, Flax the biased one: the
      # batch's shares differ by exactly n / (n - 1).
      count = counts[key.removesuffix(".running_var")]
      kept = 0.9 * panns_reference.weight(key, value.shape)
      value = kept + (value - kept) * count / (count - 1)
    np.testing.assert_allclose(value, theirs, rtol=1e-4, atol=1e-4, err_msg=key)
