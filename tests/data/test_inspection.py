import hashlib

import numpy as np
import pytest
import soundfile
from etils import epath

from audiotag_jax.data import inspection
from audiotag_jax.data.source import Clip, Rejected, Source
from audiotag_jax.errors import UserError

RATE_HZ = 8_000
CLASSES = ("Bell", "Rain", "Siren")


def tone(seconds, amplitude=0.5, rate_hz=RATE_HZ):
  """A 100-Hz sine <float64>[samples] of whole periods at 8 kHz."""
  return amplitude * np.sin(
    2 * np.pi * 100 * np.arange(round(seconds * rate_hz)) / rate_hz
  )


def noise(seed, samples=4_000):
  """Uniform noise <float64>[samples] without an offset."""
  samples = np.random.default_rng(seed).uniform(-0.5, 0.5, samples)
  return samples - samples.mean()


def measured(samples, rate_hz=RATE_HZ):
  channels = np.asarray(samples, np.float32).reshape(len(samples), -1)
  values = inspection.measure(channels, rate_hz)
  return dict(zip(inspection.MEASURES.names, values, strict=True))


@pytest.fixture
def make_source(tmp_path):
  """Writes clips (name, split, labels, samples[, rate]) and returns their source."""

  def make(*clips, rejected=()):
    written = []
    for name, split, labels, samples, *rate_hz in clips:
      path = tmp_path / name
      if samples is not None:
        # As integers: libsndfile's scale for floats is another in FLAC than in WAV.
        integers = np.rint(samples * 32_767).astype(np.int16)
        soundfile.write(path, integers, *(rate_hz or [RATE_HZ]))
      written.append(Clip(path.stem, epath.Path(path), labels, split))
    place = epath.Path(tmp_path)
    return Source("manifest", place, CLASSES, tuple(written), tuple(rejected))

  return make


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
  assert m["sha256"].encode() == inspection.SILENT_SHA256


def test_clipping_is_three_samples_in_a_row_at_full_scale():
  samples = np.zeros((1_000, 2))
  samples[10] = 1.0  # a normalised peak, in both channels
  samples[20:22, 0] = 1.0  # two in a row
  samples[30:33, 0] = 32_766 / 32_768  # three, at a step below full scale
  samples[40:43, 0] = 32_765 / 32_768  # three, at two steps below
  samples[50:55, 1] = -1.0  # five, negative
  samples[-4:, 1] = (1, -1, 1, 1)  # four, up to the end
  assert measured(samples)["clipped_share"] == (3 + 5 + 4) / 2_000
  # Interleaved, the channels' peaks are neighbours; they are no run.
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


def test_duplicates_are_found_across_formats_padding_and_splits(make_source):
  same = noise(0)
  source = make_source(
    ("a.wav", "train", (0, 1), same),
    ("b.flac", "eval", (0,), np.r_[np.zeros(50), same, np.zeros(9)]),
    ("c.wav", "train", (2,), noise(1)),
    ("d.flac", "train", (2,), np.stack([noise(1), noise(1)], axis=1)),
    ("e.wav", "val", (1,), noise(2)),
    ("f.wav", "train", (1,), np.zeros(4_000)),
    ("g.wav", "eval", (1,), np.zeros(4_000)),
    ("h.wav", "eval", (0, 1), same * 0.9),
  )
  inspected = inspection.inspect_source(source)
  groups = inspection.find_duplicates(inspected)
  assert groups == [
    inspection.Duplicates((0, 1), ("train", "eval"), 0.5),
    inspection.Duplicates((2, 3), ("train",), 1.0),
  ]
  summary = inspection.summarize(inspected, groups)
  assert summary["duplicates"] == {
    "recordings": 2,
    "clips": 4,
    "recordings_across_splits": 1,
    "clips_across_splits": 2,
  }
  found = {row["what"]: (row["count"], row["names"]) for row in summary["look_at"]}
  leak = found["recordings in more than one split (leakage)"]
  assert leak == (1, ("a (train) = b (eval)",))
  assert found["recordings more than once in a split"][1] == ("c (train) = d (train)",)
  assert found["recordings whose duplicates differ in their labels"][0] == 1
  assert found["clips that are silent throughout"] == (2, ("f (0.5 s)", "g (0.5 s)"))
  assert found["different numbers of channels"][1] == ("1 (7 clips)", "2 (1 clips)")


def test_every_row_is_decoded_failed_or_rejected(make_source, tmp_path):
  (tmp_path / "broken.wav").write_bytes(b"no audio")
  rejected = [Rejected("x", "val", "has no labels"), Rejected("y", "test", "is odd")]
  source = make_source(
    ("good.wav", "train", (0,), noise(0, 8_000)),
    ("also.wav", "eval", (0, 2), noise(1, 4_000)),
    ("gone.wav", "train", (1,), None),
    ("broken.wav", "eval", (1,), None),
    rejected=rejected,
  )
  inspected = inspection.inspect_source(source)
  assert inspected.failed[2] == "is missing"
  assert inspected.failed[3].startswith("cannot be decoded")
  summary = inspection.summarize(inspected, [])
  rows = {
    name: tuple(row[key] for key in ("rows", "decoded", "failed", "rejected"))
    for name, row in summary["totals"].items()
  }
  assert rows == {
    "train": (2, 1, 1, 0),
    "val": (1, 0, 0, 1),
    "eval": (2, 1, 1, 0),
    "all": (6, 2, 2, 2),
  }
  assert summary["totals"]["all"]["hours"] == pytest.approx(1.5 / 3600)
  assert summary["totals"]["all"]["labels_per_clip"] == 1.5
  assert summary["rejected"] == {"has no labels": 1, "is odd": 1}
  assert summary["failed"]["is missing"] == 1
  assert summary["clips_by_number_of_labels"] == {
    "train": [0, 1],
    "val": [],
    "eval": [0, 0, 1],
  }
  assert set(summary["quantiles"]["duration_s"]) == {"train", "eval"}
  text = inspection.describe(summary)
  assert "rows      6 = 2 decoded + 2 failed + 2 rejected" in text
  assert "clips     2 (train 1, val 0, eval 1), 0.00 hours, 0.50 to 1.00 s" in text
  assert "classes   2 of 3; 1.50 labels per clip, 2 combinations" in text
  assert "gone is missing" in text


