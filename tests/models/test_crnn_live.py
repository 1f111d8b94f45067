"""Training steps of the CRNN in Flax against the same steps in PyTorch.

Dropout is off, because the two sides draw different noise. Both sides start from the
same weights and take the same batches.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np
import optax
import pytest
import tiny_models
import torch
import torch_crnn

from audiotag_jax import config as config_lib
from audiotag_jax import parallel
from audiotag_jax.models import layers
from audiotag_jax.models.create import create_model
from audiotag_jax.training import losses, optim, steps
from configs import crnn_fsd50k_small

pytestmark = pytest.mark.slow

NUM_CLIPS, NUM_FRAMES, NUM_MELS, NUM_CLASSES, NUM_STEPS = 4, 202, 64, 200, 20
# Number of steps whose gradients are compared.
NUM_GRADS = 5
# Recipes and their changes. "attention" is the default CRNN with half of its filters.
CASES = {
  "attention": (config_lib, {"crnn.filters": (32, 64, 128, 128)}),
  "linear_softmax": (crnn_fsd50k_small, {}),
  "max": (crnn_fsd50k_small, {"crnn.pooling": "max"}),
}
# Weight decay and clipping that show in 20 steps, and a small learning rate: see
# CHANGE_TOLERANCE.
OVERRIDES = {
  "crnn.dropout": 0.0,
  "crnn.conv_dropout": 0.0,
  "train.num_steps": NUM_STEPS,
  "train.warmup_share": 0.1,
  "train.learning_rate": 1e-4,
  "train.weight_decay": 0.3,
  "train.clip_norm": 0.1,
}
# Bound of `differences` between each parameter's changes in 20 steps. Measured: 5.8e-4
# ("attention", input_norm.weight) and 6.5e-4 ("linear_softmax", conv1.weight), as much
# as PyTorch's float32 changes differ from its float64 ones, 9.1e-4 and 5.1e-4; with a
# quarter of the filters 3.6e-3. Adam divides a gradient by its own size, so that a
# small gradient's rounding moves a weight, and the weights then disagree about the side
# of a ReLU; at a learning rate of 1e-3 the changes differ by 9e-3 and 2e-2. A mistake
# in the optimizer shows in both cases: without clipping the changes differ by 1.9e-2,
# at a learning rate 5 % higher by 4.9e-2, with an epsilon of 1e-7 by 0.19, without
# weight decay by 0.22, with weight decay of all parameters by 0.51.
CHANGE_TOLERANCE = 1e-2


class Run(NamedTuple):
  """A run of training; arrays have the names of torch_crnn.CRNN's state_dict."""

  losses: list[float]
  grads: list[dict[str, np.ndarray]]  # of the first steps
  stats: dict[str, np.ndarray]  # after the first step
  params: dict[str, np.ndarray]  # after the last step


@pytest.fixture(autouse=True)
def _one_thread():
  """Keeps PyTorch's threads from waiting for one another on a busy machine."""
  num_threads = torch.get_num_threads()
  torch.set_num_threads(1)
  yield
  torch.set_num_threads(num_threads)


def config_of(case):
  recipe, overrides = CASES[case]
  config = recipe.get_config()
  config.update_from_flattened_dict(overrides | OVERRIDES)
  return config


@functools.cache
def initial_variables(case):
  model = create_model(config_of(case), num_classes=NUM_CLASSES, axis_name=None)
  return tiny_models.random_variables(model)


@functools.cache
def batches():
  rng = np.random.default_rng(0)
  return [
    {
      "inputs": np.float32(rng.normal(-40, 15, (NUM_CLIPS, NUM_FRAMES, NUM_MELS))),
      "labels": np.float32(rng.random((NUM_CLIPS, NUM_CLASSES)) < 0.1),
    }
    for _ in range(NUM_STEPS)
  ]


def on_host(tree):
  return jax.tree.map(lambda x: np.asarray(x)[0], tree)


