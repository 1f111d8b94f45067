"""The gradients of training, compared with the gradients of the definition.

The definition is the training step itself, op by op in float64 (tests/op_by_op.py),
with vmap in place of pmap. Two computations are compared with it: the training step,
compiled by pmap, and the model's loss, differentiated as a user may, compiled by jit.

In float32, rounding puts a few of a million activations on the other side of a ReLU, or
takes the other of two nearly equal cells of a maximum, and a deep narrow network
multiplies rounding. So a case may differ from float64 by `ROUNDING_FACTOR` times the
difference of float32 op by op. Such a flip depends on the batch, a wrong gradient does
not: a case fails only if it fails on each of `BATCHES`.

A case compiles for up to a minute. `python -m pytest` runs the cases of `OFTEN`, and
`python -m pytest -m '' tests/training/test_gradients.py` runs all.
"""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import op_by_op
import optax
import pytest
import tiny_models
from flax import linen as nn

from audiotag_jax import config as config_lib
from audiotag_jax import parallel, recipes
from audiotag_jax.models.create import create_model
from audiotag_jax.panns.architectures import ARCHITECTURES
from audiotag_jax.training import augment, finetune, losses, optim, steps

pytestmark = pytest.mark.slow

# Cases in every run of the tests; the others are marked as exhaustive.
OFTEN = ("mixup and SpecAugment", "max", "Cnn14")

BATCHES = range(3)
ROUNDING_FACTOR = 3.0
CLASSES = 5


@dataclasses.dataclass(frozen=True)
class Bounds:
  """Bounds of a gradient's differences from the definition's.

  Attributes:
    relative: norm of the difference, relative to the definition's norm.
    cosine: least cosine of the angle between the two.
    loss: relative difference of the loss.
  """

  relative: float = 1e-3
  cosine: float = 0.9999
  loss: float = 1e-5

  def widened(self, rounding: float) -> "Bounds":
    """Returns bounds for a relative difference that rounding explains."""
    relative = max(self.relative, ROUNDING_FACTOR * rounding)
    return Bounds(relative, min(self.cosine, 1.0 - relative**2), self.loss)


FLOAT32 = Bounds()
# bfloat16 has 8 bits. Cnn10's worst tensor differs by 0.22 to 0.39, by the batch, and
# alike under pmap and jit; the CRNN's by 0.09 to 0.14.
BFLOAT16 = Bounds(relative=0.3, cosine=0.95, loss=1e-2)


def mark(names):
  """Marks the cases that only an exhaustive run includes."""
  return [
    pytest.param(name, marks=[] if name in OFTEN else pytest.mark.exhaustive)
    for name in names
  ]


def keep_gradients() -> optax.GradientTransformation:
  """Passes gradients on and keeps them as its state."""
  return optax.GradientTransformation(
    lambda params: jax.tree.map(jnp.zeros_like, params),
    lambda grads, *_: (grads, grads),
  )


