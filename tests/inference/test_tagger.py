import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import panns_reference
import pytest
import soundfile
import tiny_models
from tqdm import tqdm

from audiotag_jax import model_directory
from audiotag_jax.errors import UserError
from audiotag_jax.evaluation import metrics
from audiotag_jax.inference import Tagger, tagger
from audiotag_jax.inference.events import find_events
from audiotag_jax.inference.tag_files import FileTagger, TagOptions
from audiotag_jax.models import panns
from audiotag_jax.models.create import create_from_description
from audiotag_jax.panns import convert, tables

pytestmark = pytest.mark.slow

RATE_HZ = 8_000


@pytest.fixture(scope="module")
def crnn(tmp_path_factory):
  return Tagger.load(tiny_models.write(tmp_path_factory.mktemp("crnn") / "model"))


@pytest.fixture(scope="module")
def cnn(tmp_path_factory):
  folder = tmp_path_factory.mktemp("cnn") / "model"
  return Tagger.load(tiny_models.write(folder, "Cnn6"))


def sound(seconds, seed=0):
  """Noise that swells and fades, with a tone in it."""
  rng = np.random.default_rng(seed)
  t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
  level = 0.1 + 0.09 * np.sin(2 * np.pi * 0.4 * t + seed)
  tone = 0.2 * np.sin(2 * np.pi * (300 + 200 * seed) * t)
  return (level * rng.standard_normal(len(t)) + tone).astype(np.float32)


def plain(model, waveform):
  """The outputs of the model alone, compiled for the waveform's own length."""
  outputs = jax.jit(lambda v, x: model.model.apply(v, x, train=False))(
    model.variables, waveform[None]
  )
  return jax.tree.map(lambda x: np.asarray(x)[0], outputs)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("seconds", tagger.LENGTHS_S)
def test_a_fixed_length_is_scored_as_it_is(crnn, seconds):
  waveform = sound(seconds)
  expected = plain(crnn, waveform)
  scores = crnn.tag(waveform, RATE_HZ)
  assert (scores.shape, scores.dtype) == ((3,), np.float32)
  np.testing.assert_allclose(scores, sigmoid(expected["logits"]), atol=1e-5)
  np.testing.assert_allclose(
    crnn.embed(waveform, RATE_HZ), expected["embedding"], atol=1e-5
  )


def test_agrees_with_panns_in_pytorch():
  name = "Cnn10"
  table = tables.TABLES[name](527)
  arrays = (
    (entry.key, panns_reference.weight(entry.key, entry.shape))
    for entry in table
    if entry.kind != "fixed"
  )
  front_end = dataclasses.asdict(panns.FRONT_END)
  description = model_directory.ModelDescription(
    name, {}, front_end, [f"class {i}" for i in range(527)], {}
  )
  model = Tagger(description, convert.to_flax(arrays, table)[0])
  expected = panns_reference.outputs(name)
  clips = panns_reference.waveforms(32_000)
  scores = model.tag_batch(list(clips), 32_000)
  assert np.abs(scores - expected["clipwise_output"]).max() <= 1e-4
  scale = np.abs(expected["embedding"]).max()
  embedding = model.embed(clips[1], 32_000)
  assert np.abs(embedding - expected["embedding"][1]).max() <= 1e-4 * scale
  panns_reference.weight.cache_clear()


@pytest.mark.parametrize("name", ["crnn", "cnn"])
@pytest.mark.parametrize("num_samples", [100, 9_999, 100_001, 239_999])
def test_a_clip_of_any_length_is_scored_as_it_is(request, name, num_samples):
  model = request.getfixturevalue(name)
  waveform = sound(num_samples / RATE_HZ)
  # Every frame of the shortest one includes zeros that the model adds.
  expected = sigmoid(plain(model, waveform)["logits"])
  np.testing.assert_allclose(model.tag(waveform, RATE_HZ), expected, atol=1e-5)


