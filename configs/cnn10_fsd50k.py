"""CNN10 of PANNs, fine-tuned on FSD50K's official splits.

python tools/convert_panns.py --checkpoint='Cnn10_mAP=0.380.pth' --output=models/cnn10
python -m audiotag_jax.main --config=configs/cnn10_fsd50k.py \
  --workdir=runs/cnn10_fsd50k --config.data.source_dir=/data/FSD50K
"""

from audiotag_jax import recipes


def get_config():
  config = recipes.derive(__file__, "cnn14_fsd50k.py")
  config.model.name = "Cnn10"
  config.init_from = "models/cnn10"
  return config
