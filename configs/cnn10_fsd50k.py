"""CNN10 of PANNs, fine-tuned on FSD50K's official splits.

python tools/convert_panns.py --checkpoint='Cnn10_mAP=0.380.pth' --output=models/cnn10
python -m audiotag_jax.main --config=configs/cnn10_fsd50k.py \
  --workdir=runs/cnn10_fsd50k --config.data.source_dir=/data/FSD50K
"""

from audiotag_jax import config as config_lib


def get_config():
  config = config_lib.get_config()
  config.model.name = "Cnn10"
  config.augment.time_stripes = 2
  config.augment.mel_stripes = 2
  config.init_from = "models/cnn10"
  # PANNs were trained on clips at the level they were recorded at.
  config.data.normalize = "none"
  config.data.features = "waveform"
  config.train.batch_size = 32
  config.train.num_steps = 35_000
  config.train.learning_rate = 1e-4
  config.evaluation.batch_size = 32
  return config
