"""Cnn6 in PyTorch, written from the paper's table, with the reference's keys.

The front-end is an STFT by a pair of convolutions, as in torchlibrosa, with librosa's
matrices: a state_dict has all the keys that PANNs' own class has.
"""

from collections.abc import Sequence

import librosa
import numpy as np
import torch
from torch import nn


def _fixed(values: np.ndarray) -> nn.Parameter:
  return nn.Parameter(torch.from_numpy(values.astype(np.float32)), requires_grad=False)


class _Fixed(nn.Module):
  """A holder of one fixed tensor."""

  def __init__(self, name: str, values: np.ndarray):
    super().__init__()
    setattr(self, name, _fixed(values))


class _Stft(nn.Module):
  def __init__(self, fft_samples: int):
    super().__init__()
    window = librosa.filters.get_window("hann", fft_samples, fftbins=True)
    times, bins = np.arange(fft_samples), np.arange(fft_samples // 2 + 1)[:, None]
    kernels = np.exp(-2j * np.pi / fft_samples) ** (bins * times) * window
    self.conv_real = _Fixed("weight", kernels.real[:, None])
    self.conv_imag = _Fixed("weight", kernels.imag[:, None])


class _Block(nn.Module):
  def __init__(self, size_in: int, size_out: int):
    super().__init__()
    self.conv1 = nn.Conv2d(size_in, size_out, 5, padding=2, bias=False)
    self.bn1 = nn.BatchNorm2d(size_out)

  def forward(self, x):
    return nn.functional.avg_pool2d(torch.relu(self.bn1(self.conv1(x))), 2)


class Cnn6(nn.Module):
  """Scores waveforms [batch, samples] at 32 kHz; without dropout or SpecAugment."""

  def __init__(
    self,
    num_classes: int,
    filters: Sequence[int] = (64, 128, 256, 512),
    embedding_dim: int = 512,
  ):
    super().__init__()
    self.spectrogram_extractor = nn.Module()
    self.spectrogram_extractor.stft = _Stft(1024)
    mel = librosa.filters.mel(sr=32_000, n_fft=1024, n_mels=64, fmin=50, fmax=14_000)
    self.logmel_extractor = _Fixed("melW", mel.T)
    self.bn0 = nn.BatchNorm2d(64)
    for i, sizes in enumerate(zip((1, *filters), filters, strict=False), 1):
      setattr(self, f"conv_block{i}", _Block(*sizes))
    self.fc1 = nn.Linear(filters[-1], embedding_dim)
    self.fc_audioset = nn.Linear(embedding_dim, num_classes)

  def forward(self, waveform):
    x = nn.functional.pad(waveform[:, None], (512, 512), mode="reflect")
    stft = self.spectrogram_extractor.stft
    real = nn.functional.conv1d(x, stft.conv_real.weight, stride=320)
    imag = nn.functional.conv1d(x, stft.conv_imag.weight, stride=320)
    mel_power = (real**2 + imag**2).transpose(1, 2) @ self.logmel_extractor.melW
    log_mel = 10.0 * torch.log10(mel_power.clamp(min=1e-10))
    # Over the mel axis. In other layouts of the same values, PyTorch 2.13's gradient
    # of a BatchNorm's scale disagrees with finite differences.
    x = self.bn0(log_mel[:, None].transpose(1, 3)).transpose(1, 3)
    for i in range(1, 5):
      x = getattr(self, f"conv_block{i}")(x)
    x = x.mean(dim=3)
    x = torch.relu(self.fc1(x.amax(dim=2) + x.mean(dim=2)))
    return {"clipwise_output": torch.sigmoid(self.fc_audioset(x)), "embedding": x}
