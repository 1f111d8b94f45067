import subprocess
import sys

import numpy as np
import pytest
import scipy.signal
import soundfile

from audiotag_jax.audio import perturb

RATE_HZ = 32_000
FUNCTIONS = {
  "white noise": (perturb.add_noise, {"color": "white", "snr_db": 0}),
  "pink noise": (perturb.add_noise, {"color": "pink", "snr_db": 0}),
  "low-pass": (perturb.limit_band, {"high_hz": 4_000}),
  "telephone": (perturb.limit_band, {"low_hz": 300, "high_hz": 3_400}),
  "MP3": (perturb.code_mp3, {"kbit_per_s": 32}),
  "narrow": (perturb.narrow, {"through_hz": 8_000}),
  "reverberation": (perturb.reverberate, {"rt60_s": 0.5}),
  "excerpt": (perturb.excerpt, {"seconds": 1}),
}


def tone(frequency_hz, seconds=2.0, rate_hz=RATE_HZ):
  t = np.arange(round(seconds * rate_hz)) / rate_hz
  return (0.5 * np.sin(2 * np.pi * frequency_hz * t)).astype(np.float32)


def tones_and_noise(num_samples, rate_hz=RATE_HZ):
  """A sweep below a third of the rate over noise, <float32>[num_samples]."""
  t = np.arange(num_samples) / rate_hz
  sweep = np.sin(2 * np.pi * (rate_hz / 80 + rate_hz / 400 * t) * t)
  noise = np.random.default_rng(3).standard_normal(num_samples)
  return (0.3 * sweep + 0.02 * noise + 0.1).astype(np.float32)


def apply(name, waveform, rate_hz=RATE_HZ, fname="64760.wav"):
  function, fields = FUNCTIONS[name]
  return function(waveform, rate_hz, perturb.generator(fname), **fields)


def power_db(waveform):
  return 10 * np.log10(np.mean(np.square(waveform, dtype=np.float64)))


def gain_db(name, frequency_hz):
  """The gain of a tone, measured away from its ends."""
  before = tone(frequency_hz)
  middle = slice(RATE_HZ // 2, -RATE_HZ // 2)
  return power_db(apply(name, before)[middle]) - power_db(before[middle])


@pytest.mark.parametrize("color", ["white", "pink"])
@pytest.mark.parametrize("snr_db", [20, 10, 0])
@pytest.mark.parametrize("num_samples", [37, 2_399, 100_003])
def test_noise_has_the_ratio_asked_for(color, snr_db, num_samples):
  waveform = tones_and_noise(num_samples)
  rng = perturb.generator("1.wav")
  noisy = perturb.add_noise(waveform, RATE_HZ, rng, color=color, snr_db=snr_db)
  noise = noisy.astype(np.float64) - waveform
  assert power_db(waveform) - power_db(noise) == pytest.approx(snr_db, abs=0.05)


@pytest.mark.parametrize(("color", "db_per_octave"), [("white", 0), ("pink", -3.01)])
def test_spectrum_of_the_noise(color, db_per_octave):
  draw = {"white": perturb.white_noise, "pink": perturb.pink_noise}[color]
  noise = draw(30 * RATE_HZ, RATE_HZ, perturb.generator("1.wav"))
  frequency_hz, density = scipy.signal.welch(noise, RATE_HZ, nperseg=RATE_HZ)
  fitted = (frequency_hz >= 25) & (frequency_hz <= 15_000)
  octave = np.log2(frequency_hz[fitted])
  # Each octave counts alike, although most frequencies are in the last one.
  slope, _ = np.polyfit(
    octave, 10 * np.log10(density[fitted]), 1, w=1 / np.sqrt(frequency_hz[fitted])
  )
  assert slope == pytest.approx(db_per_octave, abs=0.1)
  inaudible = frequency_hz < 15
  level = 10 * np.log10(density[inaudible].mean() / density[fitted].max())
  assert (level < -20) == (color == "pink")


@pytest.mark.parametrize(
  ("name", "frequency_hz", "low_db", "high_db"),
  [
    ("low-pass", 1_000, -0.1, 0.1),
    ("low-pass", 3_000, -0.5, 0.1),
    ("low-pass", 4_000, -3.2, -2.8),
    ("low-pass", 8_000, -70, -48),
    ("telephone", 100, -np.inf, -70),
    ("telephone", 150, -50, -46),
    ("telephone", 300, -3.2, -2.8),
    ("telephone", 1_000, -0.1, 0.1),
    ("telephone", 3_400, -3.2, -2.8),
    ("telephone", 6_800, -65, -48),
    ("narrow", 1_000, -0.1, 0.1),
    ("narrow", 3_000, -0.1, 0.1),
    ("narrow", 6_000, -np.inf, -80),
  ],
)
def test_bands_that_are_lost_and_kept(name, frequency_hz, low_db, high_db):
  assert low_db <= gain_db(name, frequency_hz) <= high_db


def test_edges_that_the_model_does_not_hear_are_left_out():
  waveform = tones_and_noise(16_000, rate_hz=8_000)
  np.testing.assert_array_equal(apply("low-pass", waveform, 8_000), waveform)
  np.testing.assert_array_equal(apply("narrow", waveform, 8_000), waveform)
  slow = tone(1_000, rate_hz=6_000)
  gain = power_db(apply("telephone", slow, 6_000)[3_000:]) - power_db(slow[3_000:])
  assert gain == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 32_000, 44_100, 48_000])
