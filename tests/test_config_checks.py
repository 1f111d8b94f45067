"""Values of a config: those that are refused, each in a line that says why."""

import ml_collections
import pytest

from audiotag_jax import config as config_lib
from audiotag_jax import config_checks, recipes
from audiotag_jax.errors import UserError


@pytest.fixture
def config():
  config = config_lib.get_config()
  config.data.source_dir = "/data/FSD50K"
  return config


def test_the_checked_keys_exist(config):
  flat = recipes.flatten(config.to_dict())
  assert set(config_checks.CHOICES) <= flat.keys()
  assert set(config_checks.POSITIVE) <= flat.keys()


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