class Case:
  """A model, trained as a config says, and its three gradients.

  Attributes:
    config: the config.
    model: the model, for pmap.
    shape: shape of the inputs.
    num_devices: devices that share the batch.
  """

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    model: nn.Module,
    shape: tuple[int, ...],
    num_devices: int = 1,
  ):
    self.config, self.model, self.shape = config, model, shape
    self.num_devices = num_devices
    self.scales = finetune.learning_rate_scales(model, config, (1, *shape[1:]))
    variables = tiny_models.random_variables(model)
    # Larger biases would leave channels with hardly an activation; the norms of such
    # channels multiply rounding by hundreds.
    self.params = jax.tree_util.tree_map_with_path(
      lambda path, x: 0.1 * x if path[-1].key == "bias" else x, variables["params"]
    )
    self.batch_stats = variables["batch_stats"]

  def batch(self, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal(self.shape)
    is_waveform = len(self.shape) == 2
    inputs = 0.1 * inputs if is_waveform else 15.0 * inputs - 40.0  # full scale, dB
    labels = rng.random((len(inputs), CLASSES)) < 0.4
    return {"inputs": np.float32(inputs), "labels": np.float32(labels)}

  def _step(self, model, tx, labels):
    return steps.create_train_step(
      self.config, model, tx, self.scales, labels, parallel.AXIS
    )

  def _state(self, tx) -> steps.TrainState:
    opt_state = jax.eval_shape(tx.init, self.params)
    opt_state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), opt_state)
    return steps.TrainState(np.int32(0), self.params, self.batch_stats, opt_state, {})

  def _shard(self, batch):
    shape = (self.num_devices, -1)
    return {key: x.reshape(*shape, *x.shape[1:]) for key, x in batch.items()}

  def defined(self, batch, dtype=np.float64):
    """Loss and gradients of the training step, op by op."""
    tx = keep_gradients()
    step = self._step(self.model.clone(dtype=dtype), tx, batch["labels"])
    on_devices = jax.vmap(
      step, in_axes=(None, 0), out_axes=None, axis_name=parallel.AXIS
    )
    args = (self._state(tx), self._shard(batch))
    new, metrics = op_by_op.evaluate(on_devices, *args, dtype=dtype)
    return metrics["loss"], new.opt_state

  @functools.cached_property
  def _pmapped(self):
    tx = optim.create_optimizer(self.config.train, self.scales)
    tx = optax.chain(keep_gradients(), tx)
    step = self._step(self.model, tx, self.batch(0)["labels"])
    devices = jax.devices()[: self.num_devices]
    state = jax.tree.map(lambda x: np.stack([x] * len(devices)), self._state(tx))
    step = jax.pmap(step, axis_name=parallel.AXIS, devices=devices)
    return lambda batch: step(state, self._shard(batch))

  def trained(self, batch):
    """Loss and gradients of the training step, compiled by pmap."""
    new, metrics = self._pmapped(batch)
    return jax.tree.map(lambda x: np.asarray(x)[0], (metrics["loss"], new.opt_state[0]))

  @functools.cached_property
  def _jitted(self):
    config, model = self.config, self.model.clone(axis_name=None)
    loss = losses.create_loss(config.loss, self.batch(0)["labels"])

    def loss_fn(params, batch):
      key = jax.random.fold_in(jax.random.key(config.seed), 0)  # step
      augment_key, key = jax.random.split(key)
      batch = augment.augment(augment_key, batch, config)
      outputs, _ = model.apply(
        {"params": params, "batch_stats": self.batch_stats},
        batch["inputs"],
        train=True,
        rngs={"dropout": key},
        mutable=["batch_stats"],
      )
      return loss(outputs["logits"], batch["labels"]).mean()

    return jax.jit(jax.value_and_grad(loss_fn))

  def jitted(self, batch):
    """Loss and gradients of the model's loss, compiled by jit."""
    return jax.tree.map(np.asarray, self._jitted(self.params, batch))


def compare(ours, defined, bounds: Bounds) -> tuple[list[str], tuple[float, str]]:
  """Compares losses and gradients.

  A gradient that is zero by definition, such as that of a bias before a softmax, is
  compared relative to the norm of all gradients.

  Returns:
    The faults, and the worst relative difference with its tensor.
  """
  (our_loss, our_grads), (loss, grads) = ours, defined
  faults = []
  if not abs(our_loss - loss) <= bounds.loss * abs(loss):
    faults.append(f"loss {our_loss}, not {loss}")
  negligible = 1e-4 * optax.tree.norm(grads)
  worst = (0.0, "")
  leaves = jax.tree_util.tree_leaves_with_path(grads)
  for (path, expected), x in zip(leaves, jax.tree.leaves(our_grads), strict=True):
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    x, norm = x.astype(np.float64), np.linalg.norm(expected)
    relative = np.linalg.norm(x - expected) / max(norm, negligible)
    cosine = np.vdot(x, expected) / max(np.linalg.norm(x) * norm, 1e-300)
    worst = max(worst, (float(relative), name))
    parallel_enough = norm <= negligible or cosine >= bounds.cosine
    if not (relative <= bounds.relative and parallel_enough):
      faults.append(f"{name}: relative {relative:.1e}, cosine {cosine:.5f}")
  return faults, worst


