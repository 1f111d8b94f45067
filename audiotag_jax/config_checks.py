"""Checks of a config's values, each a line that says what to change."""

import math
import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from audiotag_jax import config as config_lib
from audiotag_jax.errors import UserError
from audiotag_jax.panns.architectures import ARCHITECTURES, CNN_BLOCKS
from audiotag_jax.recipes import flatten

CHOICES = {
  "model.name": ("crnn", *ARCHITECTURES),
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

# Keys greater than 0. A key of several numbers has at least one, each greater than 0.
POSITIVE = (
  "crnn.filters",
  "crnn.time_pooling",
  "crnn.mel_pooling",
  "crnn.kernel_size",
  "crnn.gru_units",
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
  "train.checkpoint_every_minutes",
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

# Least and largest values of the front-end. The rates are those of recordings; see
# `audio.waveforms`. The others bound the memory that a model.json can ask for.
FRONT_END_RANGES = {
  "sample_rate_hz": (100, 10_000_000),
  "window_samples": (1, 2**16),
  "fft_samples": (2, 2**16),
  "hop_samples": (1, 2**16),
  "num_mels": (1, 2**10),
}

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
  "evaluation.threshold",
)

# Keys that may be infinite. All other numbers are finite.
MAY_BE_INFINITE = ("train.clip_norm",)

# Largest seed, that of JAX's 32 bits.
MAX_SEED = 2**32 - 1


def validate(config: ml_collections.ConfigDict) -> None:
  """Raises `UserError`, in one line, if a value of the config is invalid."""
  flat = flatten(config.to_dict())
  validate_types(config)
  for key, choices in CHOICES.items():
    if flat[key] not in choices:
      raise UserError(f"config.{key} is {flat[key]!r}: choose from {choices}")
  for key in POSITIVE:
    if not min(_entries(flat[key]), default=0) > 0:
      several = "one number or more, each " if _is_tuple(flat[key]) else ""
      raise UserError(
        f"config.{key} is {flat[key]}: it must be {several}greater than 0"
      )
  for key in SHARES:
    if not 0 <= flat[key] < 1:
      raise UserError(f"config.{key} is {flat[key]}: it must be at least 0 and below 1")
  for key in NOT_NEGATIVE:
    if flat[key] < 0:
      raise UserError(f"config.{key} is {flat[key]}: it must be at least 0")
  for key in CHANCES:
    if not 0 <= flat[key] <= 1:
      raise UserError(f"config.{key} is {flat[key]}: it must be from 0 to 1")
  if config.seed > MAX_SEED:
    raise UserError(f"config.seed is {config.seed}: it must be at most {MAX_SEED}")
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


def validate_types(config: ml_collections.ConfigDict) -> None:
  """Checks that all keys are there, and that numbers are as the base's.

  Raises:
    UserError: a key is missing, or its value is of another type.
  """
  flat = flatten(config.to_dict())
  for key, default in flatten(config_lib.get_config().to_dict()).items():
    if key not in flat:
      raise UserError(
        f"the recipe has no key {key}: start from audiotag_jax.config.get_config()"
      )
    value, example = flat[key], _entries(default)
    # `panns.filters`, which is empty in the base, has whole numbers.
    expected = type(example[0]) if example else int
    if expected not in (int, float):
      continue
    is_valid = {int: _is_whole, float: _is_number}[expected]
    same_shape = _is_tuple(value) == _is_tuple(default)
    if key in MAY_BE_INFINITE and value == math.inf:
      continue
    if not same_shape or not all(map(is_valid, _entries(value))):
      name = {int: "whole number", float: "finite number"}[expected]
      name = f"a tuple of {name}s" if _is_tuple(default) else f"a {name}"
      raise UserError(f"config.{key} is {value!r}: it must be {name}")


def _entries(value: Any) -> Sequence[Any]:
  """Returns the entries of a key of several values, or the value as the only one."""
  return value if _is_tuple(value) else (value,)


def _is_tuple(value: Any) -> bool:
  return isinstance(value, tuple | list)


def _is_whole(value: Any) -> bool:
  """Returns whether a value is a whole number that 64 bits hold."""
  is_int = isinstance(value, numbers.Integral) and not isinstance(value, bool)
  return is_int and abs(value) < 2**63


def _is_number(value: Any) -> bool:
  is_real = isinstance(value, numbers.Real) and not isinstance(value, bool)
  return is_real and abs(value) < math.inf


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
    "time_pooling": 1 + int(min(clip_samples, 2**63)) // config.frontend.hop_samples,
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
  try:
    validate_front_end(frontend)
  except UserError as error:
    raise UserError(f"config.frontend.{error}") from error


def validate_front_end(front_end: Mapping[str, Any]) -> None:
  """Raises `UserError` unless a config's or a model.json's front-end is possible."""
  for key, (low, high) in FRONT_END_RANGES.items():
    value: Any = front_end.get(key)
    if not _is_whole(value) or not low <= value <= high:
      raise UserError(
        f"{key} is {value!r}: it must be a whole number from {low} to {high}"
      )
  unknown = sorted(set(front_end) - {*FRONT_END_RANGES, "f_min_hz", "f_max_hz"})
  if unknown:
    raise UserError(f"{unknown[0]} is unknown: leave it out")
  if front_end["window_samples"] > front_end["fft_samples"]:
    raise UserError(
      f"window_samples {front_end['window_samples']} is more than fft_samples "
      f"{front_end['fft_samples']}: enlarge fft_samples"
    )
  f_min_hz: Any = front_end.get("f_min_hz")
  f_max_hz: Any = front_end.get("f_max_hz")
  nyquist_hz = front_end["sample_rate_hz"] / 2
  are_numbers = _is_number(f_min_hz) and _is_number(f_max_hz)
  if not are_numbers or not 0 <= f_min_hz < f_max_hz <= nyquist_hz:
    raise UserError(
      f"f_min_hz {f_min_hz} and f_max_hz {f_max_hz} must be in order and at most half "
      f"of sample_rate_hz, {nyquist_hz}"
    )
