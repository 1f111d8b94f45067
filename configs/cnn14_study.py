"""CNN14 of PANNs, fine-tuned on the study's split of FSD50K: 12,000 clips to train.

As cnn14_fsd50k.py, which has three times the clips.

python tools/convert_panns.py --checkpoint='Cnn14_mAP=0.431.pth' --output=models/cnn14
python -m audiotag_jax.main --config=configs/cnn14_study.py \
  --workdir=runs/cnn14_study --config.data.source_dir=/data/FSD50K
"""

from audiotag_jax import config as config_lib


def get_config():
  config = config_lib.get_config()
  config.data.protocol = "study"
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
  # As many epochs as cnn14_fsd50k.py has on three times the clips.
  config.train.num_steps = 12_000
  config.train.learning_rate = 1e-4
  config.evaluation.batch_size = 32
  return config
