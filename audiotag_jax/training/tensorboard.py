"""A run's event files for TensorBoard: written by clu, cut back when a run resumes."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import logging
from clu import metric_writers
from etils import epath
from tensorboard.backend.event_processing import event_file_loader
from tensorboard.compat.proto import event_pb2

from audiotag_jax import files, parallel
from audiotag_jax import workdir as workdir_lib
from audiotag_jax.data import records
from audiotag_jax.errors import reason_of


class RunWriter:
  """clu's writer of a workdir, on the main process; others only log.

  Files that cannot be written do not stop a training: a warning says so, and what
  follows is only logged.
  """

  def __init__(self, workdir: Path):
    self._workdir = workdir
    try:
      self._writer = metric_writers.create_default_writer(
        str(workdir), just_logging=not parallel.is_main_process()
      )
    except Exception as error:
      self._only_log(error)

  def write_scalars(self, step: int, scalars: dict[str, Any]) -> None:
    """Writes scalars; see `clu.metric_writers.MetricWriter`."""
    self._try(lambda: self._writer.write_scalars(step, scalars))

  def write_images(self, step: int, images: dict[str, Any]) -> None:
    """Writes images; see `clu.metric_writers.MetricWriter`."""
    self._try(lambda: self._writer.write_images(step, images))

  def write_audios(
    self, step: int, audios: dict[str, Any], *, sample_rate: int
  ) -> None:
    """Writes audio; see `clu.metric_writers.MetricWriter`."""
    self._try(lambda: self._writer.write_audios(step, audios, sample_rate=sample_rate))

  def write_hparams(self, hparams: dict[str, Any]) -> None:
    """Writes hyperparameters; see `clu.metric_writers.MetricWriter`."""
    self._try(lambda: self._writer.write_hparams(hparams))

  def flush(self) -> None:
    """Waits until everything is written."""
    self._try(lambda: self._writer.flush())

  def close(self) -> None:
    """Writes what is left, and closes the files."""
    self._try(lambda: self._writer.flush())
    self._try(lambda: self._writer.close())

  def _try(self, write: Callable[[], object]) -> None:
    try:
      write()
    except Exception as error:  # TensorFlow and clu raise many kinds.
      self._only_log(error)

  def _only_log(self, error: Exception) -> None:
    logging.warning(
      "TensorBoard's files in %s cannot be written (%s). The training continues "
      "without them.",
      self._workdir,
      reason_of(error),
    )
    self._writer = metric_writers.create_default_writer(
      str(self._workdir), just_logging=True
    )


def forget_after(workdir: Path, step: int | None) -> None:
  """Removes what was written after a step, because a run resumes from there.

  Args:
    workdir: the run's folder.
    step: the step that the run resumes from; None to remove everything.
  """
  for path in sorted(workdir.glob(workdir_lib.EVENTS)):
    events = list(event_file_loader.RawEventFileLoader(str(path)).Load())
    kept = [event for event in events if _is_kept(event, step)]
    if not any(event_pb2.Event.FromString(event).HasField("summary") for event in kept):
      path.unlink()
    elif len(kept) < len(events):
      files.write_whole(path, functools.partial(_write_events, events=kept))


def _is_kept(event: bytes, step: int | None) -> bool:
  return step is not None and event_pb2.Event.FromString(event).step <= step


def _write_events(path: epath.Path, events: list[bytes]) -> None:
  records.write_records(path, events)
