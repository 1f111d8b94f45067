"""CNN6 of PANNs, fine-tuned on the demo set, light enough for two CPU cores.

CNN6 is the smallest of the CNNs, and only its last layers are trained.

python tools/convert_panns.py --checkpoint='Cnn6_mAP=0.343.pth' --output=models/cnn6
python -m audiotag_jax.main --config=configs/cnn6_demo.py --workdir=runs/cnn6_demo
"""

from audiotag_jax import config as config_lib


def get_config():
  config = config_lib.get_config()
  config.model.name = "Cnn6"
  config.augment.time_stripes = 2
  config.augment.mel_stripes = 2
  config.init_from = "models/cnn6"
  config.finetune.mode = "last_blocks"
  config.finetune.num_blocks = 1
  config.data.dataset = "soundscapes"
  config.data.normalize = "none"
  config.data.clip_s = 6.0
  config.data.pad = "zero"
  config.train.batch_size = 16
  config.train.num_steps = 150
  config.train.log_every_steps = 10
  config.train.eval_every_steps = 75
  config.evaluation.batch_size = 16
  return config
