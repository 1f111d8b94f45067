"""Recipes: their changes, refused values, and derivation from one another."""

import importlib.util
from pathlib import Path

import ml_collections
import pytest

from audiotag_jax import config as config_lib
from audiotag_jax import config_checks, recipes
from audiotag_jax.errors import UserError

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RECIPES = sorted(path.stem for path in CONFIGS.glob("*.py"))
# Each recipe's parent, and the keys whose values differ from the parent's.
DERIVED = {
  "cnn10_fsd50k": (
    "cnn14_fsd50k",
    {"model.name": "Cnn10", "init_from": "models/cnn10"},
  ),
  "cnn14_16k_fsd50k": (
    "cnn14_fsd50k",
    {
      "model.name": "Cnn14_16k",
      "init_from": "models/cnn14_16k",
      "frontend.sample_rate_hz": 16_000,
      "frontend.window_samples": 512,
      "frontend.fft_samples": 512,
      "frontend.hop_samples": 160,
      "frontend.f_max_hz": 8_000.0,
    },
  ),
  "cnn14_demo_scratch": (
    "cnn14_demo_study",
    {"init_from": "", "train.learning_rate": 3e-3},
  ),
  "cnn14_demo_study": (
    "cnn14_demo_pretrain",
    {
      "init_from": "runs/demo_study/cnn14",
      "data.soundscapes_seed": 0,
      "data.num_train": 120,
      "data.num_val": 120,
      "data.num_eval": 300,
      "data.clip_s": 6.0,
      "train.num_steps": 200,
      "train.learning_rate": 1e-3,
      "train.log_every_steps": 20,
      "train.eval_every_steps": 50,
    },
  ),
  "cnn14_fsd50k_psla": (
    "cnn14_fsd50k",
    {
      "finetune.mode": "full",
      "augment.gain_db": 0.0,
      "augment.roll_s": 0.0,
      "augment.mixup_alpha": 10.0,
      "augment.mixup_share": 0.5,
      "augment.time_stripes": 1,
      "augment.time_stripe_frames": 192,
      "augment.mel_stripes": 1,
      "augment.mel_stripe_bands": 24,
      "data.sampling": "label_weighted",
      "train.batch_size": 24,
      "train.eval_every_steps": 1533,
      "train.num_steps": 61_320,
      "train.weight_decay": 5e-7,
      "train.ema_decay": 0.0,
      "train.keep_checkpoints": 20,
      "evaluation.checkpoint": "average",
      "evaluation.batch_size": 24,
    },
  ),
  "cnn14_study": (
    "cnn14_fsd50k",
    {"data.protocol": "study", "train.num_steps": 12_000},
  ),
  "crnn_demo_study": (
    "crnn_demo",
    {
      "data.num_train": 120,
      "data.num_val": 120,
      "data.num_eval": 300,
      "train.num_steps": 400,
      "train.eval_every_steps": 100,
    },
  ),
  "crnn_study": (
    "crnn_fsd50k",
    {"data.protocol": "study", "train.num_steps": 20_000},
  ),
}


def load(name):
  spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


@pytest.fixture
def config():
  config = config_lib.get_config()
  config.data.source_dir = "/data/FSD50K"
  return config


def test_the_checked_keys_exist(config):
  flat = recipes.flatten(config.to_dict())
  assert set(config_checks.CHOICES) <= flat.keys()
  assert set(config_checks.POSITIVE) <= flat.keys()
  for key in recipes.FREE_KEYS:
    assert any(name.startswith(key) for name in flat)


def test_the_base_is_valid(config):
  assert config_checks.validate(config) is None


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"model.dtype": "int8"}, "config.model.dtype is 'int8': choose from"),
    ({"finetune.mode": "linear"}, "but config.init_from is not set"),
    ({"data.pad": "wrap"}, "config.data.pad is 'wrap': choose from"),
    ({"train.batch_size": 0}, "config.train.batch_size is 0: it must be greater"),
    ({"data.clip_s": -1.0}, "config.data.clip_s is -1.0: it must be greater"),
    ({"frontend.f_max_hz": 17_000.0}, "at most half of sample_rate_hz, 16000.0"),
    ({"frontend.window_samples": 2048}, "is more than fft_samples 1024"),
    ({"crnn.filters": (8, 8)}, "have 2, 4 and 4"),
    (
      {"frontend.num_mels": 8},
      "crnn.mel_pooling pools by 16 in all, but there are only 8",
    ),
    (
      {"data.clip_s": 0.01},
      "crnn.time_pooling pools by 8 in all, but there are only 2",
    ),
    ({"data.source_dir": ""}, "config.data.source_dir is not set"),
    (
      {"model.name": "ResNet22", "panns.embedding_dim": 8},
      "filters and embedding_dim apply only to Cnn6, Cnn10, Cnn14: do not set",
    ),
    (
      {"model.name": "Cnn6", "panns.filters": (8, 8, 8)},
      "config.panns.filters has 3 entries, but Cnn6 has 4 blocks",
    ),
    (
      {"model.name": "Cnn10", "panns.filters": (8, 8, 0, 8)},
      "config.panns.filters is (8, 8, 0, 8) and embedding_dim 0: they must be greater",
    ),
  ],
)
def test_what_makes_no_sense_is_one_line(config, change, message):
  config.update_from_flattened_dict(change)
  with pytest.raises(UserError) as info:
    config_checks.validate(config)
  assert message in str(info.value)
  assert "\n" not in str(info.value)


