"""Recipes: read, derived from one another, checked and compared.

A recipe is a Python file, anywhere, with a `get_config()` that gives the keys of
`config.py` other values. A variant of another recipe starts from that recipe:

  from audiotag_jax import recipes

  def get_config():
    config = recipes.derive(__file__, "cnn14_fsd50k.py")
    config.train.num_steps = 12_000
    return config
"""

import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from audiotag_jax.errors import UserError
from audiotag_jax.panns.architectures import CNN_BLOCKS

CHOICES = {
  "model.dtype": ("float32", "bfloat16"),
  "crnn.pooling": ("attention", "linear_softmax", "mean", "max"),
  "data.dataset": (
    "fsd50k",
    "soundscapes",
    "manifest",
    "folders",
    "audioset",
    "esc50",
  ),
  "data.protocol": ("official", "study"),
  "data.normalize": ("peak", "none"),
  "data.pad": ("repeat", "zero"),
  "data.features": ("log_mel", "waveform"),
  "data.sampling": ("uniform", "class_balanced", "label_weighted"),
  "loss.name": ("bce", "focal", "asymmetric", "class_balanced"),
  "finetune.mode": ("full", "linear", "last_blocks", "layerwise"),
  "evaluation.crop": ("center", "windows"),
  "evaluation.split": ("train", "val", "eval"),
  "evaluation.checkpoint": ("best", "last", "average", "ensemble"),
}

POSITIVE = (
  "data.clip_s",
  "data.num_train",
  "data.num_val",
  "data.num_eval",
  "frontend.sample_rate_hz",
  "frontend.window_samples",
  "frontend.fft_samples",
  "frontend.hop_samples",
  "frontend.num_mels",
  "finetune.num_blocks",
  "finetune.layer_decay",
  "train.num_steps",
  "train.batch_size",
  "train.accumulation_steps",
  "train.learning_rate",
  "train.clip_norm",
  "train.log_every_steps",
  "train.eval_every_steps",
  "train.keep_checkpoints",
  "evaluation.batch_size",
  "evaluation.hop_s",
)

NOT_NEGATIVE = (
  "seed",
  "data.soundscapes_seed",
  "data.allow_missing",
  "augment.mixup_alpha",
  "augment.gain_db",
  "augment.roll_s",
  "augment.time_stripes",
  "augment.time_stripe_frames",
  "augment.mel_stripes",
  "augment.mel_stripe_bands",
  "loss.focal_gamma",
  "loss.asl_gamma_positive",
  "loss.asl_gamma_negative",
  "train.weight_decay",
)

# Keys of at least 0 and less than 1.
SHARES = (
  "crnn.conv_dropout",
  "crnn.dropout",
  "panns.conv_dropout",
  "panns.dropout",
  "train.warmup_share",
  "train.ema_decay",
  "loss.label_smoothing",
  "loss.asl_margin",
  "loss.class_beta",
)

# Keys of at least 0 and at most 1.
CHANCES = (
  "augment.mixup_share",
  "augment.noise_share",
)

# Keys that may change between a run and its resumption or evaluation: the places of
# the data and the ways to look at results. Training does not depend on them.
FREE_KEYS = (
  "data.source_dir",
  "data.audio_dir",
  "data.data_dir",
  "data.allow_missing",
  "train.log_every_steps",
  "train.profile",
  "evaluation.",
)


def derive(recipe: str, parent: str) -> ml_collections.ConfigDict:
  """Returns the config of the recipe that another one starts from.

  Args:
    recipe: the file of the recipe that derives, its `__file__`.
    parent: the file of the recipe to start from, relative to the folder of `recipe`.

  Raises:
    UserError: the parent does not exist.
  """
  path = Path(recipe).parent / parent
  if not path.is_file():
    raise UserError(
      f"{recipe} derives from {path}, which does not exist: name a recipe relative to "
      f"{Path(recipe).parent}"
    )
  return _load(path)


