"""A slim CNN14, fine-tuned on few clips of the demo set: the other side of the study.

tools/study.py --demo makes the model that it starts from.

python -m audiotag_jax.main --config=configs/cnn14_demo_study.py \
  --workdir=runs/cnn14_demo_study --config.init_from=runs/demo_study/cnn14
"""

from audiotag_jax import recipes


def get_config():
  config = recipes.derive(__file__, "cnn14_demo_pretrain.py")
  config.init_from = "runs/demo_study/cnn14"
  config.data.soundscapes_seed = 0
  config.data.num_train = 120
  config.data.num_val = 120
  config.data.num_eval = 300
  config.data.clip_s = 6.0
  config.train.num_steps = 200
  config.train.learning_rate = 1e-3
  config.train.log_every_steps = 20
  config.train.eval_every_steps = 50
  return config
