"""The command line of tools/convert_panns.py."""

import torch
import torch_cnn6


def test_the_command_line(tmp_path, run_tool):
  path = tmp_path / "Cnn6_mAP=0.343.pth"
  torch.save({"model": torch_cnn6.Cnn6(527).state_dict()}, path)
  args = (f"--checkpoint={path}", f"--output={tmp_path / 'models' / 'cnn6'}")
  done = run_tool("convert_panns.py", *args)
  assert (done.returncode, done.stderr) == (0, "")
  assert done.stdout == f"{tmp_path}/models/cnn6: Cnn6, 527 classes, from {path}\n"
  again = run_tool("convert_panns.py", *args)
  assert (again.returncode, again.stdout) == (1, "")
  assert again.stderr == (
    f"error: {tmp_path}/models/cnn6 exists: give another --output, or --overwrite\n"
  )
