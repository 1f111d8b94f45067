"""CRNN from scratch on the study's split of FSD50K: 12,000 clips to train.

python -m audiotag_jax.main --config=configs/crnn_study.py --workdir=runs/crnn_study \
  --config.data.source_dir=/data/FSD50K
"""

from audiotag_jax import recipes


def get_config():
  config = recipes.derive(__file__, "crnn_fsd50k.py")
  config.data.protocol = "study"
  # As many epochs as crnn_fsd50k.py has on three times the clips.
  config.train.num_steps = 20_000
  return config
