import numpy as np

from audiotag_jax import parallel
from audiotag_jax.data import dataset, input_pipeline
from audiotag_jax.evaluation import evaluate, results

NUM_CLASSES = 3


def eval_step(variables, batch):
  """Scores a row by its mean level, which tells the clip."""
  level = batch["inputs"].mean(axis=(1, 2)) / -100.0
  scores = level[:, None] * variables["scale"]
  rest = {key: batch[key] for key in ("mask", "clip")}
  return rest | {"scores": scores, "loss": level}


def predict(config):
  clips = dataset.load_splits(config)["eval"]
  variables = parallel.replicate({"scale": np.ones(NUM_CLASSES, np.float32)})
  return clips, evaluate.predict(parallel.pmap(eval_step), variables, clips, config)


def test_every_clip_is_scored_once_in_file_order(tiny_config):
  clips, predictions = predict(tiny_config)
  assert predictions.fname.tolist() == [str(n) for n in range(1018, 1025)]
  rows = next(
    input_pipeline.eval_batches(clips, tiny_config, process=input_pipeline.Process())
  )
  expected = rows["inputs"].mean(axis=(1, 2))[:7] / -100.0
  np.testing.assert_allclose(predictions.scores[:, 0], expected, rtol=1e-5)
  assert abs(predictions.loss - expected.mean()) < 1e-6


def test_a_clip_s_score_is_the_mean_over_its_windows(tiny_config):
  tiny_config.evaluation.crop, tiny_config.evaluation.hop_s = "windows", 0.52
  clips, predictions = predict(tiny_config)
  batches = input_pipeline.eval_batches(
    clips, tiny_config, process=input_pipeline.Process()
  )
  rows = {}
  for batch in batches:
    for i in np.flatnonzero(batch["mask"]):
      level = batch["inputs"][i].mean() / -100.0
      rows.setdefault(int(batch["clip"][i]), []).append(level)
  assert sorted(len(levels) for levels in rows.values()) == [1, 1, 1, 1, 1, 4, 4]
  expected = [np.mean(rows[clip]) for clip in range(7)]
  np.testing.assert_allclose(predictions.scores[:, 0], expected, rtol=1e-5)


def test_the_label_prior_scores_every_clip_alike(tiny_config):
  _, predictions = predict(tiny_config)
  train_labels = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [1, 0, 0]], np.uint8)
  prior = results.label_prior(predictions, train_labels)
  np.testing.assert_array_equal(prior.scores, [[0.75, 0.25, 0.0]] * 7)
  np.testing.assert_array_equal(prior.labels, predictions.labels)
