"""Perturbations of recordings: noise, lost bands, coding, rooms and excerpts.

Each function takes a mono waveform <float32>[samples], its rate and a random generator,
and returns <float32>[samples]. Only `excerpt` changes the length. Nothing is clipped: a
sum may exceed full scale.
"""

import hashlib
import io

import numpy as np
import scipy.fft
import scipy.signal
import soundfile
import soxr

# Lowest frequency of pink noise, at the limit of hearing. Without it, half of the power
# of 1/f in a 30 s clip would be inaudible, and none of it in a 50 ms clip.
PINK_FLOOR_HZ = 20.0
# Order of the Butterworth filters: beyond their edges they fall 48 dB per octave.
FILTER_ORDER = 8
# Sample rates of MPEG-1, 2 and 2.5.
MP3_RATES_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
# Bit rates (lowest, highest) in kbit/s of MPEG-1, 2 and 2.5, by the lowest sample rate
# of each. libsndfile maps its compression level to them linearly (mpeg_l3_encode.c).
MP3_KBIT_PER_S = {32_000: (32, 320), 16_000: (8, 160), 0: (8, 64)}
# Delay in samples of LAME's encoder (576) and of a decoder (529). A file whose frames
# are large enough for LAME's tag states the delay, and libsndfile then removes it.
MP3_DELAY = 576 + 529


def generator(fname: str) -> np.random.Generator:
  """The generator of a clip's noise: the same in every process, run and model."""
  digest = hashlib.sha256(fname.encode()).digest()
  return np.random.default_rng(int.from_bytes(digest, "big"))


def add_noise(
  waveform: np.ndarray,
  rate_hz: int,
  rng: np.random.Generator,
  *,
  color: str,
  snr_db: float,
) -> np.ndarray:
  """Adds "white" or "pink" noise; see `mix`.

  A generator's noise is the same at every ratio, only louder or softer.
  """
  draw = {"white": white_noise, "pink": pink_noise}[color]
  return mix(waveform, draw(len(waveform), rate_hz, rng), snr_db)


