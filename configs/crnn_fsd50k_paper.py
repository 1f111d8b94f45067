"""The CRNN of the FSD50K paper (Fonseca et al. 2020, section 5.B).

22.05 kHz, 96 mel bands, 30-ms windows every 10 ms; 1-s patches, 50 % overlapping in
evaluation and scored by their mean; three 5x5 blocks of 128 filters, one
bidirectional GRU of 64.

python -m audiotag_jax.main --config=configs/crnn_fsd50k_paper.py \
  --workdir=runs/crnn_fsd50k_paper --config.data.source_dir=/data/FSD50K
"""

from audiotag_jax import config as config_lib


def get_config():
  config = config_lib.get_config()
  config.frontend.sample_rate_hz = 22_050
  config.frontend.window_samples = 661
  config.frontend.fft_samples = 1024
  config.frontend.hop_samples = 220
  config.frontend.num_mels = 96
  config.frontend.f_min_hz = 0.0
  config.frontend.f_max_hz = 11_025.0
  config.data.clip_s = 1.0
  config.crnn.filters = (128, 128, 128)
  config.crnn.kernel_size = 5
  config.crnn.time_pooling = (2, 2, 2)
  config.crnn.mel_pooling = (5, 3, 2)
  config.crnn.gru_units = (64,)
  config.evaluation.crop = "windows"
  config.evaluation.hop_s = 0.5
  return config