def test_classes_are_counted_where_their_clips_decode(make_source):
  source = make_source(
    *((f"r{i}.wav", "train", (1,), noise(i)) for i in range(10)),
    ("b.wav", "train", (0, 1), noise(10)),
    ("s.wav", "train", (2,), None),
    ("e.wav", "eval", (1, 2), noise(11)),
  )
  inspected = inspection.inspect_source(source)
  counts = inspection.class_counts(inspected)
  assert {split: n.tolist() for split, n in counts.items()} == {
    "train": [1, 11, 0],
    "val": [0, 0, 0],
    "eval": [0, 1, 1],
  }
  found = {
    f.what: (f.count, f.names) for f in inspection.find_suspicious(inspected, [])
  }
  assert found["classes lacking in train"] == (1, ("Siren",))
  assert found["classes lacking in val"] == (3, CLASSES)
  assert found["classes lacking in eval"] == (1, ("Bell",))
  assert found["classes with fewer than 10 train clips"] == (1, ("Bell 1",))
  assert inspection.label_combinations(inspected) == {(1,): 10, (0, 1): 1, (1, 2): 1}


def test_suspicious_audio_is_named_worst_first(make_source):
  clipped = np.r_[noise(0), np.ones(4)], np.r_[noise(1), np.ones(8)]
  source = make_source(
    ("some.wav", "train", (0,), clipped[0]),
    ("more.wav", "val", (1,), clipped[1]),
    ("offset.wav", "eval", (2,), noise(2) - 0.25),
    ("short.wav", "train", (2,), noise(3, 800)),
    ("rare.wav", "train", (2,), noise(4, 16_000), 16_000),
    ("long.wav", "train", (2,), noise(5, 30 * RATE_HZ + 80)),
    ("half.wav", "train", (2,), np.r_[noise(6), np.zeros(12_000)]),
  )
  found = inspection.find_suspicious(inspection.inspect_source(source), [])
  names = {finding.what: finding.names for finding in found}
  clips = "clips that clip (3 samples at full scale in a row, or more)"
  assert names[clips] == ("more (0.20% of samples)", "some (0.10% of samples)")
  (offset,) = names["clips with a DC offset beyond 0.01 of full scale"]
  assert offset.startswith("offset (-0.2")
  assert names["clips shorter than 0.3 s"] == ("short (0.100 s)",)
  assert names["clips longer than 30 s"] == ("long (30.0 s)",)
  assert names["clips that are silent for more than half their time"] == ("half (75%)",)
  rates = names["different sample rates in Hz"]
  assert rates == ("8000 (6 clips)", "16000 (1 clips)")


def test_files_cut_into_several_splits_are_named(make_source):
  source = make_source(("a.wav", "train", (0,), noise(0, 16_000)))
  (clip,) = source.clips
  parts = (
    Clip("a_0", clip.audio, (0,), "train", 0.0, 1.0),
    Clip("a_1", clip.audio, (0,), "eval", 1.0, None),
  )
  inspected = inspection.inspect_source(
    Source("manifest", source.place, CLASSES, parts)
  )
  assert inspected.measures["duration_s"].tolist() == [1.0, 1.0]
  (finding,) = (
    f for f in inspection.find_suspicious(inspected, []) if "cut from" in f.what
  )
  assert (finding.count, finding.names) == (1, ("a.wav",))


def test_pairs_are_ranked_by_count_and_by_lift():
  # Of 100 clips: 0 and 1 come together by chance, 2 only with 3, 4 once with 0.
  together = np.diag([50, 40, 10, 8, 1])
  for a, b, count in ((0, 1, 20), (2, 3, 8), (0, 4, 1)):
    together[a, b] = together[b, a] = count
  pairs = inspection.strongest_pairs(together, 100)
  assert pairs["count"] == [(0, 1, 20, 1.0), (2, 3, 8, 10.0), (0, 4, 1, 2.0)]
  assert pairs["lift"] == [(2, 3, 8, 10.0)]
  assert inspection.strongest_pairs(together, 100, most=1)["count"] == [(0, 1, 20, 1.0)]


def test_co_occurrence_counts_pairs_of_decoded_clips(make_source):
  source = make_source(
    ("a.wav", "train", (0, 1), noise(0)),
    ("b.wav", "val", (0, 1, 2), noise(1)),
    ("c.wav", "eval", (1, 2), None),
  )
  together = inspection.co_occurrence(inspection.inspect_source(source))
  assert together.tolist() == [[2, 2, 1], [2, 2, 1], [1, 1, 1]]


def test_a_source_of_which_nothing_decodes_is_one_line(make_source):
  source = make_source(("gone.wav", "train", (0,), None))
  with pytest.raises(
    UserError, match=r"none of its 1 clips can .* \(gone is missing\)"
  ):
    inspection.inspect_source(source)
  with pytest.raises(UserError, match="none of its 0 clips can be decoded: check"):
    inspection.inspect_source(make_source())
