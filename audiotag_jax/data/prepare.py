"""From a config to a prepared set, made on first use."""

from pathlib import Path

import ml_collections
import tensorflow_datasets as tfds
from absl import logging

from audiotag_jax.data import fsd50k, soundscapes


def prepare(config: ml_collections.ConfigDict) -> fsd50k.PreparedSet:
  """Prepares the data set of a config, unless that has been done.

  Raises:
    UserError: see `fsd50k.prepare` and `soundscapes.write_soundscapes`.
  """
  data = config.data
  source_dir = Path(data.source_dir)
  if data.dataset == "soundscapes":
    source_dir = soundscapes_dir(data)
    soundscapes.write_soundscapes(
      source_dir,
      num_train=data.num_train,
      num_val=data.num_val,
      num_eval=data.num_eval,
      seed=data.soundscapes_seed,
    )
  sample_rate_hz = config.frontend.sample_rate_hz
  prepared = fsd50k.prepare(
    source_dir,
    data_dir=data.data_dir,
    sample_rate_hz=sample_rate_hz,
    allow_missing=data.allow_missing,
  )
  logging.info("%s", fsd50k.describe(prepared, sample_rate_hz))
  return prepared


def soundscapes_dir(data: ml_collections.ConfigDict) -> Path:
  """Where the demo set of `config.data` lies, in FSD50K's layout."""
  if data.source_dir:
    return Path(data.source_dir)
  root = Path(data.data_dir or tfds.core.constants.DATA_DIR).expanduser()
  seed = f"-seed{data.soundscapes_seed}" if data.soundscapes_seed else ""
  return root / f"soundscapes-{data.num_train}-{data.num_val}-{data.num_eval}{seed}"