@pytest.mark.parametrize("value", [0, -1])
@pytest.mark.parametrize(
  "key",
  [
    *(f"data.{name}" for name in ("clip_s", "num_train", "num_val", "num_eval")),
    *(f"frontend.{name}" for name in ("sample_rate_hz", "hop_samples", "num_mels")),
    *("finetune.num_blocks", "finetune.layer_decay"),
    *(f"train.{name}" for name in ("num_steps", "batch_size", "accumulation_steps")),
    *(f"train.{name}" for name in ("learning_rate", "clip_norm")),
    *(f"train.{name}" for name in ("log_every_steps", "eval_every_steps")),
    *("evaluation.batch_size", "evaluation.hop_s"),
  ],
)
def test_what_must_be_positive(config, key, value):
  assert_one_line(config, {key: value}, rf"config\.{key} is {value}.*greater than 0")


@pytest.mark.parametrize("key", config_checks.CHOICES)
def test_a_wrong_choice_names_the_key_and_the_choices(config, key):
  choice = config_checks.CHOICES[key][0]
  expected = rf"config\.{key} is 'wrong': choose from .*{choice}"
  assert_one_line(config, {key: "wrong"}, expected)


@pytest.mark.parametrize("key", ["filters", "time_pooling", "mel_pooling"])
def test_every_block_of_the_crnn_needs_its_entries(config, key):
  assert_one_line(config, {f"crnn.{key}": (2, 2)}, "config.crnn: .*an entry for each")


INFINITE, NOT_A_NUMBER = float("inf"), float("nan")


@pytest.mark.parametrize("value", [INFINITE, -INFINITE, NOT_A_NUMBER])
@pytest.mark.parametrize(
  "key", ["data.clip_s", "train.learning_rate", "loss.focal_gamma", "augment.gain_db"]
)
def test_numbers_are_finite(config, key, value):
  assert_one_line(
    config, {key: value}, rf"config\.{key} is .*: it must be a finite num"
  )


def test_the_gradient_s_norm_may_be_infinite(config):
  config.train.clip_norm = INFINITE
  assert config_checks.validate(config) is None


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("augment.noise_snr_db", (2, "a")),
    ("augment.noise_snr_db", (2, INFINITE)),
    ("crnn.time_pooling", ("a", 1, 1, 1)),
    ("crnn.time_pooling", (0, 1, 1, 1)),
    ("crnn.filters", (8, 8, 8, 0)),
    ("crnn.filters", (8, 8, 8, -1)),
    ("crnn.filters", (8, 8, 8, 1.5)),
    ("crnn.filters", (8, 8, 8, True)),
    ("crnn.gru_units", ()),
    ("crnn.gru_units", ("",)),
    ("panns.filters", ("a",)),
    ("crnn.kernel_size", 0),
    ("seed", -1),
    ("seed", 2**32),
    ("seed", 10**400),
    ("train.num_steps", None),
    ("frontend.sample_rate_hz", 10**400),
    ("evaluation.threshold", 7.0),
    ("evaluation.threshold", NOT_A_NUMBER),
  ],
)
def test_numbers_are_of_the_base_s_types_and_in_their_range(config, key, value):
  assert_one_line(config, {key: value}, rf"config\.{key} is .*: it must be")


def test_a_clip_of_any_finite_length_is_valid(config):
  config.data.clip_s = 1e308
  assert config_checks.validate(config) is None


def test_a_recipe_that_lacks_keys_is_one_line():
  with pytest.raises(UserError, match="the recipe has no key .*: start from audiotag"):
    config_checks.validate(ml_collections.ConfigDict())


# Without these checks, an error comes after the data is prepared, or never.
@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("train.warmup_share", 1.0),
    ("train.warmup_share", -0.1),
    ("train.weight_decay", -1.0),
    ("crnn.dropout", 1.5),
    ("frontend.window_samples", 0),
    ("evaluation.split", "evla"),
  ],
)
def test_what_would_fail_late_is_said_early(config, key, value):
  assert_one_line(config, {key: value}, key)


def assert_one_line(config, change, pattern):
  config.update_from_flattened_dict(change)
  with pytest.raises(UserError, match=pattern) as info:
    config_checks.validate(config)
  assert "\n" not in str(info.value)


def test_changed_keys_are_named_unless_they_are_free():
  old = {"data": {"source_dir": "/a", "pad": "zero"}, "train": {"num_steps": 3}}
  new = {"data": {"source_dir": "/b", "pad": "repeat"}, "train": {"num_steps": 3}}
  assert recipes.changed_keys(old, new) == ["data.pad (was 'zero', now 'repeat')"]
  del new["train"]
  assert "train.num_steps (was 3, now None)" in recipes.changed_keys(old, new)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_locked_valid_and_says_how_to_launch_it(name):
  recipe = load(name)
  config = recipe.get_config()
  assert config.is_locked
  config.data.source_dir = "/data/FSD50K"
  config_checks.validate(config)
  assert f"--config=configs/{name}.py" in recipe.__doc__
  assert f"--workdir=runs/{name}" in recipe.__doc__


@pytest.mark.parametrize("name", DERIVED)
def test_a_derived_recipe_differs_from_its_parent_as_listed(name):
  parent, expected = DERIVED[name]
  old = recipes.flatten(load(parent).get_config().to_dict())
  new = recipes.flatten(load(name).get_config().to_dict())
  differing = {key: value for key, value in new.items() if value != old[key]}
  print(f"{name} derives from {parent}:")
  for key, value in differing.items():
    print(f"  {key:<28}{old[key]!r:>14} -> {value!r}")
  assert differing == expected
  assert new.keys() == old.keys()


def test_the_list_of_derived_recipes_is_complete(monkeypatch):
  parents = {}

  def record(recipe, parent):
    parents.setdefault(Path(recipe).stem, Path(parent).stem)
    return derive(recipe, parent)

  derive = recipes.derive
  monkeypatch.setattr(recipes, "derive", record)
  for name in RECIPES:
    load(name).get_config()
  assert parents == {name: parent for name, (parent, _) in DERIVED.items()}


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
