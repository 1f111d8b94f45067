"""The results of a run: scores beside labels, and the files that hold them."""

import csv
import dataclasses
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from audiotag_jax import files
from audiotag_jax import workdir as workdir_lib
from audiotag_jax.errors import UserError
from audiotag_jax.evaluation import metrics, thresholds
from audiotag_jax.names import for_spreadsheet

TABLE_COLUMNS = ("mAP", "f1", "f1_macro", "precision", "recall", "accuracy", "lwlrap")

# Metrics that change with the threshold.
TUNED_METRICS = (
  "accuracy",
  "precision",
  "recall",
  "f1",
  "precision_macro",
  "recall_macro",
  "f1_macro",
)
# Keys of config.evaluation that the results depend on.
SETTINGS = ("split", "checkpoint", "crop", "hop_s", "threshold")
# Arrays in predictions.npz.
STORED = ("fname", "scores", "labels", "classes", "duration_s")
# Largest array that is read: the scores of 2 million clips of 200 classes.
MAX_ARRAY_BYTES = 2**31
# Errors of a damaged zip archive or array's header, besides ValueError.
DAMAGED = (
  EOFError,
  IndexError,
  KeyError,
  MemoryError,
  RecursionError,
  SyntaxError,
  TypeError,
  struct.error,
  zipfile.BadZipFile,
  zlib.error,
)
PER_CLASS_COLUMNS = ("label", "support", "AP", "auc", "precision", "recall", "f1")


@dataclasses.dataclass(frozen=True)
class Predictions:
  """A split's scores beside its labels, every clip once, in file order.

  Attributes:
    fname: <str>[clips].
    scores: <float32>[clips, classes] in [0, 1].
    labels: <uint8>[clips, classes].
    classes: <str>[classes].
    duration_s: <float32>[clips].
    loss: the mean binary cross-entropy, or the mean of an ensemble's members. The loss
      is not stored, and is NaN when loaded.
  """

  fname: np.ndarray
  scores: np.ndarray
  labels: np.ndarray
  classes: np.ndarray
  duration_s: np.ndarray
  loss: float = math.nan

  def metrics(
    self, threshold: float | np.ndarray
  ) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """The metrics overall and per class, at a threshold or at one for each class."""
    classes = metrics.per_class(self.scores, self.labels, threshold)
    return metrics.overall(self.scores, self.labels, threshold, classes), classes


def mean_scores(members: Sequence[Predictions]) -> Predictions:
  """Averages several models' scores of the same clips, as an ensemble."""
  scores = np.stack([member.scores for member in members]).mean(0, dtype=np.float64)
  loss = float(np.mean([member.loss for member in members]))
  return dataclasses.replace(members[0], scores=scores.astype(np.float32), loss=loss)


def label_prior(predictions: Predictions, train_labels: np.ndarray) -> Predictions:
  """The chance level: scores every clip with each class's share of training."""
  prior = train_labels.mean(axis=0, dtype=np.float32)
  scores = np.broadcast_to(prior, predictions.scores.shape)
  return dataclasses.replace(predictions, scores=scores)


def tuned_metrics(predictions: Predictions, val: Predictions) -> dict[str, Any]:
  """The metrics that depend on decisions, at thresholds tuned on other clips.

  Returns:
    `tuned_global` and `tuned_per_class`, each with `TUNED_METRICS`; `tuned_global` also
    has the `threshold`.
  """
  everywhere = thresholds.tune_global(val.scores, val.labels)
  per_class = thresholds.tune_per_class(val.scores, val.labels)

  def at(threshold: float | np.ndarray) -> dict[str, float]:
    overall, _ = predictions.metrics(threshold)
    return {name: overall[name] for name in TUNED_METRICS}

  return {
    "tuned_global": {"threshold": everywhere, **at(everywhere)},
    "tuned_per_class": at(per_class),
  }


def write_results(
  folder: Path,
  predictions: Predictions,
  val: Predictions | None,
  *,
  run_name: str,
  threshold: float,
  facts: dict[str, Any],
) -> dict[str, Any]:
  """Writes performance.json, per_class.csv, predictions.npz and val_predictions.npz.

  None of them gets its name before all are written; other files of the folder stay.
  A number that is not finite (a mean over no class, d' of a perfect AUC) is null in the
  JSON.

  Args:
    folder: the folder of the evaluation.
    predictions: the scored split.
    val: the scores of val, to tune thresholds on; None if val is the scored split.
    run_name: the key in performance.json.
    threshold: the score from which a class counts as present.
    facts: `model`, `step` and `params` of the run, and `SETTINGS` of the evaluation.

  Returns:
    The run's entry in performance.json.
  """
  overall, classes = predictions.metrics(threshold)
  num_clips, num_classes = predictions.labels.shape
  entry = {
    **facts,
    "num_clips": num_clips,
    "num_classes": num_classes,
    **overall,
    "threshold": threshold,
  }
  if val is not None:
    entry |= tuned_metrics(predictions, val)

  def write_performance(path: Path) -> None:
    text = files.json_text({run_name: _finite(entry)})
    path.write_text(text, encoding="utf-8")

  def write_per_class(path: Path) -> None:
    labels = [for_spreadsheet(str(name)) for name in predictions.classes]
    columns = {"label": labels, **classes}
    with path.open("w", encoding="utf-8") as file:
      writer = csv.writer(file)
      writer.writerow([*PER_CLASS_COLUMNS, "threshold"])
      for row in zip(*(columns[name] for name in PER_CLASS_COLUMNS), strict=True):
        writer.writerow([*row, threshold])

  writers = {
    folder / workdir_lib.PERFORMANCE: write_performance,
    folder / workdir_lib.PER_CLASS: write_per_class,
  }
  val_path = folder / workdir_lib.VAL_PREDICTIONS
  if val is not None:
    writers[val_path] = partial(_write_predictions, predictions=val)
  # The last: where this file exists, the others exist too.
  writers[folder / workdir_lib.PREDICTIONS] = partial(
    _write_predictions, predictions=predictions
  )
  files.write_together(writers)
  if val is None:
    val_path.unlink(missing_ok=True)
  return entry


