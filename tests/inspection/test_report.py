import base64
import csv
import io
import json
import re

import numpy as np
import pytest
import soundfile
from etils import epath
from PIL import Image

from audiotag_jax.data.sources.source import Clip, Rejected, Source
from audiotag_jax.frontend.mel import LogMelParams
from audiotag_jax.inspection import contact_sheet, measure, report

RATE_HZ = 8_000
CLASSES = ("Bell", "<Rain>", "Siren", "Whip")
PARAMS = LogMelParams(8_000, 512, 512, 80, 32, 50.0, 4_000.0)


def noise(seed, samples=4_000):
  rng = np.random.default_rng(seed)
  return rng.integers(-16_000, 16_000, samples, np.int16)


@pytest.fixture(scope="module")
def inspected(tmp_path_factory):
  """Seven decoded clips, a missing and a rejected one; b repeats a in another split."""
  folder = epath.Path(tmp_path_factory.mktemp("source"))
  clips = []
  for name, split, labels, samples in (
    ("a.wav", "train", (0,), noise(0)),
    ("b.flac", "eval", (0, 1), noise(0)),
    ("c.wav", "train", (0, 1), noise(1)),
    ("d.wav", "train", (0,), noise(2)),
    ("e.wav", "train", (0,), noise(3)),
    ("f.wav", "val", (1, 2), noise(4)),
    ("g.wav", "train", (), noise(5, 6 * RATE_HZ)),
    ("gone.wav", "train", (3,), None),
  ):
    if samples is not None:
      soundfile.write(folder / name, samples, RATE_HZ)
    clips.append(Clip(name.split(".")[0], folder / name, labels, split))
  rejected = (Rejected("../x", "val", "must be a file's name, with no path"),)
  source = Source("manifest", folder, CLASSES, tuple(clips), rejected)
  return measure.inspect_source(source)


@pytest.fixture(scope="module")
def output(inspected, tmp_path_factory):
  folder = tmp_path_factory.mktemp("out")
  report.write_report(inspected, PARAMS, folder, max_classes=2)
  return folder


def read_csv(path):
  with path.open(newline="", encoding="utf-8") as file:
    return list(csv.DictReader(file))


def test_four_files_are_written_whole(output):
  names = {path.name for path in output.iterdir()}
  assert names == {"inspection.html", "clips.csv", "duplicates.csv", "summary.json"}


def test_the_page_is_one_file_with_all_sections(output):
  page = (output / "inspection.html").read_text()
  titles = re.findall(r"<h2>(.*?)</h2>", page)
  assert titles == [
    "Overview",
    "Duplicates",
    "Classes",
    "Labels",
    "Durations",
    "Levels",
    "Formats and failures",
    "Listen",
  ]
  assert not re.search(r'(src|href)="(?!#|data:)', page)
  assert "<Rain>" not in page
  assert "a (train), b (eval)" in page
  assert "come more than once: 1, as 2 clips; in more than one split: 1, as 2" in page
  assert "gone is missing" in page
  assert "must be a file&#x27;s name, with no path" in page
  assert page.count("<svg") == 5


def test_the_table_of_clips_has_every_row_of_the_lists(output):
  rows = {row["fname"]: row for row in read_csv(output / "clips.csv")}
  assert list(rows) == ["a", "b", "c", "d", "e", "f", "g", "gone", "../x"]
  states = [row["state"] for row in rows.values()]
  assert states == ["decoded"] * 7 + ["failed", "rejected"]
  assert rows["gone"]["reason"] == "is missing"
  assert rows["../x"]["reason"] == "must be a file's name, with no path"
  b = rows["b"]
  assert (b["file"], b["split"], b["labels"]) == ("b.flac", "eval", "Bell;<Rain>")
  assert (b["duration_s"], b["sample_rate_hz"], b["channels"]) == ("0.5", "8000", "1")
  peak = np.abs(noise(0).astype(int)).max() / 32_768
  assert float(b["peak"]) == pytest.approx(peak, rel=1e-5)
  assert b["sha256"] == rows["a"]["sha256"] != rows["c"]["sha256"]
  assert rows["gone"]["sha256"] == rows["../x"]["peak"] == ""


def test_the_table_of_duplicates_names_splits_and_labels(output):
  rows = read_csv(output / "duplicates.csv")
  assert [(row["recording"], row["fname"], row["split"]) for row in rows] == [
    ("1", "a", "train"),
    ("1", "b", "eval"),
  ]
  assert {row["splits"] for row in rows} == {"train+eval"}
  assert {row["label_agreement"] for row in rows} == {"0.500"}
  assert [row["labels"] for row in rows] == ["Bell", "Bell;<Rain>"]


