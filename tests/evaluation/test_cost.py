import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from audiotag_jax.evaluation import cost
from audiotag_jax.models import layers, panns
from audiotag_jax.models.create import create_model

pytestmark = pytest.mark.slow

# The STFT of 10 s at 32 kHz as PANNs compute it: a convolution with the real and the
# imaginary parts of 513 bins, over 1024 samples of each of 1001 frames.
PANNS_STFT = 2 * 513 * 1024 * 1001


def count(function, *shapes):
  inputs = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
  return cost.multiply_adds(jax.make_jaxpr(function)(*inputs).jaxpr)


def count_module(module, shape, **kwargs):
  inputs = jax.ShapeDtypeStruct(shape, np.float32)
  init = functools.partial(module.init, **kwargs)
  variables = jax.eval_shape(init, jax.random.key(0), inputs)
  forward = jax.make_jaxpr(functools.partial(module.apply, **kwargs))
  return cost.multiply_adds(forward(variables, inputs).jaxpr)


def test_dense():
  assert count_module(nn.Dense(7), (5, 3)) == 5 * 3 * 7
  assert count(lambda a, b: jnp.einsum("bij,bkj->bik", a, b), (2, 3, 4), (2, 5, 4)) == (
    2 * 3 * 5 * 4
  )


@pytest.mark.parametrize(
  ("fields", "expected"),
  [
    ({}, 10 * 8 * 12 * (3 * 5 * 6)),
    ({"strides": 2}, 5 * 4 * 12 * (3 * 5 * 6)),
    ({"feature_group_count": 3}, 10 * 8 * 12 * (3 * 5 * 2)),
    ({"kernel_dilation": 2}, 10 * 8 * 12 * (3 * 5 * 6)),
    ({"padding": "VALID"}, 8 * 4 * 12 * (3 * 5 * 6)),
  ],
)
def test_convolution(fields, expected):
  assert count_module(nn.Conv(12, (3, 5), **fields), (1, 10, 8, 6)) == expected


def test_what_is_called_and_repeated_inside():
  def product(x):
    return x @ x

  square = (4, 4)
  assert count(jax.jit(product), square) == 64
  assert count(jax.checkpoint(product), square) == 64

  custom = jax.custom_vjp(product)
  custom.defvjp(lambda x: (product(x), x), lambda x, g: (g @ x,))
  assert count(custom, square) == 64
  custom = jax.custom_jvp(product)
  custom.defjvp(lambda x, t: (product(*x), product(*t)))
  assert count(custom, square) == 64

  def scanned(x):
    return jax.lax.scan(lambda c, _: (product(product(c)), None), x, length=9)[0]

  assert count(scanned, square) == 9 * 2 * 64
  assert count(jax.vmap(scanned), (3, 4, 4)) == 3 * 9 * 2 * 64

  def branches(x):
    return jax.lax.cond(x[0, 0] > 0, lambda x: product(product(x)), product, x)

  assert count(branches, square) == 2 * 64


def test_a_loop_of_unknown_length():
  def loop(body):
    return lambda x: jax.lax.while_loop(lambda x: x[0, 0] < 1, body, x)

  assert count(loop(lambda x: x + 1), (4, 4)) == 0
  with pytest.raises(ValueError, match="while loop"):
    count(loop(lambda x: x @ x), (4, 4))


def test_recurrence():
  # Three gates in both directions and each frame, for the input and for the state.
  expected = 2 * 11 * (3 * 5 * 6 + 3 * 6 * 6)
  assert count_module(layers.BiGRU(6), (1, 11, 5)) == expected


@pytest.mark.parametrize(
  ("name", "published_m", "tolerance"),
  [
    ("Cnn14", 42_220, 0.002),
    ("Cnn10", 28_166, 0.002),
    ("Cnn6", 21_986, 0.002),
    ("MobileNetV1", 3_614, 0.01),
  ],
)
def test_multiply_adds_beside_those_published(name, published_m, tolerance):
  """Kong et al. (2020), table of the systems' complexity.

  They count a multiplication and an addition as two, and the STFT as a convolution.
  The rest, up to `tolerance`, is elementwise: BatchNorm, which we do not count.
  """
  model = panns.create(name, num_classes=527)
  ours = count_module(model, (1, 1001, 64), train=False)
  theirs = published_m * 1e6 / 2 - PANNS_STFT
  assert 0 < theirs - ours < tolerance * published_m * 1e6 / 2


@pytest.mark.parametrize("features", ["log_mel", "waveform"])
def test_cost_of_a_model(features, tiny_config, monkeypatch):
  monkeypatch.setattr(cost, "TIME_LIMIT_S", 0.1)
  tiny_config.data.features = features
  model = create_model(tiny_config, num_classes=3, axis_name=None)
  shape = (1, 26, 64) if features == "log_mel" else (1, 8_000)
  init = jax.jit(functools.partial(model.init, train=False))
  variables = init(jax.random.key(0), jnp.zeros(shape))
  measured = cost.measure(model, variables, tiny_config)
  rate, device = measured.pop("clips_per_second"), measured.pop("device")
  assert rate > 1
  assert device.startswith("cpu, ")
  # 26 frames of 64 bands, pooled to 6 frames of 4 bands of 8 channels.
  convolutions = 26 * 64 * 9 * 4 + 13 * 16 * 9 * 4 * 8
  recurrence = 2 * 6 * 3 * (32 * 8 + 8 * 8)
  heads = 2 * 6 * 16 * 3
  mel_matrix = 26 * 513 * 64 if features == "waveform" else 0
  norms = 2 * (64 + 4 + 8)
  kernels = 9 * 4 + 9 * 4 * 8 + 2 * 3 * 8 * (32 + 8) + 2 * 16 * 3
  biases = 2 * 3 * 8 + 2 * 8 + 2 * 3
  assert measured == {
    "params": norms + kernels + biases,
    "multiply_adds_per_clip": convolutions + recurrence + heads + mel_matrix,
    "clip_s": 1.0,
  }