def _load(path: Path, *args: str) -> ml_collections.ConfigDict:
  """Runs a recipe's file and returns its config."""
  spec = importlib.util.spec_from_file_location(path.stem, path)
  if spec is None or spec.loader is None:
    raise UserError(f"{path} is not a Python file: the name of a recipe ends in .py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(*args)


def read_recipe(
  recipe: Path, overrides: Sequence[str] = ()
) -> ml_collections.ConfigDict:
  """Reads a recipe and overrides some of its keys.

  Args:
    recipe: its file. A text after a colon, as in `recipe.py:small`, is passed to its
      `get_config`.
    overrides: such as `--config.key=value`; for a boolean key also `--config.key` and
      `--noconfig.key`. Values have the types of the recipe's values.

  Raises:
    UserError: the recipe or a key does not exist, or a value is of another type.
  """
  file, *args = str(recipe).split(":", 1)
  if not Path(file).is_file():
    raise UserError(f"there is no recipe {file}: configs/ holds some")
  try:
    config = _load(Path(file), *args).lock()
    return _override(config, overrides)
  except (AttributeError, KeyError) as error:
    raise UserError(
      f"{recipe} has no key {error}: audiotag_jax/config.py lists the keys"
    ) from error
  except (flags.Error, TypeError, ValueError) as error:
    raise UserError(f"{recipe}: {' '.join(str(error).split())}") from error


def _override(
  config: ml_collections.ConfigDict, overrides: Sequence[str]
) -> ml_collections.ConfigDict:
  """Sets the keys that flags override, each to a value of the key's type."""
  flat = flatten(config.to_dict())
  for override in overrides:
    value = flat.get(override.partition("config.")[2], False)
    if "=" not in override and not isinstance(value, bool):
      raise ValueError(f"{override} has no value: write {override}=VALUE")
  argv = ["recipe", *overrides]
  values = flags.FlagValues()
  flag = config_flags.DEFINE_config_dict(
    "config", config, flag_values=values, sys_argv=argv
  )
  values(argv)
  return flag.value


def validate(config: ml_collections.ConfigDict) -> None:
  """Raises `UserError`, in one line, if a value of the config is invalid."""
  flat = flatten(config.to_dict())
  for key, choices in CHOICES.items():
    if flat[key] not in choices:
      raise UserError(f"config.{key} is {flat[key]!r}: choose from {choices}")
  for key in POSITIVE:
    if not flat[key] > 0:
      raise UserError(f"config.{key} is {flat[key]}: it must be greater than 0")
  for key in SHARES:
    if not 0 <= flat[key] < 1:
      raise UserError(f"config.{key} is {flat[key]}: it must be at least 0 and below 1")
  for key in NOT_NEGATIVE:
    if flat[key] < 0:
      raise UserError(f"config.{key} is {flat[key]}: it must be at least 0")
  for key in CHANCES:
    if not 0 <= flat[key] <= 1:
      raise UserError(f"config.{key} is {flat[key]}: it must be from 0 to 1")
  snr_db = config.augment.noise_snr_db
  if len(snr_db) != 2 or snr_db[0] > snr_db[1]:
    raise UserError(
      f"config.augment.noise_snr_db is {snr_db}: give the least and the largest, "
      "as in (5.0, 30.0)"
    )
  _validate_frontend(config.frontend)
  _validate_finetune(config)
  _validate_crnn(config)
  _validate_panns(config)
  _validate_data(config)


def _validate_data(config: ml_collections.ConfigDict) -> None:
  data = config.data
  if data.dataset == "fsd50k" and not data.source_dir:
    raise UserError(
      "config.data.source_dir is not set: give the folder that holds "
      "FSD50K.dev_audio, FSD50K.eval_audio and FSD50K.ground_truth, "
      "as in --config.data.source_dir=/data/FSD50K"
    )
  if data.dataset != "soundscapes" and not data.source_dir:
    raise UserError(
      f"config.data.source_dir is not set: give the place of the {data.dataset} data"
    )
  if data.cache_log_mels and data.features != "log_mel":
    raise UserError(
      "config.data.cache_log_mels is for models that take log-mels, but data.features "
      f"is {data.features!r}: change one of them"
    )
  if data.cache_log_mels and config.augment.noise_dir:
    raise UserError(
      "config.data.cache_log_mels leaves no waveform to mix config.augment.noise_dir "
      "into: leave one of them out"
    )
  if not data.label_separator:
    raise UserError("config.data.label_separator is empty: give a character, as in ;")
  if not 1 <= data.fold <= 5:
    raise UserError(f"config.data.fold is {data.fold}: ESC-50 has folds 1 to 5")


def _validate_crnn(config: ml_collections.ConfigDict) -> None:
  crnn = config.crnn
  if not len(crnn.filters) == len(crnn.time_pooling) == len(crnn.mel_pooling):
    raise UserError(
      "config.crnn: filters, time_pooling and mel_pooling must have an entry for "
      f"each block, but have {len(crnn.filters)}, {len(crnn.time_pooling)} and "
      f"{len(crnn.mel_pooling)}"
    )
  clip_samples = config.data.clip_s * config.frontend.sample_rate_hz
  sizes = {
    "time_pooling": 1 + int(clip_samples) // config.frontend.hop_samples,
    "mel_pooling": config.frontend.num_mels,
  }
  for key, size in sizes.items():
    pooled = math.prod(crnn[key])
    if config.model.name == "crnn" and pooled > size:
      raise UserError(
        f"config.crnn.{key} pools by {pooled} in all, but there are only {size}: pool "
        "less, or lengthen data.clip_s or raise frontend.num_mels"
      )


def _validate_panns(config: ml_collections.ConfigDict) -> None:
  name, panns = config.model.name, config.panns
  if name == "crnn" or not (panns.filters or panns.embedding_dim):
    return
  if name not in CNN_BLOCKS:
    raise UserError(
      "config.panns.filters and embedding_dim apply only to "
      f"{', '.join(CNN_BLOCKS)}: do not set them for {name}"
    )
  if panns.filters and len(panns.filters) != CNN_BLOCKS[name]:
    raise UserError(
      f"config.panns.filters has {len(panns.filters)} entries, but {name} has "
      f"{CNN_BLOCKS[name]} blocks: give one for each"
    )
  if panns.embedding_dim < 0 or min(panns.filters, default=1) < 1:
    raise UserError(
      f"config.panns.filters is {tuple(panns.filters)} and embedding_dim "
      f"{panns.embedding_dim}: they must be greater than 0"
    )


def _validate_finetune(config: ml_collections.ConfigDict) -> None:
  if config.finetune.mode != "full" and not config.init_from:
    raise UserError(
      f"config.finetune.mode is {config.finetune.mode!r}, but config.init_from is not "
      "set: give the model directory to start from"
    )


def _validate_frontend(frontend: ml_collections.ConfigDict) -> None:
  if frontend.window_samples > frontend.fft_samples:
    raise UserError(
      f"config.frontend.window_samples {frontend.window_samples} is more than "
      f"fft_samples {frontend.fft_samples}: enlarge fft_samples"
    )
  nyquist_hz = frontend.sample_rate_hz / 2
  if not 0 <= frontend.f_min_hz < frontend.f_max_hz <= nyquist_hz:
    raise UserError(
      f"config.frontend: f_min_hz {frontend.f_min_hz} and f_max_hz "
      f"{frontend.f_max_hz} must be in order and at most half of sample_rate_hz, "
      f"{nyquist_hz}"
    )


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Returns a nested config as {"data.clip_s": 10.0, ...}."""
  flat: dict[str, Any] = {}
  for key, value in tree.items():
    if isinstance(value, Mapping):
      flat |= flatten(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = value
  return flat


def changed_keys(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """Describes the keys that differ between two configs, as read from JSON.

  Keys that may change between a run and its resumption (`FREE_KEYS`) do not count.
  """
  old_flat, new_flat = flatten(old), flatten(new)
  return [
    f"{key} (was {old_flat.get(key)!r}, now {new_flat.get(key)!r})"
    for key in sorted(old_flat.keys() | new_flat.keys())
    if old_flat.get(key) != new_flat.get(key) and not key.startswith(FREE_KEYS)
  ]