def test_the_summary_is_plain_json(output):
  summary = json.loads(
    (output / "summary.json").read_text(), parse_constant=pytest.fail
  )
  assert summary["totals"]["all"]["rows"] == 9
  assert summary["classes"]["Bell"] == {"train": 4, "val": 0, "eval": 1}
  assert summary["classes"]["Whip"] == {"train": 0, "val": 0, "eval": 0}
  assert summary["look_at"][0]["names"] == ["a (train) = b (eval)"]


def test_rare_classes_choose_first_and_train_is_preferred(inspected):
  # Siren has only f, in val. <Rain> has c in train. Bell has a, c, d and e in train:
  # three clips that no other class shows.
  chosen = contact_sheet.choose_clips(inspected, max_classes=10)
  assert list(chosen.items()) == [(0, [0, 3, 4]), (1, [2]), (2, [5])]
  assert list(contact_sheet.choose_clips(inspected, max_classes=2)) == [0, 1]


def test_the_sheet_shows_and_plays_its_clips_and_says_what_it_leaves_out(output):
  page = (output / "inspection.html").read_text()
  assert "Left out as least frequent: Siren." in page
  headings = re.findall(r"<h3>(\S+) <small>(.*?)</small>", page)
  assert headings == [
    ("Bell", "train 4, val 0, eval 1"),
    ("&lt;Rain&gt;", "train 1, val 1, eval 1"),
  ]
  captions = re.findall(r"<figcaption><b>(\w+)</b> · (\w+) · ([^<]*)<", page)
  shown = ["a", "d", "e", "c"]
  assert captions == [(fname, "train", "0.5 s") for fname in shown]
  sounds = re.findall(r'src="data:audio/ogg;base64,([^"]*)"', page)
  sound, rate_hz = soundfile.read(io.BytesIO(base64.b64decode(sounds[0])))
  assert (len(sounds), rate_hz, len(sound)) == (4, 16_000, 8_000)
  assert 0.5 < np.abs(sound).max() <= 1
  pictures = re.findall(r'<img [^>]*src="data:image/png;base64,([^"]*)"', page)
  picture = Image.open(io.BytesIO(base64.b64decode(pictures[0])))
  assert (len(pictures), picture.size) == (4, (51, 32))


def test_a_picture_has_low_bands_at_the_bottom_and_is_not_too_wide():
  tone = np.sin(2 * np.pi * 300 * np.arange(5 * RATE_HZ) / RATE_HZ)
  png = contact_sheet.log_mel_png(tone.astype(np.float32), PARAMS)
  picture = np.array(Image.open(io.BytesIO(png)))
  # 501 frames: every third one.
  assert picture.shape == (32, 167)
  band = picture[:, 80].argmax()
  assert picture[band, 80] == 63
  assert 24 <= band <= 29


def test_an_excerpt_is_the_loudest_and_a_short_clip_is_left_whole():
  waveform = np.zeros(12 * RATE_HZ, np.float32)
  waveform[7 * RATE_HZ : 11 * RATE_HZ] = 0.5
  start_s, excerpt = contact_sheet.loudest_excerpt(waveform, RATE_HZ)
  assert (start_s, len(excerpt)) == (6.0, 5 * RATE_HZ)
  assert excerpt.sum() == 0.5 * 4 * RATE_HZ
  start_s, excerpt = contact_sheet.loudest_excerpt(waveform[:100], RATE_HZ)
  assert (start_s, len(excerpt)) == (0.0, 100)


def test_a_silent_sample_is_drawn_and_played():
  silence = np.zeros(1, np.float32)
  png = contact_sheet.log_mel_png(silence, PARAMS)
  assert np.array(Image.open(io.BytesIO(png))).max() == 0
  assert contact_sheet.vorbis(silence, RATE_HZ)[:4] == b"OggS"


def test_a_set_of_one_train_clip_without_labels_has_a_report(tmp_path):
  path = epath.Path(tmp_path) / "one.wav"
  soundfile.write(path, np.zeros(800, np.int16), RATE_HZ)
  source = Source("manifest", path.parent, CLASSES, (Clip("one", path, (), "train"),))
  inspected = measure.inspect_source(source)
  report.write_report(inspected, PARAMS, tmp_path / "out", max_classes=5)
  page = (tmp_path / "out/inspection.html").read_text()
  assert "one (0.1 s)" in page
  assert "No recording comes more than once." in page
