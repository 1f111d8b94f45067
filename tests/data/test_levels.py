"""Clips of any level are stored as they are tagged; older sets are read as before."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from etils import epath

from audiotag_jax import config as config_lib
from audiotag_jax.audio import waveforms
from audiotag_jax.audio.files import read_audio
from audiotag_jax.data import builder, input_pipeline
from audiotag_jax.data.clips import read_index, read_waveform
from audiotag_jax.data.sources import manifest
from audiotag_jax.frontend import log_mel_tf, mel

RATE_HZ = 16_000
LEVELS_DB = (0, -40, -80, -96, -120)
# Prepared by version 0.2.0 from the recordings of `older_set`.
SET_OF_0_2_0 = Path(__file__).parent / "set_of_0_2_0"


def prepare(folder, rows, rate_hz):
  path = folder / "clips.csv"
  path.write_text("path,labels,split\n" + "".join(f"{row}\n" for row in rows))
  return builder.prepare(
    manifest.read_manifest(epath.Path(path), audio_dir=None, label_separator=","),
    data_dir=str(folder / "data"),
    sample_rate_hz=rate_hz,
    allow_missing=0,
  )


def chime(rate_hz):
  """Tones that fade out over noise <float64>[samples], with a peak of 1."""
  t = np.arange(rate_hz) / rate_hz
  tones = sum(
    np.sin(2 * np.pi * f * t) * np.exp(-t * f / 300) for f in (311, 980, 2741)
  )
  waveform = tones + np.random.default_rng(0).normal(0, 1e-3, len(t))
  return waveform / np.abs(waveform).max()


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
  """A folder of recordings of many levels, and the index of the set of them."""
  folder = tmp_path_factory.mktemp("levels")
  for level_db in LEVELS_DB:
    waveform = chime(44_100) * 10 ** (level_db / 20)
    soundfile.write(folder / f"{level_db}dB.flac", waveform, 44_100, "PCM_24")
    # -120 dB has four steps of 24 bits.
    soundfile.write(folder / f"{level_db}dB.wav", waveform, 44_100, "PCM_32")
  quiet = 1e-4 * chime(RATE_HZ)
  slam = quiet.copy()
  slam[3_000] = 0.99
  for name, waveform, subtype in [
    ("slam", slam, "PCM_24"),
    ("loud", 40 * chime(RATE_HZ), "FLOAT"),
    ("tiny", 1e-26 * quiet, "FLOAT"),
    ("16 bits", chime(RATE_HZ), "PCM_16"),
    ("silent", 0 * quiet, "PCM_24"),
  ]:
    soundfile.write(folder / f"{name}.wav", waveform, RATE_HZ, subtype)
  names = sorted(path.name for path in folder.iterdir())
  prepared = prepare(folder, [f"{name},Bell,train" for name in names], RATE_HZ)
  return folder, read_index(prepared.folder)[0]


def stored_and_file(recordings, name, normalize):
  """Returns a clip as training reads it, and as the Tagger reads its file."""
  folder, index = recordings
  data = config_lib.get_config().data
  data.normalize = normalize
  clip = index.fname.tolist().index(name)
  stored = read_waveform(index, clip, data).numpy()
  file = read_audio(folder / name, RATE_HZ)
  if name != "silent.wav":
    file = waveforms.normalize(file, normalize)
  assert stored.dtype == file.dtype == np.float32
  return stored, file


@pytest.mark.parametrize("normalize", ["peak", "none"])
@pytest.mark.parametrize(
  "name",
  [f"{db}dB.{ending}" for db in LEVELS_DB for ending in ("wav", "flac")]
  + ["slam.wav", "loud.wav", "tiny.wav"],
)
def test_a_clip_is_stored_as_it_is_tagged(recordings, name, normalize):
  stored, file = stored_and_file(recordings, name, normalize)
  error = np.linalg.norm(np.float64(stored) - file) / np.linalg.norm(np.float64(file))
  # -86 dB. The block of the slam has a crest of 24 dB.
  assert error < (2e-4 if name == "slam.wav" else 5e-5)
  config = config_lib.get_config()
  config.frontend.sample_rate_hz, config.frontend.f_max_hz = RATE_HZ, 8_000.0
  params = mel.LogMelParams(**config.frontend)
  log_mel, expected = (log_mel_tf.log_mel(x, params).numpy() for x in (stored, file))
  difference_db = np.abs(log_mel - expected)
  # The largest difference is in the highest band, which resampling emptied.
  assert difference_db.max() < 1
  assert difference_db.mean() < 0.05


@pytest.mark.parametrize("normalize", ["peak", "none"])
@pytest.mark.parametrize("name", ["16 bits.wav", "silent.wav"])
def test_what_16_bits_hold_is_stored_exactly(recordings, name, normalize):
  stored, file = stored_and_file(recordings, name, normalize)
  np.testing.assert_array_equal(stored, file)


@pytest.fixture
def older_set(tmp_path):
  """Returns a set of version 0.2.0, and a function that prepares its source now."""
  for i, name in enumerate("abc"):
    soundfile.write(tmp_path / f"{name}.wav", steps_of(i).astype(np.int16), 8_000)

  def prepare_now():
    rows = "a.wav,Bell,train", "b.wav,Rain,val", "c.wav,Bell,eval"
    return prepare(tmp_path, rows, 8_000).folder

  folder = prepare_now().with_name(builder.OLDER_VERSION)
  shutil.copytree(SET_OF_0_2_0, folder)
  return folder, prepare_now


def steps_of(clip):
  return np.arange(400 + clip) * 7919 * (clip + 1) % 40_001 - 20_000


def contents(folder):
  return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_a_set_of_an_older_version_is_read_as_it_was(older_set):
  folder, prepare_now = older_set
  assert prepare_now() == folder
  index, split = read_index(folder)
  assert split.tolist() == ["train", "val", "eval"]
  config = config_lib.get_config()
  config.data.features, config.data.normalize = "waveform", "none"
  config.frontend.sample_rate_hz, config.data.clip_s = 8_000, 0.05
  (batch,) = input_pipeline.eval_batches(
    index, config, process=input_pipeline.Process()
  )
  for i in range(3):
    start = i // 2
    expected = np.rint(steps_of(i)[start : start + 400] * (32_767 / 32_768)) / 32_768
    np.testing.assert_array_equal(batch["inputs"][i], expected.astype(np.float32))


def test_a_missing_shard_of_an_older_set_is_written_as_it_was(older_set):
  folder, prepare_now = older_set
  (folder / "audio_tags-val.tfrecord-00000-of-00001").unlink()
  assert prepare_now() == folder
  assert contents(folder) == contents(SET_OF_0_2_0)


def test_an_unfinished_set_of_an_older_version_is_begun_again(older_set):
  older, prepare_now = older_set
  now = older.with_name("3.0.0")
  whole = contents(now)
  shutil.rmtree(now)
  finished = older.parent.with_name(f"{older.parent.name}.partial")
  finished.mkdir()
  shard = "audio_tags-train.tfrecord-00000-of-00001"
  (older / shard).rename(finished / "train-00000")
  (older / "sha256sums.txt").unlink()
  assert prepare_now() == now
  assert contents(now) == whole
  assert not older.exists()
  assert not finished.exists()
