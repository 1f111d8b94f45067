"""Recipes: read, derived from one another, checked and compared.

A recipe is a Python file, anywhere, with a `get_config()` that gives the keys of
`config.py` other values. A variant of another recipe starts from that recipe:

  from audiotag_jax import recipes

  def get_config():
    config = recipes.derive(__file__, "cnn14_fsd50k.py")
    config.train.num_steps = 12_000
    return config
"""

import difflib
import importlib.util
import inspect
import math
import numbers
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags import tuple_parser

from audiotag_jax import config as config_lib
from audiotag_jax.errors import UserError
from audiotag_jax.panns.architectures import ARCHITECTURES, CNN_BLOCKS

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
  "evaluation.threshold",
)

# Keys that may be infinite. All other numbers are finite.
MAY_BE_INFINITE = ("train.clip_norm",)

# Largest seed, that of JAX's 32 bits.
MAX_SEED = 2**32 - 1

# Parsers of overrides by the type of the key, and what they expect.
PARSERS = {
  bool: (flags.BooleanParser(), "true or false"),
  int: (flags.IntegerParser(), "a whole number"),
  float: (flags.FloatParser(), "a number"),
  tuple: (tuple_parser.TupleParser(), "numbers with commas, as in 2,3"),
}

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


# Recipes that are being loaded, each with its arguments: the first derives from the
# second, and so on.
_loading: list[tuple[Path, tuple[str, ...]]] = []


def _load(path: Path, *args: str) -> ml_collections.ConfigDict:
  """Runs a recipe's file and returns its config.

  Raises:
    UserError: the recipe derives from itself, or has a mistake in its code.
  """
  entry = (path.resolve(), args)
  if entry in _loading:
    cycle = [*_loading[_loading.index(entry) :], entry]
    names = " -> ".join(file.name for file, _ in cycle)
    raise UserError(f"{path} derives from itself: {names}")
  _loading.append(entry)
  try:
    return _run(path, args)
  except UserError:
    raise
  except Exception as error:  # A recipe is code, which may raise anything.
    raise UserError(f"{path}{_line(error, path)}: {_say(error)}") from error
  finally:
    _loading.pop()


def _run(path: Path, args: Sequence[str]) -> ml_collections.ConfigDict:
  spec = importlib.util.spec_from_file_location(path.stem, path)
  if spec is None or spec.loader is None:
    raise UserError(f"{path} is not a Python file: the name of a recipe ends in .py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = _find_get_config(path, module, args)(*args)
  if not isinstance(config, ml_collections.ConfigDict):
    raise UserError(
      f"{path}: get_config() returned {type(config).__name__}, but a recipe returns a "
      "ConfigDict: end it with return config"
    )
  return config


def _find_get_config(
  path: Path, module: ModuleType, args: Sequence[str]
) -> Callable[..., Any]:
  """Returns the function of a recipe, if it can be called with the arguments."""
  get_config = getattr(module, "get_config", None)
  if not callable(get_config):
    raise UserError(
      f"{path} has no function get_config(): a recipe returns its config from it"
    )
  try:
    inspect.signature(get_config).bind(*args)
  except TypeError as error:
    raise UserError(
      f"{path}: get_config() takes no argument, so write it without :{args[0]}"
      if args
      else f"{path}: get_config() needs an argument: write it after a colon, as in "
      f"{path}:small"
    ) from error
  return get_config


def _line(error: Exception, path: Path) -> str:
  """Returns the place of an error in a file as ", line 3", or "" if it is unknown."""
  frames = traceback.walk_tb(error.__traceback__)
  places = [(frame.f_code.co_filename, line) for frame, line in frames]
  if isinstance(error, SyntaxError):
    places.append((error.filename or "", error.lineno or 0))
  lines = [line for file, line in places if Path(file).resolve() == path.resolve()]
  return f", line {lines[-1]}" if any(lines[-1:]) else ""


def _say(error: Exception) -> str:
  """Returns an error in one line."""
  if error.args and isinstance(error.args[0], Exception):
    error = error.args[0]  # A ConfigDict's error, which quotes another.
  text = str(error)
  if isinstance(error, SyntaxError):
    text = error.msg
  elif isinstance(error, KeyError) and error.args:
    text = str(error.args[0])  # Its text is quoted, with escapes.
  return " ".join(f"{type(error).__name__}: {text}".split())


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
  config = _load(Path(file), *args).lock()
  try:
    return _override(config, overrides)
  except UserError as error:
    raise UserError(f"{recipe}{error}") from error
  except (AttributeError, flags.Error, KeyError, TypeError, ValueError) as error:
    raise UserError(f"{recipe}: {_say(error)}") from error


def _override(
  config: ml_collections.ConfigDict, overrides: Sequence[str]
) -> ml_collections.ConfigDict:
  """Sets the keys that flags override, each to a value of the key's type."""
  flat = flatten(config.to_dict())
  for override in overrides:
    _check_override(override, flat)
  argv = ["recipe", *overrides]
  values = flags.FlagValues()
  flag = config_flags.DEFINE_config_dict(
    "config", config, flag_values=values, sys_argv=argv
  )
  values(argv)
  return flag.value


def _check_override(override: str, flat: Mapping[str, Any]) -> None:
  """Finds an override of no key, or with a value that is not of the key's type.

  Raises:
    UserError: there is one; the message lacks the name of the recipe before it.
  """
  flag, equals, text = override.partition("=")
  prefix, _, key = flag.partition("config.")
  key = re.sub(r"\[(['\"])(\w+)\1\]", r".\2", key)  # data['pad'] is data.pad.
  if key not in flat:
    close = difflib.get_close_matches(key, flat, n=1)
    raise UserError(
      f" has no key {key or flag}{f' ({close[0]}?)' if close else ''}: "
      "audiotag_jax/config.py lists the keys"
    )
  is_switch = isinstance(flat[key], bool)
  if prefix == "--no" and (equals or not is_switch):
    form = flag if is_switch else f"--config.{key}=VALUE"
    raise UserError(f": {override} is not a switch: write {form}")
  if not equals and not is_switch:
    raise UserError(f": config.{key} has no value: write {flag}=VALUE")
  parser, expected = PARSERS.get(type(flat[key]), (flags.ArgumentParser(), ""))
  try:
    if equals:
      parser.parse(text)
  except (TypeError, ValueError) as error:
    raise UserError(f": config.{key} is {text!r}: it must be {expected}") from error


def validate(config: ml_collections.ConfigDict) -> None:
  """Raises `UserError`, in one line, if a value of the config is invalid."""
  flat = flatten(config.to_dict())
  _validate_types(flat)
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


def _validate_types(flat: Mapping[str, Any]) -> None:
  """Checks that all keys are there, and that numbers are as the base's."""
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
