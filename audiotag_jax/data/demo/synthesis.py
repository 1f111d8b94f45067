"""Parts that sounds are made of: noise, tones, envelopes, series of hits.

Waveforms are <float32>[samples] at `SAMPLE_RATE_HZ`, at any level.
"""

from collections.abc import Sequence

import numpy as np
from scipy import fft

SAMPLE_RATE_HZ = 44_100

Floats = Sequence[float] | np.ndarray


def num_samples(seconds: float) -> int:
  """Seconds in samples, at least one."""
  return max(1, round(seconds * SAMPLE_RATE_HZ))


def noise(
  rng: np.random.Generator,
  length: int,
  low_hz: float,
  high_hz: float,
  tilt_db: float = 0.0,
) -> np.ndarray:
  """Noise between two frequencies, with an RMS of about 1.

  Args:
    rng: the generator to draw from.
    length: samples wanted.
    low_hz: lower corner of the band; the noise falls 12 dB per octave below it.
    high_hz: upper corner of the band; the noise falls 12 dB per octave above it.
    tilt_db: slope within the band per octave: -3 is pink, -6 brown.

  Returns:
    <float32>[length].
  """
  fast = fft.next_fast_len(length, real=True)
  bins = fast // 2 + 1
  spectrum = rng.standard_normal(2 * bins, np.float32).view(np.complex64)
  spectrum *= _band_gain(bins, low_hz, high_hz, tilt_db)
  spectrum[0] = 0
  spectrum /= np.sqrt(np.mean(np.abs(spectrum) ** 2) + 1e-20)
  return fft.irfft(spectrum, fast)[:length] * np.float32(np.sqrt(fast))


def smooth(rng: np.random.Generator, length: int, rate_hz: float) -> np.ndarray:
  """A slow random curve <float32>[length], about standard normal.

  Its points are drawn `rate_hz` times a second and interpolated.
  """
  num_points = int(length / SAMPLE_RATE_HZ * rate_hz) + 3
  points = rng.standard_normal(num_points)
  position = np.arange(length) * (rate_hz / SAMPLE_RATE_HZ) + rng.uniform()
  return np.interp(position, np.arange(num_points), points).astype(np.float32)


def _band_gain(bins: int, low_hz: float, high_hz: float, tilt_db: float) -> np.ndarray:
  hz = np.linspace(0, SAMPLE_RATE_HZ / 2, bins, dtype=np.float32)
  hz[0] = hz[1]
  below, above = np.square(low_hz / hz), np.square(hz / high_hz)
  gain = 1 / np.sqrt((1 + below * below) * (1 + above * above))
  # A spectrum proportional to frequency rises 20 log10(2) = 6.02 dB per octave.
  return gain * np.exp(np.log(hz) * np.float32(tilt_db / 6.02)) if tilt_db else gain


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
  """Draws a number whose logarithm is uniform."""
  return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def draw_duration_s(rng: np.random.Generator, low_s: float, longest_s: float) -> float:
  """Draws a duration of `low_s` to `longest_s`, or returns a shorter `longest_s`."""
  return min(longest_s, rng.uniform(low_s, max(low_s, longest_s)))


def decay(length: int, time_s: float) -> np.ndarray:
  """exp(-t / time_s) <float32>[length]."""
  return np.exp(
    np.arange(length, dtype=np.float32) * np.float32(-1 / (time_s * SAMPLE_RATE_HZ))
  )


def fade(x: np.ndarray, in_s: float, out_s: float) -> np.ndarray:
  """Fades a waveform in and out, in place."""
  fade_in, fade_out = (min(len(x), num_samples(s)) for s in (in_s, out_s))
  x[:fade_in] *= np.linspace(0, 1, fade_in, dtype=np.float32)
  x[len(x) - fade_out :] *= np.linspace(1, 0, fade_out, dtype=np.float32)
  return x


def phase(frequency_hz: np.ndarray | float, length: int) -> np.ndarray:
  """The phase <float32>[length] of a tone, in radians in [0, 2 pi)."""
  if np.ndim(frequency_hz) == 0:
    cycles = np.arange(length) * (frequency_hz / SAMPLE_RATE_HZ)
  else:
    cycles = np.cumsum(frequency_hz, dtype=np.float64) / SAMPLE_RATE_HZ
  cycles -= np.floor(cycles)
  return (2 * np.pi * cycles).astype(np.float32)


def pulse_train(angle: np.ndarray, brightness: np.ndarray | float) -> np.ndarray:
  """Pulses exp(b (cos angle - 1)) minus their mean: the harmonics grow with b."""
  pulses = np.exp(np.float32(brightness) * (np.cos(angle) - 1))
  return pulses - pulses.mean()


def modes(
  frequencies_hz: Floats,
  levels: Floats,
  decays_s: Floats,
  longest_s: float,
) -> np.ndarray:
  """A struck body: the sum of decaying sines, each cut off at -60 dB."""
  longest = num_samples(min(longest_s, 7 * max(decays_s)))
  out = np.zeros(longest, np.float32)
  for frequency_hz, level, decay_s in zip(
    frequencies_hz, levels, decays_s, strict=True
  ):
    length = min(longest, num_samples(7 * decay_s))
    sine = np.sin(phase(frequency_hz, length))
    out[:length] += np.float32(level) * sine * decay(length, decay_s)
  return out


def sequence(
  onsets_s: Floats, hits: Sequence[np.ndarray], longest_s: float
) -> np.ndarray:
  """Adds each hit at its onset; the sum is cut off at `longest_s`."""
  longest = num_samples(longest_s)
  starts = [num_samples(onset_s) - 1 for onset_s in onsets_s]
  ends = [start + len(hit) for start, hit in zip(starts, hits)]
  out = np.zeros(min(longest, max(ends)), np.float32)
  for start, hit in zip(starts, hits):
    hit = hit[: max(0, len(out) - start)]
    out[start : start + len(hit)] += hit
  return out


def beats(
  rng: np.random.Generator,
  longest_s: float,
  *,
  period_s: float,
  jitter: float,
  num: tuple[int, int],
) -> np.ndarray:
  """Onsets <float64>[hits] in seconds, `period_s` apart, up to `jitter` of it late."""
  count = int(rng.integers(num[0], num[1] + 1))
  onsets_s = period_s * (np.arange(count) + jitter * rng.uniform(0, 1, count))
  onsets_s = np.sort(onsets_s - onsets_s[0])
  return onsets_s[onsets_s < max(0.9 * longest_s, 1e-3)]


def impulses(
  rng: np.random.Generator, length: int, rate_hz: np.ndarray | float
) -> np.ndarray:
  """Impulses <float32>[length] at random times, of log-normal heights."""
  rate = np.broadcast_to(np.float32(rate_hz / SAMPLE_RATE_HZ), length)
  at = np.flatnonzero(rng.random(length, np.float32) < rate)
  out = np.zeros(length, np.float32)
  out[at] = np.exp(0.7 * rng.standard_normal(len(at))) * rng.choice([-1, 1], len(at))
  return out


def convolve(impulses: np.ndarray, kernel: np.ndarray) -> np.ndarray:
  """Sounds a short kernel at every impulse; <float32> of the impulses' length."""
  length = len(impulses)
  fast = fft.next_fast_len(length + len(kernel), real=True)
  product = fft.rfft(impulses, fast) * fft.rfft(kernel, fast)
  return fft.irfft(product, fast)[:length]
