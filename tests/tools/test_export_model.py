import argparse
import json
import os

import pytest
import tiny_models

from audiotag_jax.errors import UserError
from audiotag_jax.inference import export
from tools import export_model

pytestmark = pytest.mark.slow


def test_exports_are_checked_and_timed(tmp_path, run_tool):
  fields = {"filters": [32, 64], "embedding_dim": 64}
  model_dir = tiny_models.write(tmp_path / "model", "Cnn6", fields=fields)
  output = tmp_path / "exported"
  args = (f"--checkpoint={model_dir}", f"--output={output}")
  done = run_tool("export_model.py", *args)
  assert (done.returncode, done.stderr) == (0, "")
  assert sorted(os.listdir(output)) == [
    "export.json",
    "model.onnx",
    "model.stablehlo",
    "saved_model",
  ]
  header, tagger, *rows, last = [line.split() for line in done.stdout.splitlines()]
  assert header == ["MB", "ms/10-s", "clip", "difference"]
  assert tagger[0] == "Tagger"
  assert float(tagger[1]) > 0
  assert [row[0] for row in rows] == list(export_model.FORMATS) == list(export.FORMATS)
  for _, size_mb, latency_ms, difference in rows:
    assert 0.2 <= float(size_mb) < 10
    assert float(latency_ms) > 0
    assert float(difference) <= 1e-4
  assert last == [str(output)]
  assert json.loads((output / "export.json").read_text())["inputs"] == "waveform"

  again = run_tool("export_model.py", *args)
  assert again.returncode == 1
  assert again.stderr == (
    f"error: {output} exists: give another --output, or --overwrite\n"
  )


def test_wrong_formats_are_named(tmp_path):
  args = argparse.Namespace(formats="onnx,tflite", output=tmp_path, overwrite=True)
  with pytest.raises(UserError, match="'tflite' is not a format: choose from stabl"):
    export_model.check(args)
  args.formats = "onnx,stablehlo"
  assert export_model.check(args) == ["onnx", "stablehlo"]