def test_a_long_recording_s_scores_are_the_mean_over_windows(cnn):
  waveform = sound(70)
  windows = [waveform[start * RATE_HZ :][: 30 * RATE_HZ] for start in (0, 30, 40)]
  scores = [sigmoid(plain(cnn, window)["logits"]) for window in windows]
  # The last window adds 10 s of 30.
  expected = np.average(scores, axis=0, weights=[1, 1, 10 / 30])
  np.testing.assert_allclose(cnn.tag(waveform, RATE_HZ), expected, atol=1e-5)
  assert np.abs(np.subtract(*expected[:2])).max() > 1e-4


def test_what_is_one_input_is_normalised_as_in_training(tmp_path):
  folder = tmp_path / "model"
  peak = Tagger.load(tiny_models.write(folder / "peak", normalize="peak"))
  none = Tagger.load(tiny_models.write(folder / "none", normalize="none"))
  waveform = sound(1.0)
  loud = waveform / np.abs(waveform).max()
  quiet = [model.tag(0.01 * loud, RATE_HZ) for model in (peak, none)]
  np.testing.assert_allclose(quiet[0], none.tag(loud, RATE_HZ), atol=1e-5)
  assert np.abs(quiet[0] - quiet[1]).max() > 1e-3
  # Each window of a longer one is normalised as in training.
  both = np.concatenate([0.001 * sound(30), sound(30, seed=1)])
  parts = [peak.tag(part, RATE_HZ) for part in np.split(both, 2)]
  np.testing.assert_allclose(peak.tag(both, RATE_HZ), np.mean(parts, axis=0), atol=1e-5)


@pytest.fixture
def compiled():
  """The programs that XLA compiles during a test."""
  programs = []

  def listen(event, duration_s, **details):
    if event == "/jax/core/compile/backend_compile_duration":
      programs.append(details)

  jax.monitoring.register_event_duration_secs_listener(listen)
  yield programs
  jax.monitoring.unregister_event_duration_listener(listen)


def test_a_thousand_lengths_compile_four_programs(crnn, compiled, tmp_path):
  model = Tagger.load(tiny_models.write(tmp_path / "model"))
  waveform = sound(64)
  # Slices of the outputs are programs too, which models of the same shapes share.
  for length_s in tagger.LENGTHS_S:
    crnn.tag(sound(length_s), RATE_HZ)
  compiled.clear()
  lengths = np.unique(np.geomspace(1, len(waveform), 1000).astype(int))
  few = lengths[:: len(lengths) // 60]
  clips = [waveform[:length] for length in few]
  scores = model.tag_batch(clips, RATE_HZ)
  assert scores.shape == (len(few), 3)
  assert np.isfinite(scores).all()
  assert len(compiled) == len(tagger.LENGTHS_S) == 4
  one = model.tag(clips[7], RATE_HZ)
  np.testing.assert_array_equal(scores[7], one)
  # Frames and embeddings take the same programs.
  model.frames(clips[-1], RATE_HZ)
  model.embed_frames(clips[-1], RATE_HZ)
  assert len(compiled) == 4
  assert model.tag_batch([], RATE_HZ).shape == (0, 3)


@pytest.mark.parametrize("name", ["crnn", "cnn"])
@pytest.mark.parametrize("samples", [[0.3], [0.0], np.zeros(24_000)])
def test_a_sample_and_silence_have_finite_scores(request, name, samples):
  model = request.getfixturevalue(name)
  waveform = np.asarray(samples)
  frames = [f(waveform, 44_100) for f in (model.frames, model.embed_frames)]
  assert all(len(values) == len(times_s) > 0 for values, times_s in frames)
  results = [model.tag(waveform, 44_100), model.embed(waveform, 44_100)]
  assert all(np.isfinite(x).all() for x in [*results, *(x for x, _ in frames)])


def test_takes_other_rates_types_and_channels(crnn):
  t = np.arange(44_100) / 44_100
  x = 0.5 * np.sin(2 * np.pi * 440 * t)
  expected = crnn.tag(x[None], 44_100)
  at_own_rate = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8_000) / 8_000)
  # The low-pass rings, but only at the ends.
  np.testing.assert_allclose(crnn.tag(at_own_rate, 8_000), expected, atol=5e-3)
  stereo = np.stack([x, x], axis=1)
  np.testing.assert_allclose(crnn.tag(stereo, 44_100), expected, atol=1e-5)
  pcm = np.rint(stereo * 2**15).astype(np.int16)
  np.testing.assert_allclose(crnn.tag(pcm, 44_100), expected, atol=5e-3)


