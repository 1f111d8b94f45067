import functools

import jax
import jax.numpy as jnp
import numpy as np
import panns_reference
import pytest
import tiny_models

from audiotag_jax.models import cpu_convs, panns

pytestmark = pytest.mark.slow


def random(*shape, seed=0):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def lax_conv(x, kernel):
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


def count_convs(function, *args):
  return str(jax.make_jaxpr(function)(*args)).count("conv_general_dilated[")


@pytest.mark.parametrize(
  ("shape", "out", "train", "num_convs"),
  [
    ((2, 40, 7, 256), 128, False, 0),  # Winograd, odd
    ((1, 33, 8, 128), 256, False, 0),
    ((1, 40, 16, 64), 64, True, 0),
    ((2, 3, 2, 40), 24, False, 0),  # patches
    ((1, 1, 1, 3), 5, False, 0),
    ((1, 40, 16, 1), 64, False, 0),  # patches of few channels
    ((1, 40, 16, 64), 64, False, 1),  # XLA's own
    ((1, 40, 16, 16), 64, True, 1),
  ],
)
@pytest.mark.parametrize("size", [3, 5])
def test_agrees_with_xla(size, shape, out, train, num_convs):
  x, kernel = random(*shape), random(size, size, shape[-1], out, seed=1)
  conv = functools.partial(cpu_convs.conv, train=train)
  assert count_convs(conv, x, kernel) == num_convs
  expected = lax_conv(x, kernel)
  ours = conv(x, kernel)
  assert ours.shape == expected.shape
  np.testing.assert_allclose(ours, expected, atol=2e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
  ("shape", "out"),
  [
    ((2, 41, 7, 64), 128),
    ((3, 62, 5, 96), 80),
    ((4, 250, 16, 64), 64),
    ((2, 3, 2, 9), 4),
    ((2, 90, 16, 1), 64),
    ((6, 250, 64, 64), 64),  # in groups of two
  ],
)
@pytest.mark.parametrize("size", [3, 5])
def test_values_and_gradients_agree_with_float64(size, shape, out):
  x, kernel = random(*shape), random(size, size, shape[-1], out, seed=1)
  gradient = random(*shape[:3], out, seed=2)

  def differentiated(conv, *args):
    y, pull_back = jax.vjp(conv, *args[:2])
    return y, *pull_back(args[2])

  args = (x, kernel, gradient)
  conv = functools.partial(cpu_convs.conv, train=True)
  ours = jax.jit(functools.partial(differentiated, conv))(*args)
  with jax.enable_x64(True):
    expected = differentiated(lax_conv, *(x.astype(np.float64) for x in args))
  for a, b in zip(ours, expected, strict=True):
    assert np.linalg.norm(a - np.asarray(b)) < 1e-6 * np.linalg.norm(b)


def apply(model, variables, x, intercepted):
  if not intercepted:
    return model.apply(variables, x, train=False)
  with cpu_convs.in_use(train=False):
    return model.apply(variables, x, train=False)


@pytest.mark.parametrize(
  ("name", "fields", "num_convs"),
  [
    # The first block's second convolution has few channels.
    ("Cnn10", {"filters": (64, 128)}, 1),
    ("Cnn6", {"filters": (8, 8)}, 2),
  ],
)
def test_a_model_gives_the_same(name, fields, num_convs):
  model = panns.create(name, num_classes=4, **fields)
  x = panns_reference.waveforms(32_000, 1.0)
  variables = tiny_models.random_variables(model)
  count = count_convs(lambda x: apply(model, variables, x, True), x)
  assert count == num_convs
  outputs = [
    jax.jit(lambda v, x, on=on: apply(model, v, x, on))(variables, x)
    for on in (True, False)
  ]
  for key, expected in outputs[1].items():
    difference = jnp.abs(outputs[0][key] - expected).max()
    assert difference <= 2e-5 * jnp.abs(expected).max(), key


def test_initialisation_is_left_alone():
  model = panns.create("Cnn10", num_classes=4, filters=(4, 4))
  x = panns_reference.waveforms(32_000, 0.3)
  with cpu_convs.in_use(train=True):
    ours = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
  expected = jax.eval_shape(lambda: model.init(jax.random.key(0), x, train=False))
  assert jax.tree.map(jnp.shape, ours) == jax.tree.map(jnp.shape, expected)
