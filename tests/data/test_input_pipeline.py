import dataclasses
import json

import ml_collections
import numpy as np
import pytest
import soundfile
from etils import epath
from scipy import sparse

from audiotag_jax.data import dataset, input_pipeline, log_mel_cache, records, sampling
from audiotag_jax.data.clips import ClipIndex, normalize, read_index, read_waveform
from audiotag_jax.data.inputs import inputs_shape
from audiotag_jax.frontend import log_mel_tf, mel

ONE_PROCESS = input_pipeline.Process()


@pytest.fixture
def config(tiny_config):
  tiny_config.evaluation.batch_size = 4
  return tiny_config


@pytest.fixture
def clips(config):
  return dataset.load_splits(config)


def train_stream(clips, config, first_step=0, process=ONE_PROCESS):
  stream = input_pipeline.train_batches(
    clips["train"], config, first_step=first_step, process=process
  )
  return list(stream)


def eval_rows(clips, config, process=ONE_PROCESS):
  batches = list(input_pipeline.eval_batches(clips["eval"], config, process=process))
  return {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}


def assert_same_batches(a, b):
  assert len(a) == len(b)
  for left, right in zip(a, b, strict=True):
    for key, value in left.items():
      np.testing.assert_array_equal(value, right[key], err_msg=key)


def full_log_mel(clips, clip, config, waveform=None):
  if waveform is None:
    waveform = read_waveform(clips, clip, config.data)
  return log_mel_tf.log_mel(waveform, mel.LogMelParams(**config.frontend)).numpy()


def test_shapes_and_types(clips, config):
  batches = train_stream(clips, config)
  assert len(batches) == 6
  assert batches[0]["inputs"].shape == (8, 26, 64)
  assert batches[0]["inputs"].dtype == np.float32
  assert batches[0]["labels"].shape == (8, 3)
  assert inputs_shape(config) == (26, 64)


def test_labels_stay_with_their_clips(clips, config):
  config.train.batch_size, config.train.num_steps = 12, 1
  config.data.clip_s, config.data.features = 2.5, "waveform"
  batch = train_stream(clips, config)[0]
  order = sampling.shuffled(np.arange(12), 12, config.seed)
  np.testing.assert_array_equal(batch["labels"], clips["train"].labels[order].toarray())
  for clip, row in zip(order, batch["inputs"], strict=True):
    waveform = read_waveform(clips["train"], clip, config.data).numpy()
    length = len(waveform)
    begins = [i for i in range(length) if np.array_equal(row[i:][:length], waveform)]
    assert len(begins) == 1
    expected = np.resize(np.roll(waveform, begins[0]), 20_000)
    np.testing.assert_array_equal(row, expected)


def test_the_stream_at_step_k_is_the_same_after_a_restart(clips, config):
  assert_same_batches(
    train_stream(clips, config, first_step=3), train_stream(clips, config)[3:]
  )


def test_processes_share_out_each_batch(clips, config):
  whole = train_stream(clips, config)
  parts = [
    train_stream(clips, config, process=input_pipeline.Process(i, 2)) for i in range(2)
  ]
  joined = [
    {key: np.concatenate([a[key], b[key]]) for key in a}
    for a, b in zip(*parts, strict=True)
  ]
  assert_same_batches(joined, whole)


def test_training_crops_differ_from_epoch_to_epoch(clips, config):
  config.train.batch_size = 12
  long_clip = int(np.argmax(clips["train"].num_samples))
  seen = []
  for step, batch in enumerate(train_stream(clips, config)):
    order = sampling.shuffled(np.arange(12) + 12 * step, 12, config.seed)
    seen.append(batch["inputs"][list(order).index(long_clip)])
  assert len({x.tobytes() for x in seen}) == 6


@pytest.mark.parametrize("pad", ["repeat", "zero"])
def test_cached_log_mels_give_the_same_batches(clips, config, tmp_path, pad):
  config.data.pad = pad
  config.evaluation.crop, config.evaluation.hop_s = "windows", 0.7
  folder = epath.Path(next((tmp_path / "data").rglob("clips.csv")).parent)
  whole_set, _ = read_index(folder)
  cached = log_mel_cache.cache_log_mels(whole_set, folder, config)
  (params,) = folder.glob("log_mels-*/params.json")
  assert json.loads(params.read_text())["normalize"] == config.data.normalize
  from_cache = {
    name: dataclasses.replace(split, log_mels=cached) for name, split in clips.items()
  }
  # The spacing of float16 between -128 and -64 dB is 0.0625.
  for computed, kept in zip(
    [*train_stream(clips, config), eval_rows(clips, config)],
    [*train_stream(from_cache, config), eval_rows(from_cache, config)],
    strict=True,
  ):
    assert kept["inputs"].dtype == np.float16
    np.testing.assert_allclose(kept["inputs"], computed["inputs"], atol=0.032)
    others = [{k: v for k, v in x.items() if k != "inputs"} for x in (computed, kept)]
    assert_same_batches(*([x] for x in others))


