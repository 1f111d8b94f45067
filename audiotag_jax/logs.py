"""What a person at a terminal gets to read while a command runs."""

import logging as python_logging
import os

from absl import logging

# Whose progress lines are for the user; other libraries' are for their developers.
_SHOWN = ("/audiotag_jax/", "/clu/")


def show_progress() -> None:
  """Logs progress and everyone's warnings; call it before tensorflow is imported."""
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  # Its only effect on a decoding pipeline is two warnings.
  os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
  logging.set_verbosity(logging.INFO)
  logging.use_absl_handler()
  logging.get_absl_handler().addFilter(_is_shown)


def _is_shown(record: python_logging.LogRecord) -> bool:
  path = record.pathname.replace(os.sep, "/")
  if "/tensorflow_datasets/" in path:  # It warns of every configuration not its own.
    return record.levelno > python_logging.WARNING
  return record.levelno > python_logging.INFO or any(s in path for s in _SHOWN)
