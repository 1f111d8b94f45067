import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiotag_jax import config as config_lib
from audiotag_jax.models.create import create_model
from audiotag_jax.training import optim


@pytest.fixture
def train():
  train = config_lib.get_config().train
  train.num_steps, train.warmup_share, train.learning_rate = 100, 0.1, 0.02
  return train


@pytest.mark.parametrize(
  ("step", "expected"), [(0, 0.0), (5, 0.01), (10, 0.02), (55, 0.01), (100, 0.0)]
)
def test_warm_up_then_cosine(train, step, expected):
  schedule = optim.learning_rate_schedule(train)
  assert float(schedule(step)) == pytest.approx(expected, abs=1e-8)


def test_only_kernels_decay(train):
  config = config_lib.get_config()
  model = create_model(config, num_classes=3, axis_name=None)
  variables = jax.eval_shape(
    lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64)), train=False)
  )
  decayed = {
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, is_decayed in jax.tree_util.tree_leaves_with_path(
      optim.is_decayed(variables["params"])
    )
    if is_decayed
  }
  assert decayed == {
    *(f"conv{i}/kernel" for i in range(4)),
    "gru0/input/kernel",
    "gru0/recurrent_kernel",
    "classifier/kernel",
    "attention/kernel",
  }


def step(train, params, grads):
  """The second step, which is the first with a learning rate above 0."""
  tx = optim.create_optimizer(train, {"dense": 1.0})
  state = tx.init(params)
  _, state = tx.update(grads, state, params)
  updates, _ = tx.update(grads, state, params)
  return updates


def test_weight_decay_is_decoupled_from_the_gradient(train):
  train.weight_decay = 0.5
  params = {"dense": {"kernel": jnp.array([2.0]), "bias": jnp.array([2.0])}}
  updates = step(train, params, jax.tree.map(jnp.zeros_like, params))["dense"]
  learning_rate = 0.002  # a tenth of the way up
  np.testing.assert_allclose(updates["kernel"], [-learning_rate * 0.5 * 2.0], rtol=1e-5)
  np.testing.assert_array_equal(updates["bias"], [0.0])


def test_gradients_are_clipped_to_the_norm_given(train):
  train.clip_norm, train.weight_decay = 1.0, 0.0
  tx = optim.create_optimizer(train, {"dense": 1.0})
  params = {"dense": {"kernel": jnp.zeros(2)}}
  grads = {"dense": {"kernel": jnp.array([30.0, 40.0])}}
  _, state = tx.update(grads, tx.init(params), params)
  moment = jax.tree.leaves(state[1][0].mu)[0]  # Adam's, after (1 - 0.9) * clipped
  np.testing.assert_allclose(moment, [0.06, 0.08], rtol=1e-5)


def test_layers_get_their_share_of_the_learning_rate(train):
  tx = optim.create_optimizer(train, {"early": 0.0, "late": 0.5, "head": 1.0})
  params = {name: {"kernel": jnp.ones(2)} for name in ("early", "late", "head")}
  state = tx.init(params)
  grads = jax.tree.map(jnp.ones_like, params)
  _, state = tx.update(grads, state, params)
  updates, _ = tx.update(grads, state, params)
  np.testing.assert_array_equal(updates["early"]["kernel"], [0.0, 0.0])
  np.testing.assert_allclose(
    updates["late"]["kernel"], 0.5 * updates["head"]["kernel"], rtol=1e-6
  )
  assert (updates["head"]["kernel"] < 0).all()


def test_a_step_without_gradients_changes_kernels_alone(train):
  names = ("kernel", "recurrent_kernel", "bias", "recurrent_bias", "scale")
  params = {"dense": {name: jnp.full(2, 3.0) for name in names}}
  updates = step(train, params, jax.tree.map(jnp.zeros_like, params))["dense"]
  changed = {name for name in names if np.asarray(updates[name]).any()}
  assert changed == {"kernel", "recurrent_kernel"}