def test_frames_of_a_model_that_has_them_are_its_own(crnn):
  assert crnn.has_frames
  assert crnn.frame_hop_s == pytest.approx(0.01)
  waveform = sound(3.0)
  scores, times_s = crnn.frames(waveform, RATE_HZ)
  np.testing.assert_allclose(scores, plain(crnn, waveform)["framewise"], atol=1e-5)
  np.testing.assert_allclose(times_s, np.arange(301) * 0.01, atol=1e-6)
  shorter, times_s = crnn.frames(waveform[:20_000], RATE_HZ)
  assert shorter.shape == (251, 3)
  assert times_s[-1] == pytest.approx(2.5)


def test_frames_of_a_long_recording_follow_each_other(crnn):
  waveform = sound(65.5)
  scores, times_s = crnn.frames(waveform, RATE_HZ)
  assert scores.shape == (6551, 3)
  np.testing.assert_allclose(times_s, np.arange(6551) * 0.01, atol=1e-5)
  # In each part, except its context, the scores are those of its window.
  for start_s, first, end in ((0, 0, 2900), (28, 2900, 5700), (35.5, 5700, 6551)):
    window = waveform[round(start_s * RATE_HZ) :][: 30 * RATE_HZ]
    offset = round(start_s * 100)
    expected = plain(crnn, window)["framewise"][first - offset : end - offset]
    np.testing.assert_allclose(scores[first:end], expected, atol=1e-5)


def test_frames_of_another_model_are_windows_around_them(cnn):
  assert not cnn.has_frames
  assert cnn.frame_hop_s == 0.5
  waveform = sound(3.1)
  scores, times_s = cnn.frames(waveform, RATE_HZ)
  np.testing.assert_allclose(times_s, [0.25, 0.75, 1.25, 1.75, 2.25, 2.75], atol=1e-6)
  for i, start_s in enumerate((0, 0.25, 0.75, 1.25, 1.75, 2.1)):
    window = waveform[round(start_s * RATE_HZ) :][:RATE_HZ]
    np.testing.assert_allclose(scores[i], cnn.tag(window, RATE_HZ), atol=1e-5)


def test_embeddings_over_time(crnn, cnn):
  waveform = sound(61.2)
  for model, dim in ((crnn, 16), (cnn, 6)):
    values, times_s = model.embed_frames(waveform, RATE_HZ)
    assert values.shape == (122, dim)
    np.testing.assert_allclose(times_s, 0.25 + 0.5 * np.arange(122), atol=1e-5)
    second = waveform[round(40.25 * RATE_HZ) :][:RATE_HZ]
    np.testing.assert_allclose(values[81], model.embed(second, RATE_HZ), atol=1e-5)


def test_streamed_scores_are_those_of_the_whole(crnn):
  waveform = sound(70)
  blocks = [waveform[i : i + 12_345] for i in range(0, len(waveform), 12_345)]
  windows = list(crnn.score_windows(blocks, 30.0, 30.0))
  assert [window.start_s for window in windows] == [0.0, 30.0, 40.0]
  weights = [window.weight for window in windows]
  assert weights == [1.0, 1.0, pytest.approx(10 / 30, abs=1e-12)]
  mean = np.average([window.scores for window in windows], axis=0, weights=weights)
  np.testing.assert_allclose(crnn.tag(waveform, RATE_HZ), mean, atol=1e-7)
  parts = list(crnn.score_frames(blocks))
  whole = crnn.frames(waveform, RATE_HZ)
  for streamed, expected in zip(zip(*parts, strict=True), whole, strict=True):
    np.testing.assert_array_equal(np.concatenate(streamed), expected)


