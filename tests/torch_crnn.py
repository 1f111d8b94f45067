"""The CRNN in PyTorch, without dropout, with its loss and its optimizer.

Its layers have the names of Flax's layers.
"""

import math
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np
import torch
from torch import nn


class CRNN(nn.Module):
  """Scores log-mels [batch, frames, mels] in dB: probabilities [batch, classes]."""

  def __init__(self, num_classes: int, num_mels: int, crnn: ml_collections.ConfigDict):
    super().__init__()
    self.crnn = crnn
    self.input_norm = nn.BatchNorm1d(num_mels)
    size, padding = 1, crnn.kernel_size // 2
    for i, filters in enumerate(crnn.filters):
      conv = nn.Conv2d(size, filters, crnn.kernel_size, padding=padding, bias=False)
      setattr(self, f"conv{i}", conv)
      setattr(self, f"norm{i}", nn.BatchNorm2d(filters))
      size, num_mels = filters, num_mels // crnn.mel_pooling[i]
    size *= num_mels
    for i, units in enumerate(crnn.gru_units):
      setattr(self, f"gru{i}", _gru(size, units))
      size = 2 * units
    self.classifier = nn.Linear(size, num_classes)
    if crnn.pooling == "attention":
      self.attention = nn.Linear(size, num_classes)

  def forward(self, log_mel):
    # Contiguous: in other layouts, PyTorch 2.13's gradient of a BatchNorm's scale
    # disagrees with finite differences.
    x = self.input_norm(log_mel.transpose(1, 2).contiguous())
    x = x.transpose(1, 2)[:, None].contiguous()
    for i, window in enumerate(zip(self.crnn.time_pooling, self.crnn.mel_pooling)):
      x = getattr(self, f"norm{i}")(getattr(self, f"conv{i}")(x))
      x = nn.functional.max_pool2d(torch.relu(x), window)
    x = x.permute(0, 2, 3, 1).flatten(2)
    for i in range(len(self.crnn.gru_units)):
      x, _ = getattr(self, f"gru{i}")(x)
    p = torch.sigmoid(self.classifier(x))
    attention = self.attention(x) if self.crnn.pooling == "attention" else None
    return pool_frames(p, self.crnn.pooling, attention)


def pool_frames(p, pooling, attention=None):
  """Pools probabilities [batch, frames, classes]; Wang et al. 2019, table 1."""
  if pooling == "max":
    return p.amax(dim=1)
  if pooling == "attention":
    weights = torch.softmax(attention, dim=1)
  else:
    weights = {"mean": torch.ones_like(p), "linear_softmax": p}[pooling]
  return (weights * p).sum(dim=1) / weights.sum(dim=1)


def _gru(size: int, units: int) -> nn.GRU:
  """A bidirectional GRU whose recurrent bias acts in the new gate alone, as Flax's."""
  gru = nn.GRU(size, units, batch_first=True, bidirectional=True)
  is_new_gate = (torch.arange(3 * units) >= 2 * units).float()
  for bias in (gru.bias_hh_l0, gru.bias_hh_l0_reverse):
    bias.register_hook(is_new_gate.mul)
  return gru


def loss(settings: ml_collections.ConfigDict, p, labels):
  """The loss of `config.loss`, for probabilities and for labels of 0 and 1."""
  gamma = {"bce": 0.0, "focal": settings.focal_gamma}[settings.name]
  p = torch.where(labels > 0.5, p, 1.0 - p)
  return -((1.0 - p) ** gamma * torch.log(p)).mean()


def create_optimizer(model: nn.Module, train: ml_collections.ConfigDict):
  """AdamW and its schedule from `config.train`; the step clips the gradient."""
  kernels = [x for x in model.parameters() if x.dim() > 1]
  others = [x for x in model.parameters() if x.dim() == 1]
  optimizer = torch.optim.AdamW(
    [{"params": kernels}, {"params": others, "weight_decay": 0.0}],
    lr=train.learning_rate,
    weight_decay=train.weight_decay,
    eps=1e-8,
  )
  num_warmup_steps = round(train.warmup_share * train.num_steps)

  def share_of_peak(step):
    if step < num_warmup_steps:
      return step / num_warmup_steps
    done = (step - num_warmup_steps) / (train.num_steps - num_warmup_steps)
    return 0.5 * (1.0 + math.cos(math.pi * done))

  return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share_of_peak)


def from_flax(params: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Renames Flax's parameters, or gradients of them, to those of the CRNN above."""
  named = {}
  for layer, tree in params.items():
    if layer.startswith("gru"):
      named |= {f"{layer}.{key}": value for key, value in _gru_from_flax(tree).items()}
    elif layer.startswith("conv"):
      named[f"{layer}.weight"] = tree["kernel"].transpose(3, 2, 0, 1)
    else:
      named[f"{layer}.weight"] = tree["scale"] if "norm" in layer else tree["kernel"].T
      named[f"{layer}.bias"] = tree["bias"]
  return named


def _gru_from_flax(tree: Mapping[str, Any]) -> dict[str, np.ndarray]:
  bias = tree["recurrent_bias"]
  named = {}
  for i, suffix in enumerate(("l0", "l0_reverse")):
    named[f"weight_ih_{suffix}"] = tree["input"]["kernel"][:, i].T
    named[f"weight_hh_{suffix}"] = tree["recurrent_kernel"][i].T
    named[f"bias_ih_{suffix}"] = tree["input"]["bias"][i]
    named[f"bias_hh_{suffix}"] = np.pad(bias[i], (2 * bias.shape[1], 0))
  return named


def stats_from_flax(batch_stats: Mapping[str, Any]) -> dict[str, np.ndarray]:
  """Renames Flax's batch statistics to those of the CRNN above."""
  return {
    f"{layer}.running_{key}": value
    for layer, stats in batch_stats.items()
    for key, value in stats.items()
  }