def flax_run(case) -> Run:
  """Runs the step that main.py runs, on one device."""
  config, variables = config_of(case), initial_variables(case)
  model = create_model(config, num_classes=NUM_CLASSES, axis_name=parallel.AXIS)
  scales = dict.fromkeys(variables["params"], 1.0)
  # The first part of the optimizer's state is the gradient of the last step.
  keep = optax.GradientTransformation(
    lambda params: params, lambda grads, *_: (grads, grads)
  )
  tx = optax.chain(keep, optim.create_optimizer(config.train, scales))
  labels = batches()[0]["labels"]
  step = steps.create_train_step(config, model, tx, scales, labels, parallel.AXIS)
  step = jax.pmap(step, axis_name=parallel.AXIS, devices=jax.devices()[:1])
  params, batch_stats = variables["params"], variables["batch_stats"]
  state = steps.TrainState(np.int32(0), params, batch_stats, tx.init(params), {})
  state = jax.tree.map(lambda x: np.asarray(x)[None], state)
  first, step_losses, grads = None, [], []
  for batch in batches():
    state, metrics = step(state, {key: x[None] for key, x in batch.items()})
    first = first or on_host(state)
    if len(grads) < NUM_GRADS:
      grads.append(torch_crnn.from_flax(on_host(state.opt_state[0])))
    step_losses.append(float(metrics["loss"][0]))
  return Run(
    losses=step_losses,
    grads=grads,
    stats=torch_crnn.stats_from_flax(first.batch_stats),
    params=torch_crnn.from_flax(on_host(state).params),
  )


def torch_model(case, dtype=torch.float32) -> torch_crnn.CRNN:
  """The same model of the same weights, in training mode."""
  model = torch_crnn.CRNN(NUM_CLASSES, NUM_MELS, config_of(case).crnn).train()
  variables = initial_variables(case)
  arrays = torch_crnn.from_flax(variables["params"])
  arrays |= torch_crnn.stats_from_flax(variables["batch_stats"])
  arrays = {key: torch.tensor(value) for key, value in arrays.items()}
  assert not model.load_state_dict(arrays, strict=False).unexpected_keys
  return model.to(dtype)


def torch_backward(model, config, batch):
  """Sets the gradients of a batch; returns its loss and a copy of the gradients."""
  model.zero_grad()
  p = model(torch.tensor(batch["inputs"], dtype=model.classifier.weight.dtype))
  loss = torch_crnn.loss(config.loss, p, torch.tensor(batch["labels"]))
  loss.backward()
  grads = {key: x.grad.numpy().copy() for key, x in model.named_parameters()}
  return loss.item(), grads


def torch_run(case, dtype=torch.float32) -> Run:
  config, model = config_of(case), torch_model(case, dtype)
  optimizer, schedule = torch_crnn.create_optimizer(model, config.train)
  step_losses, step_grads, stats = [], [], {}
  for batch in batches():
    loss, grads = torch_backward(model, config, batch)
    step_losses.append(loss)
    step_grads.append(grads)
    stats = stats or {key: x.numpy().copy() for key, x in model.named_buffers()}
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.clip_norm)
    optimizer.step()
    schedule.step()
  params = {key: x.detach().numpy() for key, x in model.named_parameters()}
  return Run(step_losses, step_grads[:NUM_GRADS], stats, params)


def with_biased_variance(stats, case):
  """PyTorch's statistics after a step, as if PyTorch had averaged Flax's variances.

  PyTorch averages the unbiased estimate of the variance, Flax the biased one: the
  batch's shares differ by n / (n - 1), where n is clips x frames x mel bands.
  """
  crnn, (frames, mels) = config_of(case).crnn, (NUM_FRAMES, NUM_MELS)
  num_values = {"input_norm": NUM_CLIPS * frames}
  for i, windows in enumerate(zip(crnn.time_pooling, crnn.mel_pooling)):
    num_values[f"norm{i}"] = NUM_CLIPS * frames * mels
    frames, mels = frames // windows[0], mels // windows[1]
  initial = torch_crnn.stats_from_flax(initial_variables(case)["batch_stats"])
  biased = {key: stats[key] for key in initial}
  for layer, n in num_values.items():
    key = f"{layer}.running_var"
    kept = 0.9 * initial[key]
    biased[key] = kept + (stats[key] - kept) * (n - 1) / n
  return biased


def differences(ours, theirs) -> dict[str, float]:
  """By array, the L2 norm of the difference, relative to theirs.

  A difference of d implies a cosine of at least 1 - d^2. The bias before the softmax
  over frames is left out: the softmax is the same for any such bias, so that its
  gradient is 0. Both sides compute rounding instead, which Adam scales up to the
  learning rate.
  """
  assert ours.keys() == theirs.keys()
  return {
    key: np.linalg.norm(ours[key] - theirs[key]) / np.linalg.norm(theirs[key])
    for key in ours.keys() - {"attention.bias"}
  }


