"""Log-mel spectrogram in TensorFlow, for the input pipeline."""

import math

import tensorflow as tf

from audiotag_jax.frontend import mel


def log_mel(waveform: tf.Tensor, params: mel.LogMelParams) -> tf.Tensor:
  """Computes the log-mel spectrogram of waveforms, in dB.

  The result agrees with librosa.feature.melspectrogram followed by
  power_to_db(top_db=None), and so with PANNs' torchlibrosa, within 1e-3 dB. The FFT
  runs in float64, as librosa's does, at no cost on a CPU. In float32, bands 80 dB below
  a frame's loudest are off by up to 0.1 dB.

  Args:
    waveform: <float32>[..., samples]. A waveform too short to be reflected is first
      padded with zeros at its end.
    params: the front-end's parameters.

  Returns:
    <float32>[..., frames, num_mels] with frames = 1 + samples // hop_samples.
  """
  num_frames = params.num_frames(tf.shape(waveform)[-1])
  return log_mel_frames(waveform, params, 0, num_frames)


def log_mel_frames(
  waveform: tf.Tensor, params: mel.LogMelParams, first: tf.Tensor, count: tf.Tensor
) -> tf.Tensor:
  """Computes some frames of the log-mel spectrogram of waveforms, and no others.

  Args:
    waveform: <float32>[..., samples].
    params: the front-end's parameters.
    first: <int>[], the first frame wanted.
    count: <int>[], frames wanted.

  Returns:
    <float32>[..., count, num_mels], `log_mel`'s frames from `first` on.
  """
  half = params.fft_samples // 2
  missing = tf.maximum(0, half + 1 - tf.shape(waveform)[-1])
  others = [[0, 0]] * (len(waveform.shape) - 1)
  waveform = tf.pad(waveform, [*others, [0, missing]])
  waveform = tf.pad(waveform, [*others, [half, half]], mode="REFLECT")
  start = first * params.hop_samples
  end = start + (count - 1) * params.hop_samples + params.fft_samples
  spectrum = tf.signal.stft(
    tf.cast(waveform[..., start:end], tf.float64),
    frame_length=params.fft_samples,
    frame_step=params.hop_samples,
    window_fn=lambda _, dtype: tf.constant(mel.hann_window(params), dtype),
  )
  power = tf.square(tf.math.real(spectrum)) + tf.square(tf.math.imag(spectrum))
  power = tf.cast(power, tf.float32)
  mel_power = tf.tensordot(power, mel.mel_matrix(params), axes=1)
  return 10.0 / math.log(10.0) * tf.math.log(tf.maximum(mel_power, mel.MIN_POWER))
