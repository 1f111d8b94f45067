"""Logging for a person at a terminal, while a command runs."""

import contextlib
import importlib.metadata
import io
import logging as python_logging
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from absl import flags, logging
from tqdm import tqdm

from audiotag_jax.names import printable

# Packages whose progress lines are for users; those of others are for their developers.
_OURS, _WITH_CLU = ("/audiotag_jax/",), ("/audiotag_jax/", "/clu/")
# Functions of clu that only log that something was written for TensorBoard.
_NOT_SHOWN = ("write_audios", "write_images", "write_hparams")
# Releases of JAX that silently compute wrong results on a CPU, with the bug report.
_BAD_JAX = {"0.10.2": "https://github.com/jax-ml/jax/issues/39103"}


def show_progress(*, verbose: bool = False) -> None:
  """Logs progress and all warnings; call it before tensorflow is imported.

  Args:
    verbose: whether clu's lines are shown too: scalars, parameters, step rates.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  # oneDNN's only effect on a decoding pipeline is two warnings.
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
  handler = _log_from(logging.INFO)
  packages = _WITH_CLU if verbose else _OURS
  handler.addFilter(lambda record: _is_shown(record, packages))
  handler.python_handler.setStream(_AboveProgressBars())
  handler.setFormatter(_Short())


@contextlib.contextmanager
def written_to(path: Path) -> Iterator[None]:
  """Adds what is logged in the block to a file, clu's lines included."""
  handler = _LogFile(path, encoding="utf-8")
  handler.setFormatter(_Escaped())
  handler.addFilter(lambda record: _is_shown(record, _WITH_CLU))
  logger = python_logging.getLogger()
  logger.addHandler(handler)
  try:
    yield
  finally:
    logger.removeHandler(handler)
    with contextlib.suppress(OSError):
      handler.close()


def warn_of_bad_jax() -> None:
  """Warns of a release of JAX that computes wrong results."""
  version = importlib.metadata.version("jax")
  if version in _BAD_JAX:
    logging.warning(
      "jax %s computes some sums wrong on a CPU (%s). The models of this package were "
      "compared with float64 and are right with it. Python 3.12 and newer get a jax "
      "without this fault.",
      version,
      _BAD_JAX[version],
    )


def show_warnings() -> None:
  """Logs only warnings, because orbax logs every step at the level of info."""
  _log_from(logging.WARNING)


def _log_from(level: int) -> logging.ABSLHandler:
  """Makes absl's handler log from a level on."""
  # Before absl's own flags are parsed, absl bypasses the handler's stream, and warns.
  flags.FLAGS.mark_as_parsed()
  logging.set_verbosity(level)
  logging.use_absl_handler()
  return logging.get_absl_handler()


def _escape(text: str) -> str:
  """Escapes control characters, which names may hold; lines and tabs stay."""
  return re.sub(r"[^\n\t]+", lambda match: printable(match[0]), text)


class _AboveProgressBars(io.TextIOBase):
  """Standard error that leaves a progress bar at its end whole, and escapes names."""

  def write(self, text: str) -> int:
    tqdm.write(_escape(text), file=sys.stderr, end="")
    return len(text)


class _LogFile(python_logging.FileHandler):
  """A file of log lines; a disk that is full costs lines, but does not say so."""

  def handleError(self, record: python_logging.LogRecord) -> None:  # noqa: N802
    """Leaves a line out."""


class _Escaped(logging.PythonFormatter):
  """absl's lines, with names escaped."""

  def format(self, record: python_logging.LogRecord) -> str:
    return _escape(super().format(record))


class _Short(python_logging.Formatter):
  """Messages alone, and `warning: ` before those that are more than progress."""

  def format(self, record: python_logging.LogRecord) -> str:
    text = super().format(record)
    if record.levelno <= python_logging.INFO:
      return text
    return f"{record.levelname.lower()}: {text}"


def _is_shown(record: python_logging.LogRecord, packages: tuple[str, ...]) -> bool:
  path = record.pathname.replace(os.sep, "/")
  if "/tensorflow_datasets/" in path:  # TFDS warns of others' configurations.
    return record.levelno > python_logging.WARNING
  if "/orbax/" in path and record.exc_info:  # It is raised too, or dealt with.
    return False
  if record.levelno > python_logging.INFO:
    return True
  return any(s in path for s in packages) and record.funcName not in _NOT_SHOWN
