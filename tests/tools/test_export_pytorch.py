"""The command line of tools/export_pytorch.py."""

import panns_reference
import tiny_models
import torch


def test_the_command_line(tmp_path, run_tool):
  names = [f"class {i}" for i in range(200)]
  tiny_models.write(tmp_path / "leenet", "LeeNet11", fields={}, class_names=names)
  args = (f"--model={tmp_path / 'leenet'}", f"--output={tmp_path / 'leenet.pth'}")
  done = run_tool("export_pytorch.py", *args)
  assert (done.returncode, done.stderr) == (0, "")
  assert done.stdout == f"{tmp_path}/leenet.pth: LeeNet11, from {tmp_path}/leenet\n"
  state_dict = torch.load(tmp_path / "leenet.pth", weights_only=True)["model"]
  assert list(state_dict) == list(panns_reference.shapes("LeeNet11"))
  assert state_dict["fc_audioset.weight"].shape == (200, 512)