def scored(model, waveform, window_s, hop_s, monkeypatch):
  """The windows of a recording, if a window's score is the mean of its samples."""
  monkeypatch.setattr(
    model, "_run", lambda x: {"scores": x.mean(keepdims=True), "embedding": x[:1]}
  )
  monkeypatch.setattr(model, "normalize", "none")
  return list(model.score_windows([waveform], window_s, hop_s))


@pytest.mark.parametrize(
  ("seconds", "window_s", "hop_s", "starts_s", "weights"),
  [
    (12.5, 30, 30, [0], [1]),
    (30, 30, 30, [0], [1]),
    (30.01, 30, 30, [0, 0.01], [1, 0.01 / 30]),
    (60, 30, 30, [0, 30], [1, 1]),
    (60.01, 30, 30, [0, 30, 30.01], [1, 1, 0.01 / 30]),
    (89.99, 30, 30, [0, 30, 59.99], [1, 1, 29.99 / 30]),
    (50, 30, 10, [0, 10, 20], [1, 1, 1]),
    (52.5, 30, 10, [0, 10, 20, 22.5], [1, 1, 1, 0.25]),
    (0.35, 0.1, 0.1, [0, 0.1, 0.2, 0.25], [1, 1, 1, 0.5]),
  ],
)
def test_windows_weigh_what_they_add(
  crnn, monkeypatch, seconds, window_s, hop_s, starts_s, weights
):
  # A sound in the first 30 s alone.
  waveform = np.zeros(round(seconds * RATE_HZ), np.float32)
  waveform[: 30 * RATE_HZ] = 1
  windows = scored(crnn, waveform, window_s, hop_s, monkeypatch)
  np.testing.assert_allclose([x.start_s for x in windows], starts_s, atol=1e-9)
  assert [x.weight for x in windows] == pytest.approx(weights, abs=1e-12)
  assert [x.weight for x in windows][:-1] == weights[:-1]
  mean = tagger.mean_of_windows(windows)
  expected = np.average([x.scores for x in windows], axis=0, weights=weights)
  np.testing.assert_allclose(mean.scores, expected, atol=1e-7)
  expected = np.average([x.embedding for x in windows], axis=0, weights=weights)
  np.testing.assert_allclose(mean.embedding, expected, atol=1e-7)


def test_windows_without_a_rest_have_the_plain_mean(crnn):
  for seconds in (7, 30, 90):
    windows = list(crnn.score_windows([sound(seconds)], 30.0, 30.0))
    for key in ("scores", "embedding"):
      plain_mean = np.mean([getattr(window, key) for window in windows], axis=0)
      mean = getattr(tagger.mean_of_windows(windows), key)
      assert mean.dtype == np.float32
      np.testing.assert_array_equal(mean, plain_mean)


def test_a_hundredth_of_a_second_hardly_changes_a_score(crnn):
  waveform = sound(60.01)
  waveform[30 * RATE_HZ :] *= 1e-3
  waveform[-1] = 1.0  # The last window's peak is another one.
  longer, shorter = (
    (crnn.tag(x, RATE_HZ), crnn.embed(x, RATE_HZ))
    for x in (waveform, waveform[: 60 * RATE_HZ])
  )
  for ours, expected in zip(longer, shorter, strict=True):
    np.testing.assert_allclose(ours, expected, atol=2e-4)


@pytest.mark.parametrize(("window_s", "hop_s"), [(31, 10), (10, 11), (10, 0), (0, 0)])
def test_refuses_windows_that_do_not_fit(crnn, window_s, hop_s):
  with pytest.raises(UserError, match="at most 30 s, and a hop above 0 that leaves"):
    list(crnn.score_windows([sound(1)], window_s, hop_s))


