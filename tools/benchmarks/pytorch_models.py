"""The peers of benchmark.py's parts `train` and `infer`: models in PyTorch.

They have the layers of PANNs' CNNs and of the package's CRNN, and score log-mels.
"""

import math
from collections.abc import Sequence

import torch
from torch import nn


class Cnn(nn.Module):
  """PANNs' Cnn6, Cnn10 or Cnn14 (Kong et al. 2020), from the log-mel on."""

  def __init__(
    self,
    filters: Sequence[int],
    kernel_size: int,
    convs_per_block: int,
    embedding_dim: int,
    num_classes: int,
  ):
    super().__init__()
    self.bn0 = nn.BatchNorm2d(64)
    blocks: list[nn.Module] = []
    size = 1
    for i, num_filters in enumerate(filters):
      for _ in range(convs_per_block):
        blocks += [
          nn.Conv2d(size, num_filters, kernel_size, padding="same", bias=False),
          nn.BatchNorm2d(num_filters),
          nn.ReLU(),
        ]
        size = num_filters
      if i < 5:
        blocks.append(nn.AvgPool2d(2))
      blocks.append(nn.Dropout(0.2))
    self.blocks = nn.Sequential(*blocks)
    self.drop = nn.Dropout(0.5)
    self.fc1 = nn.Linear(size, embedding_dim)
    self.fc_audioset = nn.Linear(embedding_dim, num_classes)

  def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
    """Maps <float32>[batch, frames, mels] to logits <float32>[batch, classes]."""
    x = self.bn0(log_mel[:, None].transpose(1, 3)).transpose(1, 3)
    x = self.blocks(x).mean(dim=3)
    x = x.amax(dim=2) + x.mean(dim=2)
    return self.fc_audioset(torch.relu(self.fc1(self.drop(x))))


class CRNN(nn.Module):
  """The package's CRNN with pooling by attention."""

  def __init__(
    self,
    filters: Sequence[int],
    windows: Sequence[tuple[int, int]],
    gru_units: int,
    num_mels: int,
    num_classes: int,
  ):
    super().__init__()
    self.input_norm = nn.BatchNorm1d(num_mels)
    blocks: list[nn.Module] = []
    size = 1
    for num_filters, window in zip(filters, windows, strict=True):
      blocks += [
        nn.Conv2d(size, num_filters, 3, padding="same", bias=False),
        nn.BatchNorm2d(num_filters),
        nn.ReLU(),
        nn.MaxPool2d(window),
        nn.Dropout(0.1),
      ]
      size = num_filters
    self.blocks = nn.Sequential(*blocks)
    size *= num_mels // math.prod(window[1] for window in windows)
    self.gru = nn.GRU(size, gru_units, batch_first=True, bidirectional=True)
    self.drop = nn.Dropout(0.3)
    self.classifier = nn.Linear(2 * gru_units, num_classes)
    self.attention = nn.Linear(2 * gru_units, num_classes)

  def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
    """Maps <float32>[batch, frames, mels] to logits <float32>[batch, classes]."""
    x = self.input_norm(log_mel.transpose(1, 2)).transpose(1, 2)[:, None]
    x = self.blocks(x).permute(0, 2, 1, 3).flatten(2)
    x = self.drop(self.gru(x)[0])
    weights = torch.softmax(self.attention(x), dim=1)
    p = (weights * torch.sigmoid(self.classifier(x))).sum(dim=1)
    return torch.logit(p, eps=1e-6)
