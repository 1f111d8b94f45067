"""Shapes of the inputs that a recipe hands to its model."""

import ml_collections

from audiotag_jax.frontend import mel


def clip_samples(config: ml_collections.ConfigDict) -> int:
  """The length that clips are cropped or padded to, in samples."""
  return round(config.data.clip_s * config.frontend.sample_rate_hz)


def inputs_shape(config: ml_collections.ConfigDict) -> tuple[int, ...]:
  """(frames, mels), or (samples,), of a clip of the fixed length."""
  if config.data.features == "waveform":
    return (clip_samples(config),)
  params = mel.LogMelParams(**config.frontend)
  return params.num_frames(clip_samples(config)), params.num_mels
