"""Outputs of PANNs' PyTorch reference, with generated weights.

`panns_reference_data/outputs.npz` holds the outputs of PyTorch 2.13 on a CPU, in
evaluation mode, with `weight` in every entry of the state_dict and the input
`waveforms`; `state_dicts.json` holds the shapes of the state_dicts.
"""

import functools
import json
import zlib
from pathlib import Path

import numpy as np

_DATA = Path(__file__).with_name("panns_reference_data")
DESCRIPTIONS = json.loads((_DATA / "state_dicts.json").read_text())


def outputs(name: str) -> dict[str, np.ndarray]:
  """The reference's outputs: `clipwise_output` and others by architecture."""
  with np.load(_DATA / "outputs.npz") as data:
    keys = [key for key in data.files if key.startswith(f"{name}/")]
    return {key.partition("/")[2]: data[key] for key in keys}


def shapes(name: str) -> dict[str, tuple[int, ...]]:
  """The reference's state_dict: shapes by key, in order."""
  state_dict = DESCRIPTIONS[name]["state_dict"]
  return {key: tuple(shape) for key, shape in state_dict.items()}


@functools.cache
def weight(key: str, shape: tuple[int, ...]) -> np.ndarray:
  """The value of a state_dict's entry, drawn from the entry's key."""
  rng = np.random.RandomState(zlib.crc32(key.encode()))
  if key.endswith("num_batches_tracked"):
    return np.asarray(1000, np.int64)
  if key == "bn0.running_mean":  # of the log-mel, in dB
    values = -35 + 5 * rng.standard_normal(shape)
  elif key == "bn0.running_var":
    values = rng.uniform(300, 500, shape)
  elif key.endswith("running_var"):
    values = rng.uniform(0.5, 1.5, shape)
  elif key.endswith(("running_mean", "bias")):
    values = 0.1 * rng.standard_normal(shape)
  elif len(shape) == 1:  # a norm's scale, small at the end of a residual branch
    residual = key.startswith(("resnet.layer", "layer"))
    small = residual and key.endswith(("bn2.weight", "bn3.weight"))
    values = (0.2 if small else 1.0) * rng.uniform(0.8, 1.2, shape)
  else:  # small for the classifier, so that its sigmoids do not saturate
    gain = 0.1 if key.startswith(("fc_audioset", "att_block")) else 1.0
    scale = np.sqrt(2.0 / int(np.prod(shape[1:])))
    values = rng.standard_normal(shape) * gain * scale
  return values.astype(np.float32)


def waveforms(sample_rate_hz: int, clip_s: float = 2.0, num_clips: int = 2):
  """Test signals <float32>[num_clips, samples]: a chirp, clicks and noise."""
  t = np.arange(int(clip_s * sample_rate_hz)) / sample_rate_hz
  sweep_hz = 60 * t + (0.45 * sample_rate_hz - 60) * t**2 / (2 * clip_s)
  clicks = 0.4 * np.exp(-40 * (t % 0.25)) * np.sin(2 * np.pi * 440 * t)
  signal = 0.4 * np.sin(2 * np.pi * sweep_hz) + clicks
  noise = [np.random.RandomState(i).standard_normal(t.shape) for i in range(num_clips)]
  return np.clip(signal + 0.05 * np.stack(noise), -1, 1).astype(np.float32)
