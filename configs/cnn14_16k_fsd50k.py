"""CNN14 of PANNs at 16 kHz, fine-tuned on FSD50K's official splits.

python tools/convert_panns.py --checkpoint='Cnn14_16k_mAP=0.438.pth' \
  --output=models/cnn14_16k
python -m audiotag_jax.main --config=configs/cnn14_16k_fsd50k.py \
  --workdir=runs/cnn14_16k_fsd50k --config.data.source_dir=/data/FSD50K
"""

from audiotag_jax import recipes


def get_config():
  config = recipes.derive(__file__, "cnn14_fsd50k.py")
  config.model.name = "Cnn14_16k"
  config.init_from = "models/cnn14_16k"
  config.frontend.sample_rate_hz = 16_000
  config.frontend.window_samples = 512
  config.frontend.fft_samples = 512
  config.frontend.hop_samples = 160
  config.frontend.f_max_hz = 8_000.0
  return config
