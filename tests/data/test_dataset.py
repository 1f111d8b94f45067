"""A config's data set, prepared."""

import pytest

from audiotag_jax import config as config_lib
from audiotag_jax.data.clips import read_index
from audiotag_jax.data.dataset import prepare, soundscapes_dir


@pytest.fixture
def config(tmp_path):
  config = config_lib.get_config()
  config.data.dataset = "soundscapes"
  config.data.data_dir = str(tmp_path)
  config.data.num_train, config.data.num_val, config.data.num_eval = 2, 1, 1
  config.frontend.sample_rate_hz = 8_000
  return config


def test_demo_sets_of_two_seeds_lie_apart_and_share_no_clip(config, tmp_path):
  audio = {}
  for seed, folder in {0: "soundscapes-2-1-1", 1: "soundscapes-2-1-1-seed1"}.items():
    config.data.soundscapes_seed = seed
    assert soundscapes_dir(config.data) == tmp_path / folder
    clips, _ = read_index(prepare(config).folder)
    audio[seed] = {path.read_bytes() for path in (tmp_path / folder).rglob("*.wav")}
    assert len(clips) == len(audio[seed]) == 4
  assert not audio[0] & audio[1]
