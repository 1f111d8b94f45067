"""Tags of any recording, from a model directory."""

import contextlib
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from audiotag_jax import model_directory
from audiotag_jax import workdir as workdir_lib
from audiotag_jax.audio import waveforms
from audiotag_jax.errors import UserError
from audiotag_jax.frontend.mel import LogMelParams
from audiotag_jax.inference import masking
from audiotag_jax.models import cpu_convs
from audiotag_jax.models.create import (
  LONGEST_INPUT_S,
  create_from_description,
  load_model,
)

# Length of the longest clip that each compiled program takes.
LENGTHS_S = (1.0, 3.0, 10.0, LONGEST_INPUT_S)
# Frames this close to an edge of a window inside a recording are discarded; the
# neighbouring window scores them.
CONTEXT_S = 1.0
# Distance of the windows, of the shortest length, that stand in for the frames of a
# model without its own.
FRAME_HOP_S = 0.5


class Frames(NamedTuple):
  """Values over time.

  Attributes:
    values: <float32>[frames, …].
    times_s: the frames' centres <float64>[frames]: in float32, steps are 4 ms after
      ten hours.
  """

  values: np.ndarray
  times_s: np.ndarray


class Scores(NamedTuple):
  """A model's outputs for a window.

  Attributes:
    start_s: start of the window.
    scores: <float32>[classes].
    embedding: <float32>[dim].
    weight: the time that the window adds, over the hop: from the start of the window
      before to its own. It is 1, except for a last window that starts earlier.
  """

  start_s: float
  scores: np.ndarray
  embedding: np.ndarray
  weight: float = 1.0


def mean_of_windows(windows: Iterable[Scores]) -> Scores:
  """Returns the mean of a recording's windows, each with its weight; at least one."""
  scores: Any = 0.0
  embedding: Any = 0.0
  total = 0.0
  for window in windows:
    scores = scores + window.weight * window.scores
    embedding = embedding + window.weight * window.embedding
    total += window.weight
  return Scores(0.0, scores / total, embedding / total)


