"""Pre-training for the demo study: a slim CNN6 on a demo set of its own.

As AudioSet is to FSD50K: all of the classes, other clips, and eight times as many.

python -m audiotag_jax.main --config=configs/cnn6_demo_pretrain.py \
  --workdir=runs/cnn6_demo_pretrain
"""

from audiotag_jax import config as config_lib


def get_config():
  config = config_lib.get_config()
  config.model.name = "Cnn6"
  config.panns.filters = (16, 32, 64, 128)
  config.panns.embedding_dim = 128
  config.panns.conv_dropout = 0.0
  config.panns.dropout = 0.1
  config.data.dataset = "soundscapes"
  config.data.soundscapes_seed = 1
  config.data.num_train = 2400
  config.data.num_val = 200
  config.data.num_eval = 200
  config.data.normalize = "none"
  config.data.clip_s = 4.0
  config.data.pad = "zero"
  config.train.batch_size = 16
  config.train.num_steps = 900
  config.train.learning_rate = 3e-3
  config.train.eval_every_steps = 450
  return config
