"""CNN14 of PANNs at 16 kHz, fine-tuned on FSD50K's official splits.

python tools/convert_panns.py --checkpoint='Cnn14_16k_mAP=0.438.pth' \
  --output=models/cnn14_16k
python -m audiotag_jax.main --config=configs/cnn14_16k_fsd50k.py \
  --workdir=runs/cnn14_16k_fsd50k --config.data.source_dir=/data/FSD50K
"""

from audiotag_jax import config as config_lib


def get_config():
  config = config_lib.get_config()
  config.model.name = "Cnn14_16k"
  config.augment.time_stripes = 2
  config.augment.mel_stripes = 2
  config.init_from = "models/cnn14_16k"
  config.frontend.sample_rate_hz = 16_000
  config.frontend.window_samples = 512
  config.frontend.fft_samples = 512
  config.frontend.hop_samples = 160
  config.frontend.f_max_hz = 8_000.0
  # PANNs were trained on clips at the level they were recorded at.
  config.data.normalize = "none"
  config.data.features = "waveform"
  config.train.batch_size = 32
  config.train.num_steps = 35_000
  config.train.learning_rate = 1e-4
  config.evaluation.batch_size = 32
  return config