def _finite(value: Any) -> Any:
  """Replaces numbers that JSON lacks (NaN and the infinities) by None."""
  if isinstance(value, dict):
    return {key: _finite(item) for key, item in value.items()}
  return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_predictions(path: Path, predictions: Predictions) -> None:
  arrays = {name: getattr(predictions, name) for name in STORED}
  with path.open("wb") as file:
    np.savez_compressed(file, **arrays)


def load_predictions(path: Path) -> Predictions:
  """Loads a predictions.npz.

  Raises:
    UserError: the file is damaged, or lacks an array, or its arrays do not fit
      together.
  """
  again = "evaluate the run again, with --mode=evaluate"
  try:
    with zipfile.ZipFile(path) as file:
      found = {info.filename.removesuffix(".npy"): info for info in file.infolist()}
      missing = [name for name in STORED if name not in found]
      if missing:
        raise UserError(
          f"{path} has no {', '.join(missing)}, because an older version wrote it: "
          f"{again}"
        )
      arrays: dict[str, Any] = {name: _read_array(file, found[name]) for name in STORED}
    predictions = Predictions(**arrays)
    _check_predictions(predictions)
  except (OSError, RuntimeError, ValueError, *DAMAGED) as error:
    reason = error.strerror if isinstance(error, OSError) else None
    reason = reason or str(error) or type(error).__name__
    raise UserError(f"{path} cannot be read ({reason}): {again}") from error
  return predictions


def _read_array(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
  """Reads an array of an .npz file, in at most twice its bytes of memory.

  `np.load` would ask for the memory of any shape that a header states.

  Raises:
    ValueError: the array has more than `MAX_ARRAY_BYTES`, or objects, or its shape is
      not that of its bytes.
  """
  if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    raise ValueError(f"{info.filename} is not compressed by deflate")
  if info.file_size > MAX_ARRAY_BYTES:
    raise ValueError(f"{info.filename} declares {info.file_size} bytes")
  data = file.read(info)
  header = io.BytesIO(data)
  read_header = np.lib.format.read_array_header_1_0
  if np.lib.format.read_magic(header) != (1, 0):
    read_header = np.lib.format.read_array_header_2_0
  shape, is_fortran, dtype = read_header(header)
  num_bytes = len(data) - header.tell()
  if dtype.hasobject or math.prod(shape) * dtype.itemsize != num_bytes:
    raise ValueError(f"{info.filename} has {num_bytes} bytes for {dtype}{list(shape)}")
  values = np.frombuffer(data, dtype, offset=header.tell())
  return values.reshape(shape, order="F" if is_fortran else "C").copy()


def _check_predictions(predictions: Predictions) -> None:
  """Raises `ValueError` unless the arrays are those of `Predictions`."""
  num_clips, num_classes = len(predictions.fname), len(predictions.classes)
  for name, kinds, shape in (
    ("fname", "U", (num_clips,)),
    ("classes", "U", (num_classes,)),
    ("duration_s", "f", (num_clips,)),
    ("scores", "f", (num_clips, num_classes)),
    ("labels", "u", (num_clips, num_classes)),
  ):
    array = getattr(predictions, name)
    if array.dtype.kind not in kinds or array.shape != shape or not array.size:
      raise ValueError(
        f"{name} is {array.dtype}{list(array.shape)}, beside {num_clips} clips and "
        f"{num_classes} classes"
      )
  for name, most in (("scores", 1), ("labels", 1), ("duration_s", math.inf)):
    array = getattr(predictions, name)
    if not ((array >= 0) & (array <= most) & np.isfinite(array)).all():
      raise ValueError(f"{name} has values that are not from 0 to {most}")


def table(rows: dict[str, dict[str, float]]) -> str:
  """Formats results as an aligned text table, a row each.

  Args:
    rows: the metrics of each row, by the row's name.
  """
  width = max(len(name) for name in rows)
  lines = [" " * width + "".join(f"{column:>11}" for column in TABLE_COLUMNS)]
  for name, row in rows.items():
    values = "".join(f"{row[column]:11.3f}" for column in TABLE_COLUMNS)
    lines.append(f"{name:<{width}}{values}")
  return "\n".join(lines)
