"""3x3 and 5x5 convolutions that are faster on a CPU than XLA's own.

XLA's convolutions run near the cores' peak, so only fewer operations are faster; its
gradients of early layers' kernels run at a fifth of the peak. Winograd's F(2x2, 3x3)
(Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015) has 16
products where the plain sum has 36, and rounds as float32 does, also in its gradients.
F(4x4, 3x3) has fewer, but rounds ten times as coarsely. A 5x5 kernel is four kernels of
3x3 that share the transformed inputs, and has 49 products where the plain sum has 100.

Images of few pixels become a matrix of patches, which is multiplied by the kernel. XLA
takes half as long again for them and, below 3x3 pixels, where XLA swaps image and
kernel, a hundred times as long. Images of few channels, as in a first layer, become
patches too: these are smaller than the outputs.
"""

import contextlib
import functools
import itertools
import math
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
# Bytes of transformed inputs at a time: more leave the caches, and add to the memory.
GROUP_BYTES = 2**26


def in_use(*, train: bool) -> contextlib.AbstractContextManager[Any]:
  """Returns a block in which Flax models use `conv`, if the devices are CPUs."""
  if jax.default_backend() != "cpu":
    return contextlib.nullcontext()
  return nn.intercept_methods(functools.partial(intercept, train=train))


def intercept(
  next_fun: Any, args: Any, kwargs: Any, context: Any, *, train: bool
) -> jax.Array:
  """Computes a Flax model's plain convolutions by `conv`: see nn.intercept_methods."""
  layer = context.module
  if not (
    isinstance(layer, nn.Conv)
    and context.method_name == "__call__"
    and _is_plain(layer)
    and layer.has_variable("params", "kernel")
  ):
    return next_fun(*args, **kwargs)
  return conv(args[0], layer.get_variable("params", "kernel"), train=train)


def _is_plain(layer: nn.Conv) -> bool:
  ones = (None, 1, (1, 1))
  size: Any = layer.kernel_size
  margin = 2 if size in ((5, 5), [5, 5]) else 1
  return (
    size in ((3, 3), [3, 3], (5, 5), [5, 5])
    and layer.strides in ones
    and layer.kernel_dilation in ones
    and layer.input_dilation in ones
    and layer.feature_group_count == 1
    and layer.padding in ("SAME", margin, ((margin, margin),) * 2)
    and not layer.use_bias
    and layer.mask is None
    and layer.dtype in (None, jnp.float32)
  )


def conv(x: jax.Array, kernel: jax.Array, *, train: bool) -> jax.Array:
  """Convolves <float32>[batch, height, width, in], padded with zeros to keep its size.

  Args:
    x: the images.
    kernel: <float32>[3, 3, in, out] or [5, 5, in, out].
    train: whether gradients will be asked for.

  Returns:
    <float32>[batch, height, width, out].
  """
  _, height, width, _ = x.shape
  size, _, channels, filters = kernel.shape
  if height * width <= MAX_PATCHES or size**2 * channels <= filters:
    return _multiply_patches(x, kernel)
  least = MIN_PRODUCTS_IN_TRAINING if train else MIN_PRODUCTS
  if channels * filters >= least:
    return _convolve_groups(x, kernel)
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


