"""3x3 convolutions that are faster on a CPU than XLA's own.

XLA's convolutions run near the cores' peak, so only fewer operations are faster; its
gradients of early layers' kernels run at a fifth of the peak. Winograd's F(2x2, 3x3)
(Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015) has 16
products where the plain sum has 36, and rounds as float32 does, also in its gradients.
F(4x4, 3x3) has fewer, but rounds ten times as coarsely. Images of few pixels become a
matrix of patches, which is multiplied by the kernel. XLA takes half as long again for
them and, below 3x3 pixels, where XLA swaps image and kernel, a hundred times as long.
"""

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

# Largest number of pixels of an image that becomes a matrix of patches.
MAX_PATCHES = 256
# Products per pixel below which Winograd's transforms cost more than they save; in
# training they save the slow gradient of the kernel, too.
MIN_PRODUCTS, MIN_PRODUCTS_IN_TRAINING = 64 * 128, 64 * 64


def in_use(*, train: bool) -> contextlib.AbstractContextManager[Any]:
  """Returns a block in which Flax models use `conv3x3`, if the devices are CPUs."""
  if jax.default_backend() != "cpu":
    return contextlib.nullcontext()
  return nn.intercept_methods(functools.partial(intercept, train=train))


def intercept(
  next_fun: Any, args: Any, kwargs: Any, context: Any, *, train: bool
) -> jax.Array:
  """Computes a Flax model's 3x3 convolutions by `conv3x3`: see nn.intercept_methods."""
  layer = context.module
  if not (
    isinstance(layer, nn.Conv)
    and context.method_name == "__call__"
    and _is_plain_3x3(layer)
    and layer.has_variable("params", "kernel")
  ):
    return next_fun(*args, **kwargs)
  return conv3x3(args[0], layer.get_variable("params", "kernel"), train=train)


def _is_plain_3x3(layer: nn.Conv) -> bool:
  ones = (None, 1, (1, 1))
  return (
    layer.kernel_size in ((3, 3), [3, 3])
    and layer.strides in ones
    and layer.kernel_dilation in ones
    and layer.input_dilation in ones
    and layer.feature_group_count == 1
    and layer.padding in ("SAME", 1, ((1, 1), (1, 1)))
    and not layer.use_bias
    and layer.mask is None
    and layer.dtype in (None, jnp.float32)
  )


def conv3x3(x: jax.Array, kernel: jax.Array, *, train: bool) -> jax.Array:
  """Convolves <float32>[batch, height, width, in], padded with a pixel of zeros.

  Args:
    x: the images.
    kernel: <float32>[3, 3, in, out].
    train: whether gradients will be asked for.

  Returns:
    <float32>[batch, height, width, out].
  """
  _, height, width, channels = x.shape
  if height * width <= MAX_PATCHES:
    return _multiply_patches(x, kernel)
  least = MIN_PRODUCTS_IN_TRAINING if train else MIN_PRODUCTS
  if channels * kernel.shape[-1] >= least:
    return _winograd(x, kernel)
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


# Checkpointed, because patches and transformed inputs take four to nine times the
# memory of the inputs: gradients compute them again.
@jax.checkpoint
def _multiply_patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
  _, height, width, channels = x.shape
  x = jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
  shifted = [x[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
  return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(9 * channels, -1)


@jax.checkpoint
def _winograd(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Convolves by Winograd's F(2x2, 3x3), in tiles of 2x2 outputs."""
  batch, height, width, channels = x.shape
  rows, columns = -(-height // 2), -(-width // 2)  # of tiles
  below, right = 2 * rows - height + 1, 2 * columns - width + 1
  x = jnp.pad(x, [(0, 0), (1, below), (1, right), (0, 0)])
  tile_rows = _transform_input([x[:, i : i + 2 * rows : 2] for i in range(4)])
  products = []
  for row, kernels in zip(tile_rows, _transform_kernel(kernel), strict=True):
    tiles = _transform_input([row[:, :, j : j + 2 * columns : 2] for j in range(4)])
    tiles = [tile.reshape(-1, channels) for tile in tiles]
    products.append([t @ k for t, k in zip(tiles, kernels, strict=True)])
  halves = [_transform_output(column) for column in zip(*products, strict=True)]
  outputs = [_transform_output(row) for row in zip(*halves, strict=True)]
  y = jnp.stack([jnp.stack(row, axis=1) for row in outputs], axis=1)
  y = y.reshape(batch, rows, columns, 2, 2, -1).swapaxes(2, 3)
  return y.reshape(batch, 2 * rows, 2 * columns, -1)[:, :height, :width]


def _transform_input(x: list[jax.Array]) -> list[jax.Array]:
  """Multiplies by B of the paper's equation 8, transposed."""
  return [x[0] - x[2], x[1] + x[2], x[2] - x[1], x[1] - x[3]]


def _transform_kernel(kernel: jax.Array) -> list[list[jax.Array]]:
  """Multiplies by G of equation 8 along both axes: 4x4 of <float32>[in, out]."""

  def transform(k: list[jax.Array]) -> list[jax.Array]:
    both = (k[0] + k[2]) / 2
    return [k[0], both + k[1] / 2, both - k[1] / 2, k[2]]

  return [transform([row[j] for j in range(3)]) for row in transform(list(kernel))]


def _transform_output(m: Sequence[jax.Array]) -> list[jax.Array]:
  """Multiplies by A of the paper's equation 8, transposed."""
  return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]
