"""CNN14 of PANNs, fine-tuned on FSD50K's official splits: our best guess of a recipe.

All layers are trained, earlier ones at lower rates, with PANNs' mixup and SpecAugment,
level and time augmentation, and a moving average of the weights.

python tools/convert_panns.py --checkpoint='Cnn14_mAP=0.431.pth' --output=models/cnn14
python -m audiotag_jax.main --config=configs/cnn14_fsd50k.py \
  --workdir=runs/cnn14_fsd50k --config.data.source_dir=/data/FSD50K
"""

from audiotag_jax import config as config_lib


def get_config():
  config = config_lib.get_config()
  config.model.name = "Cnn14"
  config.init_from = "models/cnn14"
  config.finetune.mode = "layerwise"
  # PANNs were trained on clips at the level they were recorded at.
  config.data.normalize = "none"
  config.data.features = "waveform"
  config.augment.mixup_alpha = 1.0
  config.augment.gain_db = 6.0
  config.augment.roll_s = 1.0
  config.augment.time_stripes = 2
  config.augment.mel_stripes = 2
  config.train.ema_decay = 0.999
  config.train.batch_size = 32
  config.train.num_steps = 35_000
  config.train.learning_rate = 1e-4
  config.evaluation.batch_size = 32
  return config
