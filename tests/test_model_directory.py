"""Every field of a model.json has its type and range, and agrees with the others."""

import json
import re

import pytest
import tiny_models

from audiotag_jax import model_directory
from audiotag_jax.errors import UserError
from audiotag_jax.inference import Tagger
from audiotag_jax.models import create


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  folder = tmp_path_factory.mktemp("model") / "crnn"
  thresholds = {"global": 0.4, "per_class": [0.4, 0.5, 0.6]}
  return tiny_models.write(folder, thresholds=thresholds)


@pytest.fixture
def change(model):
  """Returns a function that changes a field of model.json, or all of the file."""
  path = model / "model.json"
  whole = path.read_text()

  def change(field, value):
    description = json.loads(whole)
    *parents, last = field.split(".")
    holder = description
    for parent in parents:
      holder = holder[parent]
    holder[last] = value
    path.write_text(json.dumps(description))
    return model

  yield change
  path.write_text(whole)


ODD = [
  ("architecture", "Cnn15", 'architecture is "Cnn15", not crnn or Cnn6'),
  ("architecture", None, "architecture is null"),
  ("architecture", ["crnn"], r"architecture is \[\"crnn\"\]"),
  ("fields", [], "fields is .*, not an object"),
  ("fields.filters", "48", "crnn .*do not fit together"),
  ("fields.filters", [4, -8], "fields is"),
  ("fields.filters", [4, 8.5], "fields is"),
  ("fields.filters", [2**40, 8], "fields is"),
  ("fields.filters", [4, 16], "is of another model: .*norm1/mean is .8., not .16"),
  ("fields.filters", [4] * 100, "fields is"),
  ("fields.mel_pooling", [64, 64], "do not fit together|another model"),
  ("fields.time_pooling", [2**16, 2**16], "takes no clip shorter than"),
  ("fields.kernel_size", 0, "do not fit together|another model"),
  ("fields.layers", 3, "another version of the code"),
  ("fields.dropout", {"a": 1}, "fields is"),
  ("front_end", None, "front_end is null"),
  ("front_end.sample_rate_hz", 0, "sample_rate_hz is 0: it must be .* from 100"),
  ("front_end.sample_rate_hz", 8_000.0, "sample_rate_hz is 8000.0"),
  ("front_end.sample_rate_hz", "8000", "front_end is"),
  ("front_end.hop_samples", True, "front_end is"),
  ("front_end.fft_samples", 2**40, "fft_samples is 1099511627776"),
  ("front_end.window_samples", 2**15, "window_samples 32768 is more than fft_samples"),
  ("front_end.num_mels", 10**9, "num_mels is 1000000000"),
  ("front_end.f_max_hz", float("nan"), "front_end is"),
  ("front_end.f_min_hz", 1e300, "must be in order"),
  ("front_end.power", 2, "power is unknown"),
  ("class_names", [], "class_names is"),
  ("class_names", "Bell", 'class_names is "Bell", not a list of text'),
  ("class_names", ["a", "b", 3], "class_names is"),
  ("class_names", ["a", "b", "a"], "class_names has a name twice"),
  ("class_names", list("abcdefghijklmn"), "per_class is .*each of the 14 classes"),
  ("thresholds", 0.5, "thresholds is 0.5, not an object"),
  ("thresholds.per_class", [0.5], "per_class is .*for each of the 3 classes"),
  ("thresholds.per_class", [0.5, "x", 0.5], "per_class is"),
  ("thresholds.global", -1, "global is -1, not a number from 0 to 1"),
  ("thresholds.local", 0.5, '"local", which is unknown'),
  ("normalize", "x", 'normalize is "x", not peak or none'),
  ("normalize", 1, "normalize is 1"),
  ("normalize", None, "normalize is null"),
  ("source", "Zenodo", 'source is "Zenodo", not an object'),
  ("version", 1, '"version", which is unknown'),
]


@pytest.mark.parametrize(("field", "value", "reason"), ODD)
def test_an_odd_model_json_is_refused_in_one_line(change, field, value, reason):
  with pytest.raises(UserError, match=reason) as error:
    create.load_model(change(field, value))
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("text", "reason"),
  [
    (b"", "is not valid JSON .it is empty.: convert or evaluate the model again"),
    (b"{", "is not valid JSON"),
    (b"[" * 100_000, "is not valid JSON"),
    (b"\xff", "is not valid JSON"),
    (b"[1]", r"holds \[1\], not an object"),
    (b"null", "holds null, not an object"),
    (b'{"architecture": "crnn"}', "has no fields, which is an object"),
    (b'{"fields": ' + b"9" * 5_000 + b"}", "is not valid JSON"),
  ],
)
def test_a_damaged_model_json_is_refused_in_one_line(change, model, text, reason):
  change("normalize", "none")
  (model / "model.json").write_bytes(text)
  with pytest.raises(UserError, match=reason) as error:
    model_directory.read_description(model)
  assert "\n" not in str(error.value)


def test_thresholds_that_were_not_tuned_are_null(change):
  assert Tagger.load(change("thresholds", None)).threshold == 0.5


def test_what_would_be_refused_is_not_written(tmp_path):
  description = tiny_models.describe("crnn", class_names=["a", "a"])
  with pytest.raises(UserError, match="class_names has a name twice"):
    model_directory.save_model(tmp_path / "m", description, {})
  assert not list(tmp_path.iterdir())


def test_damaged_weights_are_named(tmp_path):
  folder = tiny_models.write(tmp_path / "m")
  for path in (folder / "checkpoints/0").rglob("*"):
    if path.is_file():
      path.write_bytes(path.read_bytes()[:20])
  with pytest.raises(UserError, match="checkpoints/0 cannot be read") as error:
    create.load_model(folder)
  assert "\n" not in str(error.value)


def test_a_flipped_bit_in_the_weights_is_found(tmp_path):
  directory = tmp_path / "model"
  tiny_models.write(directory)
  model_directory.load_model(directory)
  data = [path for path in (directory / "checkpoints").rglob("d/*") if path.is_file()]
  largest = max(data, key=lambda path: path.stat().st_size)
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 4
  largest.write_bytes(content)
  message = f"{directory}/checkpoints/0 is damaged: params/"
  with pytest.raises(UserError, match=re.escape(message)) as info:
    model_directory.load_model(directory)
  assert str(info.value).endswith(model_directory.REMEDY)
