"""One step of evaluation: a pure function, for pmap."""

from typing import Any

import flax.linen as nn
import jax
import optax

from audiotag_jax.models import cpu_convs, layers


def widen_inputs(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
  """Widens inputs to float32; cached log-mels are float16 to halve the transfer."""
  return batch | {"inputs": layers.at_least_float32(batch["inputs"])}


def eval_step(
  variables: dict[str, Any], batch: dict[str, jax.Array], *, model: nn.Module
) -> dict[str, jax.Array]:
  """Scores each device's share of a batch.

  Args:
    variables: `params` and `batch_stats`.
    batch: `inputs` and `labels` as in training, and arrays that identify each row's
      clip, which are returned unchanged.
    model: the model.

  Returns:
    `scores` <float32>[batch, classes] in [0, 1], `loss` <float32>[batch], the binary
    cross-entropy in nats, and the rest of the batch.
  """
  batch = widen_inputs(batch)
  with cpu_convs.in_use(train=False):
    outputs: Any = model.apply(variables, batch.pop("inputs"), train=False)
  logits = outputs["logits"]
  loss = optax.sigmoid_binary_cross_entropy(logits, batch.pop("labels")).mean(axis=-1)
  return batch | {"scores": nn.sigmoid(logits), "loss": loss}
