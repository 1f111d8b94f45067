import numpy as np
import pytest
import soxr

from audiotag_jax.audio import waveforms
from audiotag_jax.errors import UserError


def noise(*shape, seed=0):
  return np.random.default_rng(seed).uniform(-0.5, 0.5, shape)


@pytest.mark.parametrize(
  ("values", "expected"),
  [
    (np.array([0, 16_384, -32_768], np.int16), [0.0, 0.5, -1.0]),
    (np.array([0, 2**30, -(2**31)], np.int32), [0.0, 0.5, -1.0]),
    (np.array([128, 192, 0], np.uint8), [0.0, 0.5, -1.0]),
    (np.array([0.0, 0.5, -1.0], np.float64), [0.0, 0.5, -1.0]),
    (np.array([0.0, 0.5, -1.0], np.float16), [0.0, 0.5, -1.0]),
    ([0.0, 0.5, -1.0], [0.0, 0.5, -1.0]),
  ],
)
def test_every_type_has_full_scale_at_1(values, expected):
  mono = waveforms.to_mono(values, 8_000, 8_000)
  assert mono.dtype == np.float32
  assert mono.tolist() == expected


def test_the_shorter_axis_is_the_channels():
  x = noise(100, 2)
  expected = x.mean(axis=1).astype(np.float32)
  for waveform in (x, x.T):
    np.testing.assert_array_equal(waveforms.to_mono(waveform, 8_000, 8_000), expected)
  square = np.array([[0.0, 1.0], [0.5, 0.25]])  # [samples, channels]
  assert waveforms.to_mono(square, 8_000, 8_000).tolist() == [0.5, 0.375]


def test_resamples_by_soxr():
  x = noise(44_100).astype(np.float32)
  np.testing.assert_array_equal(
    waveforms.to_mono(x, 44_100, 16_000), soxr.resample(x, 44_100, 16_000, "HQ")
  )


def test_a_block_resampled_from_the_lowest_rate_comes_in_small_parts():
  block = np.random.default_rng(0).uniform(-0.5, 0.5, 2**15).astype(np.float32)
  parts = list(waveforms.resample_blocks([block], waveforms.MIN_RATE_HZ, 32_000))
  assert sum(map(len, parts)) == len(block) * 320
  assert max(map(len, parts)) < 1.1 * waveforms.RESAMPLED_SAMPLES
  whole = waveforms.resample(block, waveforms.MIN_RATE_HZ, 32_000)
  np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-5)


def test_a_sample_stays_a_sample():
  assert waveforms.to_mono(np.array([0.25]), 192_000, 8_000).tolist() == [0.25]


@pytest.mark.parametrize(
  ("waveform", "rate_hz", "reason"),
  [
    (np.zeros(0), 8_000, r"not of shape \[0\]"),
    (np.zeros((2, 3, 4)), 8_000, r"not of shape \[2, 3, 4\]"),
    (np.zeros(4, np.int64), 8_000, "float, int16, int32, uint8, not int64"),
    (np.array([0.0, np.nan, np.inf]), 8_000, "has 2 samples that are not finite"),
    (np.array([0.0, 1e20]), 8_000, "as large as 1e[+]20, where full scale is 1"),
    (np.zeros(4), 0, "rate of 0 Hz, which is not from 100 to 10000000"),
    (np.zeros(4), np.nan, "rate of nan Hz"),
    (np.zeros(4), 1e-3, "rate of 0.001 Hz"),
    (np.zeros(4), 2**31 - 1, r"rate of 2.14748e[+]09 Hz"),
  ],
)
def test_refuses_anything_but_a_waveform_in_one_line(waveform, rate_hz, reason):
  with pytest.raises(UserError, match=reason) as error:
    waveforms.to_mono(waveform, rate_hz, 8_000)
  assert "\n" not in str(error.value)


def test_normalizes_as_training_does():
  x = np.array([0.1, -0.2], np.float32)
  np.testing.assert_allclose(waveforms.normalize(x, "peak"), [0.5, -1.0])
  np.testing.assert_array_equal(waveforms.normalize(x, "none"), x)
  np.testing.assert_array_equal(waveforms.normalize(0 * x, "peak"), [0.0, 0.0])


@pytest.mark.parametrize("block_samples", [1, 7, 30, 1000])
@pytest.mark.parametrize(
  ("num_samples", "hop", "align", "starts"),
  [
    (9, 10, 1, [0]),
    (10, 10, 1, [0]),
    (11, 10, 1, [0, 1]),
    (20, 10, 1, [0, 10]),
    (25, 10, 1, [0, 10, 15]),
    (25, 4, 1, [0, 4, 8, 12, 15]),
    (25, 8, 4, [0, 8, 16]),
    (21, 8, 4, [0, 8, 12]),
  ],
)
def test_windows_cover_a_recording(num_samples, hop, align, starts, block_samples):
  x = np.arange(num_samples, dtype=np.float32)
  blocks = [x[i : i + block_samples] for i in range(0, num_samples, block_samples)]
  windows = list(waveforms.windows(blocks, 10, hop, align))
  assert [window.start for window in windows] == starts
  assert [window.is_last for window in windows] == [False] * (len(starts) - 1) + [True]
  for start, samples, is_last in windows:
    end = num_samples if is_last else start + 10
    np.testing.assert_array_equal(samples, x[start:end])


def test_windows_of_nothing_are_none():
  assert not list(waveforms.windows([np.zeros(0, np.float32)], 10, 10))


def test_windows_hold_little_of_a_long_recording():
  held = []

  def blocks():
    for _ in range(1000):
      block = np.ones(100, np.float32)
      held.append(block.ctypes.data)
      yield block

  for window in waveforms.windows(blocks(), 300, 150):
    base = window.samples.base
    assert base is None or base.size <= 600
  assert len(held) == 1000


def test_each_block_of_a_quantized_waveform_has_its_scale():
  rng = np.random.default_rng(0)
  noise = rng.uniform(-1, 1, (256, 4)) * [1e-30, 1e-7, 0.3, 1e9]
  exact = np.repeat([-32_768, 32_767, 1, 0], 256) / 2**15
  beyond = np.repeat([32_767.4, 32_767.6, -32_768.4], 256) / 2**15
  waveform = np.concatenate([noise.T.ravel(), exact, beyond, [0.1]]).astype(np.float32)
  steps, scale = waveforms.quantize(waveform)
  assert steps.dtype == np.int16
  assert scale.dtype == np.float32
  assert scale.tolist() == [
    *(2.0**-114, 2.0**-38, 2.0**-16, 2.0**15),
    *(2.0**-15, 2.0**-15, 2.0**-29, 2.0**-15),
    *(2.0**-15, 2.0**-14, 2.0**-14),
    2.0**-18,
  ]
  step = np.repeat(scale, 256)[: len(waveform)]
  assert (np.abs(steps * step - waveform) <= 0.5 * step).all()
  np.testing.assert_array_equal((steps * step)[1024:2048], exact)
  most = [np.abs(steps[i : i + 256].astype(int)).max() for i in range(0, 1024, 256)]
  assert min(most) > 2**14


def test_int16_is_exact_within_half_a_step_and_never_clips():
  waveform = (0.5 * np.sin(2 * np.pi * 440 / 16_000 * np.arange(16_000))).astype(
    np.float32
  )
  back = waveforms.to_int16(waveform) / waveforms.INT16_MAX
  assert np.abs(back - waveform).max() <= 0.5 / waveforms.INT16_MAX + 1e-7
  loud = waveforms.to_int16(24 * waveform)
  np.testing.assert_allclose(loud / 32_767, 2 * waveform, atol=2e-4)
