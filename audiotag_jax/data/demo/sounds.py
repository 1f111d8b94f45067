"""Sounds of the demo set, each drawn from a random generator.

A sound is a function of (rng, longest_s): it draws its pitch, timbre, rate and
envelope from `rng` and returns <float32>[samples] at `SAMPLE_RATE_HZ`, at any level,
at most `longest_s` long. `SOUNDS` names them as FSD50K does.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import fft

SAMPLE_RATE_HZ = 44_100

Sound = Callable[[np.random.Generator, float], np.ndarray]
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


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
  return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _duration_s(rng: np.random.Generator, low_s: float, longest_s: float) -> float:
  return min(longest_s, rng.uniform(low_s, max(low_s, longest_s)))


def _decay(length: int, time_s: float) -> np.ndarray:
  """exp(-t / time_s) <float32>[length]."""
  return np.exp(
    np.arange(length, dtype=np.float32) * np.float32(-1 / (time_s * SAMPLE_RATE_HZ))
  )


def _fade(x: np.ndarray, in_s: float, out_s: float) -> np.ndarray:
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


def _pulses(angle: np.ndarray, brightness: np.ndarray | float) -> np.ndarray:
  """Pulses exp(b (cos angle - 1)) minus their mean: the harmonics grow with b."""
  pulses = np.exp(np.float32(brightness) * (np.cos(angle) - 1))
  return pulses - pulses.mean()


def _modes(
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
    out[:length] += np.float32(level) * sine * _decay(length, decay_s)
  return out


def _sequence(
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


def _beats(
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


def _impulses(
  rng: np.random.Generator, length: int, rate_hz: np.ndarray | float
) -> np.ndarray:
  """Impulses <float32>[length] at random times, of log-normal heights."""
  rate = np.broadcast_to(np.float32(rate_hz / SAMPLE_RATE_HZ), length)
  at = np.flatnonzero(rng.random(length, np.float32) < rate)
  out = np.zeros(length, np.float32)
  out[at] = np.exp(0.7 * rng.standard_normal(len(at))) * rng.choice([-1, 1], len(at))
  return out


def _ring(impulses: np.ndarray, kernel: np.ndarray) -> np.ndarray:
  """Sounds a short kernel at every impulse; <float32> of the impulses' length."""
  length = len(impulses)
  fast = fft.next_fast_len(length + len(kernel), real=True)
  product = fft.rfft(impulses, fast) * fft.rfft(kernel, fast)
  return fft.irfft(product, fast)[:length]


# Music.


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
  return _fade(fft.irfft(spectrum, length)[: num_samples(1.6)], 0.001, 0.4)


