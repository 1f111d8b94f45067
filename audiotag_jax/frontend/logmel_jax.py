"""Log-mel spectrogram in JAX, for a model's own front-end on the accelerator."""

import jax
import jax.numpy as jnp

from audiotag_jax.frontend import mel


def pad_short(waveform: jax.Array, min_samples: int) -> jax.Array:
  """Pads <float32>[..., samples] with zeros at its end to at least `min_samples`."""
  missing = max(0, min_samples - waveform.shape[-1])
  return jnp.pad(waveform, [(0, 0)] * (waveform.ndim - 1) + [(0, missing)])


def log_mel(waveform: jax.Array, params: mel.LogMelParams) -> jax.Array:
  """Computes the log-mel spectrogram of waveforms, in dB; see `logmel_tf.log_mel`.

  Args:
    waveform: <float32>[..., samples]. One too short to be reflected is padded with
      zeros at its end first.
    params: the front-end's parameters.

  Returns:
    <float32>[..., frames, num_mels] with frames = 1 + samples // hop_samples.
  """
  num_frames = params.num_frames(waveform.shape[-1])
  half = params.fft_samples // 2
  waveform = pad_short(waveform.astype(jnp.float32), half + 1)
  paddings = [(0, 0)] * (waveform.ndim - 1) + [(half, half)]
  frames = _frame(jnp.pad(waveform, paddings, mode="reflect"), params, num_frames)
  spectrum = jnp.fft.rfft(frames * mel.hann_window(params))
  power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
  # Accelerators would round the factors of a float32 product to fewer bits.
  mel_power = jnp.matmul(
    power, mel.mel_matrix(params), precision=jax.lax.Precision.HIGHEST
  )
  return 10.0 * jnp.log10(jnp.maximum(mel_power, mel.MIN_POWER))


def _frame(x: jax.Array, params: mel.LogMelParams, num_frames: int) -> jax.Array:
  """Cuts <float32>[..., samples] into <float32>[..., num_frames, fft_samples].

  A frame is `num_parts` consecutive hops, cut to the FFT: slices, not a gather.
  """
  hop = params.hop_samples
  num_parts = -(-params.fft_samples // hop)
  num_hops = num_frames - 1 + num_parts
  hops = pad_short(x, num_hops * hop)[..., : num_hops * hop]
  hops = hops.reshape(*x.shape[:-1], num_hops, hop)
  parts = [hops[..., i : i + num_frames, :] for i in range(num_parts)]
  return jnp.concatenate(parts, axis=-1)[..., : params.fft_samples]