def test_noise_is_mixed_into_training_alone(clips, config, tmp_path):
  config.data.features, config.data.normalize = "waveform", "none"
  quiet = train_stream(clips, config)
  evaluated = eval_rows(clips, config)
  noise = np.random.default_rng(0).normal(0, 0.1, 44_100)
  soundfile.write(tmp_path / "noise.wav", noise, 44_100)
  config.augment.noise_dir = str(tmp_path)
  config.augment.noise_snr_db = (10.0, 20.0)
  noisy = train_stream(clips, config)
  levels = np.concatenate(
    [snr_db(a["inputs"], b["inputs"]) for a, b in zip(quiet, noisy, strict=True)]
  )
  some = np.isfinite(levels)
  assert 14 < some.sum() < 34  # half of 48
  assert levels[some].min() > 9.99
  assert levels[some].max() < 20.01
  assert np.ptp(levels[some]) > 5
  assert_same_batches([eval_rows(clips, config)], [evaluated])
  assert_same_batches(train_stream(clips, config, first_step=3), noisy[3:])


def snr_db(clean, noisy):
  noise = ((noisy - clean) ** 2).mean(axis=1)
  with np.errstate(divide="ignore"):
    return 10 * np.log10((clean**2).mean(axis=1) / noise)


def test_evaluation_yields_every_clip_once_padded_and_masked(clips, config):
  rows = eval_rows(clips, config)  # 7 clips in batches of 4
  assert rows["mask"].tolist() == [1.0] * 7 + [0.0]
  assert rows["clip"][:7].tolist() == list(range(7))
  np.testing.assert_array_equal(rows["labels"][:7], clips["eval"].labels.toarray())
  assert_same_batches([rows], [eval_rows(clips, config)])


def test_evaluation_is_shared_out_among_processes(clips, config):
  parts = [eval_rows(clips, config, input_pipeline.Process(i, 2)) for i in range(2)]
  clip = np.concatenate([part["clip"][part["mask"] > 0] for part in parts])
  assert sorted(clip) == list(range(7))


def test_center_crop(clips, config):
  config.data.normalize = "none"
  long_clip = int(np.argmax(clips["eval"].num_samples))
  waveform = read_waveform(clips["eval"], long_clip, config.data).numpy()
  log_mel = full_log_mel(clips["eval"], long_clip, config, waveform)
  assert len(log_mel) == 63  # The inputs are the 26 in the middle.
  np.testing.assert_allclose(
    eval_rows(clips, config)["inputs"][long_clip], log_mel[18 : 18 + 26], atol=1e-3
  )


def test_windows_cover_each_clip_to_its_end(clips, config):
  config.data.features = "waveform"
  config.evaluation.crop, config.evaluation.hop_s = "windows", 0.5
  clip, start = input_pipeline.eval_windows(clips["eval"], config)
  samples = clips["eval"].num_samples
  assert sorted(set(samples.tolist())) == [2_400, 8_000, 20_000]
  for i, length in enumerate(samples):
    expected = [0, 4_000, 8_000, 12_000] if length == 20_000 else [0]
    assert start[clip == i].tolist() == expected
  rows = eval_rows(clips, config)
  assert rows["clip"][rows["mask"] > 0].tolist() == clip.tolist()


def test_the_last_window_ends_where_the_clip_does(clips, config):
  config.evaluation.crop, config.evaluation.hop_s = "windows", 0.7
  clip, start = input_pipeline.eval_windows(clips["eval"], config)
  long_clip = int(np.argmax(clips["eval"].num_samples))
  # Log-mels count in frames of 40 ms, here 63; waveforms count in samples.
  assert start[clip == long_clip].tolist() == [0, 18, 36, 37]
  config.data.features = "waveform"
  clip, start = input_pipeline.eval_windows(clips["eval"], config)
  assert start[clip == long_clip].tolist() == [0, 5_600, 11_200, 12_000]


SHORT_CLIPS = pytest.mark.parametrize(
  ("pad", "start", "expected"),
  [
    ("repeat", 0, [1, 2, 3, 1, 2]),
    ("repeat", -1, [3, 1, 2, 3, 1]),
    ("repeat", -2, [2, 3, 1, 2, 3]),
    ("zero", 0, [1, 2, 3, 0, 0]),
    ("zero", -2, [0, 0, 1, 2, 3]),
  ],
)


