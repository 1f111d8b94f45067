"""HEAR 2021's common API (Turian et al. 2022), for its evaluation kit.

    python -m heareval.embeddings.runner audiotag_jax.inference.hear --model runs/crnn

The kit takes models of PyTorch or TensorFlow: a `HearModel` is a PyTorch module around
a Tagger, which computes in JAX. The kit has four sample rates; a model of another rate
gets audio of the next higher one, and the Tagger resamples it.
"""

import numpy as np
import torch

from audiotag_jax.errors import UserError
from audiotag_jax.inference.tagger import Tagger

SAMPLE_RATES_HZ = (16_000, 22_050, 44_100, 48_000)


class HearModel(torch.nn.Module):
  """A Tagger in the form that the kit expects.

  Attributes:
    tagger: the Tagger.
    sample_rate: rate of the audio that the model expects, in Hz.
    scene_embedding_size: length of a clip's embedding.
    timestamp_embedding_size: length of an embedding at a timestamp.
  """

  def __init__(self, tagger: Tagger):
    super().__init__()
    self.tagger = tagger
    wanted_hz = min(tagger.sample_rate_hz, SAMPLE_RATES_HZ[-1])
    self.sample_rate = next(rate for rate in SAMPLE_RATES_HZ if rate >= wanted_hz)
    second = np.zeros(self.sample_rate, np.float32)
    self.scene_embedding_size = len(tagger.embed(second, self.sample_rate))
    values, _ = tagger.embed_frames(second, self.sample_rate)
    self.timestamp_embedding_size = values.shape[1]


def load_model(model_file_path: str = "") -> HearModel:
  """Loads a model directory, a run's workdir or a converted PANNs model.

  Raises:
    UserError: the path is not given, or is not a model.
  """
  if not model_file_path:
    raise UserError("--model is missing: give a model directory or a run's workdir")
  return HearModel(Tagger.load(model_file_path))


def get_scene_embeddings(audio: torch.Tensor, model: HearModel) -> torch.Tensor:
  """Embeds clips.

  Args:
    audio: <float32>[clips, samples] in [-1, 1], at `model.sample_rate`.
    model: the model.

  Returns:
    <float32>[clips, scene_embedding_size], on the device of `audio`.
  """
  rows = [model.tagger.embed(x, model.sample_rate) for x in _waveforms(audio)]
  return torch.from_numpy(np.stack(rows)).to(audio.device)


def get_timestamp_embeddings(
  audio: torch.Tensor, model: HearModel
) -> tuple[torch.Tensor, torch.Tensor]:
  """Embeds clips over time.

  Args:
    audio: <float32>[clips, samples] in [-1, 1], at `model.sample_rate`.
    model: the model.

  Returns:
    Embeddings <float32>[clips, timestamps, timestamp_embedding_size], and the times
    that they are centred on <float32>[clips, timestamps], in milliseconds, evenly
    spaced; both on the device of `audio`.
  """
  frames = [model.tagger.embed_frames(x, model.sample_rate) for x in _waveforms(audio)]
  embeddings = np.stack([values for values, _ in frames])
  times_ms = np.stack([np.float32(1000 * times_s) for _, times_s in frames])
  return (
    torch.from_numpy(embeddings).to(audio.device),
    torch.from_numpy(times_ms).to(audio.device),
  )


def _waveforms(audio: torch.Tensor) -> np.ndarray:
  """Returns the waveforms; raises `UserError` unless they are a batch of mono clips."""
  if audio.ndim != 2 or not audio.numel():
    raise UserError(
      f"audio must be [clips, samples], both at least one, not {list(audio.shape)}"
    )
  return audio.detach().cpu().numpy()
