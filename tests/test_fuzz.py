"""Readers are given damaged and hostile input: they read it, or refuse it in one line.

2,000 inputs in all, and 100,000 with `pytest -m exhaustive tests/test_fuzz.py`. Memory
grows by no more than `MAX_GROWTH_MIB`.
"""

import collections
import contextlib
import copy
import io
import json
import math
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import finished_runs
import numpy as np
import pytest
import soundfile
import tiny_models
from etils import epath
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiotag_jax import model_directory, recipes
from audiotag_jax.audio import files as audio_files
from audiotag_jax.audio import streams
from audiotag_jax.audio.files import AudioError
from audiotag_jax.data.sources import archives, audioset, esc50, fsd50k, manifest
from audiotag_jax.data.sources.archives import ArchiveError
from audiotag_jax.errors import UserError
from audiotag_jax.evaluation import comparison, results, runs
from audiotag_jax.inference import Tagger, made_by, tag_output, tag_rows, tag_writer
from audiotag_jax.models import create, panns_from_pytorch
from audiotag_jax.panns import entry_names, state_dict_file, tables

pytestmark = [
  pytest.mark.slow,
  pytest.mark.usefixtures("path_without_ffmpeg"),
  pytest.mark.filterwarnings("default"),  # Libraries warn of damage.
]

MAX_GROWTH_MIB = 256
MAX_SECONDS = 20.0
# Errors by which readers refuse input.
REFUSALS = (UserError, AudioError, ArchiveError)
SEED_AUDIO_S, RATE_HZ = 0.1, 8_000
STATE_DICT_FIELDS = {"filters": (2, 2, 3, 3), "embedding_dim": 4}


class Reader(NamedTuple):
  """A reader, and valid inputs of it to damage.

  Attributes:
    seeds: valid files, by the path below a folder.
    damaged: the files that are damaged; all of them, if it is empty.
    read: reads the folder.
    share: the share of all inputs that the reader gets.
  """

  seeds: Callable[[Path], None]
  damaged: tuple[str, ...]
  read: Callable[[Path], object]
  share: float


def write_lists(folder):
  """Lists of each data set, beside folders that hold their audio."""
  for name in ("dev_audio", "eval_audio"):
    (folder / f"FSD50K.{name}").mkdir()
  truth = folder / "FSD50K.ground_truth"
  truth.mkdir()
  (truth / "dev.csv").write_text(
    'fname,labels,mids,split\n1,"Bell,Rain",m,train\n2,Rain,m,val\n3,Bell,m,train\n'
  )
  (truth / "eval.csv").write_text("fname,labels,mids\n4,Bell,m\n5,Rain,m\n")
  (truth / "vocabulary.csv").write_text("0,Bell,/m/1\n1,Rain,/m/2\n")
  rows = "".join(f'c{i}.wav,"a;b",{s},0.5,{i + 1}\n' for i, s in enumerate("tve" * 4))
  for short, name in {"t": "train", "v": "val", "e": "test"}.items():
    rows = rows.replace(f",{short},", f",{name},")
  (folder / "clips.csv").write_text(f"path,labels,split,start_s,end_s\n{rows}")
  (folder / "meta").mkdir()
  rows = "".join(f"{i}.wav,{1 + i % 5},{i % 3},class{i % 3}\n" for i in range(15))
  (folder / "meta/esc50.csv").write_text(f"filename,fold,target,category\n{rows}")
  (folder / "audio").mkdir()
  (folder / "class_labels_indices.csv").write_text(
    'index,mid,display_name\n0,/m/1,"Bell, big"\n1,/m/2,Rain\n'
  )
  rows = "".join(f'{"x" * 10}{i}, {i}.0, {i + 10}.0, "/m/1,/m/2"\n' for i in range(6))
  (folder / "eval_segments.csv").write_text(f"# a comment\n{rows}")
  for i in range(6):
    (folder / "audio" / f"{'x' * 10}{i}_{i}.wav").touch()


