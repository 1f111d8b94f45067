"""A config's data set, prepared."""

import numpy as np
import pytest
import soundfile

from audiotag_jax import config as config_lib
from audiotag_jax.data import prepared_set
from audiotag_jax.data.clips import read_index
from audiotag_jax.data.dataset import (
  load_splits,
  open_source,
  prepare,
  soundscapes_dir,
)


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


def write_manifest(folder, config, *rows):
  """Writes a manifest, and a tone for each of its rows."""
  for i in range(len(rows)):
    tone = 0.5 * np.sin(440 * 2 * np.pi * np.arange(800) / 8_000)
    soundfile.write(folder / f"{i}.wav", tone, 8_000)
  text = "".join(f"{i}.wav,{row}\n" for i, row in enumerate(rows))
  (folder / "clips.csv").write_text(f"path,labels,split\n{text}")
  config.data.dataset = "manifest"
  config.data.source_dir = str(folder / "clips.csv")


def test_classes_that_train_lacks_are_named(config, tmp_path, caplog):
  labels = ['"Bell,Rain",train', "Bell,val", '"Owl,Bell",val', "Owl,eval", "Rain,eval"]
  many = ",".join(f"{i:02d}" for i in range(10))
  write_manifest(tmp_path, config, *labels, f'"Owl,{many}",eval')
  text = prepared_set.describe(prepare(config))
  expected = (
    "train lacks classes of val or eval, which cannot be learnt and count in mAP: "
    + "".join(f"{i:02d} (eval 1), " for i in range(9))
    + "09 (eval 1) and 1 more"
  )
  assert text.splitlines()[-1] == f"  warning   {expected}"
  caplog.clear()
  load_splits(config)
  warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
  assert warnings == [expected]
  write_manifest(tmp_path, config, *labels)
  text = prepared_set.describe(prepare(config))
  assert text.endswith("count in mAP: Owl (val 1, eval 1)")
  write_manifest(tmp_path, config, *labels, "Owl,train")
  assert "warning" not in prepared_set.describe(prepare(config))


def test_classes_that_differ_by_case_alone_are_named(config, tmp_path, caplog):
  write_manifest(tmp_path, config, "Bell,train", "bell,train", "Rain,val")
  assert open_source(config.data).classes == ("Bell", "Rain", "bell")
  assert caplog.messages == [
    f"{tmp_path}/clips.csv has classes that differ by case alone, and stay apart: "
    "Bell/bell"
  ]


def test_a_tilde_is_the_home_folder(config, tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  write_manifest(tmp_path, config, "Bell,train", "Bell,val")
  config.data.source_dir, config.data.audio_dir = "~/clips.csv", "~"
  config.data.data_dir = "~/data"
  assert prepare(config).folder.is_relative_to(tmp_path / "data")
  config.data.dataset, config.data.source_dir = "soundscapes", "~/demo"
  assert soundscapes_dir(config.data) == tmp_path / "demo"
