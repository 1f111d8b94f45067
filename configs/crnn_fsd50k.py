"""CRNN from scratch on FSD50K's official splits.

It trains with mixup, SpecAugment and a moving average of the weights.

python -m audiotag_jax.main --config=configs/crnn_fsd50k.py --workdir=runs/crnn_fsd50k \
  --config.data.source_dir=/data/FSD50K
"""

from audiotag_jax import config as config_lib


def get_config():
  config = config_lib.get_config()
  config.augment.mixup_alpha = 1.0
  config.augment.time_stripes = 2
  config.augment.mel_stripes = 2
  config.train.ema_decay = 0.999
  return config
