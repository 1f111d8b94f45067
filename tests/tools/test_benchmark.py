import json
import subprocess
import sys
from pathlib import Path

import pytest
import timed_functions
import tiny_models
from benchmarks import accelerators, models, turns

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def figures_of(result):
  assert result.returncode == 0, result.stderr
  rows = [line for line in result.stdout.splitlines() if ": " in line or "GiB" in line]
  return {row[:34].strip(): float(row[34:44]) for row in rows if row[34:44].strip()}


@pytest.mark.exhaustive
def test_every_stage_of_a_recipe_gives_a_figure(launch_tool, fsd50k_dir):
  args = (f"--source={fsd50k_dir}", "--config=configs/crnn_demo.py")
  figures = figures_of(launch_tool("benchmark.py", "recipe", *args))
  assert all(figure > 0 for figure in figures.values())
  assert {"prepare: clips/s", "log-mel: 6-s clips/s", "train: steps/s"} <= set(figures)


@pytest.mark.exhaustive
def test_the_data_path_gives_figures(launch_tool):
  args = ("--num_clips=20", "--largest_index=1000")
  result = launch_tool("benchmark.py", "data", *args)
  assert result.returncode == 0, result.stderr
  rows = result.stdout.splitlines()
  assert [row[:34].strip() for row in rows[1:6]] == [
    "prepare: × real time",
    "prepare: clips/s",
    "prepare: peak memory, GiB",
    "log-mel of waveforms: 10-s clips/s",
    "cached log-mels: 10-s clips/s",
  ]
  assert all(float(row[34:44]) > 0 for row in rows[1:6])
  assert [row.split()[0] for row in rows[7:]] == ["1,000"]
  assert all(float(row.split()[-2]) > 0 for row in rows[7:])


def test_tagging_a_file_is_measured(tmp_path):
  tiny_models.write(tmp_path / "model")
  code = (
    "import pathlib; from benchmarks import tag as b; "
    f"folder = pathlib.Path({str(tmp_path)!r}); "
    "b.write_noise(folder / 'a.wav', 2.0); "
    "print(b.run_tag(folder, folder / 'a.wav'))"
  )
  result = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT / "tools", capture_output=True, text=True
  )
  assert result.returncode == 0, result.stderr
  assert 0.1 < float(result.stdout) < 1.0  # GiB


def test_functions_are_timed_in_turns(capsys):
  timings = turns.measure(
    {
      "short": (timed_functions.create_sleeper, (0.01,)),
      "long": (timed_functions.create_sleeper, (0.1,)),
      "failing": (timed_functions.create_failing, ()),
      "failing later": (timed_functions.create_failing_later, ()),
    },
    num_rounds=2,
  )
  assert list(timings) == ["short", "long"]
  assert [len(timing.seconds) for timing in timings.values()] == [2, 2]
  assert 0.01 <= timings["short"].median_s < 0.1 <= timings["long"].median_s < 0.3
  assert timings["long"].first_s >= timings["long"].median_s / 2
  assert timings["long"].peak_gib == 0.1
  assert capsys.readouterr().err == (
    "failing cannot be measured: ImportError: no such peer\n"
    "failing later cannot be measured: StopIteration: \n"
  )


def test_a_row_compares_with_the_fastest_peer(capsys):
  timings = {
    "ours": turns.Timing([2.0, 1.0, 1.5], 9.0, 3.0),
    "slow": turns.Timing([6.0, 6.0, 6.0], 1.0, 2.0),
    "fast": turns.Timing([3.0, 3.0, 2.0], 1.0, 1.0),
  }
  row = {
    "model": "Cnn14", "batch_size": 4,
    "flops_per_clip": 30e9, "matrix_flops_per_s": 1e11,
  }  # fmt: skip
  models.print_row(row, timings)
  assert capsys.readouterr().out.split() == [
    "Cnn14,", "batch", "4", "0.3750", "(0.2500-0.5000)", "0.7500", "(0.5000-0.7500)",
    "2.00", "×", "80%", "3.0", "1.0", "9", "s",
  ]  # fmt: skip


def test_a_peer_has_the_parameters_of_our_model():
  for name in models.MODELS:
    config = models.create_config(name, "float32")
    ours = models.create_model(config, num_classes=models.NUM_CLASSES, axis_name=None)
    shapes = models.shapes_of(ours, models.inputs_shape(config))["params"]
    count = sum(x.size for x in models.jax.tree.leaves(shapes))
    peer = models.create_pytorch_model(config)
    # PyTorch's GRU has a second bias for two of three gates, in both directions.
    extra = 2 * 2 * config.crnn.gru_units[0] if name == "crnn" else 0
    assert sum(x.numel() for x in peer.parameters()) == count + extra


def test_a_step_s_time_is_the_larger_of_arithmetic_and_memory():
  device = accelerators.Device("device", 100.0, 10.0, 80, 5.0)
  # 8 clips of 40 FLOP at 40 % of 100 FLOP/s take 8 s; 8 * 5 bytes at 10 bytes/s take 4.
  cost = accelerators.StepCost(40.0, 5.0, 2**27, 10)
  row = accelerators.expect(cost, device, 8)
  assert (row["clips_per_s"], row["bound"]) == (1.0, "arithmetic")
  # 40 bytes of gradients, 7/4 of which are sent at 5 bytes/s: 14 s.
  assert row["all_reduce_share"] == pytest.approx(14 / (14 + 8))
  assert row["gib"] == pytest.approx(1.0 + 4 * 40 / 2**30)
  slow = accelerators.StepCost(40.0, 50.0, 2**27, 10)
  row = accelerators.expect(slow, device, 8)
  assert (row["clips_per_s"], row["bound"]) == (8 / 40, "memory")


def test_a_folder_that_is_not_there_is_found_before_anything_is_measured(launch_tool):
  result = launch_tool("benchmark.py", "train", "--json=/no/such/file.json")
  assert (result.returncode, result.stdout) == (1, "")
  assert result.stderr == (
    "error: --json=/no/such/file.json: /no/such is not a folder: give a file in one "
    "that exists\n"
  )


def test_models_are_measured_on_a_machine_with_little_installed():
  code = (
    "import sys; import benchmark; import benchmarks.models as m; "
    "m.count_multiply_adds('Cnn6'); import json; "
    "print(json.dumps(sorted({x.split('.')[0] for x in sys.modules})))"
  )
  result = subprocess.run(
    [sys.executable, "-c", code], cwd=ROOT / "tools", capture_output=True, text=True
  )
  assert result.returncode == 0, result.stderr
  unwanted = {"clu", "google_crc32c", "librosa", "soundfile", "tensorflow", "torch"}
  assert unwanted & set(json.loads(result.stdout)) == set()
