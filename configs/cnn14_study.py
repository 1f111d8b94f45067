"""CNN14 of PANNs, fine-tuned on the study's split of FSD50K: 12,000 clips to train.

python tools/convert_panns.py --checkpoint='Cnn14_mAP=0.431.pth' --output=models/cnn14
python -m audiotag_jax.main --config=configs/cnn14_study.py \
  --workdir=runs/cnn14_study --config.data.source_dir=/data/FSD50K
"""

from audiotag_jax import recipes


def get_config():
  config = recipes.derive(__file__, "cnn14_fsd50k.py")
  config.data.protocol = "study"
  # As many epochs as cnn14_fsd50k.py has on three times the clips.
  config.train.num_steps = 12_000
  return config
