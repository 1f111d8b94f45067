"""Recipes: read, derived from one another and compared."""

import os
from pathlib import Path

import pytest

from audiotag_jax import config as config_lib
from audiotag_jax import recipes
from audiotag_jax.errors import UserError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def test_the_free_keys_exist():
  flat = recipes.flatten(config_lib.get_config().to_dict())
  for key in recipes.FREE_KEYS:
    assert any(name.startswith(key) for name in flat)


def test_changed_keys_are_named_unless_they_are_free():
  old = {"data": {"source_dir": "/a", "pad": "zero"}, "train": {"num_steps": 3}}
  new = {"data": {"source_dir": "/b", "pad": "repeat"}, "train": {"num_steps": 3}}
  assert recipes.changed_keys(old, new) == ["data.pad (was 'zero', now 'repeat')"]
  del new["train"]
  assert "train.num_steps (was 3, now None)" in recipes.changed_keys(old, new)


def test_recipes_anywhere_derive_from_one_another(tmp_path, monkeypatch):
  folder = tmp_path / "mine"
  folder.mkdir()
  write_derived(folder / "child.py", "../parent.py", "config.seed = 5")
  write_derived(tmp_path / "parent.py", CONFIGS / "crnn_study.py", "config.seed = 4")
  monkeypatch.chdir(folder)
  for path in ("child.py", folder / "child.py"):
    config = recipes.read_recipe(Path(path), ["--config.data.fold=2"])
    assert config.is_locked
    assert (config.seed, config.data.fold, config.data.protocol) == (5, 2, "study")
    assert config.train.num_steps == 20_000
  assert recipes.read_recipe(tmp_path / "parent.py").seed == 4


def test_a_parent_that_is_not_there_is_one_line(tmp_path):
  write_derived(tmp_path / "child.py", "parent.py", "pass")
  with pytest.raises(UserError) as info:
    recipes.read_recipe(tmp_path / "child.py")
  assert str(info.value) == (
    f"{tmp_path}/child.py derives from {tmp_path}/parent.py, which does not exist: "
    f"name a recipe relative to {tmp_path}"
  )


def write_derived(path, parent, change):
  path.write_text(f"""
from audiotag_jax import recipes

def get_config():
  config = recipes.derive(__file__, {str(parent)!r})
  {change}
  return config
""")


def test_overrides_have_the_types_of_the_recipe_s_values():
  overrides = [
    *("--config.train.learning_rate=1", "--config.train.num_steps=7"),
    *("--config.crnn.filters=(2, 3, 4)", "--config.crnn.gru_units=5"),
    *("--config.crnn.mel_pooling=2", "--config.crnn.mel_pooling=3"),
    *("--config.train.profile", "--config.init_from=None"),
    "--config.data['pad']=zero",
    "--config.data.cache_log_mels=true",
  ]
  config = recipes.read_recipe(CONFIGS / "crnn_demo.py", overrides)
  values = {
    "train.learning_rate": 1.0,
    "train.num_steps": 7,
    "crnn.filters": (2, 3, 4),
    "crnn.gru_units": (5,),
    "crnn.mel_pooling": (2, 3),
    "train.profile": True,
    "init_from": "None",
    "data.pad": "zero",
    "data.cache_log_mels": True,
  }
  flat = recipes.flatten(config.to_dict())
  for key, value in values.items():
    assert (flat[key], type(flat[key])) == (value, type(value)), key
  config = recipes.read_recipe(
    CONFIGS / "crnn_demo.py", ["--config.train.profile", "--noconfig.train.profile"]
  )
  assert config.train.profile is False


@pytest.mark.parametrize(
  ("override", "message"),
  [
    ("--config.train.steps=3", "has no key .*steps"),
    ("--config.trian.num_steps=3", "has no key .*trian"),
    (
      "--config.train.num_step=3",
      r"has no key train\.num_step \(train\.num_steps\?\): audiotag_jax/config.py",
    ),
    ("--config.=3", r"has no key --config\.: audiotag_jax"),
    ("--config.", r"has no key --config\.: audiotag_jax"),
    (
      "--config.crnn.filters[0]=7",
      r"has no key crnn\.filters\[0\] \(crnn\.filters\?\)",
    ),
    ("--config.train.num_steps=many", "num_steps is 'many': it must be a whole number"),
    ("--config.train.num_steps=1.5", "num_steps is '1.5': it must be a whole number"),
    ("--config.train.num_steps=", "num_steps is '': it must be a whole number"),
    ("--config.data.clip_s=long", "clip_s is 'long': it must be a number"),
    ("--config.train.profile=x", "train.profile is 'x': it must be true or false"),
    ("--config.crnn.filters=2 3", "filters is '2 3': it must be numbers with commas"),
    ("--noconfig.train.num_steps", r": write --config\.train\.num_steps=VALUE"),
    ("--noconfig.train.num_steps=3", r": write --config\.train\.num_steps=VALUE"),
    ("--noconfig.train.profile=true", r": write --noconfig\.train\.profile$"),
    ("--config.train.num_steps", "config.train.num_steps has no value: write --config"),
    ("--config.data.source_dir", "config.data.source_dir has no value"),
    ("--config.trian.profile", "has no key .*trian"),
    ("--config.data[pad]=zero", r"has no key data\[pad\]"),
    ("--config.train=3", "has no key train: audiotag_jax"),
  ],
)
def test_a_wrong_override_is_one_line(override, message):
  with pytest.raises(UserError, match=message) as info:
    recipes.read_recipe(CONFIGS / "crnn_demo.py", [override])
  assert "\n" not in str(info.value)
  assert "crnn_demo.py" in str(info.value)


