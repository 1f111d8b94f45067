import csv
import hashlib
import zipfile

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def prepare_data(run_tool, tmp_path):
  def prepare(*args):
    result = run_tool("prepare_data.py", *args, f"--data_dir={tmp_path}/data")
    assert "Traceback" not in result.stderr
    return result

  return prepare


def test_it_prepares_a_folder_and_reports(fsd50k_dir, tmp_path, prepare_data):
  result = prepare_data("fsd50k", f"--source={fsd50k_dir}", "--sample_rate_hz=16000")
  assert result.returncode == 0, result.stderr
  assert "clips     25 (train 12, val 6, eval 7)" in result.stdout
  assert "classes   3" in result.stdout
  sets = (tmp_path / "data").glob("audio_tags/fsd50k-16000hz-*/3.0.0/clips.csv")
  assert len(list(sets)) == 1


def test_missing_clips_fail_it_unless_allowed(fsd50k_dir, prepare_data):
  (fsd50k_dir / "FSD50K.dev_audio/1003.wav").unlink()
  refused = prepare_data("fsd50k", f"--source={fsd50k_dir}")
  assert refused.returncode == 1
  assert "1 clips are missing or unusable (1003)" in refused.stderr
  args = ("fsd50k", f"--source={fsd50k_dir}", "--allow_missing=1")
  assert prepare_data(*args).returncode == 0


def test_archives_are_checked_against_the_record_or_a_list(fsd50k_dir, prepare_data):
  archive = fsd50k_dir / "FSD50K.ground_truth.zip"
  with zipfile.ZipFile(archive, "w") as file:
    for path in (fsd50k_dir / "FSD50K.ground_truth").iterdir():
      file.write(path, f"FSD50K.ground_truth/{path.name}")
  args = ("fsd50k", f"--source={fsd50k_dir}", "--sample_rate_hz=8000")
  refused = prepare_data(*args)
  md5 = hashlib.md5(archive.read_bytes()).hexdigest()
  assert refused.returncode == 1
  assert f"its md5 is {md5}, not ca27382c195e37d2269c4c866dd73485" in refused.stderr
  md5sums = fsd50k_dir / "md5sums.txt"
  md5sums.write_text(f"{md5}  FSD50K.ground_truth.zip\n")
  assert prepare_data(*args, f"--md5sums={md5sums}").returncode == 0


def test_a_user_s_own_csv_with_cached_log_mels(fsd50k_dir, tmp_path, prepare_data):
  rows = [["path", "labels", "split"]]
  for path in sorted((fsd50k_dir / "FSD50K.dev_audio").iterdir())[:9]:
    split = ("train", "val", "eval")[len(rows) % 3]
    rows.append(
      [f"FSD50K.dev_audio/{path.name}", "dog;cat" if len(rows) % 2 else "dog"]
    )
    rows[-1].append(split)
  with (fsd50k_dir / "clips.csv").open("w", newline="") as file:
    csv.writer(file).writerows(rows)
  result = prepare_data(
    "manifest",
    f"--csv={fsd50k_dir}/clips.csv",
    "--label_separator=;",
    "--log_mels_for=configs/crnn_demo.py",
  )
  assert result.returncode == 0, result.stderr
  assert "clips     9 (train 3, val 3, eval 3)" in result.stdout
  assert "rarest    cat 5, dog 9" in result.stdout
  assert len(list((tmp_path / "data").rglob("*.f16"))) == 3


@pytest.mark.parametrize(
  ("args", "message"),
  [
    (["fsd50k"], "--source is not set: give the place of the fsd50k"),
    (["fsd50k", "--source=/nowhere"], "/nowhere/FSD50K.dev_audio does not exist"),
    (["manifest", "--csv=/nowhere.csv"], "/nowhere.csv"),
    (["fsd50k", "--sorce=x"], "error: unknown flag --sorce=x (--source?)"),
    (
      ["manifest", "--csv=x", "--log_mels_for=nothing.py"],
      "nothing.py is not a file",
    ),
  ],
)
def test_mistakes_give_one_line(prepare_data, args, message):
  result = prepare_data(*args)
  assert result.returncode in (1, 2)
  assert message in result.stderr.splitlines()[-1]
