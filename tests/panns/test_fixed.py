"""The fixed matrices against librosa, numpy's FFT and torchlibrosa."""

import dataclasses
import warnings

import ml_dtypes
import numpy as np
import pytest

from audiotag_jax.frontend import mel
from audiotag_jax.models import panns
from audiotag_jax.panns import fixed


def ours(front_end: mel.LogMelParams) -> dict[str, np.ndarray]:
  return fixed.matrices(front_end.fft_samples, mel.mel_matrix(front_end))


@pytest.mark.parametrize("fft_samples", [1024, 512, 256])
def test_the_kernels_are_a_windowed_fourier_transform(fft_samples):
  kernels = fixed.matrices(fft_samples, np.zeros(0))
  x = np.random.RandomState(0).standard_normal(fft_samples)
  window = mel.hann_window(
    mel.LogMelParams(window_samples=fft_samples, fft_samples=fft_samples)
  )
  expected = np.fft.rfft(x * window)
  np.testing.assert_allclose(
    kernels[fixed.REAL_KEY][:, 0] @ x, expected.real, atol=1e-4
  )
  np.testing.assert_allclose(
    kernels[fixed.IMAG_KEY][:, 0] @ x, expected.imag, atol=1e-4
  )


@pytest.mark.parametrize("name", ["Cnn14", "Cnn14_16k", "Cnn14_8k", "Cnn14_mel128"])
def test_they_equal_torchlibrosas_bit_for_bit(name):
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torchlibrosa import stft
  front_end = panns.create(name, num_classes=1).front_end
  theirs = {
    fixed.MEL_KEY: stft.LogmelFilterBank(
      sr=front_end.sample_rate_hz,
      n_fft=front_end.fft_samples,
      n_mels=front_end.num_mels,
      fmin=front_end.f_min_hz,
      fmax=front_end.f_max_hz,
    ).melW
  }
  transform = stft.STFT(n_fft=front_end.fft_samples, hop_length=front_end.hop_samples)
  theirs[fixed.REAL_KEY] = transform.conv_real.weight
  theirs[fixed.IMAG_KEY] = transform.conv_imag.weight
  for key, matrix in ours(front_end).items():
    assert matrix.dtype == np.float32
    np.testing.assert_array_equal(matrix, theirs[key].detach().numpy())


def test_differences_are_of_the_matrices_that_are_not_the_same():
  expected = ours(panns.FRONT_END)
  found = {key: matrix.copy() for key, matrix in expected.items()}
  assert fixed.differences(found, expected) == {}
  found[fixed.MEL_KEY][3, 4] += 0.25
  del found[fixed.IMAG_KEY]
  assert fixed.differences(found, expected) == {fixed.MEL_KEY: 0.25}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", ["Cnn14", "Cnn14_8k", "Cnn14_mel128"])
def test_rounding_to_a_shorter_type_is_no_difference(name, dtype):
  expected = ours(panns.create(name, num_classes=1).front_end)
  rounded = {key: x.astype(dtype).astype(np.float32) for key, x in expected.items()}
  assert fixed.differences(rounded, expected) == {}
  # Neither is another rounding on the way.
  twice = {key: (x * (1 + 1e-6)).astype(dtype) for key, x in expected.items()}
  twice = {key: x.astype(np.float32) for key, x in twice.items()}
  assert fixed.differences(twice, expected) == {}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("change", [{"f_min_hz": 0.0}, {"f_max_hz": 14_100.0}])
def test_another_front_end_is_a_difference_after_rounding_too(dtype, change):
  other = mel.mel_matrix(dataclasses.replace(panns.FRONT_END, **change))
  found = {fixed.MEL_KEY: other.astype(dtype).astype(np.float32)}
  assert list(fixed.differences(found, ours(panns.FRONT_END))) == [fixed.MEL_KEY]


def test_values_of_float32_are_not_taken_for_rounded_ones():
  expected = ours(panns.FRONT_END)
  found = expected | {fixed.MEL_KEY: expected[fixed.MEL_KEY] * np.float32(1.0001)}
  assert list(fixed.differences(found, expected)) == [fixed.MEL_KEY]
