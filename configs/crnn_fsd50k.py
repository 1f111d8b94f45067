"""CRNN from scratch on FSD50K's official splits.

python -m audiotag_jax.main --config=configs/crnn_fsd50k.py --workdir=runs/crnn_fsd50k \
  --config.data.source_dir=/data/FSD50K
"""

from audiotag_jax import config as config_lib


def get_config():
  return config_lib.get_config()