def test_mp3_stays_in_time_and_loses_something(rate_hz):
  check_mp3(rate_hz)


@pytest.mark.parametrize("rate_hz", [6_000, 20_000, 96_000])
def test_mp3_of_a_rate_that_it_does_not_have(rate_hz):
  check_mp3(rate_hz)


def check_mp3(rate_hz):
  waveform = tones_and_noise(3 * rate_hz + 17, rate_hz)
  decoded = apply("MP3", waveform, rate_hz)
  assert (decoded.shape, decoded.dtype) == (waveform.shape, np.float32)
  correlation = scipy.signal.correlate(decoded, waveform)
  assert correlation.argmax() == len(waveform) - 1
  error_db = power_db(decoded - waveform) - power_db(waveform)
  # The noise, 20 dB below the sweep, cannot be kept.
  assert -45 < error_db < -12


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 32_000, 44_100])
def test_mp3_has_the_bit_rate_asked_for(rate_hz, monkeypatch):
  num_bytes, write = [], soundfile.write

  def spy(file, *args, **kwargs):
    write(file, *args, **kwargs)
    num_bytes.append(len(file.getvalue()))

  monkeypatch.setattr(soundfile, "write", spy)
  apply("MP3", tones_and_noise(20 * rate_hz, rate_hz), rate_hz)
  assert num_bytes[0] * 8 / 20 == pytest.approx(32_000, rel=0.02)


@pytest.mark.parametrize("rt60_s", [0.5, 1.5])
@pytest.mark.parametrize("rate_hz", [8_000, 32_000])
def test_reverberation_time(rt60_s, rate_hz):
  impulse = np.zeros(2 * rate_hz, np.float32)
  impulse[0] = 1.0
  rng = perturb.generator("1.wav")
  response = perturb.reverberate(impulse, rate_hz, rng, rt60_s=rt60_s)
  assert response[0] == pytest.approx(1, abs=1e-5)
  assert np.square(response[1:]).sum() == pytest.approx(1, rel=1e-4)
  # Schroeder (1965): the energy still to come; T30 is the time from -5 to -35 dB.
  energy = np.square(response[: round(rt60_s * rate_hz)], dtype=np.float64)
  decay_db = 10 * np.log10(energy[::-1].cumsum()[::-1] / energy.sum())
  fitted = np.flatnonzero((decay_db <= -5) & (decay_db >= -35))
  slope, _ = np.polyfit(fitted / rate_hz, decay_db[fitted], 1)
  assert -60 / slope == pytest.approx(rt60_s, rel=0.1)


def test_an_excerpt_is_the_middle():
  waveform = np.arange(10, dtype=np.float32)
  rng = perturb.generator("1.wav")
  cut = perturb.excerpt(waveform, 2, rng, seconds=2)
  assert cut.tolist() == [3, 4, 5, 6]
  assert perturb.excerpt(waveform, 2, rng, seconds=1.5).tolist() == [3, 4, 5]
  assert perturb.excerpt(waveform, 2, rng, seconds=9).tolist() == waveform.tolist()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_clip_always_sounds_alike(name):
  waveform = tones_and_noise(40_000)
  before = waveform.copy()
  first = apply(name, waveform)
  np.testing.assert_array_equal(waveform, before)
  np.testing.assert_array_equal(apply(name, waveform), first)
  if "noise" in name or name == "reverberation":
    assert np.abs(apply(name, waveform, fname="64761.wav") - first).max() > 0.01


def test_the_draw_is_the_same_in_every_process():
  code = (
    "from audiotag_jax.audio import perturb;"
    "print(perturb.generator('64760.wav').integers(2**32))"
  )
  output = subprocess.check_output([sys.executable, "-c", code], text=True)
  assert int(output) == perturb.generator("64760.wav").integers(2**32)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 32_000, 96_000])
@pytest.mark.parametrize("num_samples", [1, 2, 100, 9_600])
def test_short_clips_and_silence(name, rate_hz, num_samples):
  for waveform in (
    tones_and_noise(num_samples, rate_hz),
    np.zeros(num_samples, np.float32),
  ):
    perturbed = apply(name, waveform, rate_hz)
    length = min(num_samples, rate_hz) if name == "excerpt" else num_samples
    assert (perturbed.shape, perturbed.dtype) == ((length,), np.float32)
    assert np.isfinite(perturbed).all()