def mix(waveform: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
  """Adds noise <float32>[samples] at a signal-to-noise ratio.

  The ratio is that of the mean powers over the clip, so a silent clip stays silent.
  Silent noise adds nothing.
  """
  power = _power(noise)
  ratio = _power(waveform) / power if power else 0.0
  gain = np.sqrt(ratio * 10 ** (-snr_db / 10))
  return (waveform + gain * noise).astype(np.float32)


def white_noise(num_samples: int, _: int, rng: np.random.Generator) -> np.ndarray:
  """Draws noise of equal power in every band of the same width, up to Nyquist."""
  return rng.standard_normal(num_samples, dtype=np.float32)


def pink_noise(num_samples: int, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
  """Draws noise of equal power in every octave from `PINK_FLOOR_HZ` to Nyquist."""
  size = scipy.fft.next_fast_len(max(num_samples, rate_hz), real=True)
  spectrum = scipy.fft.rfft(white_noise(size, rate_hz, rng))
  frequency_hz = scipy.fft.rfftfreq(size, 1 / rate_hz)
  spectrum[frequency_hz < PINK_FLOOR_HZ] = 0.0
  spectrum /= np.sqrt(np.maximum(frequency_hz, PINK_FLOOR_HZ))
  return scipy.fft.irfft(spectrum, size)[:num_samples]


def _power(waveform: np.ndarray) -> np.float64:
  return np.mean(np.square(waveform, dtype=np.float64))


def limit_band(
  waveform: np.ndarray,
  rate_hz: int,
  _: np.random.Generator,
  *,
  low_hz: float | None = None,
  high_hz: float | None = None,
) -> np.ndarray:
  """Removes frequencies below `low_hz` and above `high_hz`.

  Each edge is 3 dB down. An edge at or above Nyquist is ignored: it would remove
  nothing.
  """
  for edge_hz, kind in ((low_hz, "highpass"), (high_hz, "lowpass")):
    if edge_hz is not None and edge_hz < rate_hz / 2:
      sections = scipy.signal.butter(
        FILTER_ORDER, edge_hz, kind, fs=rate_hz, output="sos"
      )
      waveform = scipy.signal.sosfilt(sections, waveform)
  return waveform.astype(np.float32)


def code_mp3(
  waveform: np.ndarray, rate_hz: int, _: np.random.Generator, *, kbit_per_s: int
) -> np.ndarray:
  """Codes as MP3 of a constant bit rate (LAME, in libsndfile) and decodes.

  A waveform at a rate that MP3 lacks is coded at the next higher rate, 48 kHz at most.
  The codec's delay is removed.
  """
  coded_hz = min((r for r in MP3_RATES_HZ if r >= rate_hz), default=MP3_RATES_HZ[-1])
  original = _resample(waveform, rate_hz, coded_hz)
  file = io.BytesIO()
  soundfile.write(
    file,
    original,
    coded_hz,
    format="MP3",
    subtype="MPEG_LAYER_III",
    bitrate_mode="CONSTANT",
    compression_level=_mp3_compression_level(coded_hz, kbit_per_s),
  )
  file.seek(0)
  decoded, _ = soundfile.read(file, dtype="float32")
  if len(decoded) > len(original):
    decoded = decoded[MP3_DELAY:]
  decoded = _resample(_fit(decoded, len(original)), coded_hz, rate_hz)
  return _fit(decoded, len(waveform))


def _mp3_compression_level(rate_hz: int, kbit_per_s: int) -> float:
  """Returns the level that libsndfile maps to a bit rate; LAME takes the next rate."""
  bounds = (b for lowest_hz, b in MP3_KBIT_PER_S.items() if rate_hz >= lowest_hz)
  low, high = next(bounds)
  # libsndfile cuts fractions off. Half a kbit/s more keeps rounding from costing one
  # kbit/s, and keeps the level below 1.0, which libsndfile refuses.
  return (high - kbit_per_s - 0.5) / (high - low)


def narrow(
  waveform: np.ndarray, rate_hz: int, _: np.random.Generator, *, through_hz: int
) -> np.ndarray:
  """Resamples to a lower rate and back; leaves a waveform at that rate or below."""
  if rate_hz <= through_hz:
    return waveform
  narrowed = _resample(waveform, rate_hz, through_hz)
  return _fit(_resample(narrowed, through_hz, rate_hz), len(waveform))


def reverberate(
  waveform: np.ndarray, rate_hz: int, rng: np.random.Generator, *, rt60_s: float
) -> np.ndarray:
  """Puts a recording in a room: the direct sound, and noise that dies away after it.

  The room's response is noise that falls 60 dB in `rt60_s` and ends there (Moorer,
  "About this reverberation business", 1979). The noise has as much energy as the direct
  sound, as at a room's critical distance.
  """
  time_s = np.arange(1, round(rt60_s * rate_hz) + 1) / rate_hz
  tail = rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / rt60_s)
  response = np.concatenate([[1.0], tail / np.linalg.norm(tail)]).astype(np.float32)
  return scipy.signal.oaconvolve(waveform, response)[: len(waveform)]


def excerpt(
  waveform: np.ndarray, rate_hz: int, _: np.random.Generator, *, seconds: float
) -> np.ndarray:
  """Cuts out the middle `seconds`; a shorter clip is left as it is."""
  length = min(len(waveform), round(seconds * rate_hz))
  start = (len(waveform) - length) // 2
  return waveform[start : start + length]


def _resample(waveform: np.ndarray, from_hz: int, to_hz: int) -> np.ndarray:
  """Resamples; a waveform shorter than the filter gives at least one sample."""
  if from_hz == to_hz:
    return waveform
  length = max(1, round(len(waveform) * to_hz / from_hz))
  return _fit(soxr.resample(waveform, from_hz, to_hz, quality="HQ"), length)


def _fit(waveform: np.ndarray, length: int) -> np.ndarray:
  """Cuts a waveform to a length, or pads it with silence to that length."""
  return np.pad(waveform[:length], (0, max(0, length - len(waveform))))
