"""One step of training, one of evaluation: pure functions, for pmap."""

import operator
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from audiotag_jax.training import losses


@flax.struct.dataclass
class TrainState:
  """All that a step changes, and so all that a checkpoint holds."""

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: optax.OptState


def create_state(
  model: nn.Module,
  tx: optax.GradientTransformation,
  seed: int,
  inputs_shape: tuple[int, ...],
) -> TrainState:
  """Draws a model's initial state.

  Args:
    model: the model.
    tx: the optimizer.
    seed: what the parameters are drawn from.
    inputs_shape: (batch, frames, mels) or (batch, samples).
  """

  def init() -> TrainState:
    inputs = jnp.zeros(inputs_shape, jnp.float32)
    variables = model.init(jax.random.key(seed), inputs, train=False)
    params = variables["params"]
    batch_stats = variables.get("batch_stats", {})
    return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, tx.init(params))

  return jax.jit(init)()


def train_step(
  state: TrainState,
  batch: dict[str, jax.Array],
  *,
  model: nn.Module,
  tx: optax.GradientTransformation,
  schedule: optax.Schedule,
  seed: int,
  is_frozen: Callable[[str], bool],
  accumulation_steps: int,
  axis_name: str,
) -> tuple[TrainState, dict[str, jax.Array]]:
  """Takes one optimizer step on each device's share of a batch.

  Args:
    state: the state before the step, the same on all devices.
    batch: `inputs`, log-mels <float32>[batch, frames, mels] or waveforms
      <float32>[batch, samples], and `labels` <float32>[batch, classes].
    model: the model, with BatchNorm synchronised over `axis_name`.
    tx: the optimizer.
    schedule: the learning rate by step, to report.
    seed: what dropout is drawn from, with the step and the device.
    is_frozen: whether a layer of the model, by its name, is not trained.
    accumulation_steps: equal parts that the batch is cut into, one after the other.
    axis_name: the axis of the devices.

  Returns:
    The state after the step, and `loss`, `grad_norm` (before clipping) and
    `learning_rate` of the step, the same on all devices.
  """
  key = jax.random.fold_in(jax.random.key(seed), state.step)
  key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))

  def loss_fn(params, batch_stats, part, key):
    params = {
      name: jax.lax.stop_gradient(layer) if is_frozen(name) else layer
      for name, layer in params.items()
    }
    outputs, updates = model.apply(
      {"params": params, "batch_stats": batch_stats},
      part["inputs"],
      train=True,
      rngs={"dropout": key},
      mutable=["batch_stats"],
    )
    loss = losses.binary_cross_entropy(outputs["logits"], part["labels"]).mean()
    return loss, updates.get("batch_stats", batch_stats)

  # Unrolled: XLA's convolutions on a CPU run a hundred times slower inside a scan.
  keys = jax.random.split(key, accumulation_steps)
  parts = jax.tree.map(lambda x: x.reshape(accumulation_steps, -1, *x.shape[1:]), batch)
  loss, grads = jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params)
  batch_stats = state.batch_stats
  for i in range(accumulation_steps):
    part = jax.tree.map(operator.itemgetter(i), parts)
    (part_loss, batch_stats), part_grads = jax.value_and_grad(loss_fn, has_aux=True)(
      state.params, batch_stats, part, keys[i]
    )
    loss, grads = jax.tree.map(jnp.add, (loss, grads), (part_loss, part_grads))
  loss, grads = jax.tree.map(lambda x: x / accumulation_steps, (loss, grads))
  # BatchNorm has averaged its statistics over the devices already.
  loss, grads = jax.lax.pmean((loss, grads), axis_name)

  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  metrics = {
    "loss": loss,
    "grad_norm": optax.tree.norm(grads),
    "learning_rate": schedule(state.step),
  }
  params = optax.apply_updates(state.params, updates)
  return TrainState(state.step + 1, params, batch_stats, opt_state), metrics


def eval_step(
  variables: dict[str, Any], batch: dict[str, jax.Array], *, model: nn.Module
) -> dict[str, jax.Array]:
  """Scores each device's share of a batch.

  Args:
    variables: `params` and `batch_stats`.
    batch: `inputs` and `labels` as in training, and whatever else says which clip a
      row is of; it is handed back.
    model: the model.

  Returns:
    `scores` <float32>[batch, classes] in [0, 1], `loss` <float32>[batch], and the
    rest of the batch.
  """
  batch = dict(batch)
  logits = model.apply(variables, batch.pop("inputs"), train=False)["logits"]
  loss = losses.binary_cross_entropy(logits, batch.pop("labels"))
  return batch | {"scores": nn.sigmoid(logits), "loss": loss}
