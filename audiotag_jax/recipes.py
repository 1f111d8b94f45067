"""Recipes: read, derived from one another and compared.

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
import json
import os
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

from audiotag_jax import json_files
from audiotag_jax.errors import UserError

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
  "train.checkpoint_every_minutes",
  "train.compilation_cache",
  "train.profile",
  "evaluation.",
)

# Keys that are paths, in which `~` is the home folder.
PATH_KEYS = (
  "augment.noise_dir",
  "data.audio_dir",
  "data.data_dir",
  "data.source_dir",
  "init_from",
  "train.compilation_cache",
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
    raise UserError(f"{file} is not a file: give a recipe, such as those in configs/")
  config = _load(Path(file), *args).lock()
  try:
    return _expand_home(_override(config, overrides))
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


def _expand_home(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
  """Replaces `~` and `~user` in paths, where the config has them."""
  flat = flatten(config.to_dict())
  paths = {key: os.path.expanduser(flat[key]) for key in PATH_KEYS if key in flat}
  config.update_from_flattened_dict(paths)
  return config


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


def check_unchanged(path: Path, new: Any) -> None:
  """Compares a config with the one that a workdir was made with.

  Raises:
    UserError: the file exists and differs; see `changed_keys`.
  """
  if not path.exists():
    return
  restore = "restore it from a copy, or give another --workdir"
  old, new = json_files.read(path, restore), json.loads(json.dumps(new))
  if changes := changed_keys(old, new):
    raise UserError(
      f"{path.parent} was made with another {path.stem}: {'; '.join(changes)}. "
      "Give another --workdir, or the values it was made with"
    )