def test_a_recipe_s_own_argument_follows_a_colon(tmp_path):
  (tmp_path / "sizes.py").write_text("""
from audiotag_jax import config as config_lib

def get_config(size="large"):
  config = config_lib.get_config()
  config.crnn.gru_units = {"small": (4,), "large": (8,)}[size]
  return config
""")
  assert recipes.read_recipe(tmp_path / "sizes.py").crnn.gru_units == (8,)
  assert recipes.read_recipe(tmp_path / "sizes.py:small").crnn.gru_units == (4,)


def test_a_recipe_that_is_not_python_is_one_line(tmp_path):
  (tmp_path / "recipe.txt").write_text("")
  with pytest.raises(UserError, match=r"recipe\.txt is not a Python file: the name of"):
    recipes.read_recipe(tmp_path / "recipe.txt")


BASE = "from audiotag_jax import config, recipes\n"


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("x = 1\ndef get_config(:", r"recipe\.py, line 2: SyntaxError: invalid syntax"),
    ("x = 1\nimport no_such", r"recipe\.py, line 2: ModuleNotFoundError: No module"),
    ("def get_config():\n  return x", r"recipe\.py, line 2: NameError: name 'x' is"),
    ("\n\n1 / 0", r"recipe\.py, line 3: ZeroDivisionError: division by zero"),
    ("def f():\n  f()\nf()", r"recipe\.py, line 2: RecursionError: "),
    (b"x = '\xff'", r"recipe\.py.*: SyntaxError: .*utf-8"),
    ("", r"recipe\.py has no function get_config\(\): a recipe returns its config"),
    ("get_config = 3", r"recipe\.py has no function get_config\(\)"),
    ("def get_config():\n  pass", r"recipe\.py: get_config\(\) returned NoneType, but"),
    (
      "def get_config():\n  return {}",
      r"recipe\.py: get_config\(\) returned dict, but",
    ),
    ("def get_config(size):\n  pass", r"recipe\.py: get_config\(\) needs an argument"),
    (
      BASE + "def get_config():\n  c = config.get_config()\n  c.train.step = 3",
      r'recipe\.py, line 4: KeyError: Key "step" does not exist ',
    ),
    (
      BASE + "def get_config():\n  return recipes.derive(__file__, 'recipe.py')",
      r"recipe\.py derives from itself: recipe\.py -> recipe\.py$",
    ),
  ],
)
def test_a_mistake_in_a_recipe_is_one_line(tmp_path, text, message):
  file = tmp_path / "recipe.py"
  file.write_bytes(text if isinstance(text, bytes) else text.encode())
  with pytest.raises(UserError, match=message) as info:
    recipes.read_recipe(file)
  assert "\n" not in str(info.value)
  assert str(file) in str(info.value)


def test_recipes_that_derive_from_each_other_are_one_line(tmp_path):
  write_derived(tmp_path / "a.py", "b.py", "pass")
  write_derived(tmp_path / "b.py", "a.py", "pass")
  for _ in range(2):
    with pytest.raises(UserError, match=r"from itself: a\.py -> b\.py -> a\.py$"):
      recipes.read_recipe(tmp_path / "a.py")


def test_a_mistake_in_a_parent_names_the_parent(tmp_path):
  write_derived(tmp_path / "child.py", "parent.py", "pass")
  (tmp_path / "parent.py").write_text("x = 1\n1 / 0\n")
  with pytest.raises(UserError) as info:
    recipes.read_recipe(tmp_path / "child.py")
  expected = f"{tmp_path}/parent.py, line 2: ZeroDivisionError: division by zero"
  assert str(info.value) == expected


def test_an_argument_that_a_recipe_does_not_take_is_one_line():
  with pytest.raises(UserError, match=r"takes no argument, so write it without :small"):
    recipes.read_recipe(CONFIGS / "crnn_demo.py:small")


def test_a_recipe_may_derive_from_itself_with_another_argument(tmp_path):
  (tmp_path / "sizes.py").write_text("""
from audiotag_jax import config, recipes

def get_config(size="large"):
  if size == "large":
    return config.get_config()
  small = recipes.derive(__file__, "sizes.py")
  small.crnn.gru_units = (4,)
  return small
""")
  assert recipes.read_recipe(tmp_path / "sizes.py:small").crnn.gru_units == (4,)


def test_paths_of_a_recipe_and_of_overrides_take_the_home_folder(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", "/home/me")
  recipe = tmp_path / "recipe.py"
  recipe.write_text(
    "from audiotag_jax import config as config_lib\n\n\n"
    "def get_config():\n  config = config_lib.get_config()\n"
    "  config.init_from = '~/models/cnn14'\n  return config\n"
  )
  overrides = [
    *("--config.data.source_dir=~/FSD50K", "--config.data.data_dir=~"),
    *("--config.data.audio_dir=~root", "--config.augment.noise_dir=~/noise"),
    "--config.data.label_separator=~",
  ]
  config = recipes.read_recipe(recipe, overrides)
  assert config.init_from == "/home/me/models/cnn14"
  assert config.data.source_dir == "/home/me/FSD50K"
  assert config.data.data_dir == "/home/me"
  assert config.data.audio_dir == os.path.expanduser("~root")
  assert config.augment.noise_dir == "/home/me/noise"
  assert config.data.label_separator == "~"


def test_the_path_keys_exist():
  assert (
    set(recipes.PATH_KEYS) <= recipes.flatten(config_lib.get_config().to_dict()).keys()
  )
