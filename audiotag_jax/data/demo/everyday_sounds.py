"""Sounds of bells, alarms, machines, nature and people; see `sounds`."""

import numpy as np

from audiotag_jax.data.demo.synthesis import (
  SAMPLE_RATE_HZ,
  beats,
  convolve,
  decay,
  draw_duration_s,
  fade,
  impulses,
  log_uniform,
  modes,
  noise,
  num_samples,
  phase,
  pulse_train,
  sequence,
  smooth,
)

# Bells, alarms, machines.


def church_bell(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """A cast bell: hum, prime, tierce, quint, nominal and above, each beating."""
  ratios = np.array([0.5, 1, 1.19, 1.5, 2, 2.51, 2.66, 3.01, 4.1, 5.4])
  prime_hz = log_uniform(rng, 180, 800)
  levels = rng.uniform(0.3, 1, 10) * np.linspace(1, 0.4, 10)
  decays_s = rng.uniform(0.8, 2.5) / np.sqrt(ratios) * rng.uniform(0.7, 1.3, 10)
  frequencies_hz = prime_hz * ratios * (1 + 0.004 * rng.standard_normal(10))
  strike = modes(frequencies_hz, levels, decays_s, longest_s)
  beating = 1 + 0.3 * np.sin(phase(rng.uniform(0.8, 4), len(strike)))
  clang = noise(rng, len(strike), 1500, 7000) * decay(len(strike), 0.02)
  strike = strike * beating + np.float32(rng.uniform(0.1, 0.8)) * clang
  period_s = rng.uniform(0.7, 2.2)
  onsets_s = beats(rng, longest_s, period_s=period_s, jitter=0.1, num=(1, 5))
  hits = [strike * np.float32(rng.uniform(0.6, 1)) for _ in onsets_s]
  return fade(sequence(onsets_s, hits, longest_s), 0.0005, 0.1)


def siren(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """An emergency vehicle's wail, yelp or two tones."""
  length = num_samples(draw_duration_s(rng, 1.5, longest_s))
  low_hz, span = log_uniform(rng, 380, 800), rng.uniform(1.6, 2.6)
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
  return fade(tone * distance, 0.1, 0.2)


def ringtone(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """A telephone's trill, or a short melody of beeps, repeated."""
  root_hz, hardness = log_uniform(rng, 650, 1900), rng.uniform(0.5, 4)
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
  fade(ring, 0.005, 0.01)
  period_s = len(ring) / SAMPLE_RATE_HZ + rng.uniform(0.15, 0.8)
  onsets_s = beats(rng, longest_s, period_s=period_s, jitter=0, num=(1, 5))
  return sequence(onsets_s, [ring] * len(onsets_s), longest_s)


def _engine(
  rng: np.random.Generator, firing_hz: np.ndarray, roughness: float
) -> np.ndarray:
  """Combustion pulses, unequal over the cylinders, and the noise they carry."""
  length = len(firing_hz)
  cycle = phase(firing_hz / 4, length)
  pulses = pulse_train(4 * cycle, log_uniform(rng, 5, 30))
  for harmonic in (1, 2, 3):
    level = np.float32(rng.uniform(0, roughness))
    pulses *= 1 + level * np.sin(harmonic * cycle + np.float32(rng.uniform(0, 6.3)))
  hiss = noise(rng, length, log_uniform(rng, 150, 500), rng.uniform(1500, 5000), -3)
  sound = pulses + rng.uniform(0.1, 0.4) * hiss * (0.4 + np.abs(pulses))
  body = modes(rng.uniform(80, 900, 4), rng.uniform(0.3, 1, 4), [0.008] * 4, 0.05)
  body[0] += 0.3
  return convolve(sound, body)


def idling(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """An engine at rest: steady but for a little unevenness."""
  length = num_samples(draw_duration_s(rng, 1.8, longest_s))
  uneven = 1 + rng.uniform(0.005, 0.03) * smooth(rng, length, 4)
  firing_hz = log_uniform(rng, 14, 42) * uneven
  return fade(_engine(rng, firing_hz, 0.5), 0.15, 0.2)


def revving(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """An engine run up once or several times, louder and brighter when fast."""
  length = num_samples(draw_duration_s(rng, 1.8, longest_s))
  num_points = 2 * int(rng.integers(1, 4)) + 1
  speed = np.empty(num_points)
  speed[0::2], speed[1::2] = rng.uniform(0, 0.3, (num_points + 1) // 2), 1
  at = np.sort(rng.uniform(0.05, 0.95, num_points)) * length
  speed = np.interp(np.arange(length), at, speed).astype(np.float32)
  firing_hz = log_uniform(rng, 28, 60) * log_uniform(rng, 3.2, 6.5) ** speed
  return fade(_engine(rng, firing_hz, 0.3) * (0.25 + 0.75 * speed), 0.1, 0.2)


def knock(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """Knuckles on a wooden door, in groups."""
  modes_hz = log_uniform(rng, 110, 350) * np.array([1, 1.7, 2.9, 4.6])
  decays_s = rng.uniform(0.012, 0.04) * np.array([1, 0.8, 0.5, 0.3])

  def rap() -> np.ndarray:
    body = modes(modes_hz, rng.uniform(0.3, 1, 4), decays_s, 0.3)
    click = noise(rng, len(body), 600, 4000) * decay(len(body), 0.003)
    return np.float32(rng.uniform(0.5, 1)) * (body + rng.uniform(0.2, 0.8) * click)

  period_s = 1 / rng.uniform(3, 8)
  group_s = beats(rng, longest_s, period_s=period_s, jitter=0.15, num=(2, 6))
  pause_s = group_s[-1] + rng.uniform(0.5, 1.2)
  starts_s = beats(rng, longest_s, period_s=pause_s, jitter=0.1, num=(1, 3))
  onsets_s = (starts_s[:, None] + group_s).ravel()
  return sequence(onsets_s, [rap() for _ in onsets_s], longest_s)


def tick_tock(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """A clock: two clicks of different pitch in turn, in strict time."""
  period_s = rng.choice([0.2, 0.25, 0.5, 0.5, 0.75]) * rng.uniform(0.95, 1.05)
  modes_hz = log_uniform(rng, 1300, 3200) * np.array([1, 1.83, 2.7])
  ratio, decay_s = rng.uniform(0.72, 0.93), log_uniform(rng, 0.003, 0.012)
  levels = rng.uniform(0.3, 1, 3)
  clicks = [
    modes(modes_hz * r, levels * g, decay_s * np.array([1, 0.7, 0.5]), 0.1)
    for r, g in ((1, 1), (ratio, rng.uniform(0.5, 1)))
  ]
  # An escapement clicks twice: it unlocks, then drops.
  drop_s = rng.uniform(0.006, 0.03)
  clicks = [sequence([0, drop_s], [0.5 * c, c], 0.2) for c in clicks]
  count = int(draw_duration_s(rng, 1.5, longest_s) / period_s) + 1
  onsets_s = period_s * np.arange(count)
  return sequence(onsets_s, [clicks[i % 2] for i in range(count)], longest_s)


def shatter(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """Glass breaks: a crash, then shards that ring high as they fall."""
  count = int(rng.integers(25, 70))
  onsets_s = np.concatenate([[0], rng.exponential(rng.uniform(0.12, 0.45), count)])
  length = num_samples(0.6)
  crash = noise(rng, length, 1800, 13000, 1) * decay(length, rng.uniform(0.03, 0.12))
  hits = [crash]
  for _ in range(count):
    shard_hz = log_uniform(rng, 2500, 11000) * np.array([1, rng.uniform(1.2, 1.6)])
    ring_s = log_uniform(rng, 0.008, 0.07)
    level = rng.uniform(0.1, 0.8)
    hits.append(modes(shard_hz, [level, 0.6 * level], [ring_s, ring_s], 0.5))
  return sequence(onsets_s, hits, longest_s)


# Nature and people.


def rain(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """A steady rush of drops, some of them near."""
  length = num_samples(draw_duration_s(rng, 2.0, longest_s))
  low_hz, high_hz = log_uniform(rng, 500, 2500), log_uniform(rng, 8000, 16000)
  rush = noise(rng, length, low_hz, high_hz, rng.uniform(-3, 1))
  drop_length = num_samples(0.02)
  drop = noise(rng, drop_length, rng.uniform(1500, 4000), 9000)
  drop *= decay(drop_length, rng.uniform(0.001, 0.004))
  near = convolve(impulses(rng, length, log_uniform(rng, 20, 250)), drop)
  rush *= 1 + 0.1 * smooth(rng, length, 1)
  sound = rush + np.float32(log_uniform(rng, 0.5, 3)) * near
  return fade(sound, *rng.uniform(0.1, 0.6, 2))


def wind(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """Gusts: bands of noise that swell and sink separately, higher when strong."""
  length = num_samples(draw_duration_s(rng, 2.2, longest_s))
  centre_hz, gust_hz = log_uniform(rng, 150, 500), rng.uniform(0.6, 1.6)
  gust = smooth(rng, length, gust_hz)
  sound = np.zeros(length, np.float32)
  for octave in range(3):
    band_hz = centre_hz * 2**octave
    strength = gust * (0.7 + 0.5 * octave) + 0.4 * smooth(rng, length, 2 * gust_hz)
    band = noise(rng, length, 0.8 * band_hz, 1.25 * band_hz)
    sound += np.exp(strength - np.float32(0.9 * octave)) * band
  return fade(sound, *rng.uniform(0.2, 0.6, 2))


def thunder(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """A crack, near or far, and claps that roll away, high frequencies sooner."""
  length = num_samples(draw_duration_s(rng, 2.2, longest_s))
  claps = int(rng.integers(2, 7))
  onsets_s = np.concatenate([[0], rng.uniform(0.1, 0.6 * longest_s, claps)])
  rumble, crackle = np.zeros(length, np.float32), np.zeros(length, np.float32)
  roll_s, near = rng.uniform(0.35, 1.0), rng.uniform()
  for onset_s in onsets_s[onsets_s < 0.9 * length / SAMPLE_RATE_HZ]:
    start = num_samples(onset_s) - 1
    level = np.float32(rng.uniform(0.3, 1))
    rumble[start:] += level * decay(length - start, roll_s)
    crackle[start:] += level * decay(length - start, 0.25 * roll_s)
  sound = rumble * noise(rng, length, 25, log_uniform(rng, 80, 200), -2)
  sound += near * crackle * noise(rng, length, 100, log_uniform(rng, 500, 3000), -3)
  sound *= 1 + 0.5 * smooth(rng, length, 12)
  return fade(sound, rng.uniform(0.005, 0.2), 0.3)


def cricket(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """Chirps of a few pulses of one high pitch each, or an unbroken trill."""
  length = num_samples(draw_duration_s(rng, 1.5, longest_s))
  pitch_hz, pulse_hz = log_uniform(rng, 2800, 6000), rng.uniform(22, 55)
  pulse = np.sin(phase(pulse_hz / 2, length)) ** 2
  if rng.uniform() < 0.7:
    chirp_pulses = int(rng.integers(2, 6))
    period_pulses = chirp_pulses + int(rng.integers(3, 16))
    pulse_number = np.arange(length) * (pulse_hz / SAMPLE_RATE_HZ)
    pulse *= pulse_number % period_pulses < chirp_pulses
  drift = 1 + 0.004 * smooth(rng, length, 3) - 0.02 * pulse
  tone = np.sin(phase(pitch_hz * drift, length))
  tone += 0.15 * np.sin(phase(2 * pitch_hz * drift, length))
  return fade(pulse * tone, 0.1, 0.1)


def chirp(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """A songbird's phrase: quick notes that sweep up, down or both."""
  centre_hz = log_uniform(rng, 2200, 5500)
  syllables = []
  for _ in range(int(rng.integers(1, 4))):
    length = num_samples(log_uniform(rng, 0.035, 0.2))
    u = np.linspace(-1, 1, length, dtype=np.float32)
    sweep = rng.uniform(-0.45, 0.45) * u + rng.uniform(-0.4, 0.4) * (1 - u * u)
    if rng.uniform() < 0.25:
      sweep += 0.08 * np.sin(phase(rng.uniform(25, 60), length))
    hz = np.minimum(centre_hz * 2 ** (sweep + rng.uniform(-0.3, 0.3)), 12_000)
    note = np.sin(phase(hz, length)) + 0.1 * np.sin(phase(2 * hz, length))
    syllables.append(note * (1 - u * u))
  notes, onsets_s, time_s = [], [], 0.0
  gap_s, pause_s = log_uniform(rng, 0.02, 0.15), rng.uniform(0.3, 1.2)
  end_s = draw_duration_s(rng, 0.6, longest_s)
  while time_s < end_s - 0.05:
    note = syllables[rng.integers(len(syllables))]
    notes.append(note * np.float32(rng.uniform(0.5, 1)))
    onsets_s.append(time_s)
    time_s += len(note) / SAMPLE_RATE_HZ + gap_s
    if rng.uniform() < 0.15:
      time_s += pause_s
  return sequence(onsets_s, notes, longest_s)


def applause(rng: np.random.Generator, longest_s: float) -> np.ndarray:
  """Many hands, each pair with its own resonance; it may swell or die away."""
  length = num_samples(draw_duration_s(rng, 2.0, longest_s))
  crowd_hz = log_uniform(rng, 50, 350)
  first, last = rng.uniform(0.3, 1, 2)
  swell = np.linspace(first, last, length, dtype=np.float32)
  clap_length = num_samples(0.03)
  sound = np.zeros(length, np.float32)
  for _ in range(4):
    centre_hz = log_uniform(rng, 800, 2300)
    clap = noise(rng, clap_length, 0.8 * centre_hz, 1.5 * centre_hz)
    clap *= decay(clap_length, rng.uniform(0.002, 0.006))
    sound += convolve(impulses(rng, length, crowd_hz / 4 * swell), clap)
  return fade(sound, *rng.uniform(0.05, 0.5, 2))