@SHORT_CLIPS
def test_short_clips_are_filled_up(pad, start, expected):
  waveform = np.array([1, 2, 3], np.float32)
  fixed = input_pipeline.fix_length(waveform, 5, np.int64(start), pad)
  assert fixed.numpy().tolist() == expected


@SHORT_CLIPS
def test_short_log_mels_are_filled_up_with_silence_of_their_own(pad, start, expected):
  log_mel = np.array([[1, 10], [2, 20], [3, 30]], np.float32)
  silence = mel.MIN_DB
  fixed = input_pipeline.fix_length(log_mel, 5, np.int64(start), pad, silence).numpy()
  assert fixed[:, 0].tolist() == [x or silence for x in expected]
  assert fixed[:, 1].tolist() == [10 * x or silence for x in expected]


@pytest.mark.parametrize("pad", ["repeat", "zero"])
def test_short_log_mels_are_filled_up_the_same_if_they_are_cached(
  config, tmp_path, pad
):
  config.data.pad = pad
  config.data.clip_s = 4 * config.frontend.hop_samples / 8_000
  config.frontend.num_mels = 2
  log_mel = np.array([[1, 10], [2, 20], [3, 30]], np.float16)
  (tmp_path / "log_mels").write_bytes(log_mel.tobytes())
  zero, num_bytes = np.array([0]), np.array([log_mel.nbytes])
  cached = records.Chunks(
    paths=(str(tmp_path / "log_mels"),),
    file=zero,
    start=zero,
    num_bytes=num_bytes,
    chunk_bytes=log_mel.nbytes,
    first_chunk=zero,
    crcs=np.array(list(records.chunk_crcs(log_mel.tobytes(), log_mel.nbytes))),
  )
  clips = ClipIndex(
    classes=("Bell",),
    fname=np.array(["1"]),
    labels=sparse.csr_array(np.ones((1, 1), np.uint8)),
    num_samples=np.array([2 * config.frontend.hop_samples]),
    source_hash=np.array([""]),
    record=zero,
    records=None,
    features=None,
    log_mels=cached,
  )
  batches = train_stream({"train": clips}, config)
  seen = [row.tolist() for batch in batches for row in batch["inputs"]]
  # The window starts with the clip, or up to 2 frames before it.
  for start in (0, -1, -2):
    fixed = input_pipeline.fix_length(
      log_mel.astype(np.float32), 5, np.int64(start), pad, mel.MIN_DB
    )
    assert fixed.numpy().tolist() in seen
    seen = [row for row in seen if row != fixed.numpy().tolist()]
  assert not seen


@pytest.mark.parametrize("pad", ["repeat", "zero"])
def test_long_clips_are_cropped_from_the_start_given(pad):
  waveform = np.arange(9, dtype=np.float32)
  fixed = input_pipeline.fix_length(waveform, 5, np.int64(3), pad)
  assert fixed.numpy().tolist() == [3, 4, 5, 6, 7]


def test_normalisation_to_the_peak_or_none(config):
  waveform = np.array([0.1, -0.5, 0.25], np.float32)
  np.testing.assert_allclose(normalize(waveform, config.data), [0.2, -1.0, 0.5])
  silence = np.zeros(3, np.float32)
  assert normalize(silence, config.data).numpy().tolist() == [0, 0, 0]
  config.data.normalize = "none"
  np.testing.assert_array_equal(normalize(waveform, config.data), waveform)


def test_a_recording_is_perturbed_before_it_is_normalised_and_cut(clips, config):
  config.data.features = "waveform"
  split = clips["eval"]
  stored = ml_collections.ConfigDict({"normalize": "none"})
  heard = {}

  def perturb(waveform, fname):
    heard[fname] = waveform
    return np.square(waveform, dtype=np.float32)

  batches = input_pipeline.eval_batches(
    split, config, process=ONE_PROCESS, perturb=perturb
  )
  inputs = np.concatenate([batch["inputs"] for batch in batches])
  assert sorted(heard) == sorted(split.fname)
  for clip, fname in enumerate(split.fname):
    recording = heard[fname]
    assert len(recording) == split.num_samples[clip]
    np.testing.assert_array_equal(recording, read_waveform(split, clip, stored))
    assert 0.3 < np.abs(recording).max() < 1.0
    start = max(0, len(recording) - 8_000) // 2
    squared = np.square(recording) / np.square(recording).max()
    np.testing.assert_allclose(
      inputs[clip], np.resize(squared[start:], 8_000), rtol=1e-6
    )


def test_a_perturbation_that_changes_nothing(clips, config):
  batches = input_pipeline.eval_batches(
    clips["eval"], config, process=ONE_PROCESS, perturb=lambda waveform, _: waveform
  )
  unperturbed = input_pipeline.eval_batches(clips["eval"], config, process=ONE_PROCESS)
  assert_same_batches(list(batches), list(unperturbed))
