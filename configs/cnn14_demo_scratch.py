"""The slim CNN14 of the demo study, from scratch: what its pre-training adds.

As cnn14_demo_study.py, with nothing to start from and a higher learning rate.

python -m audiotag_jax.main --config=configs/cnn14_demo_scratch.py \
  --workdir=runs/cnn14_demo_scratch
"""

from audiotag_jax import config as config_lib


def get_config():
  config = config_lib.get_config()
  config.model.name = "Cnn14"
  config.panns.filters = (8, 16, 32, 64, 128, 128)
  config.panns.embedding_dim = 128
  config.panns.conv_dropout = 0.0
  config.panns.dropout = 0.1
  config.data.dataset = "soundscapes"
  config.data.num_train = 120
  config.data.num_val = 120
  config.data.num_eval = 300
  config.data.normalize = "none"
  config.data.clip_s = 6.0
  config.data.pad = "zero"
  config.train.batch_size = 16
  config.train.num_steps = 200
  config.train.learning_rate = 3e-3
  config.train.log_every_steps = 20
  config.train.eval_every_steps = 50
  return config