def test_thresholds_travel_with_the_model(tmp_path):
  tuned = {"global": 0.3, "per_class": [0.1, 0.2, 0.7]}
  model = Tagger.load(tiny_models.write(tmp_path / "tuned", thresholds=tuned))
  assert model.threshold == 0.3
  assert model.thresholds.tolist() == [0.1, 0.2, 0.7]
  model = Tagger.load(tiny_models.write(tmp_path / "plain"))
  assert model.threshold == 0.5
  assert model.thresholds.tolist() == [0.5] * 3
  assert (model.class_names, model.sample_rate_hz) == (tiny_models.CLASSES, RATE_HZ)


@pytest.mark.parametrize(("next_to", "is_present"), [(1, False), (0, True)])
def test_a_threshold_between_two_neighbouring_scores(
  crnn, tmp_path, next_to, is_present
):
  soundfile.write(tmp_path / "a.wav", sound(1), RATE_HZ, subtype="FLOAT")
  score = crnn.tag(sound(1), RATE_HZ)[0]
  neighbour = np.nextafter(score, np.float32(next_to))
  between = (float(score) + float(neighbour)) / 2
  tuned = {"global": 0.5, "per_class": [between, 1.0, 1.0]}
  model = Tagger.load(tiny_models.write(tmp_path / "model", thresholds=tuned))
  tagged = FileTagger(model, TagOptions()).tag(tmp_path / "a.wav", tqdm(disable=True))
  assert [label for label, _ in tagged.tags] == ["Bell"] * is_present
  assert metrics.decide(score[None], between).tolist() == [is_present]
  frames = tagger.Frames(score[None, None], np.zeros(1))
  events = find_events([frames], model.thresholds[:1], frame_hop_s=1.0)
  assert len(list(events)) == is_present


def test_loads_a_run_s_workdir_and_older_model_directories(tmp_path):
  workdir = tmp_path / "run"
  tiny_models.write(workdir / "model")
  (workdir / "config.json").write_text("{}")
  path = workdir / "model" / "model.json"
  description = json.loads(path.read_text())
  del description["normalize"]
  path.write_text(json.dumps(description))
  model = Tagger.load(str(workdir))
  assert model.normalize == "none"


def test_refuses_what_holds_no_model(tmp_path):
  with pytest.raises(UserError, match="has no model.json: give a model directory"):
    Tagger.load(tmp_path)
  (tmp_path / "config.json").write_text("{}")
  with pytest.raises(UserError, match="is a run without a model yet"):
    Tagger.load(tmp_path)
  fields = tiny_models.FIELDS["crnn"] | {"layers": 3}
  description = model_directory.ModelDescription(
    "crnn", fields, dataclasses.asdict(tiny_models.FRONT_END), ["a"], {}
  )
  with pytest.raises(UserError, match="crnn is of another version of the code: .*lay"):
    create_from_description(description)


def test_refuses_bad_waveforms_in_one_line(crnn):
  for function in (crnn.tag, crnn.embed, crnn.frames, crnn.embed_frames):
    with pytest.raises(UserError, match="1 samples that are not finite"):
      function(np.array([0.0, np.nan]), RATE_HZ)


def test_tagging_imports_no_tensorflow():
  code = (
    "import sys; from audiotag_jax.audio import streams; "
    "from audiotag_jax.inference import Tagger, events, tag_files, timeline; "
    "print([m for m in sys.modules if m.split('.')[0] in ('tensorflow', 'torch')])"
  )
  done = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert done.stdout == "[]\n"


def test_the_page_s_python_runs(tmp_path, monkeypatch):
  page = (Path(__file__).parents[2] / "docs/tagging.md").read_text()
  _, code, *_ = re.split("```(?:python)?\n", page[page.index("```python") :])
  monkeypatch.chdir(tmp_path)
  tiny_models.write(tmp_path / "runs/crnn_demo")
  soundfile.write("dawn.flac", sound(2.0), RATE_HZ)
  names = {}
  exec(code, names)
  assert names["present"].shape == names["scores"].shape == (3,)
  assert names["embedding"].shape == (16,)
  assert names["values"].shape == (4, 16)