def acoustic_guitar(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """Strummed chords, or notes picked one by one."""
  root_hz = _log_uniform(rng, 82, 220)
  decay_s, damping = _log_uniform(rng, 0.3, 1.2), rng.uniform(0.15, 0.5)
  chord = 2 ** (np.array(rng.choice([[0, 7, 12, 16, 19], [0, 7, 12, 15, 19]])) / 12)
  strings = [_pluck(rng, root_hz * ratio, decay_s, damping) for ratio in chord]
  if rng.uniform() < 0.4:
    period_s = rng.uniform(0.4, 1.1)
    strokes_s = _beats(rng, longest_s, period_s=period_s, jitter=0.1, num=(1, 6))
    gaps_s = np.arange(5) * rng.uniform(0.008, 0.04)
    onsets_s = (strokes_s[:, None] + gaps_s).ravel()
    picked = np.tile(np.arange(5), len(strokes_s))
  else:
    period_s = _log_uniform(rng, 0.14, 0.6)
    onsets_s = _beats(rng, longest_s, period_s=period_s, jitter=0.1, num=(3, 16))
    picked = rng.integers(0, 5, len(onsets_s))
  hits = [strings[i] * np.float32(rng.uniform(0.5, 1)) for i in picked]
  return _sequence(onsets_s, hits, longest_s)


def marimba(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """Tuned bars: overtones at 4 and 10 times (marimba) or 3 and 6 (xylophone)."""
  partials = np.array([[1, 3.93, 9.6], [1, 3.0, 6.1]][rng.integers(2)])
  root_hz, ring_s = _log_uniform(rng, 180, 900), rng.uniform(0.08, 0.3)
  period_s = _log_uniform(rng, 0.09, 0.4)
  onsets_s = _beats(rng, longest_s, period_s=period_s, jitter=0.08, num=(4, 24))
  scale = np.array([0, 2, 4, 7, 9, 12, 14, 16])
  walk = np.cumsum(rng.integers(-2, 3, len(onsets_s))) + rng.integers(8)
  bars = []
  for step in walk % len(scale):
    bar_hz = root_hz * 2 ** (scale[step] / 12) * partials
    levels = np.array([1, rng.uniform(0.15, 0.5), rng.uniform(0.05, 0.25)])
    decays_s = ring_s * np.array([1, 0.3, 0.12])
    bars.append(_fade(_modes(bar_hz, levels, decays_s, 2.0), 0.001, 0.01))
  return _sequence(onsets_s, bars, longest_s)


def trumpet(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """A tune on a brass instrument: brighter when louder, vibrato on long notes."""
  root_hz = _log_uniform(rng, 165, 600)
  brightness = _log_uniform(rng, 6, 25)
  scale = np.array([-5, 0, 2, 4, 5, 7, 9, 12])
  notes, onsets_s, time_s = [], [], 0.0
  for _ in range(int(rng.integers(1, 8))):
    note_s = min(_log_uniform(rng, 0.15, 1.2), max(0.1, longest_s - time_s))
    length = num_samples(note_s)
    t = np.arange(length, dtype=np.float32) / SAMPLE_RATE_HZ
    vibrato = rng.uniform(0, 0.012) * np.minimum(1, t / 0.4)
    bend = 1 - 0.03 * np.exp(-t / 0.03)
    bend += vibrato * np.sin(2 * np.pi * rng.uniform(4, 6.5) * t)
    hz = root_hz * 2 ** (rng.choice(scale) / 12) * bend
    attack_s = rng.uniform(0.02, 0.07)
    loudness = (1 - np.exp(-t / attack_s)) * (0.7 + 0.3 * np.exp(-t / 0.2))
    note = loudness * _pulses(phase(hz, length), brightness * loudness**2 + 0.5)
    notes.append(_fade(note, 0.005, 0.05))
    onsets_s.append(time_s)
    time_s += note_s + rng.uniform(0, 0.08)
    if time_s > longest_s - 0.1:
      break
  return _sequence(onsets_s, notes, longest_s)


def bass_drum(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """A drum whose pitch falls as the skin relaxes, with a click of the beater."""
  decay_s = _log_uniform(rng, 0.06, 0.3)
  length = num_samples(6 * decay_s)
  drop = rng.uniform(0.5, 4) * _decay(length, rng.uniform(0.01, 0.05))
  hz = _log_uniform(rng, 40, 85) * (1 + drop)
  hit = np.sin(phase(hz, length)) * _decay(length, decay_s)
  click = noise(rng, length, 500, _log_uniform(rng, 1500, 6000))
  hit += rng.uniform(0.05, 0.5) * click * _decay(length, 0.003)
  period_s = _log_uniform(rng, 0.25, 0.9)
  onsets_s = _beats(rng, longest_s, period_s=period_s, jitter=0.03, num=(1, 10))
  hits = [hit * np.float32(rng.uniform(0.5, 1)) for _ in onsets_s]
  return _sequence(onsets_s, hits, longest_s)


def snare_drum(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """Single strokes or a roll of a skin with rattling wires."""
  wires_s = _log_uniform(rng, 0.05, 0.2)
  length = num_samples(6 * wires_s)
  skin_hz, skin_s = _log_uniform(rng, 150, 320), rng.uniform(0.03, 0.1)
  body = _modes([skin_hz, 1.59 * skin_hz], [1, 0.6], [skin_s, skin_s], 1.0)
  body = np.pad(body, (0, length))[:length]
  body *= np.float32(rng.uniform(0.4, 1.5))
  low_hz, high_hz = _log_uniform(rng, 700, 2000), rng.uniform(7000, 14000)

  def stroke() -> np.ndarray:
    wires = noise(rng, length, low_hz, high_hz) * _decay(length, wires_s)
    return np.float32(rng.uniform(0.5, 1)) * (body + wires)

  strokes = [stroke() for _ in range(4)]
  roll = rng.uniform() < 0.25
  period_s = 1 / rng.uniform(12, 25) if roll else _log_uniform(rng, 0.2, 0.9)
  num = (12, 50) if roll else (1, 8)
  onsets_s = _beats(rng, longest_s, period_s=period_s, jitter=0.05, num=num)
  hits = [strokes[i] for i in rng.integers(0, 4, len(onsets_s))]
  if roll:
    swell = np.linspace(rng.uniform(0.2, 1), 1, len(hits), dtype=np.float32)
    hits = [hit * level for hit, level in zip(hits, swell)]
  return _sequence(onsets_s, hits, longest_s)


def hi_hat(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """Closed and open strokes of two small cymbals: high, short, metallic."""
  low_hz, high_hz = _log_uniform(rng, 5000, 8500), rng.uniform(11000, 18000)
  closed_s, open_s = _log_uniform(rng, 0.015, 0.05), _log_uniform(rng, 0.15, 0.5)
  metal_hz = _log_uniform(rng, 320, 480) * np.array([1, 1.34, 1.62, 1.87, 2.2, 2.77])
  length = num_samples(4 * open_s)
  metal = sum(np.sign(np.sin(phase(hz, length))) for hz in metal_hz) / 2.5
  plate = noise(rng, length, low_hz, high_hz) * (1 + rng.uniform(0.2, 1) * metal)
  strokes = [plate * _decay(length, s) for s in (closed_s, open_s)]
  period_s = _log_uniform(rng, 0.11, 0.5)
  onsets_s = _beats(rng, longest_s, period_s=period_s, jitter=0.04, num=(2, 24))
  is_open = rng.uniform(size=len(onsets_s)) < rng.choice([0.05, 0.2, 0.8])
  hits = [strokes[int(x)] * np.float32(rng.uniform(0.4, 1)) for x in is_open]
  return _sequence(onsets_s, hits, longest_s)


# Bells, alarms, machines.


def church_bell(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """A cast bell: hum, prime, tierce, quint, nominal and above, each beating."""
  ratios = np.array([0.5, 1, 1.19, 1.5, 2, 2.51, 2.66, 3.01, 4.1, 5.4])
  prime_hz = _log_uniform(rng, 180, 800)
  levels = rng.uniform(0.3, 1, 10) * np.linspace(1, 0.4, 10)
  decays_s = rng.uniform(0.8, 2.5) / np.sqrt(ratios) * rng.uniform(0.7, 1.3, 10)
  frequencies_hz = prime_hz * ratios * (1 + 0.004 * rng.standard_normal(10))
  strike = _modes(frequencies_hz, levels, decays_s, longest_s)
  beating = 1 + 0.3 * np.sin(phase(rng.uniform(0.8, 4), len(strike)))
  clang = noise(rng, len(strike), 1500, 7000) * _decay(len(strike), 0.02)
  strike = strike * beating + np.float32(rng.uniform(0.1, 0.8)) * clang
  period_s = rng.uniform(0.7, 2.2)
  onsets_s = _beats(rng, longest_s, period_s=period_s, jitter=0.1, num=(1, 5))
  hits = [strike * np.float32(rng.uniform(0.6, 1)) for _ in onsets_s]
  return _fade(_sequence(onsets_s, hits, longest_s), 0.0005, 0.1)


def siren(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """An emergency vehicle's wail, yelp or two tones."""
  length = num_samples(_duration_s(rng, 1.5, longest_s))
  low_hz, span = _log_uniform(rng, 380, 800), rng.uniform(1.6, 2.6)
  kind = rng.integers(3)
  period_s = (rng.uniform(1.8, 5), rng.uniform(0.2, 0.5), rng.uniform(0.7, 1.4))[kind]
  swing = 0.5 - 0.5 * np.cos(phase(1 / period_s, length) + rng.uniform(0, 6.3))
  if kind == 2:
    swing, span = (swing > 0.5).astype(np.float32), rng.uniform(1.2, 1.45)
  hz = low_hz * span**swing
  # The pitch falls as the vehicle passes by.
  hz *= np.linspace(1, rng.uniform(0.93, 1.03), length, dtype=np.float32)
  tone = np.tanh(np.float32(rng.uniform(0.7, 4)) * np.sin(phase(hz, length)))
  first, last = rng.uniform(0.3, 1, 2)
  distance = np.linspace(first, last, length, dtype=np.float32)
  return _fade(tone * distance, 0.1, 0.2)


def ringtone(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """A telephone's trill, or a short melody of beeps, repeated."""
  root_hz, hardness = _log_uniform(rng, 650, 1900), rng.uniform(0.5, 4)
  trill = rng.uniform() < 0.5
  if trill:
    steps = np.tile([0, rng.integers(3, 8)], int(rng.integers(7, 16)))
    step_s = 1 / rng.uniform(24, 50)
  else:
    steps = rng.choice([0, 2, 4, 5, 7, 9, 11, 12], int(rng.integers(4, 11)))
    step_s = 1 / rng.uniform(6, 13)
  step_samples = num_samples(step_s)
  hz = np.repeat(root_hz * 2 ** (steps / 12), step_samples)
  ring = np.tanh(np.float32(hardness) * np.sin(phase(hz, len(hz))))
  if not trill:
    within = np.tile(np.linspace(0, 1, step_samples, dtype=np.float32), len(steps))
    ring *= np.minimum(1, 8 * (1 - within)) * np.minimum(1, 20 * within)
  _fade(ring, 0.005, 0.01)
  period_s = len(ring) / SAMPLE_RATE_HZ + rng.uniform(0.15, 0.8)
  onsets_s = _beats(rng, longest_s, period_s=period_s, jitter=0, num=(1, 5))
  return _sequence(onsets_s, [ring] * len(onsets_s), longest_s)


def _engine(
  rng: np.random.Generator, firing_hz: np.ndarray, roughness: float
) -> np.ndarray:
  """Combustion pulses, unequal over the cylinders, and the noise they carry."""
  length = len(firing_hz)
  cycle = phase(firing_hz / 4, length)
  pulses = _pulses(4 * cycle, _log_uniform(rng, 5, 30))
  for harmonic in (1, 2, 3):
    level = np.float32(rng.uniform(0, roughness))
    pulses *= 1 + level * np.sin(harmonic * cycle + np.float32(rng.uniform(0, 6.3)))
  hiss = noise(rng, length, _log_uniform(rng, 150, 500), rng.uniform(1500, 5000), -3)
  sound = pulses + rng.uniform(0.1, 0.4) * hiss * (0.4 + np.abs(pulses))
  body = _modes(rng.uniform(80, 900, 4), rng.uniform(0.3, 1, 4), [0.008] * 4, 0.05)
  body[0] += 0.3
  return _ring(sound, body)


def idling(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """An engine at rest: steady but for a little unevenness."""
  length = num_samples(_duration_s(rng, 1.8, longest_s))
  uneven = 1 + rng.uniform(0.005, 0.03) * smooth(rng, length, 4)
  firing_hz = _log_uniform(rng, 14, 42) * uneven
  return _fade(_engine(rng, firing_hz, 0.5), 0.15, 0.2)


def revving(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """An engine run up once or several times, louder and brighter when fast."""
  length = num_samples(_duration_s(rng, 1.8, longest_s))
  num_points = 2 * int(rng.integers(1, 4)) + 1
  speed = np.empty(num_points)
  speed[0::2], speed[1::2] = rng.uniform(0, 0.3, (num_points + 1) // 2), 1
  at = np.sort(rng.uniform(0.05, 0.95, num_points)) * length
  speed = np.interp(np.arange(length), at, speed).astype(np.float32)
  firing_hz = _log_uniform(rng, 28, 60) * _log_uniform(rng, 3.2, 6.5) ** speed
  return _fade(_engine(rng, firing_hz, 0.3) * (0.25 + 0.75 * speed), 0.1, 0.2)


def knock(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """Knuckles on a wooden door, in groups."""
  modes_hz = _log_uniform(rng, 110, 350) * np.array([1, 1.7, 2.9, 4.6])
  decays_s = rng.uniform(0.012, 0.04) * np.array([1, 0.8, 0.5, 0.3])

  def rap() -> np.ndarray:
    body = _modes(modes_hz, rng.uniform(0.3, 1, 4), decays_s, 0.3)
    click = noise(rng, len(body), 600, 4000) * _decay(len(body), 0.003)
    return np.float32(rng.uniform(0.5, 1)) * (body + rng.uniform(0.2, 0.8) * click)

  period_s = 1 / rng.uniform(3, 8)
  group_s = _beats(rng, longest_s, period_s=period_s, jitter=0.15, num=(2, 6))
  pause_s = group_s[-1] + rng.uniform(0.5, 1.2)
  starts_s = _beats(rng, longest_s, period_s=pause_s, jitter=0.1, num=(1, 3))
  onsets_s = (starts_s[:, None] + group_s).ravel()
  return _sequence(onsets_s, [rap() for _ in onsets_s], longest_s)


def tick_tock(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """A clock: two clicks of different pitch in turn, in strict time."""
  period_s = rng.choice([0.2, 0.25, 0.5, 0.5, 0.75]) * rng.uniform(0.95, 1.05)
  modes_hz = _log_uniform(rng, 1300, 3200) * np.array([1, 1.83, 2.7])
  ratio, decay_s = rng.uniform(0.72, 0.93), _log_uniform(rng, 0.003, 0.012)
  levels = rng.uniform(0.3, 1, 3)
  clicks = [
    _modes(modes_hz * r, levels * g, decay_s * np.array([1, 0.7, 0.5]), 0.1)
    for r, g in ((1, 1), (ratio, rng.uniform(0.5, 1)))
  ]
  # An escapement clicks twice: it unlocks, then drops.
  drop_s = rng.uniform(0.006, 0.03)
  clicks = [_sequence([0, drop_s], [0.5 * c, c], 0.2) for c in clicks]
  count = int(_duration_s(rng, 1.5, longest_s) / period_s) + 1
  onsets_s = period_s * np.arange(count)
  return _sequence(onsets_s, [clicks[i % 2] for i in range(count)], longest_s)


def shatter(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """Glass breaks: a crash, then shards that ring high as they fall."""
  count = int(rng.integers(25, 70))
  onsets_s = np.concatenate([[0], rng.exponential(rng.uniform(0.12, 0.45), count)])
  length = num_samples(0.6)
  crash = noise(rng, length, 1800, 13000, 1) * _decay(length, rng.uniform(0.03, 0.12))
  hits = [crash]
  for _ in range(count):
    shard_hz = _log_uniform(rng, 2500, 11000) * np.array([1, rng.uniform(1.2, 1.6)])
    ring_s = _log_uniform(rng, 0.008, 0.07)
    level = rng.uniform(0.1, 0.8)
    hits.append(_modes(shard_hz, [level, 0.6 * level], [ring_s, ring_s], 0.5))
  return _sequence(onsets_s, hits, longest_s)


# Nature and people.


def rain(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """A steady rush of drops, some of them near."""
  length = num_samples(_duration_s(rng, 2.0, longest_s))
  low_hz, high_hz = _log_uniform(rng, 500, 2500), _log_uniform(rng, 8000, 16000)
  rush = noise(rng, length, low_hz, high_hz, rng.uniform(-3, 1))
  drop_length = num_samples(0.02)
  drop = noise(rng, drop_length, rng.uniform(1500, 4000), 9000)
  drop *= _decay(drop_length, rng.uniform(0.001, 0.004))
  near = _ring(_impulses(rng, length, _log_uniform(rng, 20, 250)), drop)
  rush *= 1 + 0.1 * smooth(rng, length, 1)
  sound = rush + np.float32(_log_uniform(rng, 0.5, 3)) * near
  return _fade(sound, *rng.uniform(0.1, 0.6, 2))


def wind(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """Gusts: bands of noise that swell and sink separately, higher when strong."""
  length = num_samples(_duration_s(rng, 2.2, longest_s))
  centre_hz, gust_hz = _log_uniform(rng, 150, 500), rng.uniform(0.6, 1.6)
  gust = smooth(rng, length, gust_hz)
  sound = np.zeros(length, np.float32)
  for octave in range(3):
    band_hz = centre_hz * 2**octave
    strength = gust * (0.7 + 0.5 * octave) + 0.4 * smooth(rng, length, 2 * gust_hz)
    band = noise(rng, length, 0.8 * band_hz, 1.25 * band_hz)
    sound += np.exp(strength - np.float32(0.9 * octave)) * band
  return _fade(sound, *rng.uniform(0.2, 0.6, 2))


def thunder(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """A crack, near or far, and claps that roll away, high frequencies sooner."""
  length = num_samples(_duration_s(rng, 2.2, longest_s))
  claps = int(rng.integers(2, 7))
  onsets_s = np.concatenate([[0], rng.uniform(0.1, 0.6 * longest_s, claps)])
  rumble, crackle = np.zeros(length, np.float32), np.zeros(length, np.float32)
  roll_s, near = rng.uniform(0.35, 1.0), rng.uniform()
  for onset_s in onsets_s[onsets_s < 0.9 * length / SAMPLE_RATE_HZ]:
    start = num_samples(onset_s) - 1
    level = np.float32(rng.uniform(0.3, 1))
    rumble[start:] += level * _decay(length - start, roll_s)
    crackle[start:] += level * _decay(length - start, 0.25 * roll_s)
  sound = rumble * noise(rng, length, 25, _log_uniform(rng, 80, 200), -2)
  sound += near * crackle * noise(rng, length, 100, _log_uniform(rng, 500, 3000), -3)
  sound *= 1 + 0.5 * smooth(rng, length, 12)
  return _fade(sound, rng.uniform(0.005, 0.2), 0.3)


def cricket(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """Chirps of a few pulses of one high pitch each, or an unbroken trill."""
  length = num_samples(_duration_s(rng, 1.5, longest_s))
  pitch_hz, pulse_hz = _log_uniform(rng, 2800, 6000), rng.uniform(22, 55)
  pulse = np.sin(phase(pulse_hz / 2, length)) ** 2
  if rng.uniform() < 0.7:
    chirp_pulses = int(rng.integers(2, 6))
    period_pulses = chirp_pulses + int(rng.integers(3, 16))
    pulse_number = np.arange(length) * (pulse_hz / SAMPLE_RATE_HZ)
    pulse *= pulse_number % period_pulses < chirp_pulses
  drift = 1 + 0.004 * smooth(rng, length, 3) - 0.02 * pulse
  tone = np.sin(phase(pitch_hz * drift, length))
  tone += 0.15 * np.sin(phase(2 * pitch_hz * drift, length))
  return _fade(pulse * tone, 0.1, 0.1)


def chirp(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """A songbird's phrase: quick notes that sweep up, down or both."""
  centre_hz = _log_uniform(rng, 2200, 5500)
  syllables = []
  for _ in range(int(rng.integers(1, 4))):
    length = num_samples(_log_uniform(rng, 0.035, 0.2))
    u = np.linspace(-1, 1, length, dtype=np.float32)
    sweep = rng.uniform(-0.45, 0.45) * u + rng.uniform(-0.4, 0.4) * (1 - u * u)
    if rng.uniform() < 0.25:
      sweep += 0.08 * np.sin(phase(rng.uniform(25, 60), length))
    hz = np.minimum(centre_hz * 2 ** (sweep + rng.uniform(-0.3, 0.3)), 12_000)
    note = np.sin(phase(hz, length)) + 0.1 * np.sin(phase(2 * hz, length))
    syllables.append(note * (1 - u * u))
  notes, onsets_s, time_s = [], [], 0.0
  gap_s, pause_s = _log_uniform(rng, 0.02, 0.15), rng.uniform(0.3, 1.2)
  end_s = _duration_s(rng, 0.6, longest_s)
  while time_s < end_s - 0.05:
    note = syllables[rng.integers(len(syllables))]
    notes.append(note * np.float32(rng.uniform(0.5, 1)))
    onsets_s.append(time_s)
    time_s += len(note) / SAMPLE_RATE_HZ + gap_s
    if rng.uniform() < 0.15:
      time_s += pause_s
  return _sequence(onsets_s, notes, longest_s)


def applause(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """Many hands, each pair with its own resonance; it may swell or die away."""
  length = num_samples(_duration_s(rng, 2.0, longest_s))
  crowd_hz = _log_uniform(rng, 50, 350)
  first, last = rng.uniform(0.3, 1, 2)
  swell = np.linspace(first, last, length, dtype=np.float32)
  clap_length = num_samples(0.03)
  sound = np.zeros(length, np.float32)
  for _ in range(4):
    centre_hz = _log_uniform(rng, 800, 2300)
    clap = noise(rng, clap_length, 0.8 * centre_hz, 1.5 * centre_hz)
    clap *= _decay(clap_length, rng.uniform(0.002, 0.006))
    sound += _ring(_impulses(rng, length, crowd_hz / 4 * swell), clap)
  return _fade(sound, *rng.uniform(0.05, 0.5, 2))


# From the commonest to the rarest.
SOUNDS: dict[str, Sound] = {
  "Acoustic_guitar": acoustic_guitar,
  "Rain": rain,
  "Chirp_and_tweet": chirp,
  "Snare_drum": snare_drum,
  "Idling": idling,
  "Bass_drum": bass_drum,
  "Applause": applause,
  "Siren": siren,
  "Hi-hat": hi_hat,
  "Knock": knock,
  "Wind": wind,
  "Trumpet": trumpet,
  "Accelerating_and_revving_and_vroom": revving,
  "Cricket": cricket,
  "Thunder": thunder,
  "Church_bell": church_bell,
  "Ringtone": ringtone,
  "Shatter": shatter,
  "Marimba_and_xylophone": marimba,
  "Tick-tock": tick_tock,
}