def find_faults(
  case: Case,
  record_property,
  bounds: Bounds = FLOAT32,
  ways: tuple[str, ...] = ("trained", "jitted"),
) -> dict[str, list[str]]:
  """Compares a case's gradients with the definition's: see the module.

  Returns:
    The faults of each way on the last of `BATCHES`; nothing if any batch has none.
  """
  faults = {}
  for seed in BATCHES:
    batch = case.batch(seed)
    defined = case.defined(batch)
    ours = {way: getattr(case, way)(batch) for way in ways}
    compared = {way: compare(ours[way], defined, bounds) for way in ways}
    if any(found for found, _ in compared.values()):
      _, rounding = compare(case.defined(batch, np.float32), defined, bounds)
      record_property(f"float32 op by op, batch {seed}", rounding)
      widened = bounds.widened(rounding[0])
      compared = {way: compare(ours[way], defined, widened) for way in ways}
    for way, (_, worst) in compared.items():
      record_property(f"{way}, batch {seed}", worst)
    faults = {
      f"{way}, jax {jax.__version__}": found
      for way, (found, _) in compared.items()
      if found
    }
    if not faults:
      break
  return faults


def crnn_config(**overrides) -> ml_collections.ConfigDict:
  """A narrow CRNN with dropout; overrides are keys with __ for dots."""
  config = config_lib.get_config()
  config.frontend.sample_rate_hz = 8_000
  config.frontend.f_max_hz = 4_000.0
  config.frontend.num_mels = 16
  config.crnn.filters = (8, 8)
  config.crnn.time_pooling = (2, 2)
  config.crnn.mel_pooling = (2, 4)
  config.crnn.gru_units = (8,)
  config.init_from = "set for the modes of fine-tuning"
  config.update_from_flattened_dict(
    {key.replace("__", "."): value for key, value in overrides.items()}
  )
  return config


def create(config: ml_collections.ConfigDict) -> nn.Module:
  return create_model(config, num_classes=CLASSES, axis_name=parallel.AXIS)


def test_the_default_crnn(record_property):
  """A maximum whose gradient compares cells, under jit, is off by 0.9 at this size."""
  config = config_lib.get_config()
  assert not find_faults(Case(config, create(config), (4, 202, 64)), record_property)


# Recipes of CRNNs. crnn_study has crnn_fsd50k's model and shape, crnn_demo_study has
# crnn_demo's. crnn_fsd50k's 64 clips would take minutes and 20 GB in float64.
RECIPES = {
  "crnn_demo": 16,
  "crnn_fsd50k": 4,
  "crnn_fsd50k_paper": 64,
  "crnn_fsd50k_small": 16,
}


@pytest.mark.parametrize("recipe", mark(RECIPES))
def test_crnn_at_its_recipe_s_shape(recipe, record_property):
  config = recipes.read_recipe(Path(__file__).parents[2] / f"configs/{recipe}.py")
  clip_samples = round(config.data.clip_s * config.frontend.sample_rate_hz)
  num_frames = 1 + clip_samples // config.frontend.hop_samples
  shape = (RECIPES[recipe], num_frames, config.frontend.num_mels)
  assert not find_faults(Case(config, create(config), shape), record_property)


