"""One step of training: a pure function, for pmap."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from audiotag_jax.evaluation.eval_step import widen_inputs
from audiotag_jax.models import cpu_convs
from audiotag_jax.training import augment as augment_lib
from audiotag_jax.training import losses, optim


@flax.struct.dataclass
class TrainState:
  """Everything that a step changes, and so everything that a checkpoint holds."""

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: optax.OptState
  # The moving average of `params` and `batch_stats`; empty without a moving average.
  ema: Any

  @property
  def variables(self) -> dict[str, Any]:
    """The variables that are evaluated: the moving average, if there is one."""
    return self.ema or {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
  model: nn.Module,
  tx: optax.GradientTransformation,
  seed: int,
  inputs_shape: tuple[int, ...],
  *,
  with_ema: bool = False,
) -> TrainState:
  """Draws a model's initial state.

  Args:
    model: the model.
    tx: the optimizer.
    seed: seed of the parameters.
    inputs_shape: (batch, frames, mels) or (batch, samples).
    with_ema: whether a moving average is kept.
  """

  def init() -> TrainState:
    inputs = jnp.zeros(inputs_shape, jnp.float32)
    variables = model.init(jax.random.key(seed), inputs, train=False)
    params = variables["params"]
    batch_stats = variables.get("batch_stats", {})
    ema = {"params": params, "batch_stats": batch_stats} if with_ema else {}
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, params, batch_stats, tx.init(params), ema)

  return jax.jit(init)()


def create_train_step(
  config: ml_collections.ConfigDict,
  model: nn.Module,
  tx: optax.GradientTransformation,
  scales: Mapping[str, float],
  train_labels: np.ndarray,
  axis_name: str,
) -> Callable:
  """Returns a recipe's `train_step`: a function of (state, batch), for pmap.

  Args:
    config: the config.
    model: the model.
    tx: the optimizer.
    scales: the share of the learning rate that each layer gets; 0 if it is frozen.
    train_labels: <uint8>[clips, classes] of the training clips.
    axis_name: the axis of the devices.
  """
  return functools.partial(
    train_step,
    model=model,
    tx=tx,
    schedule=optim.learning_rate_schedule(config.train),
    seed=config.seed,
    is_frozen=lambda layer: scales[layer] == 0.0,
    augment=functools.partial(augment_lib.augment, config=config, axis_name=axis_name),
    loss=losses.create_loss(config.loss, train_labels),
    accumulation_steps=config.train.accumulation_steps,
    ema_decay=config.train.ema_decay,
    axis_name=axis_name,
  )


def train_step(
  state: TrainState,
  batch: dict[str, jax.Array],
  *,
  model: nn.Module,
  tx: optax.GradientTransformation,
  schedule: optax.Schedule,
  seed: int,
  is_frozen: Callable[[str], bool],
  augment: Callable[[jax.Array, dict], dict],
  loss: losses.Loss,
  accumulation_steps: int,
  ema_decay: float,
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
    seed: seed of augmentation and dropout, combined with the step and each clip's
      place in the whole batch.
    is_frozen: returns whether a layer of the model, by its name, is not trained.
    augment: maps a key and a batch to the batch to train on.
    loss: maps logits and labels to a loss for each clip.
    accumulation_steps: equal parts that the batch is dealt out to, clip by clip, so
      that a part has the same clips on any number of devices.
    ema_decay: decay of the moving average, if the state has one.
    axis_name: the axis of the devices.

  Returns:
    The state after the step, and `loss`, `grad_norm` (before clipping) and
    `learning_rate` of the step, the same on all devices.
  """
  key = jax.random.fold_in(jax.random.key(seed), state.step)
  augment_key, *keys = jax.random.split(key, 1 + accumulation_steps)
  batch = augment(augment_key, widen_inputs(batch))

  def loss_fn(
    params: Any, batch_stats: Any, part: dict[str, jax.Array], key: jax.Array
  ) -> tuple[jax.Array, Any]:
    with cpu_convs.in_use(train=True):
      outputs, updates = model.apply(
        {"params": _freeze(params, is_frozen), "batch_stats": batch_stats},
        part["inputs"],
        train=True,
        rngs={"dropout": key},
        mutable=["batch_stats"],
      )
    mean_loss = loss(outputs["logits"], part["labels"]).mean()
    return mean_loss, updates.get("batch_stats", batch_stats)

  # Unrolled, because XLA's convolutions on a CPU run 100 times slower inside a scan.
  sums = jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params)
  batch_stats = state.batch_stats
  for i in range(accumulation_steps):
    part = {name: x[i::accumulation_steps] for name, x in batch.items()}
    (part_loss, batch_stats), part_grads = jax.value_and_grad(loss_fn, has_aux=True)(
      state.params, batch_stats, part, keys[i]
    )
    sums = jax.tree.map(jnp.add, sums, (part_loss, part_grads))
  means = jax.tree.map(lambda x: x / accumulation_steps, sums)
  # BatchNorm has averaged its statistics over the devices already.
  mean_loss, grads = jax.lax.pmean(means, axis_name)

  updates, opt_state = tx.update(grads, state.opt_state, state.params)
  metrics = {
    "loss": mean_loss,
    "grad_norm": optax.tree.norm(grads),
    "learning_rate": schedule(state.step),
  }
  params = optax.apply_updates(state.params, updates)
  new = {"params": params, "batch_stats": batch_stats}
  ema = _update_ema(state.ema, new, ema_decay, state.step) if state.ema else {}
  return TrainState(state.step + 1, params, batch_stats, opt_state, ema), metrics


def _freeze(params: dict[str, Any], is_frozen: Callable[[str], bool]) -> dict[str, Any]:
  """Stops the gradients of the layers that are not trained."""
  return {
    name: jax.lax.stop_gradient(layer) if is_frozen(name) else layer
    for name, layer in params.items()
  }


def _update_ema(ema: Any, new: Any, decay: float, step: jax.Array) -> Any:
  """Returns a moving average after one more step.

  Early steps have a smaller decay, so that the initial weights fade quickly: the decay
  of step t is at most (1 + t) / (10 + t), as in tf.train.ExponentialMovingAverage.
  """
  old = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
  return jax.tree.map(lambda x, y: old * x + (1.0 - old) * y, ema, new)
