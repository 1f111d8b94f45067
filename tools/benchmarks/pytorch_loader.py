"""The peer of benchmark.py's part `data`: log-mels from PyTorch's DataLoader."""

import functools
from pathlib import Path

import soundfile
import torch
from torch.utils.data import DataLoader, Dataset
from torchlibrosa import stft


class WavLogMels(Dataset[torch.Tensor]):
  """The log-mels of wav files, by torchlibrosa as in PANNs."""

  def __init__(self, paths: list[Path]):
    self.paths = paths

  @functools.cached_property
  def log_mel(self) -> torch.nn.Module:
    return torch.nn.Sequential(
      stft.Spectrogram(n_fft=1024, hop_length=320, win_length=1024),
      stft.LogmelFilterBank(sr=32_000, n_fft=1024, n_mels=64, fmin=50, fmax=14_000),
    )

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, i: int) -> torch.Tensor:
    waveform, _ = soundfile.read(self.paths[i], dtype="float32")
    with torch.no_grad():
      return self.log_mel(torch.from_numpy(waveform)[None])[0, 0]


def create_loader(
  paths: list[Path], batch_size: int, num_workers: int
) -> DataLoader[torch.Tensor]:
  """Returns batches of the log-mels of wav files, made by worker processes."""
  return DataLoader(
    WavLogMels(paths),
    batch_size=batch_size,
    num_workers=num_workers,
    worker_init_fn=_use_one_thread,
    multiprocessing_context="spawn",
    persistent_workers=True,
  )


def _use_one_thread(worker: int) -> None:
  torch.set_num_threads(1)
