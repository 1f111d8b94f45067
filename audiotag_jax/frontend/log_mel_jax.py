"""Log-mel spectrogram in JAX, for a model's own front-end on the accelerator."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from audiotag_jax.frontend import mel


def pad_short(waveform: jax.Array, min_samples: int) -> jax.Array:
  """Pads <float32>[..., samples] with zeros at its end to at least `min_samples`."""
  missing = min_samples - waveform.shape[-1]
  if missing <= 0:
    return waveform
  return jnp.pad(waveform, [(0, 0)] * (waveform.ndim - 1) + [(0, missing)])


def fft_power(frames: jax.Array) -> jax.Array:
  """Power spectra <float32>[..., bins] of windowed frames <float32>[..., samples]."""
  spectrum = jnp.fft.rfft(frames)
  return jnp.square(spectrum.real) + jnp.square(spectrum.imag)


def log_mel(
  waveform: jax.Array,
  params: mel.LogMelParams,
  power: Callable[[jax.Array], jax.Array] = fft_power,
) -> jax.Array:
  """Computes the log-mel spectrogram of waveforms, in dB; see `log_mel_tf.log_mel`.

  Args:
    waveform: <float32>[..., samples]. A waveform too short to be reflected is first
      padded with zeros at its end.
    params: the front-end's parameters.
    power: computes the power spectra; a runtime without an FFT needs another function.

  Returns:
    <float32>[..., frames, num_mels] with frames = 1 + samples // hop_samples.
  """
  num_frames = params.num_frames(waveform.shape[-1])
  half = params.fft_samples // 2
  waveform = waveform.astype(jnp.promote_types(waveform.dtype, jnp.float32))
  waveform = pad_short(waveform, half + 1)
  paddings = [(0, 0)] * (waveform.ndim - 1) + [(half, half)]
  frames = _frame(jnp.pad(waveform, paddings, mode="reflect"), params, num_frames)
  window = mel.hann_window(params).astype(frames.dtype)
  # Accelerators would round the factors of a float32 product to fewer bits.
  mel_power = jnp.matmul(
    power(frames * window),
    mel.mel_matrix(params).astype(frames.dtype),
    precision=jax.lax.Precision.HIGHEST,
  )
  return 10.0 * jnp.log10(jnp.maximum(mel_power, mel.MIN_POWER))


def _frame(x: jax.Array, params: mel.LogMelParams, num_frames: int) -> jax.Array:
  """Cuts <float32>[..., samples] into <float32>[..., num_frames, fft_samples].

  A frame is `num_parts` consecutive hops, cut to the FFT's length, so that slices
  suffice and no gather is needed.
  """
  hop = params.hop_samples
  num_parts = -(-params.fft_samples // hop)
  num_hops = num_frames - 1 + num_parts
  # Enough extra samples for any length, because lengths are symbolic in an export. The
  # values of the samples do not matter: no frame contains them.
  padding = num_parts * hop - 2 * (params.fft_samples // 2)
  hops = jnp.concatenate([x, x[..., :padding]], axis=-1)[..., : num_hops * hop]
  hops = hops.reshape(*x.shape[:-1], num_hops, hop)
  parts = [hops[..., i : i + num_frames, :] for i in range(num_parts)]
  return jnp.concatenate(parts, axis=-1)[..., : params.fft_samples]
