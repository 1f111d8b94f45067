"""The parts `train` and `infer` of benchmark.py: models on log-mels in memory.

They need jax, flax, optax, ml_collections, filelock and tqdm alone. Without PyTorch, a
line says that the peer is left out.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from benchmarks import turns

from audiotag_jax import config as config_lib
from audiotag_jax import parallel
from audiotag_jax.data.inputs import inputs_shape
from audiotag_jax.evaluation.cost import multiply_adds
from audiotag_jax.evaluation.eval_step import eval_step
from audiotag_jax.models.create import create_model
from audiotag_jax.training import optim, steps

if TYPE_CHECKING:
  import torch

MODELS = ("Cnn14", "Cnn10", "Cnn6", "crnn")
BATCH_SIZES = (4, 8, 16)
NUM_ROUNDS = 3
NUM_CLASSES = 200
# Side of the matrices, and bytes of the copy, that measure the machine's own rates.
MATRIX_SIDE, COPIED_BYTES = 4096, 2**28
# Multiply-adds of a training step for each one of its forward pass: the gradients of
# the inputs and of the kernels are two more passes.
PASSES = {"train": 3, "infer": 1}


def benchmark(part: str, *, quick: bool, dtypes: list[str]) -> list[dict[str, Any]]:
  """Prints a table of models at several batch sizes.

  Args:
    part: "train", whole optimizer steps; or "infer", the scores of log-mels.
    quick: whether only Cnn10 and the CRNN are measured, at the smallest batch.
    dtypes: types of the computation.

  Returns:
    The rows as JSON takes them, with all seconds.
  """
  # This process only counts and prints. A TPU serves one process, and on a GPU, JAX
  # takes most of the memory at once, which the workers share.
  jax.config.update("jax_platforms", "cpu")
  os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
  names = ("Cnn10", "crnn") if quick else MODELS
  rows = []
  for dtype in dtypes:
    flops_per_s, bytes_per_s = measure_rates(dtype)
    print(
      f"{part}, {dtype}, 10-s log-mels in memory, {turns.num_threads()} cores; this "
      f"machine multiplies matrices at {flops_per_s / 1e9:.0f} GFLOP/s and copies "
      f"{bytes_per_s / 1e9:.1f} GB/s"
    )
    print(
      f"{'':<18}{'ours, s/clip':>24}{'PyTorch, s/clip':>24}{'ratio':>9}"
      f"{'peak':>7}{'GiB':>7}{'its':>7}{'first':>8}"
    )
    for name in names:
      ways = peers()
      for batch_size in BATCH_SIZES[:1] if quick else BATCH_SIZES:
        timings = turns.measure(
          {
            "ours": (create_ours, (part, name, batch_size, dtype)),
            **{
              peer: (create_peer, (part, name, batch_size, dtype, *args))
              for peer, args in ways.items()
            },
          },
          NUM_ROUNDS,
        )
        if "ours" not in timings:
          continue
        if best := fastest(timings):  # The others are measured at one batch size.
          ways = {best: ways[best]}
        row = {
          "part": part,
          "model": name,
          "batch_size": batch_size,
          "dtype": dtype,
          "flops_per_clip": 2 * PASSES[part] * count_multiply_adds(name),
          "matrix_flops_per_s": flops_per_s,
          "copied_bytes_per_s": bytes_per_s,
          "timings": {key: timing._asdict() for key, timing in timings.items()},
        }
        rows.append(row)
        print_row(row, timings)
  return rows


def peers() -> dict[str, tuple[str, bool]]:
  """Returns PyTorch's ways to run a model: a memory layout; whether it is compiled."""
  eager = {
    "PyTorch": ("contiguous", False),
    "PyTorch, channels_last": ("channels_last", False),
  }
  if not shutil.which("nvidia-smi"):
    return eager
  return eager | {"PyTorch, compiled": ("channels_last", True)}


def fastest(timings: dict[str, turns.Timing]) -> str | None:
  """Returns the name of PyTorch's fastest way, if one was measured."""
  others = {key: timing for key, timing in timings.items() if key != "ours"}
  return min(others, key=lambda key: others[key].median_s, default=None)


def print_row(row: dict[str, Any], timings: dict[str, turns.Timing]) -> None:
  """Prints a row: medians and ranges, and the ratio to PyTorch's best median."""
  size, ours = row["batch_size"], timings["ours"]
  name = f"{row['model']}, batch {size}"
  share = row["flops_per_clip"] * size / ours.median_s / row["matrix_flops_per_s"]
  peer, ratio, memory = "not measured", "", ""
  if name_of_best := fastest(timings):
    best = timings[name_of_best]
    peer, memory = seconds_per_clip(best, size), f"{best.peak_gib:.1f}"
    ratio = f"{best.median_s / ours.median_s:.2f} ×"
  print(
    f"{name:<18}{seconds_per_clip(ours, size):>24}{peer:>24}{ratio:>9}"
    f"{share:>7.0%}{ours.peak_gib:>7.1f}{memory:>7}{ours.first_s:>6.0f} s",
    flush=True,
  )


def seconds_per_clip(timing: turns.Timing, size: int) -> str:
  least, most = min(timing.seconds) / size, max(timing.seconds) / size
  return f"{timing.median_s / size:.4f} ({least:.4f}-{most:.4f})"


def create_config(name: str, dtype: str) -> ml_collections.ConfigDict:
  config = config_lib.get_config()
  config.model.name, config.model.dtype = name, dtype
  return config


def random_batch(config: ml_collections.ConfigDict, size: int) -> dict[str, np.ndarray]:
  """Draws log-mels in dB and labels."""
  rng = np.random.default_rng(0)
  shape = (size, *inputs_shape(config))
  return {
    "inputs": rng.normal(-40, 15, shape).astype(np.float32),
    "labels": (rng.random((size, NUM_CLASSES)) < 0.1).astype(np.float32),
  }


