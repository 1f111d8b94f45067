"""Definition of the log-mel spectrogram: parameters, window, mel matrix (numpy).

`log_mel_tf` computes it in the input pipeline, `log_mel_jax` in a model. Nothing else
defines a front-end, so two of them cannot disagree.
"""

import dataclasses
import functools
from typing import TypeVar

import numpy as np

# 10 * log10(1e-10): PANNs' floor, `amin` of torchlibrosa and librosa.power_to_db.
MIN_POWER = 1e-10
# Level of silence in dB.
MIN_DB = -100.0

# A number of samples or frames, or one for each of several clips.
Count = TypeVar("Count", int, np.ndarray)


@dataclasses.dataclass(frozen=True)
class LogMelParams:
  """Parameters of the log-mel front-end; the defaults are PANNs' at 32 kHz.

  Frames are centred with reflect padding, as in librosa.stft(center=True) and
  torchlibrosa; the window is a periodic Hann; mel bands are Slaney's.

  Attributes:
    sample_rate_hz: rate of the waveform.
    window_samples: length of the Hann window.
    fft_samples: length of the FFT; the window is centred in it.
    hop_samples: distance between frames.
    num_mels: number of mel bands.
    f_min_hz: lower edge of the lowest band.
    f_max_hz: upper edge of the highest band, at most half the sample rate.
  """

  sample_rate_hz: int = 32_000
  window_samples: int = 1024
  fft_samples: int = 1024
  hop_samples: int = 320
  num_mels: int = 64
  f_min_hz: float = 50.0
  f_max_hz: float = 14_000.0

  def num_frames(self, num_samples: Count) -> Count:
    """Number of frames of a waveform of `num_samples`, under centred framing."""
    return 1 + num_samples // self.hop_samples


@functools.lru_cache
def hann_window(params: LogMelParams) -> np.ndarray:
  """Returns the periodic Hann window, centred <float64>[fft_samples]."""
  import librosa  # Here, because training from log-mels needs none of it.

  window = librosa.filters.get_window("hann", params.window_samples, fftbins=True)
  return librosa.util.pad_center(window, size=params.fft_samples)


@functools.lru_cache
def mel_matrix(params: LogMelParams) -> np.ndarray:
  """Returns librosa's Slaney mel matrix <float32>[fft_samples // 2 + 1, num_mels]."""
  import librosa

  return librosa.filters.mel(
    sr=params.sample_rate_hz,
    n_fft=params.fft_samples,
    n_mels=params.num_mels,
    fmin=params.f_min_hz,
    fmax=params.f_max_hz,
  ).T
