"""The slim CNN14 of the demo study, from scratch: shows what pre-training adds.

python -m audiotag_jax.main --config=configs/cnn14_demo_scratch.py \
  --workdir=runs/cnn14_demo_scratch
"""

from audiotag_jax import recipes


def get_config():
  config = recipes.derive(__file__, "cnn14_demo_study.py")
  config.init_from = ""
  config.train.learning_rate = 3e-3
  return config
