"""Sounds of musical instruments; see `sounds`."""

import numpy as np
from scipy import fft

from audiotag_jax.data.demo.synthesis import (
  SAMPLE_RATE_HZ,
  beats,
  decay,
  fade,
  log_uniform,
  modes,
  noise,
  num_samples,
  phase,
  pulse_train,
  sequence,
)


def _pluck(
  rng: np.random.Generator, frequency_hz: float, decay_s: float, damping: float
) -> np.ndarray:
  """A plucked string: Karplus and Strong's (1983) loop, in the frequency domain.

  The loop delays by a period and averages neighbouring samples, so that overtones
  die sooner; its transfer function is 1 / (1 - g H(f) exp(-2 pi i f / f0)).
  """
  length = fft.next_fast_len(num_samples(2.0), real=True)
  hz = np.linspace(0, SAMPLE_RATE_HZ / 2, length // 2 + 1, dtype=np.float32)
  loop_gain = np.exp(-1 / (decay_s * frequency_hz)) / (1 + (damping * hz / 1e4) ** 2)
  turn = hz / np.float32(frequency_hz)
  turn -= np.floor(turn)
  period = num_samples(1 / frequency_hz)
  burst = noise(rng, period, frequency_hz, 6000, -4)
  # The pluck's place on the string removes the overtones with a node there.
  burst = np.concatenate([burst, np.zeros(period, np.float32)])
  burst -= np.roll(burst, int(period * rng.uniform(0.1, 0.4)))
  spectrum = fft.rfft(burst, length) / (
    1 - loop_gain * np.exp(np.complex64(-2j * np.pi) * turn)
  )
  return fade(fft.irfft(spectrum, length)[: num_samples(1.6)], 0.001, 0.4)


def acoustic_guitar(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """Strummed chords, or notes picked one by one."""
  root_hz = log_uniform(rng, 82, 220)
  decay_s, damping = log_uniform(rng, 0.3, 1.2), rng.uniform(0.15, 0.5)
  chord = 2 ** (np.array(rng.choice([[0, 7, 12, 16, 19], [0, 7, 12, 15, 19]])) / 12)
  strings = [_pluck(rng, root_hz * ratio, decay_s, damping) for ratio in chord]
  if rng.uniform() < 0.4:
    period_s = rng.uniform(0.4, 1.1)
    strokes_s = beats(rng, longest_s, period_s=period_s, jitter=0.1, num=(1, 6))
    gaps_s = np.arange(5) * rng.uniform(0.008, 0.04)
    onsets_s = (strokes_s[:, None] + gaps_s).ravel()
    picked = np.tile(np.arange(5), len(strokes_s))
  else:
    period_s = log_uniform(rng, 0.14, 0.6)
    onsets_s = beats(rng, longest_s, period_s=period_s, jitter=0.1, num=(3, 16))
    picked = rng.integers(0, 5, len(onsets_s))
  hits = [strings[i] * np.float32(rng.uniform(0.5, 1)) for i in picked]
  return sequence(onsets_s, hits, longest_s)


def marimba(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """Tuned bars: overtones at 4 and 10 times (marimba) or 3 and 6 (xylophone)."""
  partials = np.array([[1, 3.93, 9.6], [1, 3.0, 6.1]][rng.integers(2)])
  root_hz, ring_s = log_uniform(rng, 180, 900), rng.uniform(0.08, 0.3)
  period_s = log_uniform(rng, 0.09, 0.4)
  onsets_s = beats(rng, longest_s, period_s=period_s, jitter=0.08, num=(4, 24))
  scale = np.array([0, 2, 4, 7, 9, 12, 14, 16])
  walk = np.cumsum(rng.integers(-2, 3, len(onsets_s))) + rng.integers(8)
  bars = []
  for step in walk % len(scale):
    bar_hz = root_hz * 2 ** (scale[step] / 12) * partials
    levels = np.array([1, rng.uniform(0.15, 0.5), rng.uniform(0.05, 0.25)])
    decays_s = ring_s * np.array([1, 0.3, 0.12])
    bars.append(fade(modes(bar_hz, levels, decays_s, 2.0), 0.001, 0.01))
  return sequence(onsets_s, bars, longest_s)


def trumpet(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """A tune on a brass instrument: brighter when louder, vibrato on long notes."""
  root_hz = log_uniform(rng, 165, 600)
  brightness = log_uniform(rng, 6, 25)
  scale = np.array([-5, 0, 2, 4, 5, 7, 9, 12])
  notes, onsets_s, time_s = [], [], 0.0
  for _ in range(int(rng.integers(1, 8))):
    note_s = min(log_uniform(rng, 0.15, 1.2), max(0.1, longest_s - time_s))
    length = num_samples(note_s)
    t = np.arange(length, dtype=np.float32) / SAMPLE_RATE_HZ
    vibrato = rng.uniform(0, 0.012) * np.minimum(1, t / 0.4)
    bend = 1 - 0.03 * np.exp(-t / 0.03)
    bend += vibrato * np.sin(2 * np.pi * rng.uniform(4, 6.5) * t)
    hz = root_hz * 2 ** (rng.choice(scale) / 12) * bend
    attack_s = rng.uniform(0.02, 0.07)
    loudness = (1 - np.exp(-t / attack_s)) * (0.7 + 0.3 * np.exp(-t / 0.2))
    note = loudness * pulse_train(phase(hz, length), brightness * loudness**2 + 0.5)
    notes.append(fade(note, 0.005, 0.05))
    onsets_s.append(time_s)
    time_s += note_s + rng.uniform(0, 0.08)
    if time_s > longest_s - 0.1:
      break
  return sequence(onsets_s, notes, longest_s)


def bass_drum(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """A drum whose pitch falls as the skin relaxes, with a click of the beater."""
  decay_s = log_uniform(rng, 0.06, 0.3)
  length = num_samples(6 * decay_s)
  drop = rng.uniform(0.5, 4) * decay(length, rng.uniform(0.01, 0.05))
  hz = log_uniform(rng, 40, 85) * (1 + drop)
  hit = np.sin(phase(hz, length)) * decay(length, decay_s)
  click = noise(rng, length, 500, log_uniform(rng, 1500, 6000))
  hit += rng.uniform(0.05, 0.5) * click * decay(length, 0.003)
  period_s = log_uniform(rng, 0.25, 0.9)
  onsets_s = beats(rng, longest_s, period_s=period_s, jitter=0.03, num=(1, 10))
  hits = [hit * np.float32(rng.uniform(0.5, 1)) for _ in onsets_s]
  return sequence(onsets_s, hits, longest_s)


def snare_drum(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """Single strokes or a roll of a skin with rattling wires."""
  wires_s = log_uniform(rng, 0.05, 0.2)
  length = num_samples(6 * wires_s)
  skin_hz, skin_s = log_uniform(rng, 150, 320), rng.uniform(0.03, 0.1)
  body = modes([skin_hz, 1.59 * skin_hz], [1, 0.6], [skin_s, skin_s], 1.0)
  body = np.pad(body, (0, length))[:length]
  body *= np.float32(rng.uniform(0.4, 1.5))
  low_hz, high_hz = log_uniform(rng, 700, 2000), rng.uniform(7000, 14000)

  def stroke() -> np.ndarray:
    wires = noise(rng, length, low_hz, high_hz) * decay(length, wires_s)
    return np.float32(rng.uniform(0.5, 1)) * (body + wires)

  strokes = [stroke() for _ in range(4)]
  roll = rng.uniform() < 0.25
  period_s = 1 / rng.uniform(12, 25) if roll else log_uniform(rng, 0.2, 0.9)
  num = (12, 50) if roll else (1, 8)
  onsets_s = beats(rng, longest_s, period_s=period_s, jitter=0.05, num=num)
  hits = [strokes[i] for i in rng.integers(0, 4, len(onsets_s))]
  if roll:
    swell = np.linspace(rng.uniform(0.2, 1), 1, len(hits), dtype=np.float32)
    hits = [hit * level for hit, level in zip(hits, swell)]
  return sequence(onsets_s, hits, longest_s)


def hi_hat(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """Closed and open strokes of two small cymbals: high, short, metallic."""
  low_hz, high_hz = log_uniform(rng, 5000, 8500), rng.uniform(11000, 18000)
  closed_s, open_s = log_uniform(rng, 0.015, 0.05), log_uniform(rng, 0.15, 0.5)
  metal_hz = log_uniform(rng, 320, 480) * np.array([1, 1.34, 1.62, 1.87, 2.2, 2.77])
  length = num_samples(4 * open_s)
  metal = sum(np.sign(np.sin(phase(hz, length))) for hz in metal_hz) / 2.5
  plate = noise(rng, length, low_hz, high_hz) * (1 + rng.uniform(0.2, 1) * metal)
  strokes = [plate * decay(length, s) for s in (closed_s, open_s)]
  period_s = log_uniform(rng, 0.11, 0.5)
  onsets_s = beats(rng, longest_s, period_s=period_s, jitter=0.04, num=(2, 24))
  is_open = rng.uniform(size=len(onsets_s)) < rng.choice([0.05, 0.2, 0.8])
  hits = [strokes[int(x)] * np.float32(rng.uniform(0.4, 1)) for x in is_open]
  return sequence(onsets_s, hits, longest_s)