def count_multiply_adds(name: str) -> int:
  """Returns the multiply-adds of a clip's forward pass."""
  config = create_config(name, "float32")
  model = create_model(config, num_classes=NUM_CLASSES, axis_name=None)
  shape = inputs_shape(config)
  apply = functools.partial(model.apply, train=False)
  jaxpr = jax.make_jaxpr(apply)(shapes_of(model, shape), jnp.zeros((1, *shape)))
  return multiply_adds(jaxpr.jaxpr)


def shapes_of(model: nn.Module, shape: tuple[int, ...]) -> dict[str, Any]:
  """Returns a model's variables, as shapes, for inputs of a shape."""
  init = functools.partial(model.init, jax.random.key(0), train=False)
  return dict(jax.eval_shape(init, jnp.zeros((1, *shape))))


def create_ours(
  part: str, name: str, size: int, dtype: str
) -> tuple[Callable[[], object], Callable[[], float | None]]:
  """Returns a function that takes a training step, or scores a batch."""
  config = create_config(name, dtype)
  model = create_model(config, num_classes=NUM_CLASSES, axis_name=parallel.AXIS)
  shape = inputs_shape(config)
  scales = dict.fromkeys(shapes_of(model, shape)["params"], 1.0)
  tx = optim.create_optimizer(config.train, scales)
  batch = random_batch(config, size)
  state = parallel.replicate(steps.create_state(model, tx, 0, (1, *shape)))
  if part == "train":
    train_step = parallel.pmap(
      steps.create_train_step(
        config, model, tx, scales, batch["labels"], parallel.AXIS
      ),
      donate_argnums=(0,),
    )

    def step() -> None:
      nonlocal state
      state, metrics = train_step(state, parallel.shard(batch))
      jax.block_until_ready((state, metrics))

    return step, device_gib
  score = parallel.pmap(functools.partial(eval_step, model=model))
  variables = state.variables
  return (
    lambda: jax.block_until_ready(score(variables, parallel.shard(batch))),
    device_gib,
  )


def device_gib() -> float | None:
  """Returns the peak memory of JAX's device in GiB, if it counts it."""
  stats = jax.local_devices()[0].memory_stats() or {}
  peak = stats.get("peak_bytes_in_use", 0)
  return peak / 2**30 or None


def create_peer(
  part: str, name: str, size: int, dtype: str, layout: str, compiled: bool
) -> tuple[Callable[[], object], Callable[[], float | None]]:
  """Returns a function that does in PyTorch what `create_ours` does."""
  import torch

  torch.set_num_threads(turns.num_threads())
  torch.set_float32_matmul_precision("high")
  config = create_config(name, dtype)
  device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
  model: Any = create_pytorch_model(config).to(device)
  if layout == "channels_last":
    model = model.to(memory_format=torch.channels_last)
  run = torch.compile(model) if compiled else model
  batch = {
    key: torch.from_numpy(x).to(device) for key, x in random_batch(config, size).items()
  }
  narrow = torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16")
  optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

  def finish() -> None:
    if device.type == "cuda":
      torch.cuda.synchronize()

  def step() -> None:
    optimizer.zero_grad()
    with narrow:
      logits = run(batch["inputs"])
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
      logits.float(), batch["labels"]
    )
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.clip_norm)
    optimizer.step()
    finish()

  def score() -> None:
    with torch.inference_mode(), narrow:
      torch.sigmoid(run(batch["inputs"]))
    finish()

  def peak_gib() -> float | None:
    return torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None

  model.train(part == "train")
  return step if part == "train" else score, peak_gib


def create_pytorch_model(config: ml_collections.ConfigDict) -> torch.nn.Module:
  """Returns the model of a config in PyTorch."""
  from benchmarks import pytorch_models

  if config.model.name == "crnn":
    crnn = config.crnn
    return pytorch_models.CRNN(
      crnn.filters,
      list(zip(crnn.time_pooling, crnn.mel_pooling, strict=True)),
      crnn.gru_units[0],
      config.frontend.num_mels,
      NUM_CLASSES,
    )
  model: Any = create_model(config, num_classes=NUM_CLASSES, axis_name=None)
  return pytorch_models.Cnn(
    model.filters,
    model.kernel_size,
    model.convs_per_block,
    model.embedding_dim,
    NUM_CLASSES,
  )


def measure_rates(dtype: str) -> tuple[float, float]:
  """Measures what the machine can do at best.

  Returns:
    FLOP/s of a product of two large matrices, and bytes/s read and written by a copy.
  """
  product = turns.measure({"product": (create_product, (dtype,))}, num_rounds=5)
  copy = turns.measure({"copy": (create_copy, ())}, num_rounds=5)
  product_s, copy_s = min(product["product"].seconds), min(copy["copy"].seconds)
  return 2 * MATRIX_SIDE**3 / product_s, 2 * COPIED_BYTES / copy_s


def create_product(
  dtype: str,
) -> tuple[Callable[[], object], Callable[[], float | None]]:
  x = jax.random.normal(jax.random.key(0), (MATRIX_SIDE, MATRIX_SIDE), dtype)
  product = jax.jit(jnp.matmul)
  return lambda: product(x, x).block_until_ready(), device_gib


def create_copy() -> tuple[Callable[[], object], Callable[[], float | None]]:
  x = jnp.zeros(COPIED_BYTES // 4, jnp.float32)
  copy = jax.jit(jnp.negative)
  return lambda: copy(x).block_until_ready(), device_gib