SETTINGS = {
  "attention": {},
  "linear_softmax": {"crnn__pooling": "linear_softmax"},
  "mean": {"crnn__pooling": "mean"},
  "max": {"crnn__pooling": "max"},
  "pools that leave frames over": {
    "crnn__time_pooling": (3, 2),
    "crnn__mel_pooling": (3, 5),
  },
  "focal": {"loss__name": "focal"},
  "asymmetric": {"loss__name": "asymmetric", "loss__asl_gamma_positive": 1.0},
  "class balanced": {"loss__name": "class_balanced", "loss__label_smoothing": 0.1},
  "mixup and SpecAugment": {
    "augment__mixup_alpha": 1.0,
    "augment__gain_db": 6.0,
    "augment__roll_s": 0.1,
    "augment__time_stripes": 2,
    "augment__time_stripe_frames": 10,
    "augment__mel_stripes": 2,
    "augment__mel_stripe_bands": 4,
  },
  "layerwise": {"finetune__mode": "layerwise"},
  "without dropout": {"crnn__dropout": 0.0, "crnn__conv_dropout": 0.0},
}


@pytest.mark.parametrize("name", mark(SETTINGS))
def test_crnn_by_setting(name, record_property):
  config = crnn_config(**SETTINGS[name])
  assert not find_faults(Case(config, create(config), (8, 51, 16)), record_property)


@pytest.mark.parametrize(
  "mode", [pytest.param("linear", marks=pytest.mark.exhaustive), "last_blocks"]
)
def test_frozen_layers_have_no_gradient(mode, record_property):
  config = crnn_config(finetune__mode=mode, finetune__num_blocks=1)
  case = Case(config, create(config), (8, 51, 16))
  assert not find_faults(case, record_property, ways=("trained",))
  _, grads = case.trained(case.batch(0))
  frozen = {name for name, scale in case.scales.items() if scale == 0.0}
  head = {"classifier", "attention"} | ({"gru0"} if mode == "last_blocks" else set())
  assert frozen == grads.keys() - head
  for name, layer in grads.items():
    for gradient in jax.tree.leaves(layer):
      assert np.any(gradient) == (name not in frozen), name


@pytest.mark.exhaustive
@pytest.mark.parametrize("num_devices", [1, 8])
@pytest.mark.parametrize("accumulation_steps", [1, 2])
@pytest.mark.parametrize("shape", [(16, 51, 16), (16, 4_000)])
def test_crnn_on_devices_in_parts(
  num_devices, accumulation_steps, shape, record_property
):
  config = crnn_config(
    train__accumulation_steps=accumulation_steps, augment__mixup_alpha=1.0
  )
  case = Case(config, create(config), shape, num_devices)
  whole = num_devices == accumulation_steps == 1
  assert not find_faults(case, record_property, ways=("trained", "jitted")[: 1 + whole])


def create_panns(name: str, **fields) -> tuple[nn.Module, tuple[int, ...]]:
  fields |= {"num_classes": CLASSES, "axis_name": parallel.AXIS}
  return tiny_models.narrow_panns(name, **fields)


@pytest.mark.parametrize("name", mark(ARCHITECTURES))
def test_panns(name, record_property):
  model, shape = create_panns(name)
  assert not find_faults(Case(config_lib.get_config(), model, shape), record_property)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["crnn", "Cnn10"])
def test_bfloat16(name, record_property):
  if name == "crnn":
    config, shape = crnn_config(model__dtype="bfloat16"), (8, 51, 16)
    model = create(config)
  else:
    config = config_lib.get_config()
    model, shape = create_panns(name, dtype=jnp.bfloat16)
  assert not find_faults(Case(config, model, shape), record_property, BFLOAT16)


def test_the_definition_agrees_with_finite_differences():
  config = crnn_config(augment__mixup_alpha=1.0)
  case = Case(config, create(config), (8, 51, 16))
  batch = case.batch(0)
  _, grads = case.defined(batch)
  params = jax.tree.map(np.float64, case.params)
  rng = np.random.default_rng(0)
  direction = jax.tree.map(lambda x: rng.standard_normal(x.shape), params)
  ends = []
  for step in (1e-6, -1e-6):
    case.params = jax.tree.map(lambda x, d, s=step: x + s * d, params, direction)
    ends.append(float(case.defined(batch)[0]))
  slope = sum(map(np.vdot, jax.tree.leaves(grads), jax.tree.leaves(direction)))
  assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(slope, rel=1e-6)
