import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiotag_jax.models import layers


def test_bigru_agrees_with_flax_s_gru_in_both_directions():
  x = jax.random.normal(jax.random.key(0), (3, 11, 5))
  model = layers.BiGRU(units=4)
  params = jax.jit(model.init)(jax.random.key(1), x)["params"]
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda p: p + 0.1 * rng.normal(size=p.shape), params)
  ours = jax.jit(model.apply)({"params": params}, x)
  for direction in range(2):
    in_kernel = jnp.split(params["input"]["kernel"][:, direction], 3, axis=-1)
    in_bias = jnp.split(params["input"]["bias"][direction], 3)
    recurrent = jnp.split(params["recurrent_kernel"][direction], 3, axis=-1)
    cell = {
      f"i{gate}": {"kernel": in_kernel[i], "bias": in_bias[i]}
      for i, gate in enumerate("rzn")
    }
    cell |= {f"h{gate}": {"kernel": recurrent[i]} for i, gate in enumerate("rzn")}
    cell["hn"]["bias"] = params["recurrent_bias"][direction]
    rnn = nn.RNN(nn.GRUCell(4), reverse=bool(direction), keep_order=True)
    expected = jax.jit(rnn.apply)({"params": {"cell": cell}}, x)
    np.testing.assert_allclose(
      ours[..., 4 * direction : 4 * direction + 4], expected, atol=1e-5
    )


@pytest.mark.parametrize("window", [(2, 2), (4, 2), (1, 3)])
def test_max_pool_is_flax_s(window):
  x = jax.random.normal(jax.random.key(0), (2, 13, 9, 3))
  expected = nn.max_pool(x, window, strides=window)
  np.testing.assert_array_equal(layers.max_pool(x, window), expected)


@pytest.mark.parametrize("window", [(2, 2), (2, 1), (4, 3)])
def test_avg_pool_is_flax_s(window):
  x = jax.random.normal(jax.random.key(0), (2, 13, 9, 3))

  def differentiated(pool):
    y, pull_back = jax.vjp(pool, x)
    return y, pull_back(jnp.arange(1.0, 1.0 + y.size).reshape(y.shape))[0]

  expected = differentiated(lambda x: nn.avg_pool(x, window, strides=window))
  ours = jax.jit(lambda: differentiated(lambda x: layers.avg_pool(x, window)))()
  for a, b in zip(ours, expected, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("jit", [False, True])
def test_the_first_of_equal_cells_gets_the_gradient(jit):
  # Whole numbers from 0 to 3: most windows hold their maximum more than once.
  values = np.random.default_rng(0).integers(0, 4, (2, 13, 9, 3))
  x = jnp.array(values, jnp.float32).at[0, 3, 4, 0].set(jnp.nan)

  def gradient(pool):
    def weighted_sum(x):
      pooled = jnp.nan_to_num(pool(x, (2, 2)))
      return (pooled * jnp.arange(1.0, 1.0 + pooled.size).reshape(pooled.shape)).sum()

    return (jax.jit if jit else lambda f: f)(jax.grad(weighted_sum))(x)

  expected = gradient(lambda x, window: nn.max_pool(x, window, strides=window))
  np.testing.assert_array_equal(gradient(layers.max_pool), expected)
  np.testing.assert_array_equal(
    layers.max_pool(x, (2, 2)), nn.max_pool(x, (2, 2), strides=(2, 2))
  )


@pytest.mark.parametrize("jit", [False, True])
def test_the_first_of_equal_frames_gets_the_gradient(jit):
  x = jnp.array([1.0, 3.0, 2.0, 3.0]).reshape(1, 4, 1)
  gradient = jax.grad(lambda x: layers.frames_max(x).sum())
  gradient = (jax.jit if jit else lambda f: f)(gradient)
  assert gradient(x).ravel().tolist() == [0.0, 1.0, 0.0, 0.0]


def test_clip_has_no_gradient_at_its_bounds():
  x = jnp.array([-20.0, 0.0, 3.0, 6.0, 7.0])
  assert layers.clip(x, 0.0, 6.0).tolist() == [0.0, 0.0, 3.0, 6.0, 6.0]
  gradient = jax.grad(lambda x: layers.clip(x, 0.0, 6.0).sum())(x)
  assert gradient.tolist() == [0.0, 0.0, 1.0, 0.0, 0.0]


def logit(p):
  return np.log(p) - np.log1p(-p)


P = np.array([0.1, 0.6, 0.9])


@pytest.mark.parametrize(
  ("pooling", "expected"),
  [
    ("mean", (0.1 + 0.6 + 0.9) / 3),
    ("max", 0.9),
    ("linear_softmax", (0.01 + 0.36 + 0.81) / 1.6),
    ("attention", (1 * 0.1 + 2 * 0.6 + 5 * 0.9) / 8),
  ],
)
def test_pooled_probabilities_by_hand(pooling, expected):
  logits = jnp.array(logit(P), jnp.float32).reshape(1, 3, 1)
  attention = jnp.log(jnp.array([1.0, 2.0, 5.0])).reshape(1, 3, 1)
  pooled = layers.pool_frames(logits, pooling, attention)
  np.testing.assert_allclose(pooled, [[logit(expected)]], rtol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "max", "linear_softmax", "attention"])
