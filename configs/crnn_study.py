"""CRNN from scratch on the study's split of FSD50K: 12,000 clips to train.

As crnn_fsd50k.py, which has three times the clips.

python -m audiotag_jax.main --config=configs/crnn_study.py --workdir=runs/crnn_study \
  --config.data.source_dir=/data/FSD50K
"""

from audiotag_jax import config as config_lib


def get_config():
  config = config_lib.get_config()
  config.data.protocol = "study"
  config.augment.mixup_alpha = 1.0
  config.augment.time_stripes = 2
  config.augment.mel_stripes = 2
  config.train.ema_decay = 0.999
  # As many epochs as crnn_fsd50k.py has on three times the clips.
  config.train.num_steps = 20_000
  return config
