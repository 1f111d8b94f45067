"""Examples: a few clips of a split to look at and listen to in TensorBoard."""

import ml_collections
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from audiotag_jax.data.clips import ClipIndex, read_waveform
from audiotag_jax.evaluation import results
from audiotag_jax.frontend import log_mel_tf, mel
from audiotag_jax.names import for_figure
from audiotag_jax.reporting.figures import plain_text
from audiotag_jax.training.tensorboard import RunWriter

NUM_EXAMPLES = 4
NUM_BARS = 8


def write_audio(
  writer: RunWriter,
  clips: ClipIndex,
  config: ml_collections.ConfigDict,
) -> None:
  """Writes the examples' normalised waveforms."""
  for clip in _chosen(clips):
    waveform = read_waveform(clips, clip, config.data).numpy()
    writer.write_audios(
      0,
      {f"examples/{clips.fname[clip]}/audio": waveform[None, :, None]},
      sample_rate=config.frontend.sample_rate_hz,
    )


def write_predictions(
  writer: RunWriter,
  step: int,
  clips: ClipIndex,
  predictions: results.Predictions,
  config: ml_collections.ConfigDict,
) -> None:
  """Writes a picture of each example: its log-mel beside its scores and labels."""
  images = {
    f"examples/{clips.fname[clip]}/scores": _picture(
      clips, clip, predictions.scores[clip], config
    )
    for clip in _chosen(clips)
  }
  writer.write_images(step, images)


def _chosen(clips: ClipIndex) -> list[int]:
  """Returns a few clips spread over the split, the same at every step."""
  spread = np.linspace(0, len(clips) - 1, NUM_EXAMPLES)
  return np.unique(spread.round().astype(int)).tolist()


@plain_text
def _picture(
  clips: ClipIndex,
  clip: int,
  scores: np.ndarray,
  config: ml_collections.ConfigDict,
) -> np.ndarray:
  """Draws a clip; returns <uint8>[1, height, width, 3]."""
  params = mel.LogMelParams(**config.frontend)
  waveform = read_waveform(clips, clip, config.data)
  least_samples = params.fft_samples // 2 + 1
  waveform = np.pad(waveform, (0, max(0, least_samples - len(waveform))))
  log_mel = log_mel_tf.log_mel(waveform, params).numpy()

  figure = Figure(figsize=(9, 3), dpi=100)
  # Fixed places: to measure all texts would take as long as to draw the picture.
  left = figure.add_axes((0.06, 0.17, 0.52, 0.73))
  right = figure.add_axes((0.62, 0.17, 0.36, 0.73))
  duration_s = len(waveform) / params.sample_rate_hz
  left.imshow(
    log_mel.T,
    origin="lower",
    aspect="auto",
    vmin=log_mel.max() - 80,
    extent=(0, duration_s, 0, params.num_mels),
  )
  left.set(
    title=f"{for_figure(clips.fname[clip])}: log-mel", xlabel="s", ylabel="mel band"
  )

  labels = clips.labels[[clip]].toarray()[0].astype(bool)
  order = np.lexsort((-scores, ~labels))
  order = order[: max(NUM_BARS, labels.sum())]
  order = order[np.argsort(-scores[order])]
  colors = np.where(labels[order], "lightgreen", "lightgray")
  right.barh(range(len(order)), scores[order], color=colors)
  for bar, label in enumerate(order):
    right.text(0.01, bar, for_figure(clips.classes[label]), va="center", clip_on=True)
  right.set(title="score (green: labelled)", xlim=(0, 1), yticks=())
  right.invert_yaxis()

  canvas = FigureCanvasAgg(figure)
  canvas.draw()
  return np.asarray(canvas.buffer_rgba())[None, ..., :3]
