"""The part `accelerators` of benchmark.py: training steps where none can be measured.

XLA's cost analysis of the compiled step says what a step computes and moves; the
makers' data sheets say what a device can do at most.
"""

import contextlib
import dataclasses
from typing import Any
from unittest import mock

import jax
from benchmarks import models

from audiotag_jax import parallel
from audiotag_jax.data.inputs import inputs_shape
from audiotag_jax.models import cpu_convs
from audiotag_jax.models.create import create_model
from audiotag_jax.training import optim, steps

BATCH_SIZES = (32, 64, 128, 256, 512)
# Batch sizes of the compiled steps. In smaller ones, CNN14's gradients hide the rest.
ANALYZED = (16, 32)
# Share of the peak that a well-fed convolutional network reaches.
SHARE_OF_PEAK = 0.4
NUM_DEVICES = 8


@dataclasses.dataclass(frozen=True)
class Device:
  """An accelerator, by its maker's data sheet.

  Attributes:
    name: its name.
    flops_per_s: of dense bfloat16 matrix products.
    bytes_per_s: of its memory.
    gib: its memory.
    link_bytes_per_s: to the other devices of a host, in one direction.
  """

  name: str
  flops_per_s: float
  bytes_per_s: float
  gib: float
  link_bytes_per_s: float


DEVICES = (
  Device("H100 SXM", 989e12, 3.35e12, 80, 450e9),
  Device("TPU v5e", 197e12, 819e9, 16, 200e9),
)


@dataclasses.dataclass(frozen=True)
class StepCost:
  """The cost of a training step.

  Attributes:
    flops: of a clip.
    bytes: moved to and from memory for a clip, in bfloat16.
    activation_bytes: kept for the gradient of a clip, in bfloat16.
    parameters: of the model.
  """

  flops: float
  bytes: float
  activation_bytes: float
  parameters: int


def benchmark() -> list[dict[str, Any]]:
  """Prints a table for each model, in Markdown."""
  rows = []
  for name in models.MODELS:
    cost = step_cost(name)
    print(
      f"\n{name}: {cost.parameters / 1e6:.1f} M parameters; a clip takes "
      f"{cost.flops / 1e9:.0f} GFLOP and moves {cost.bytes / 1e9:.2f} GB\n"
    )
    print("| device | batch | GiB | clips/s | bound by | 8 devices: all-reduce |")
    print("|---|---:|---:|---:|---|---:|")
    for device in DEVICES:
      for size in BATCH_SIZES:
        row = expect(cost, device, size)
        rows.append({"model": name, "device": device.name, "batch_size": size, **row})
        fits = f"{row['clips_per_s']:,.0f} | {row['bound']}"
        if row["gib"] > device.gib:
          fits = "does not fit |"
        print(
          f"| {device.name} | {size} | {row['gib']:.1f} | {fits} | "
          f"{row['all_reduce_share']:.1%} |"
        )
  return rows


def expect(cost: StepCost, device: Device, size: int) -> dict[str, Any]:
  """Returns what a step of `size` clips on a device should take.

  The slower of arithmetic, at `SHARE_OF_PEAK`, and memory sets the pace. A ring
  all-reduce of float32 gradients sends each byte 2 (n - 1) / n times.
  """
  arithmetic_s = size * cost.flops / (SHARE_OF_PEAK * device.flops_per_s)
  memory_s = size * cost.bytes / device.bytes_per_s
  step_s = max(arithmetic_s, memory_s)
  gradient_bytes = 4 * cost.parameters
  sent = 2 * (NUM_DEVICES - 1) / NUM_DEVICES * gradient_bytes
  all_reduce_s = sent / device.link_bytes_per_s
  # The parameters, their gradients, and the two moments of AdamW are float32.
  num_bytes = size * cost.activation_bytes + 4 * gradient_bytes
  return {
    "gib": num_bytes / 2**30,
    "clips_per_s": size / step_s,
    "bound": "arithmetic" if arithmetic_s >= memory_s else "memory",
    "all_reduce_share": all_reduce_s / (step_s + all_reduce_s),
  }


def step_cost(name: str) -> StepCost:
  """Asks XLA for the cost of a model's training step.

  The step is compiled for this machine in float32, with the convolutions that an
  accelerator runs; in bfloat16, activations take half the bytes. XLA counts the body
  of a recurrence once, so the larger of its FLOPs and three times the forward pass's
  products counts.
  """
  few, more = (_analyze(name, size) for size in ANALYZED)
  by_clip = {
    key: (more[key] - few[key]) / (ANALYZED[1] - ANALYZED[0])
    for key in ("flops", "bytes", "temporary")
  }
  forward = 2 * models.count_multiply_adds(name)
  return StepCost(
    flops=max(by_clip["flops"], 3 * forward),
    bytes=by_clip["bytes"] / 2,
    activation_bytes=by_clip["temporary"] / 2,
    parameters=few["parameters"],
  )


def _analyze(name: str, size: int) -> dict[str, Any]:
  """Compiles a step of `size` clips; returns what XLA says of it."""
  config = models.create_config(name, "float32")
  model = create_model(config, num_classes=models.NUM_CLASSES, axis_name=parallel.AXIS)
  shape = inputs_shape(config)
  scales = dict.fromkeys(models.shapes_of(model, shape)["params"], 1.0)
  tx = optim.create_optimizer(config.train, scales)
  batch = models.random_batch(config, size)
  state = jax.eval_shape(lambda: steps.create_state(model, tx, 0, (1, *shape)))
  step: Any = parallel.pmap(
    steps.create_train_step(config, model, tx, scales, batch["labels"], parallel.AXIS)
  )
  args = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), (state, batch)
  )
  plain = contextlib.nullcontext()
  with mock.patch.object(cpu_convs, "in_use", return_value=plain):
    compiled = step.lower(*args).compile()
  cost = compiled.cost_analysis()
  return {
    "flops": cost["flops"],
    "bytes": cost["bytes accessed"],
    "temporary": compiled.memory_analysis().temp_size_in_bytes,
    "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
  }
