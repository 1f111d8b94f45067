import json
import shutil

import soundfile

RECIPE = "--config=configs/crnn_fsd50k_small.py"


def test_a_folder_is_inspected(fsd50k_dir, tmp_path, run_tool):
  # A clip of eval, in another coding, joins train; another clip goes missing.
  samples, rate_hz = soundfile.read(
    fsd50k_dir / "FSD50K.eval_audio/1018.wav", dtype="int16"
  )
  train = fsd50k_dir / "FSD50K.dev_audio"
  soundfile.write(train / "1001.wav", samples, rate_hz, format="FLAC")
  (train / "1002.wav").unlink()
  source = f"--config.data.source_dir={fsd50k_dir}"
  output = tmp_path / "inspection"
  result = run_tool("inspect_data.py", RECIPE, source, f"--output={output}")
  assert result.returncode == 0, result.stderr
  assert "rows      25 = 24 decoded + 1 failed + 0 rejected" in result.stdout
  assert "clips     24 (train 11, val 6, eval 7)" in result.stdout
  assert "1001 (train) = " in result.stdout
  assert "1002 is missing" in result.stdout
  assert f"Page: {output / 'inspection.html'}" in result.stdout
  summary = json.loads((output / "summary.json").read_text())
  assert summary["totals"]["all"]["decoded"] == 24
  assert {path.name for path in output.iterdir()} == {
    "inspection.html",
    "clips.csv",
    "duplicates.csv",
    "summary.json",
  }


def test_mistakes_are_one_line(fsd50k_dir, tmp_path, run_tool):
  source = f"--config.data.source_dir={fsd50k_dir}"
  output = f"--output={tmp_path / 'out'}"
  shutil.copy(fsd50k_dir / "FSD50K.ground_truth/dev.csv", tmp_path / "file")
  for args, message in (
    (["--config=configs/none.py", source, output], "none.py is not a file"),
    ([RECIPE, "--config.data.sorce=x", output], "has no key"),
    ([RECIPE, output], "config.data.source_dir is not set"),
    ([RECIPE, f"--config.data.source_dir={tmp_path / 'none'}", output], "FSD50K"),
    ([RECIPE, source, f"--output={tmp_path / 'file'}"], "file is not a folder: give"),
  ):
    result = run_tool("inspect_data.py", *args)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
  assert not (tmp_path / "out").exists()