LISTS = {
  "manifest": (
    ("clips.csv",),
    lambda folder: manifest.read_manifest(
      folder / "clips.csv", audio_dir=None, label_separator=";"
    ),
  ),
  "fsd50k": (
    tuple(f"FSD50K.ground_truth/{x}.csv" for x in ("dev", "eval", "vocabulary")),
    fsd50k.read_source,
  ),
  "esc50": (("meta/esc50.csv",), lambda folder: esc50.read_esc50(folder, fold=1)),
  "audioset": (
    ("class_labels_indices.csv", "eval_segments.csv"),
    lambda folder: audioset.read_audioset(folder, audio_dir=folder / "audio"),
  ),
}


def write_audio(folder):
  t = np.arange(round(SEED_AUDIO_S * RATE_HZ)) / RATE_HZ
  noise = np.random.default_rng(0).uniform(-0.1, 0.1, len(t))
  x = np.stack([np.sin(2 * np.pi * 440 * t) / 2 + noise, noise], axis=1)
  for name, subtype in (
    ("a.wav", "PCM_16"),
    ("b.wav", "FLOAT"),
    ("c.wav", "IMA_ADPCM"),
    ("d.flac", "PCM_16"),
    ("e.ogg", "VORBIS"),
    ("f.ogg", "OPUS"),
    ("g.mp3", "MPEG_LAYER_III"),
    ("h.aiff", "PCM_24"),
    ("i.w64", "PCM_16"),
    ("j.caf", "ALAC_16"),
  ):
    soundfile.write(folder / name, x, RATE_HZ, subtype=subtype)


def read_audio(folder):
  for path in folder.iterdir():
    with contextlib.suppress(AudioError):
      audio_files.read_audio(epath.Path(path), 16_000)
    with contextlib.suppress(AudioError):
      audio_files.read_audio(epath.Path(path), 16_000, 0.02, 0.05)
    # A header may promise days of silence, which come block by block.
    for block, _ in zip(streams.AudioStream(path, 16_000), range(20), strict=False):
      assert np.isfinite(block).all()


def write_archive(folder):
  with zipfile.ZipFile(folder / "a.zip", "w") as file:
    file.writestr("FSD50K.dev_audio/", "")
    file.writestr("FSD50K.dev_audio/1.wav", b"abc" * 100, zipfile.ZIP_DEFLATED)
    file.writestr("FSD50K.dev_audio/2.wav", b"abc" * 50, zipfile.ZIP_STORED)
    file.comment = b"a comment"


def read_archive(folder):
  for member in archives.open_archive(epath.Path(folder) / "a.zip").values():
    with contextlib.suppress(ArchiveError):
      member.read_bytes()


def write_pytorch(folder):
  import torch

  table = tables.TABLES["Cnn6"](3, **STATE_DICT_FIELDS)
  rng = np.random.default_rng(0)
  small = {
    entry.key: torch.from_numpy(rng.random(entry.shape, np.float32))
    for entry in table
    if math.prod(entry.shape) < 10_000
  }
  torch.save({"model": small}, folder / "new.pth")
  torch.save(small, folder / "old.pth", _use_new_zipfile_serialization=False)
  # Beside a state that numpy's arrays hold, as PANNs' training writes it.
  sampler = {"pointer": np.int64(3), "indexes": np.arange(5)}
  content = {"model": small, "iteration": 7, "sampler": sampler}
  torch.save(content, folder / "sampler.pth")
  arrays = {key: value.numpy() for key, value in small.items()}
  state_dict_file.write(folder / "new.safetensors", arrays)


def read_pytorch(folder):
  (path,) = folder.iterdir()
  arrays = state_dict_file.read(path)
  shapes = {key: array.shape for key, array in arrays.items()}
  for array in arrays.values():
    array.astype(np.float32)
  with contextlib.suppress(UserError):  # Some parts of a Cnn6 are left out.
    keys, _ = entry_names.find(shapes)
    shapes = {name: shapes[key] for key, name in keys.items()}
    panns_from_pytorch.choose_architecture(shapes, None, path)


def write_model(folder):
  thresholds = {"global": 0.4, "per_class": [0.4, 0.5, 0.6]}
  tiny_models.write(folder / "crnn", "crnn", thresholds=thresholds)


def read_description(folder):
  description = model_directory.read_description(folder / "crnn")
  create.create_from_description(description)


def write_run(folder):
  finished_runs.write_run(folder / "run", with_events=False, num_clips=20)
  config = runs.config_lib.get_config()
  finished_runs.write_json(folder / "run/config.json", config.to_dict())


