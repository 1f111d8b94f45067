"""The recipes in configs/: each is valid, and differs from its parent as listed."""

import importlib.util
from pathlib import Path

import pytest

from audiotag_jax import config_checks, recipes

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
