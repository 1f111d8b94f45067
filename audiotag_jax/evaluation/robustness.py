"""Robustness of a model's scores to perturbations of its recordings."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import ml_collections
import numpy as np
from absl import logging
from tqdm import tqdm

from audiotag_jax.audio import perturb
from audiotag_jax.data.clips import ClipIndex
from audiotag_jax.evaluation import evaluate

SNRS_DB = (20, 10, 0)
TELEPHONE_HZ = (300, 3400)
RT60S_S = (0.5, 1.5)
EXCERPTS_S = (1, 3, 5)


@dataclasses.dataclass(frozen=True)
class Condition:
  """A perturbation of every recording of a split.

  Attributes:
    perturbation: a function of audio/perturb.py, or None to leave recordings alone.
    max_s: the length that recordings are cut to, or None if they keep their length.
  """

  perturbation: Callable | None = None
  max_s: float | None = None

  def perturb(self, rate_hz: int) -> Callable[[np.ndarray, str], np.ndarray] | None:
    """Returns `perturb` of `evaluate.predict`: a function of a recording and fname."""
    perturbation = self.perturbation
    if perturbation is None:
      return None
    return lambda waveform, fname: perturbation(
      waveform, rate_hz, perturb.generator(fname)
    )

  def shorten(self, clips: ClipIndex, rate_hz: int) -> ClipIndex:
    """Returns the clips with their lengths after the perturbation."""
    if self.max_s is None:
      return clips
    longest = round(self.max_s * rate_hz)
    num_samples = np.minimum(clips.num_samples, longest)
    return dataclasses.replace(clips, num_samples=num_samples)


def conditions() -> dict[str, Condition]:
  """Returns the conditions by name, in the order of reports."""
  low_hz, high_hz = TELEPHONE_HZ
  perturbations = {
    f"{color} noise, {snr_db} dB": partial(
      perturb.add_noise, color=color, snr_db=snr_db
    )
    for color in ("white", "pink")
    for snr_db in SNRS_DB
  }
  perturbations |= {
    "low-pass, 4 kHz": partial(perturb.limit_band, high_hz=4_000),
    f"telephone band, {low_hz}-{high_hz} Hz": partial(
      perturb.limit_band, low_hz=low_hz, high_hz=high_hz
    ),
    "MP3, 32 kbit/s": partial(perturb.code_mp3, kbit_per_s=32),
    "8 kHz and back": partial(perturb.narrow, through_hz=8_000),
  }
  perturbations |= {
    f"reverberation, {rt60_s:g} s": partial(perturb.reverberate, rt60_s=rt60_s)
    for rt60_s in RT60S_S
  }
  excerpts = {
    f"excerpt, {seconds:g} s": Condition(
      partial(perturb.excerpt, seconds=seconds), max_s=seconds
    )
    for seconds in EXCERPTS_S
  }
  perturbed = {name: Condition(function) for name, function in perturbations.items()}
  return {"clean": Condition()} | perturbed | excerpts


def measure(
  eval_step: Callable,
  variables: Any,
  clips: ClipIndex,
  config: ml_collections.ConfigDict,
) -> dict[str, dict[str, float]]:
  """Scores a split under every condition.

  Args:
    eval_step: `eval_step.eval_step`, pmapped.
    variables: replicated `params` and `batch_stats`.
    clips: the clips.
    config: the config.

  Returns:
    The `mAP` and `f1` (at `evaluation.threshold`) of each condition, by its name.
  """
  rate_hz = config.frontend.sample_rate_hz
  results = {}
  bar = tqdm(conditions().items(), "robustness", disable=None)
  for name, condition in bar:
    bar.set_postfix_str(name)
    predictions = evaluate.predict(
      eval_step,
      variables,
      condition.shorten(clips, rate_hz),
      config,
      perturb=condition.perturb(rate_hz),
    )
    overall, _ = predictions.metrics(config.evaluation.threshold)
    results[name] = {key: overall[key] for key in ("mAP", "f1")}
    logging.info("%s: mAP %.3f, f1 %.3f", name, *results[name].values())
  return results
