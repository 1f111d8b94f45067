"""The front-end's fixed matrices, which a PANNs state_dict carries along.

PANNs compute the log-mel with torchlibrosa, whose STFT is a pair of convolutions.
Training changes neither the convolutions' kernels nor the mel matrix.
"""

from collections.abc import Mapping

import ml_dtypes
import numpy as np

REAL_KEY = "spectrogram_extractor.stft.conv_real.weight"
IMAG_KEY = "spectrogram_extractor.stft.conv_imag.weight"
MEL_KEY = "logmel_extractor.melW"
# Types that people store weights in to halve their size.
SHORT_TYPES = (np.float16, ml_dtypes.bfloat16)


def matrices(fft_samples: int, mel_matrix: np.ndarray) -> dict[str, np.ndarray]:
  """Returns the matrices by key, bit for bit those of torchlibrosa 0.1.0.

  Args:
    fft_samples: length of the FFT and of its periodic Hann window.
    mel_matrix: <float32>[fft_samples // 2 + 1, num_mels].
  """
  window = 0.5 + 0.5 * np.cos(np.linspace(-np.pi, np.pi, fft_samples + 1)[:-1])
  # Powers of one root of unity, as in torchlibrosa: the errors are part of the bits.
  root = np.exp(-2j * np.pi / fft_samples)
  exponents = np.arange(fft_samples // 2 + 1)[:, None] * np.arange(fft_samples)
  kernels = np.power(root, exponents) * window
  return {
    REAL_KEY: kernels.real.astype(np.float32)[:, None],
    IMAG_KEY: kernels.imag.astype(np.float32)[:, None],
    MEL_KEY: mel_matrix,
  }


def differences(
  found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]
) -> dict[str, float]:
  """Returns the largest difference of each matrix that is not as expected.

  A matrix may have been rounded to float16 or bfloat16, also before it was stored as
  float32: then it is as expected within that rounding.
  """
  return {
    key: float(np.abs(found[key] - expected[key]).max())
    for key in expected
    if key in found and not _is_rounded(found[key], expected[key])
  }


def _is_rounded(found: np.ndarray, expected: np.ndarray) -> bool:
  """Returns whether a matrix is another one, or that one in a shorter type."""
  if np.array_equal(found, expected):
    return True
  with np.errstate(over="ignore"):  # It is not of a type that cannot hold its values.
    short = [x for x in SHORT_TYPES if np.array_equal(found.astype(x), found)]
  limits = [ml_dtypes.finfo(x) for x in short]
  return any(
    (np.abs(found - expected) <= x.eps * np.abs(expected) + x.smallest_subnormal).all()
    for x in limits
  )
