"""CRNN from scratch on few clips of the demo set: one side of the demo study.

python -m audiotag_jax.main --config=configs/crnn_demo_study.py \
  --workdir=runs/crnn_demo_study
"""

from audiotag_jax import config as config_lib


def get_config():
  config = config_lib.get_config()
  config.data.dataset = "soundscapes"
  config.data.num_train = 120
  config.data.num_val = 120
  config.data.num_eval = 300
  config.data.clip_s = 6.0
  config.data.pad = "zero"
  config.frontend.sample_rate_hz = 16_000
  config.frontend.window_samples = 512
  config.frontend.fft_samples = 512
  config.frontend.f_max_hz = 8_000.0
  config.crnn.filters = (16, 32, 64, 64)
  config.crnn.time_pooling = (4, 2, 2, 1)
  config.crnn.gru_units = (64,)
  config.crnn.conv_dropout = 0.0
  config.crnn.dropout = 0.1
  config.train.batch_size = 16
  config.train.num_steps = 400
  config.train.learning_rate = 4e-3
  config.train.eval_every_steps = 100
  return config
