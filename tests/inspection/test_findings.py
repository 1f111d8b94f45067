import numpy as np

from audiotag_jax.data.sources.source import Clip, Source
from audiotag_jax.inspection import findings, measure
from audiotag_jax.inspection.summary import label_combinations, summarize

RATE_HZ = 8_000
CLASSES = ("Bell", "Rain", "Siren")


def noise(seed, samples=4_000):
  """Uniform noise <float64>[samples] without an offset."""
  samples = np.random.default_rng(seed).uniform(-0.5, 0.5, samples)
  return samples - samples.mean()


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
  inspected = measure.inspect_source(source)
  groups = findings.find_duplicates(inspected)
  assert groups == [
    findings.Duplicates((0, 1), ("train", "eval"), 0.5),
    findings.Duplicates((2, 3), ("train",), 1.0),
  ]
  summary = summarize(inspected, groups)
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


def test_classes_are_counted_where_their_clips_decode(make_source):
  source = make_source(
    *((f"r{i}.wav", "train", (1,), noise(i)) for i in range(10)),
    ("b.wav", "train", (0, 1), noise(10)),
    ("s.wav", "train", (2,), None),
    ("e.wav", "eval", (1, 2), noise(11)),
  )
  inspected = measure.inspect_source(source)
  counts = measure.class_counts(inspected)
  assert {split: n.tolist() for split, n in counts.items()} == {
    "train": [1, 11, 0],
    "val": [0, 0, 0],
    "eval": [0, 1, 1],
  }
  found = {f.what: (f.count, f.names) for f in findings.find_suspicious(inspected, [])}
  assert found["classes lacking in train"] == (1, ("Siren",))
  assert found["classes lacking in val"] == (3, CLASSES)
  assert found["classes lacking in eval"] == (1, ("Bell",))
  assert found["classes with fewer than 10 train clips"] == (1, ("Bell 1",))
  assert label_combinations(inspected) == {(1,): 10, (0, 1): 1, (1, 2): 1}


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
  found = findings.find_suspicious(measure.inspect_source(source), [])
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
  inspected = measure.inspect_source(Source("manifest", source.place, CLASSES, parts))
  assert inspected.measures["duration_s"].tolist() == [1.0, 1.0]
  (finding,) = (
    f for f in findings.find_suspicious(inspected, []) if "cut from" in f.what
  )
  assert (finding.count, finding.names) == (1, ("a.wav",))