class Tagger:
  """A trained model with its front-end, classes and thresholds.

  A recording of up to 30 s is one input, as in PANNs' own inference. A longer one is
  cut into adjacent windows of 30 s, the last of which ends with the recording; its
  scores are the mean of the windows', each with the weight of what it adds: those of
  60.01 s weigh 1, 1 and 0.01 / 30. Each input is normalised like a clip in training.

  Programs are compiled for inputs of up to 1, 3, 10 and 30 s, when first needed. The
  scores do not depend on the program's padding: see `masking`. Inputs shorter than the
  model's poolings need, a third of a second for CNN14, are padded with zeros.

  Attributes:
    model: the Flax module.
    variables: its `params` and `batch_stats`.
    front_end: the log-mel that it was trained with.
    normalize: scaling of clips before the front-end: "peak" or "none".
    class_names: names of the classes, in the order of the scores.
    threshold: the score from which a class counts as present, the same for all: tuned
      on val, or 0.5.
    thresholds: <float64>[classes], the score from which each class counts as present.
  """

  def __init__(
    self, description: model_directory.ModelDescription, variables: dict[str, Any]
  ):
    """Takes what `model_directory.load_model` returns; see `load`."""
    self.front_end = LogMelParams(**description.front_end)
    self.model = create_from_description(description)
    self.variables = jax.device_put(
      {key: variables[key] for key in ("params", "batch_stats")}
    )
    self.normalize = description.normalize
    self.class_names = tuple(description.class_names)
    tuned = description.thresholds or {}
    self.threshold = float(tuned.get("global", 0.5))
    per_class = tuned.get("per_class", [self.threshold] * len(self.class_names))
    self.thresholds = np.asarray(per_class, np.float64)
    self._apply = jax.jit(self._outputs)
    self._count_frames = functools.lru_cache(maxsize=None)(
      functools.partial(masking.count_frames, self.model, self.variables)
    )

  @classmethod
  def load(cls, path: str | Path) -> "Tagger":
    """Loads a model directory, or the one in a run's workdir.

    Raises:
      UserError: the model is missing, or belongs to another version of the code.
    """
    return cls(*load_model(find_model(Path(path))))

  @property
  def sample_rate_hz(self) -> int:
    """The rate of the model's inputs; waveforms of other rates are resampled."""
    return self.front_end.sample_rate_hz

  @functools.cached_property
  def has_frames(self) -> bool:
    """True if the model itself scores frames."""
    second = np.zeros((1, self.sample_rate_hz), np.float32)
    apply = functools.partial(self.model.apply, train=False)
    return "framewise" in jax.eval_shape(apply, self.variables, second)

  @property
  def frame_hop_s(self) -> float:
    """Time from one frame's centre to the next one's, in `frames`."""
    hop_samples = self.front_end.hop_samples
    if not self.has_frames:
      hop_samples = self._samples(FRAME_HOP_S)  # half a sample less at an odd rate
    return hop_samples / self.sample_rate_hz

  def tag(self, waveform: np.ndarray, sample_rate_hz: float) -> np.ndarray:
    """Scores a recording.

    Args:
      waveform: see `waveforms.to_mono`: float or int, mono or of several channels.
      sample_rate_hz: its rate.

    Returns:
      <float32>[classes], in [0, 1].

    Raises:
      UserError: the waveform is empty, not finite or of an unknown type or shape.
    """
    return self._mean(waveform, sample_rate_hz).scores

  def tag_batch(self, clips: Iterable[np.ndarray], sample_rate_hz: float) -> np.ndarray:
    """Scores recordings of any lengths <float32>[clips, classes]; see `tag`.

    A program takes one clip, because on a CPU several at once are not faster.
    """
    rows = [self.tag(clip, sample_rate_hz) for clip in clips]
    return np.stack(rows) if rows else np.zeros((0, len(self.class_names)), np.float32)

  def embed(self, waveform: np.ndarray, sample_rate_hz: float) -> np.ndarray:
    """Embeds a recording <float32>[dim]; see `tag`."""
    return self._mean(waveform, sample_rate_hz).embedding

  def frames(self, waveform: np.ndarray, sample_rate_hz: float) -> Frames:
    """Scores a recording over time; see `tag`.

    Returns:
      <float32>[frames, classes], `frame_hop_s` apart. If the architecture scores frames
      (CRNN, PANNs' DecisionLevel), the frames are the front-end's. Otherwise frames are
      0.5 s long and have the scores of the second around them; at the ends, of the
      first or the last second.
    """
    mono = waveforms.to_mono(waveform, sample_rate_hz, self.sample_rate_hz)
    return _concatenate(self.score_frames([mono]))

  def embed_frames(self, waveform: np.ndarray, sample_rate_hz: float) -> Frames:
    """Embeds a recording over time, a second around each frame of 0.5 s.

    Returns:
      <float32>[frames, dim]; see `frames`.
    """
    mono = waveforms.to_mono(waveform, sample_rate_hz, self.sample_rate_hz)
    return _concatenate(self._sections([mono], "embedding"))

  def score_windows(
    self, blocks: Iterable[np.ndarray], window_s: float, hop_s: float
  ) -> Iterator[Scores]:
    """Scores a recording window by window, in constant memory.

    Args:
      blocks: the recording <float32>[samples] at the model's rate, block by block.
      window_s: length of the windows, at most 30 s.
      hop_s: time from one window's start to the next one's; the last window ends with
        the recording.
    """
    window, hop = self._samples(window_s), self._samples(hop_s)
    if not (0 < hop <= window <= self._samples(LENGTHS_S[-1])):
      raise UserError(
        f"windows of {window_s:g} s, {hop_s:g} s apart: give a window of at most "
        f"{LENGTHS_S[-1]:g} s, and a hop above 0 that leaves no gaps"
      )
    before = -hop
    for start, samples, _ in waveforms.windows(blocks, window, hop):
      outputs = self._run(waveforms.normalize(samples, self.normalize))
      yield Scores(
        start / self.sample_rate_hz,
        outputs["scores"],
        outputs["embedding"],
        (start - before) / hop,
      )
      before = start

  def score_frames(self, blocks: Iterable[np.ndarray]) -> Iterator[Frames]:
    """Scores a recording over time, part by part in constant memory; see `frames`.

    Args:
      blocks: see `score_windows`.
    """
    return self._sections(blocks, "framewise" if self.has_frames else "scores")

  def _samples(self, seconds: float) -> int:
    return round(seconds * self.sample_rate_hz)

  def _outputs(
    self, variables: dict[str, Any], x: jax.Array, counts: jax.Array
  ) -> dict[str, jax.Array]:
    with contextlib.ExitStack() as stack:
      stack.enter_context(nn.intercept_methods(masking.masked(counts)))
      stack.enter_context(cpu_convs.in_use(train=False))
      outputs: Any = self.model.apply(variables, x, train=False)
    return {"scores": nn.sigmoid(outputs.pop("logits")), **outputs}

  def _run(self, clip: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the model's outputs for a clip, from the program for its length."""
    half = self.front_end.fft_samples // 2
    num_samples = max(len(clip), self.model.min_samples, half + 1)
    lengths = map(self._samples, LENGTHS_S)
    length = next(length for length in lengths if length >= num_samples)
    x = np.zeros(length + half, np.float32)
    x[: len(clip)] = clip
    # The front-end's last frames include the clip's reflection at its end.
    end = x[num_samples - half - 1 : num_samples - 1]
    x[num_samples : num_samples + half] = end[::-1]
    counts = self._count_frames(num_samples)
    outputs = self._apply(self.variables, x[None], counts)
    return {key: np.asarray(x[0]) for key, x in outputs.items()}

  def _mean(self, waveform: np.ndarray, sample_rate_hz: float) -> Scores:
    mono = waveforms.to_mono(waveform, sample_rate_hz, self.sample_rate_hz)
    longest_s = LENGTHS_S[-1]
    return mean_of_windows(self.score_windows([mono], longest_s, longest_s))

  def _sections(self, blocks: Iterable[np.ndarray], key: str) -> Iterator[Frames]:
    """Yields an output of the model over time, in parts that follow each other.

    Args:
      blocks: see `score_windows`.
      key: the output. "framewise" comes from the model's own frames; others come from
        windows around frames of `FRAME_HOP_S`.
    """
    outputs, frame = self._own_frames, self.front_end.hop_samples
    if key != "framewise":
      outputs, frame = self._sliding_windows, self._samples(FRAME_HOP_S)
    # Lengths and positions in frames.
    centre = 0 if key == "framewise" else 0.5
    context = self._samples(CONTEXT_S) // frame
    longest = self._samples(LENGTHS_S[-1]) // frame
    hop = longest - 2 * context
    done = 0
    for start, samples, is_last in waveforms.windows(
      blocks, longest * frame, hop * frame, frame
    ):
      wanted = slice(done - start // frame, None if is_last else longest - context)
      clip = waveforms.normalize(samples, self.normalize)
      values = outputs(clip, wanted, key)
      frames = done + np.arange(len(values)) + centre
      yield Frames(values, frames * frame / self.sample_rate_hz)
      done += len(values)

  def _own_frames(self, clip: np.ndarray, wanted: slice, key: str) -> np.ndarray:
    return self._run(clip)[key][: self.front_end.num_frames(len(clip))][wanted]

  def _sliding_windows(self, clip: np.ndarray, wanted: slice, key: str) -> np.ndarray:
    """Computes an output for a shortest window around each of the wanted frames."""
    window, frame = self._samples(LENGTHS_S[0]), self._samples(FRAME_HOP_S)
    num_frames = max(1, round(len(clip) / frame))
    centres = frame // 2 + frame * np.arange(num_frames)[wanted]
    starts = np.clip(centres - window // 2, 0, max(0, len(clip) - window))
    return np.stack([self._run(clip[x : x + window])[key] for x in starts])


def find_model(path: Path) -> Path:
  """Returns a model directory, or the one in a run's workdir.

  Raises:
    UserError: the run has no model yet.
  """
  is_model = (path / workdir_lib.DESCRIPTION).exists()
  if is_model or not (path / workdir_lib.CONFIG).exists():
    return path
  if not (path / workdir_lib.MODEL).exists():
    raise UserError(
      f"{path} is a run without a model yet: the model is written when the run "
      "is evaluated, with --mode=evaluate or at the end of training"
    )
  return path / workdir_lib.MODEL


def _concatenate(parts: Iterable[Frames]) -> Frames:
  values, times_s = zip(*parts, strict=True)
  return Frames(np.concatenate(values), np.concatenate(times_s))