def assert_alike(ours, theirs, most):
  for key, difference in differences(ours, theirs).items():
    assert difference <= most, (key, difference)


def assert_gradients_alike(ours, theirs):
  """Compares the gradients of some batches.

  Rounding decides the side of a ReLU, or the largest value of a window, in about one
  batch of five, and which one depends on the program: the gradients of the layers
  before it then differ by 1e-3 to 8e-3. In the other batches they differ by at most
  7e-6 (conv0.weight). A wrong gradient is wrong in every batch: a max-pool as a maximum
  over axes, under plain jit, gives differences of 0.5 to 0.85.
  """
  for grads in (*ours, *theirs):
    if "attention.bias" in grads:  # measured: 2e-8 of the weight's
      noise, signal = grads["attention.bias"], grads["attention.weight"]
      assert np.linalg.norm(noise) < 1e-6 * np.linalg.norm(signal)
  found = [differences(*pair) for pair in zip(ours, theirs)]
  for key in found[0]:
    values = [step[key] for step in found]
    assert min(values) <= 1e-3, (key, values)
    assert max(values) <= 5e-2, (key, values)


@pytest.mark.parametrize(
  "case", ["attention", pytest.param("linear_softmax", marks=pytest.mark.exhaustive)]
)
def test_training_agrees_with_pytorch(case):
  ours, theirs = flax_run(case), torch_run(case)
  assert ours.losses[0] == pytest.approx(theirs.losses[0], rel=1e-5)
  assert_gradients_alike(ours.grads, theirs.grads)
  # Measured: 1e-7. Uncorrected, norm3's running variance differs by 1.5e-4 or more.
  assert_alike(ours.stats, with_biased_variance(theirs.stats, case), most=1e-5)
  np.testing.assert_allclose(ours.losses, theirs.losses, rtol=1e-5)  # measured: 1e-6
  initial = torch_crnn.from_flax(initial_variables(case)["params"])
  changes = [
    {key: run.params[key] - initial[key] for key in initial} for run in (ours, theirs)
  ]
  assert_alike(*changes, most=CHANGE_TOLERANCE)


@pytest.mark.parametrize(
  "case", ["attention", pytest.param("max", marks=pytest.mark.exhaustive)]
)
def test_the_gradient_under_plain_jit_agrees_with_pytorch(case):
  config, variables = config_of(case), initial_variables(case)
  model = create_model(config, num_classes=NUM_CLASSES, axis_name=None)
  loss = losses.create_loss(config.loss, batches()[0]["labels"])

  def loss_fn(params, batch):
    outputs, _ = model.apply(
      variables | {"params": params},
      batch["inputs"],
      train=True,
      mutable=["batch_stats"],
    )
    return loss(outputs["logits"], batch["labels"]).mean()

  grad, twin = jax.jit(jax.grad(loss_fn)), torch_model(case)
  some = batches()[:NUM_GRADS]
  ours = [jax.device_get(grad(variables["params"], batch)) for batch in some]
  theirs = [torch_backward(twin, config, batch)[1] for batch in some]
  assert_gradients_alike([torch_crnn.from_flax(grads) for grads in ours], theirs)


@pytest.mark.parametrize("pooling", ["attention", "linear_softmax", "mean", "max"])
def test_the_gradient_of_each_pooling_agrees_with_pytorch(pooling):
  rng = np.random.default_rng(0)
  logits, attention = np.float32(rng.normal(size=(2, NUM_CLIPS, 25, NUM_CLASSES)))

  def ours_fn(*inputs):
    clip = layers.pool_frames(inputs[0], pooling, *inputs[1:])
    return losses.binary_cross_entropy(clip, batches()[0]["labels"]).mean()

  inputs = (logits, attention) if pooling == "attention" else (logits,)
  ours = jax.jit(jax.grad(ours_fn, tuple(range(len(inputs)))))(*inputs)
  theirs = [torch.tensor(x, requires_grad=True) for x in inputs]
  p = torch_crnn.pool_frames(torch.sigmoid(theirs[0]), pooling, *theirs[1:])
  labels = torch.tensor(batches()[0]["labels"])
  torch.nn.functional.binary_cross_entropy(p, labels).backward()
  names = ("logits", "attention")
  ours = {k: np.asarray(x) for k, x in zip(names, ours)}
  theirs = {k: x.grad.numpy() for k, x in zip(names, theirs)}
  assert_alike(ours, theirs, most=1e-5)
