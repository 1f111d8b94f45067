import jax
import numpy as np
import pytest
import tiny_models

from audiotag_jax import model_directory
from audiotag_jax.errors import UserError
from audiotag_jax.models import panns
from audiotag_jax.models.create import model_fields
from audiotag_jax.panns.architectures import ARCHITECTURES
from audiotag_jax.training import train
from audiotag_jax.training.loop import Loop
from audiotag_jax.training.run import check_config, open_run, restore_or_init

pytestmark = pytest.mark.slow

FILTERS = (4, 4, 8, 8)


@pytest.fixture
def config(tiny_config, tmp_path, monkeypatch):
  """A Cnn6 of few filters, fine-tuned from a model directory of 5 classes."""
  row = ARCHITECTURES["Cnn6"]
  small = row.fields | {"filters": FILTERS, "embedding_dim": 6}
  monkeypatch.setitem(ARCHITECTURES, "Cnn6", row._replace(fields=small))
  config = tiny_config
  config.model.name = "Cnn6"
  config.train.num_steps = config.train.eval_every_steps = 2
  config.train.warmup_share = 0.0
  config.train.learning_rate = 1e-2
  config.init_from = str(tmp_path / "pretrained")
  write_pretrained(config)
  return config


def write_pretrained(config):
  front_end = panns.LogMelParams(**config.frontend)
  model = panns.create("Cnn6", num_classes=5, front_end=front_end)
  description = model_directory.ModelDescription(
    architecture="Cnn6",
    fields=model_fields(model),
    front_end=dict(config.frontend),
    class_names=list("abcde"),
    source={"file": "Cnn6.pth", "sha256": ""},
  )
  model_directory.save_model(
    train.Path(config.init_from), description, tiny_models.random_variables(model)
  )


def train_from(config, tmp_path):
  """Returns the states before and after training."""
  run = open_run(config, tmp_path / "run")
  before, meter = restore_or_init(run)
  Loop(run, before, meter).run()
  after = run.checkpoints.restore(run.checkpoints.steps_of("last")[0], before)
  run.checkpoints.close()
  return before, after


def changed_layers(before, after):
  return {
    name
    for name in before
    if not all(
      np.array_equal(*pair)
      for pair in zip(
        jax.tree.leaves(before[name]), jax.tree.leaves(after[name]), strict=True
      )
    )
  }


BACKBONE = {"bn0", "conv_block1", "conv_block2", "conv_block3", "conv_block4", "fc1"}


@pytest.mark.parametrize(
  ("mode", "expected"),
  [
    pytest.param("full", BACKBONE | {"fc_audioset"}, marks=pytest.mark.exhaustive),
    ("linear", {"fc_audioset"}),
    ("last_blocks", {"fc_audioset", "fc1", "conv_block4"}),
    pytest.param("layerwise", BACKBONE | {"fc_audioset"}, marks=pytest.mark.exhaustive),
  ],
)
def test_each_mode_changes_exactly_its_parameters(config, tmp_path, mode, expected):
  config.finetune.mode = mode
  before, after = train_from(config, tmp_path)
  assert changed_layers(before.params, after.params) == expected
  stats = changed_layers(before.batch_stats, after.batch_stats)
  assert stats == (set() if mode in ("linear", "last_blocks") else BACKBONE - {"fc1"})


def test_the_backbone_is_the_directory_s_and_the_head_is_new(config, tmp_path):
  run = open_run(config, tmp_path / "run")
  state, _ = restore_or_init(run)
  run.checkpoints.close()
  _, saved = model_directory.load_model(train.Path(config.init_from))
  for name in BACKBONE:
    jax.tree.map(
      np.testing.assert_array_equal, state.params[name], saved["params"][name]
    )
  jax.tree.map(np.testing.assert_array_equal, state.batch_stats, saved["batch_stats"])
  assert state.params["fc_audioset"]["kernel"].shape == (6, 3)


def test_layerwise_rates_decay_from_the_classifier_back(config, tmp_path):
  config.finetune.mode, config.finetune.layer_decay = "layerwise", 0.5
  run = open_run(config, tmp_path / "run")
  run.checkpoints.close()
  assert run.scales == {
    "bn0": 1 / 64,
    "conv_block1": 1 / 32,
    "conv_block2": 1 / 16,
    "conv_block3": 1 / 8,
    "conv_block4": 1 / 4,
    "fc1": 1 / 2,
    "fc_audioset": 1.0,
  }


def test_another_front_end_is_refused_with_the_keys(config, tmp_path):
  config.frontend.hop_samples = 160
  config.frontend.f_min_hz = 20.0
  run = open_run(config, tmp_path / "run")
  with pytest.raises(UserError) as info:
    restore_or_init(run)
  run.checkpoints.close()
  assert "hop_samples 160, not 320, f_min_hz 20.0, not 50.0" in str(info.value)
  assert "--config.frontend.hop_samples=320" in str(info.value)


def test_other_widths_are_refused_with_the_keys(config, tmp_path):
  config.panns.filters = (4, 4, 8, 16)
  config.panns.embedding_dim = 5
  run = open_run(config, tmp_path / "run")
  with pytest.raises(UserError) as info:
    restore_or_init(run)
  run.checkpoints.close()
  assert str(info.value) == (
    f"config.panns differs from what {config.init_from} was trained with: "
    "filters [4, 4, 8, 16], not [4, 4, 8, 8], embedding_dim 5, not 6; "
    "give --config.panns.filters=4,4,8,8 --config.panns.embedding_dim=6"
  )


def test_another_architecture_is_refused(config, tmp_path):
  config.model.name = "Cnn10"
  run = open_run(config, tmp_path / "run")
  with pytest.raises(
    UserError, match=r"is of Cnn6, not Cnn10: give --config.model.name"
  ):
    restore_or_init(run)
  run.checkpoints.close()


def test_a_folder_without_a_model_is_refused(config, tmp_path):
  config.init_from = str(tmp_path)
  with pytest.raises(UserError, match=r"has no model.json"):
    check_config(config, tmp_path / "run")


def test_a_run_leaves_a_model_that_another_can_start_from(config, tmp_path):
  train.train_and_evaluate(config, str(tmp_path / "first"))
  description, saved = model_directory.load_model(tmp_path / "first" / "model")
  assert description.class_names == ["Bell", "Rain", "Siren"]
  assert saved["params"]["fc_audioset"]["bias"].shape == (3,)
  config.init_from = str(tmp_path / "first" / "model")
  run = open_run(config, tmp_path / "second")
  state, _ = restore_or_init(run)
  run.checkpoints.close()
  np.testing.assert_array_equal(
    state.params["fc1"]["kernel"], saved["params"]["fc1"]["kernel"]
  )


def test_the_model_can_compute_the_log_mel_itself(config, tmp_path):
  before, after = train_from(config, tmp_path)
  config.data.features = "waveform"
  other_before, other_after = train_from(config, tmp_path / "waveform")
  jax.tree.map(np.testing.assert_array_equal, before.params, other_before.params)
  assert changed_layers(other_before.params, other_after.params) == changed_layers(
    before.params, after.params
  )
