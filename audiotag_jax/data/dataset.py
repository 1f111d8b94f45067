"""Clips of each split of a config's data set, prepared on first use."""

import collections
import dataclasses

import ml_collections
import numpy as np
import tensorflow_datasets as tfds
from absl import logging
from etils import epath

from audiotag_jax.data import builder, log_mel_cache, prepared_set
from audiotag_jax.data import splits as splits_lib
from audiotag_jax.data.clips import ClipIndex, read_index
from audiotag_jax.data.demo import fsd50k_folder
from audiotag_jax.data.sources import audioset as audioset_lib
from audiotag_jax.data.sources import esc50, fsd50k, manifest
from audiotag_jax.data.sources.source import Source


def open_source(data: ml_collections.ConfigDict) -> Source:
  """Reads the lists of the data set of `config.data`; synthesises the demo set.

  Warns of classes that differ by case alone.

  Raises:
    UserError: see the reader of each data set, and `fsd50k_folder.write_soundscapes`.
  """
  source = _read_source(data)
  alike = collections.defaultdict(list)
  for name in source.classes:
    alike[name.casefold()].append(name)
  pairs = ["/".join(names) for names in alike.values() if len(names) > 1]
  if pairs:
    logging.warning(
      "%s has classes that differ by case alone, and stay apart: %s",
      source.place,
      ", ".join(pairs),
    )
  return source


def _read_source(data: ml_collections.ConfigDict) -> Source:
  place = epath.Path(data.source_dir).expanduser()
  audio_dir = epath.Path(data.audio_dir).expanduser() if data.audio_dir else None
  if data.dataset == "soundscapes":
    place = soundscapes_dir(data)
    fsd50k_folder.write_soundscapes(
      place,
      num_train=data.num_train,
      num_val=data.num_val,
      num_eval=data.num_eval,
      seed=data.soundscapes_seed,
    )
    return fsd50k.read_source(place)
  if data.dataset == "fsd50k":
    return fsd50k.read_source(place)
  if data.dataset == "manifest":
    separator = data.label_separator
    return manifest.read_manifest(place, audio_dir=audio_dir, label_separator=separator)
  if data.dataset == "folders":
    return manifest.read_folders(place)
  if data.dataset == "audioset":
    return audioset_lib.read_audioset(place, audio_dir=audio_dir)
  return esc50.read_esc50(place, fold=data.fold)


def prepare(
  config: ml_collections.ConfigDict,
  download_config: tfds.download.DownloadConfig | None = None,
) -> prepared_set.PreparedSet:
  """Prepares the data set of a config, unless it is prepared already.

  Args:
    config: the config.
    download_config: see `builder.prepare`.

  Raises:
    UserError: see `open_source` and `builder.prepare`.
  """
  return builder.prepare(
    open_source(config.data),
    data_dir=config.data.data_dir,
    sample_rate_hz=config.frontend.sample_rate_hz,
    allow_missing=config.data.allow_missing,
    download_config=download_config,
  )


def load_splits(config: ml_collections.ConfigDict) -> dict[str, ClipIndex]:
  """Returns the clips of train, val and eval, with any log-mels that are cached.

  Raises:
    UserError: see `prepare` and `splits.split_clips`.
  """
  prepared = prepare(config)
  logging.info("%s", prepared_set.describe(prepared))
  clips, official = load_clips(prepared, config)
  return splits_lib.split_clips(config.data.protocol, clips, official, prepared)


def load_clips(
  prepared: prepared_set.PreparedSet, config: ml_collections.ConfigDict
) -> tuple[ClipIndex, np.ndarray]:
  """Reads the index of a prepared set, and its log-mels if the config caches them.

  Returns:
    See `clips.read_index`.
  """
  clips, official = read_index(prepared.folder)
  if config.data.cache_log_mels:
    cached = log_mel_cache.cache_log_mels(clips, prepared.folder, config)
    clips = dataclasses.replace(clips, log_mels=cached)
  return clips, official


def soundscapes_dir(data: ml_collections.ConfigDict) -> epath.Path:
  """The folder of the demo set of `config.data`, in FSD50K's layout."""
  if data.source_dir:
    return epath.Path(data.source_dir).expanduser()
  root = epath.Path(data.data_dir or tfds.core.constants.DATA_DIR).expanduser()
  seed = f"-seed{data.soundscapes_seed}" if data.soundscapes_seed else ""
  return root / f"soundscapes-{data.num_train}-{data.num_val}-{data.num_eval}{seed}"