def read_run(folder):
  run = runs.load_run(folder / "run")
  run.read_json("config.json")
  run.read_cost()
  comparison.robustness([run])
  comparison.clips_differ([run], "eval")
  assert run.config is not None
  for name in ("config.json", "dataset.json"):
    with contextlib.suppress(UserError):  # It is another config than none.
      recipes.check_unchanged(folder / "run" / name, {})


def write_tags(folder):
  for file_format in ("csv", "dcase", "jsonl"):
    path = folder / f"tags.{file_format}"
    found = [Path(name) for name in ("a.wav", "=a(b).wav", "é\n.wav")]
    origin = made_by.MadeBy(checkpoint="m", model="1", options={"top_k": 5})
    output = tag_writer.Output(file_format, str(path), [str(folder)], found, origin)
    output.start()
    for file in found:
      output.add(tag_output.Tagged(str(file), 1.0, (("Bell", 0.5),)))


def read_tags(folder):
  for path in folder.iterdir():
    if path.name.endswith(made_by.ENDING):
      made_by.read(path)
    else:
      tag_rows.read_rows(path, path.suffix[1:])


JSONS = (
  *("config.json", "dataset.json", "results/performance.json"),
  *("results/robustness.json", "results/cost.json"),
)
READERS = {
  **{
    name: Reader(
      write_lists, damaged, lambda folder, r=read: r(epath.Path(folder)), 0.1
    )
    for name, (damaged, read) in LISTS.items()
  },
  "audio": Reader(write_audio, (), read_audio, 0.2),
  "archive": Reader(write_archive, (), read_archive, 0.1),
  "pytorch": Reader(write_pytorch, (), read_pytorch, 0.06),
  "model_json": Reader(write_model, ("crnn/model.json",), read_description, 0.1),
  "model": Reader(write_model, (), lambda folder: Tagger.load(folder / "crnn"), 0.01),
  "run": Reader(write_run, tuple(f"run/{x}" for x in JSONS), read_run, 0.06),
  "predictions": Reader(
    write_run,
    ("run/results/predictions.npz",),
    lambda folder: results.load_predictions(folder / "run/results/predictions.npz"),
    0.06,
  ),
  "tags": Reader(write_tags, (), read_tags, 0.02),
}
# libsndfile calls Python, where an exception would print a traceback and end nothing.
UNRAISED = pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
NAMES = [
  pytest.param(name, marks=UNRAISED if name == "audio" else ()) for name in READERS
]
# Values that are often wrong where a number, a name or a list is expected.
ODD_VALUES = st.sampled_from(
  [
    *(None, True, False, 0, 1, -1, 2, 2**31, 2**63, -(2**64), 10**400, 0.5, -0.5),
    *(1e-300, 1e308, math.inf, math.nan, "", "x", "none", "5", "\x00", "$\\frac{$"),
    *([], [[]], [1], ["x"], [1e9] * 3, {}, {"x": 1}, {"": {}}, [None] * 3),
    *("x" * 5_000, [0] * 5_000, list("abc"), [0.5] * 14),
  ]
)
ODD_BYTES = st.one_of(
  st.binary(min_size=1, max_size=8),
  st.sampled_from(
    [
      *(bytes(4), b"\xff" * 4, b"\xff" * 8, b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff"),
      *(b"\1\0\0\0", b"\0\0\0\1", b"\0\0\0\x80", b'"', b",", b"\n", b"\r", b"\0", b"'"),
      *(b"\xef\xbb\xbf", b"..", b"/", b"\\", b"nan", b"1e308", b"-1", b"9" * 40, b"#"),
      *(b'"\n' * 50, b"," * 500, b"[" * 5_000, b"x" * 200_000),
    ]
  ),
)
# Where a file is damaged: near its start, near its end, or anywhere.
PLACES = st.one_of(
  st.integers(0, 120), st.integers(-120, -1), st.floats(0, 1, exclude_max=True)
)
DAMAGES = st.lists(
  st.tuples(
    st.sampled_from(["flip", "put", "insert", "cut", "drop", "copy", "value", "gone"]),
    PLACES,
    PLACES,
    st.integers(0, 7),
    ODD_BYTES,
    ODD_VALUES,
  ),
  min_size=1,
  max_size=4,
)


def place_in(data, place):
  if isinstance(place, float):
    return int(place * len(data))
  return max(0, min(len(data), place if place >= 0 else len(data) + place))


def damage(data: bytes, damages) -> bytes:
  """Damages a file's bytes, or its values if it is JSON."""
  for kind, first, second, bit, odd, value in damages:
    start, end = sorted((place_in(data, first), place_in(data, second)))
    if kind == "flip" and start < len(data):
      flipped = bytes([data[start] ^ (1 << bit)])
      data = data[:start] + flipped + data[start + 1 :]
    elif kind == "put":
      data = data[:start] + odd + data[start + len(odd) :]
    elif kind == "insert":
      data = data[:start] + odd + data[start:]
    elif kind == "cut":
      data = data[:start]
    elif kind == "drop":
      data = data[:start] + data[end:]
    elif kind == "copy":
      data = data[:end] + data[start:end] + data[end:]
    elif kind in ("value", "gone"):
      data = damage_value(data, kind, (first, second), value)
  return data


def damage_value(data, kind, places, odd):
  """Replaces or removes a value of a JSON file, at any depth."""
  try:
    tree = json.loads(data)
  except (ValueError, RecursionError):
    return data
  holders = []

  def visit(value):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
      holders.append((value, key))
      if isinstance(item, dict | list):
        visit(item)

  if isinstance(tree, dict | list):
    visit(tree)
  if not holders:
    return data
  place = places[0] if isinstance(places[0], int) else int(places[0] * len(holders))
  holder, key = holders[place % len(holders)]
  if kind == "value":
    holder[key] = copy.deepcopy(odd)
  else:
    del holder[key]
  return json.dumps(tree).encode()


def status_mib(field):
  text = Path("/proc/self/status").read_text()
  return int(text.partition(f"{field}:")[2].split()[0]) / 1024


@contextlib.contextmanager
def bounded():
  """Asserts that the block takes little memory and time."""
  Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
  before, start_s = status_mib("VmRSS"), time.monotonic()
  yield
  growth = status_mib("VmHWM") - before
  assert growth <= MAX_GROWTH_MIB, f"{growth:.0f} MiB"
  seconds = time.monotonic() - start_s
  assert seconds <= MAX_SECONDS, f"{seconds:.0f} s"


def fuzz(reader: Reader, folder: Path, num_inputs: int) -> None:
  """Gives a reader damaged inputs."""
  folder.mkdir()
  reader.seeds(folder)
  names = reader.damaged or tuple(
    sorted(str(x.relative_to(folder)) for x in folder.rglob("*") if x.is_file())
  )
  alone = reader.read in (read_audio, read_pytorch)
  originals = {name: (folder / name).read_bytes() for name in names}
  if alone:  # One file at a time is in the folder.
    for name in names:
      (folder / name).unlink()

  @settings(
    max_examples=num_inputs,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
  )
  @given(st.sampled_from(names), DAMAGES)
  def check(name, damages):
    path = folder / name
    path.write_bytes(damage(originals[name], damages))
    refusal = None
    try:
      with bounded(), contextlib.redirect_stderr(io.StringIO()):
        reader.read(folder)
    except REFUSALS as error:
      refusal = str(error)
    finally:
      if alone:
        path.unlink()
      else:
        path.write_bytes(originals[name])
    assert refusal is None or (refusal and "\n" not in refusal)
    outcomes["read" if refusal is None else "refused"] += 1

  outcomes = collections.Counter()
  check()
  print(outcomes)
  return outcomes


@pytest.mark.parametrize("name", NAMES)
def test_readers_refuse_damaged_input_in_one_line(name, tmp_path):
  outcomes = fuzz(READERS[name], tmp_path / "input", round(2_000 * READERS[name].share))
  assert set(outcomes) == {"read", "refused"}, "the damage tests nothing"


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", NAMES)
def test_readers_refuse_more_damaged_input_in_one_line(name, tmp_path):
  count = round(100_000 * READERS[name].share)
  outcomes = fuzz(READERS[name], tmp_path / "input", count)
  assert set(outcomes) == {"read", "refused"}, "the damage tests nothing"
