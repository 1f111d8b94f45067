import hashlib

import numpy as np
import pytest

from audiotag_jax.errors import UserError
from audiotag_jax.inspection import measure

RATE_HZ = 8_000


def tone(seconds, amplitude=0.5, rate_hz=RATE_HZ):
  """A 100-Hz sine <float64>[samples] with whole periods at 8 kHz."""
  return amplitude * np.sin(
    2 * np.pi * 100 * np.arange(round(seconds * rate_hz)) / rate_hz
  )


def measured(samples, rate_hz=RATE_HZ):
  channels = np.asarray(samples, np.float32).reshape(len(samples), -1)
  values = measure.measure(channels, rate_hz)
  return dict(zip(measure.MEASURES.names, values, strict=True))


def test_a_tone_has_its_level_length_peak_and_offset():
  m = measured(tone(1.0) + 0.25)
  assert m["duration_s"] == 1.0
  assert (m["sample_rate_hz"], m["channels"]) == (8_000, 1)
  assert m["peak"] == pytest.approx(0.75, abs=1e-6)
  assert m["dc_offset"] == pytest.approx(0.25, abs=1e-6)
  assert m["rms_db"] == pytest.approx(10 * np.log10(0.125 + 0.0625), abs=1e-4)
  assert m["silent_share"] == m["clipped_share"] == 0


def test_silence_is_counted_in_blocks_before_after_and_in_all():
  # 0.2 s, a tone of 0.5 s, 0.1 s, a tone of 0.1 s, 0.325 s: the last block is half one.
  gaps = [np.zeros(round(s * RATE_HZ)) for s in (0.2, 0.1, 0.325)]
  m = measured(np.r_[gaps[0], tone(0.5), gaps[1], tone(0.1), gaps[2]])
  assert m["leading_silence_s"] == pytest.approx(0.2)
  assert m["trailing_silence_s"] == pytest.approx(0.325)
  assert m["silent_share"] == pytest.approx(0.625 / 1.225)


@pytest.mark.parametrize(("level_db", "silent_share"), [(-60.5, 1), (-59.5, 0)])
def test_silence_is_what_is_below_minus_60_db(level_db, silent_share):
  m = measured(np.full(8_100, 10 ** (level_db / 20)))
  assert m["silent_share"] == silent_share
  assert (
    m["leading_silence_s"] == m["trailing_silence_s"] == silent_share * 8_100 / 8_000
  )


def test_zeros_are_silent_at_the_floor():
  m = measured(np.zeros(1))
  assert m["rms_db"] == pytest.approx(-120)
  assert m["silent_share"] == 1
  assert m["sha256"].encode() == measure.SILENT_SHA256


def test_clipping_is_three_samples_in_a_row_at_full_scale():
  samples = np.zeros((1_000, 2))
  samples[10] = 1.0  # a normalised peak, in both channels
  samples[20:22, 0] = 1.0  # two in a row
  samples[30:33, 0] = 32_766 / 32_768  # three, at a step below full scale
  samples[40:43, 0] = 32_765 / 32_768  # three, at two steps below
  samples[50:55, 1] = -1.0  # five, negative
  samples[-4:, 1] = (1, -1, 1, 1)  # four, up to the end
  assert measured(samples)["clipped_share"] == (3 + 5 + 4) / 2_000
  # Interleaved, the channels' peaks are neighbours; they are not a run.
  samples = np.zeros((1_000, 2))
  samples[10:12] = 1.0
  assert measured(samples)["clipped_share"] == 0


def test_channels_are_measured_together_and_mixed_for_the_rest():
  left, right = tone(1.0, 0.8), np.full(RATE_HZ, 0.1)
  m = measured(np.stack([left, right], axis=1))
  assert (m["channels"], m["duration_s"]) == (2, 1.0)
  assert m["rms_db"] == pytest.approx(10 * np.log10((0.32 + 0.01) / 2), abs=1e-4)
  assert m["dc_offset"] == pytest.approx(0.05, abs=1e-6)


def test_the_hash_is_of_16_bit_samples_without_the_zeros_at_their_ends():
  samples = np.array([3, 0, -5], np.int16)
  expected = hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest()
  padded = np.r_[0, 0, samples, 0] / np.float32(32_768)
  for waveform in (padded, padded[2:], np.stack([padded, padded], axis=1)):
    assert measured(waveform)["sha256"] == expected
  assert measured(-padded)["sha256"] != expected


def test_a_source_of_which_nothing_decodes_is_one_line(make_source):
  source = make_source(("gone.wav", "train", (0,), None))
  with pytest.raises(
    UserError, match=r"none of its 1 clips can .* \(gone is missing\)"
  ):
    measure.inspect_source(source)
  with pytest.raises(UserError, match="none of its 0 clips can be decoded: check"):
    measure.inspect_source(make_source())


def test_quiet_clips_are_told_from_silence_and_from_each_other():
  one, other = np.random.default_rng(0).normal(0, 1e-6, (2, 800)).astype(np.float32)
  hashes = {measure.audio_sha256(mono) for mono in (one, other, 0 * one)}
  assert len(hashes) == 3