@pytest.mark.parametrize("value", [-200.0, 200.0])
def test_extreme_frames_pool_to_finite_logits_and_gradients(pooling, value):
  logits = jnp.full((1, 4, 1), value)

  def pooled(x):
    return layers.pool_frames(x, pooling, jnp.zeros_like(x)).sum()

  np.testing.assert_allclose(pooled(logits), value, rtol=1e-4)
  assert jnp.isfinite(jax.grad(pooled)(logits)).all()


@pytest.mark.parametrize(
  ("pooling", "expected"),
  [
    ("mean", np.log(0.375 / 0.625)),
    ("max", 200.0),
    ("linear_softmax", np.log(5.0)),
    ("attention", np.log(0.375 / 0.625)),
  ],
)
def test_opposite_extremes_pool_by_hand(pooling, expected):
  # Probabilities 0, 1, 1/2, 0: their mean is 0.375, and weighted by themselves 5/6.
  logits = jnp.array([-200.0, 200.0, 0.0, -200.0]).reshape(1, 4, 1)

  def pooled(x):
    return layers.pool_frames(x, pooling, jnp.zeros_like(x)).sum()

  np.testing.assert_allclose(pooled(logits), expected, rtol=1e-5)
  assert jnp.isfinite(jax.grad(pooled)(logits)).all()


def clip_keys(num_clips):
  return layers.clip_keys(jax.random.key(0), num_clips, None)


def test_spec_augment_drops_stripes_as_the_reference():
  x = jnp.ones((201, 64))

  def dropped_of(axis, width):
    drop = jax.vmap(lambda key: layers.drop_stripes(key, x, axis, 2, width))
    return np.asarray(jax.jit(drop)(clip_keys(4000)) == 0)

  dropped = dropped_of(0, 64)
  # Whole frames are dropped, different ones in each example.
  assert (dropped.all(axis=2) == dropped.any(axis=2)).all()
  widths = dropped[:, :, 0].sum(axis=1)
  # Two stripes of 0 to 63 frames sometimes overlap.
  assert 110 < widths.max() <= 126
  # Their mean is 2 * 31.5 without the overlap, which takes about a tenth.
  assert 54 < widths.mean() < 63
  bands = dropped_of(1, 8)
  assert (bands.all(axis=1) == bands.any(axis=1)).all()
  assert bands[:, 0].sum(axis=1).max() == 14


def test_spec_augment_of_few_frames_leaves_some():
  augment = layers.SpecAugment(2, 64, 0, 8)
  x = jax.jit(augment)(clip_keys(500), jnp.ones((500, 2, 3)))
  assert (np.asarray(x)[:, :, 0].sum(axis=1) >= 0).all()
  assert (np.asarray(x) == 1).any(axis=(1, 2)).mean() > 0.5


def test_spec_augment_drops_stripes_of_time_and_of_frequency():
  augment = layers.SpecAugment(1, 20, 1, 10)
  x = jax.jit(augment)(clip_keys(500), jnp.ones((500, 100, 40)))
  dropped = np.asarray(x == 0)
  assert dropped.all(axis=2).sum(axis=1).max() == 19
  assert dropped.all(axis=1).sum(axis=1).max() == 9
  off = layers.SpecAugment(0, 20, 0, 10)
  assert (off(clip_keys(4), jnp.ones((4, 9, 5))) == 1).all()


def test_each_clip_has_a_key_by_its_place_on_any_number_of_devices():
  whole = jax.random.key_data(clip_keys(8))
  assert len({tuple(data) for data in whole.tolist()}) == 8

  def keys_of(_):
    return jax.random.key_data(layers.clip_keys(jax.random.key(0), 2, "devices"))

  shares = jax.vmap(keys_of, axis_name="devices")(jnp.arange(4))
  np.testing.assert_array_equal(shares.reshape(8, -1), whole)


def test_dropout_keeps_a_share_and_scales_it():
  x = jnp.full((64, 50, 40), 3.0)
  drop = layers.Dropout(0.3, deterministic=False)
  y = np.asarray(drop.apply({}, x, rngs={"dropout": jax.random.key(0)}))
  kept = y != 0
  np.testing.assert_allclose(y[kept], 3.0 / 0.7, rtol=1e-6)
  # Standard deviations: 0.0013 over all values, 0.01 over a clip's.
  assert abs(kept.mean() - 0.7) < 0.005
  assert (abs(kept.mean(axis=(1, 2)) - 0.7) < 0.05).all()
  assert not (kept[0] == kept[1]).all()


def test_dropout_drops_nothing_in_evaluation_and_at_a_rate_of_zero():
  x = jnp.ones((4, 9))
  for drop in (layers.Dropout(0.3, True), layers.Dropout(0.0, False)):
    np.testing.assert_array_equal(drop.apply({}, x), x)
