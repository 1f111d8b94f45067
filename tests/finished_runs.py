"""Workdirs of runs that never ran: results, val predictions, TensorBoard events."""

import json
from pathlib import Path

import numpy as np
from clu import metric_writers

from audiotag_jax.evaluation import metrics

ROBUSTNESS = ("clean", "white noise, 20 dB", "white noise, 0 dB", "MP3, 32 kbit/s")


def write_run(
  workdir: Path,
  *,
  separation: float = 2.0,
  num_clips: int = 90,
  num_classes: int = 12,
  seed: int = 0,
  split: str = "eval",
  with_val: bool = True,
  with_events: bool = True,
  with_extras: bool = True,
) -> Path:
  """Writes a run whose scores separate positives and negatives by so many sigmas.

  Runs of the same sizes have the same clips and labels; scores differ by seed.
  """
  results = workdir / "results"
  results.mkdir(parents=True)
  sizes = {"val": num_clips // 2, split: num_clips}
  dataset = {
    "classes": class_names(num_classes),
    "splits": {s: {"num_clips": n, "sha256": f"{s}{n}"} for s, n in sizes.items()}
    | {"train": {"num_clips": 500, "sha256": "train"}},
  }
  write_json(workdir / "dataset.json", dataset)
  write_json(workdir / "config.json", {"init_from": ""})
  arrays = predictions(split, num_clips, num_classes, separation, seed)
  np.savez_compressed(results / "predictions.npz", **arrays)
  if with_val:
    val = predictions("val", num_clips // 2, num_classes, separation, seed)
    np.savez_compressed(results / "val_predictions.npz", **val)
  classes = metrics.per_class(arrays["scores"], arrays["labels"], 0.5)
  overall = metrics.overall(arrays["scores"], arrays["labels"], 0.5, classes)
  entry = {
    "model": "crnn",
    "split": split,
    "checkpoint": "best",
    "step": 900,
    "params": 195_788,
    "num_clips": num_clips,
    "num_classes": num_classes,
    **overall,
    "threshold": 0.5,
  }
  write_json(results / "performance.json", {workdir.name: entry})
  if with_events:
    write_events(workdir, overall["mAP"])
  if with_extras:
    write_extras(results, overall["mAP"], separation)
  return workdir


def class_names(num_classes: int) -> list[str]:
  special = ["Male_speech_and_man_speaking", "Bell & whistle", "<Rain>|$5$"]
  return (special + [f"Sound_number_{i}" for i in range(num_classes)])[:num_classes]


def predictions(
  split: str, num_clips: int, num_classes: int, separation: float, seed: int
) -> dict[str, np.ndarray]:
  """The arrays of a predictions.npz."""
  labels_rng = np.random.default_rng(len(split))
  prior = (0.02 + 0.28 * labels_rng.random(num_classes) ** 4) * min(1, 40 / num_classes)
  labels = (labels_rng.random((num_clips, num_classes)) < prior).astype(np.uint8)
  first = np.arange(num_clips) % num_classes
  labels[np.arange(num_clips), first] |= ~labels.any(axis=1)
  noise = np.random.default_rng([seed, len(split)]).normal(size=labels.shape)
  logits = np.log(prior / (1 - prior)) + separation * (labels - 0.3) + noise
  return {
    "fname": np.array([f"{split}{i}" for i in range(num_clips)]),
    "scores": (1 / (1 + np.exp(-logits))).astype(np.float32),
    "labels": labels,
    "classes": np.array(class_names(num_classes)),
    "duration_s": np.exp(labels_rng.normal(1.5, 1, num_clips)).astype(np.float32),
  }


def write_events(workdir: Path, final: float, num_steps: int = 900) -> None:
  """Writes 10 steps per second, a log line every 50 steps, a validation every 100."""
  writer = metric_writers.create_default_writer(str(workdir), asynchronous=False)
  for step in range(50, num_steps + 1, 50):
    done = 1 - np.exp(-4 * step / num_steps)
    losses = {"train/loss": 0.7 - 0.6 * done, "train/steps_per_second": 10.0}
    writer.write_scalars(step, losses)
    if step % 100 == 0:
      writer.write_scalars(
        step, {"val/loss": 0.7 - 0.5 * done, "val/mAP": final * done}
      )
  writer.flush()
  writer.close()


def write_extras(results: Path, mean_ap: float, separation: float) -> None:
  robustness = {
    name: {"mAP": mean_ap / (1 + 0.2 * i), "f1": 0.5}
    for i, name in enumerate(ROBUSTNESS)
  }
  write_json(results / "robustness.json", robustness)
  cost = {
    "params": 195_788,
    "multiply_adds_per_clip": int(1e9 * separation),
    "clips_per_second": 12.5,
    "clip_s": 10.0,
    "device": "cpu",
  }
  write_json(results / "cost.json", cost)


def write_json(path: Path, value) -> None:
  path.write_text(json.dumps(value))