# Checkpointed, because patches and transformed inputs take four to nine times the
# memory of the inputs: gradients compute them again.
@jax.checkpoint
def _multiply_patches(x: jax.Array, kernel: jax.Array) -> jax.Array:
  _, height, width, channels = x.shape
  size = kernel.shape[0]
  margin = (size // 2, size // 2)
  x = jnp.pad(x, [(0, 0), margin, margin, (0, 0)])
  shifts = itertools.product(range(size), repeat=2)
  shifted = [x[:, i : i + height, j : j + width] for i, j in shifts]
  return jnp.concatenate(shifted, axis=-1) @ kernel.reshape(size**2 * channels, -1)


def _convolve_groups(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Convolves a few images at a time, as many as `GROUP_BYTES` allow, at least two."""
  batch, *shape = x.shape
  num_bytes = 4 * x.dtype.itemsize * math.prod(shape)  # of an image, transformed
  most = max(2, GROUP_BYTES // num_bytes)
  size = max(n for n in range(1, batch + 1) if batch % n == 0 and n <= most)
  if size == batch:
    return _winograd(x, kernel)
  groups = x.reshape(-1, size, *shape)
  y = jax.lax.map(lambda images: _winograd(images, kernel), groups)
  return y.reshape(batch, *y.shape[2:])


@jax.checkpoint
def _winograd(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Convolves by Winograd's F(2x2, 3x3), in tiles of 2x2 outputs.

  A 5x5 kernel is cut into two by two parts. The parts are two pixels apart, and so are
  the tiles. So the second part uses the tiles of the first, from the second tile on.
  """
  batch, height, width, channels = x.shape
  rows, columns = -(-height // 2), -(-width // 2)  # of tiles
  margin = num_parts = kernel.shape[0] // 2
  below = 2 * (rows + num_parts) - height - margin
  right = 2 * (columns + num_parts) - width - margin
  x = jnp.pad(x, [(0, 0), (margin, below), (margin, right), (0, 0)])
  parts = list(itertools.product(range(num_parts), repeat=2))
  kernels = {part: _transform_kernel(_cut(kernel, *part)) for part in parts}
  products: list[list[jax.Array]] = []
  for i, row in enumerate(_transform_input(_tiles(x, axis=1))):
    products.append([])
    for j, tile in enumerate(_transform_input(_tiles(row, axis=2))):
      # The first product of a later part is zero: see `_cut`.
      used = [(p, q) for p, q in parts if (i or not p) and (j or not q)]
      shifted = [tile[:, p : p + rows, q : q + columns] for p, q in used]
      inputs = jnp.concatenate(shifted, axis=-1).reshape(-1, len(used) * channels)
      products[-1].append(inputs @ jnp.concatenate([kernels[p][i][j] for p in used]))
  halves = [_transform_output(column) for column in zip(*products, strict=True)]
  outputs = [_transform_output(row) for row in zip(*halves, strict=True)]
  y = jnp.stack([jnp.stack(row, axis=1) for row in outputs], axis=1)
  y = y.reshape(batch, rows, columns, 2, 2, -1).swapaxes(2, 3)
  return y.reshape(batch, 2 * rows, 2 * columns, -1)[:, :height, :width]


def _cut(kernel: jax.Array, row: int, column: int) -> jax.Array:
  """Returns a 3x3 part of a kernel; what an earlier part already has is zero in it."""
  part = kernel[2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
  part = part.at[0].set(0.0) if row else part
  return part.at[:, 0].set(0.0) if column else part


def _tiles(x: jax.Array, axis: int) -> list[jax.Array]:
  """Cuts an axis into overlapping tiles: the first of four pixels, the second, …

  Tiles are two pixels apart, so each of the four has a pixel for each tile.
  """
  even, odd = _even_and_odd(x, axis)
  last = even.shape[axis] - 1
  cut = functools.partial(jax.lax.slice_in_dim, axis=axis)
  return [cut(pixels, i, i + last) for i in (0, 1) for pixels in (even, odd)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _even_and_odd(x: jax.Array, axis: int) -> list[jax.Array]:
  """Returns every other pixel along an axis, from the first and from the second.

  JAX's own gradient of a strided slice spreads the pixels among zeros, at a pixel's
  cost for each zero. This one interleaves them.
  """
  size = x.shape[axis]
  return [jax.lax.slice_in_dim(x, i, size, stride=2, axis=axis) for i in (0, 1)]


def _even_and_odd_forward(x: jax.Array, axis: int) -> tuple[list[jax.Array], None]:
  return _even_and_odd(x, axis), None


def _interleave(axis: int, _: None, gradients: list[jax.Array]) -> tuple[jax.Array]:
  pairs = jnp.stack(gradients, axis=axis + 1)
  shape = list(gradients[0].shape)
  shape[axis] *= 2
  return (pairs.reshape(shape),)


_even_and_odd.defvjp(_even_and_odd_forward, _interleave)


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
