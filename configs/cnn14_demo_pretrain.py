"""Pre-training for the demo study: a slim CNN14 on a demo set of its own.

This set relates to the study's as AudioSet relates to FSD50K: it has the same kinds of
sounds, other clips, and many more of them.

python -m audiotag_jax.main --config=configs/cnn14_demo_pretrain.py \
  --workdir=runs/cnn14_demo_pretrain
"""

from audiotag_jax import config as config_lib


def get_config():
  config = config_lib.get_config()
  config.model.name = "Cnn14"
  config.panns.filters = (8, 16, 32, 64, 128, 128)
  config.panns.embedding_dim = 128
  # Random bits for dropout cost a CPU more than the convolutions.
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
  config.train.eval_every_steps = 225
  return config
