"""CRNN from scratch on few clips of the demo set: one side of the demo study.

python -m audiotag_jax.main --config=configs/crnn_demo_study.py \
  --workdir=runs/crnn_demo_study
"""

from audiotag_jax import recipes


def get_config():
  config = recipes.derive(__file__, "crnn_demo.py")
  config.data.num_train = 120
  config.data.num_val = 120
  config.data.num_eval = 300
  config.train.num_steps = 400
  config.train.eval_every_steps = 100
  return config
