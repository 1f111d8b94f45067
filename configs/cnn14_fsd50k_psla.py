"""CNN14 of PANNs, fine-tuned on FSD50K with PSLA's methods (Gong et al. 2021).

The methods are sampling by the rarity of labels, mixup of half the clips, a stripe of
time and one of frequency (48 of 128 mel bands there, 24 of 64 here), and the mean of
the weights of the last 20 of 40 epochs. PSLA itself has another model, an EfficientNet;
enhanced labels; 30 s of 16-kHz audio; and steps down of the learning rate, where ours
is a cosine. The 20 checkpoints take 20 GB.

python tools/convert_panns.py --checkpoint='Cnn14_mAP=0.431.pth' --output=models/cnn14
python -m audiotag_jax.main --config=configs/cnn14_fsd50k_psla.py \
  --workdir=runs/cnn14_fsd50k_psla --config.data.source_dir=/data/FSD50K
"""

from audiotag_jax import recipes

NUM_TRAIN_CLIPS = 36_796


def get_config():
  config = recipes.derive(__file__, "cnn14_fsd50k.py")
  # PSLA trains all layers at one rate, and augments only by mixup and stripes.
  config.finetune.mode = "full"
  config.augment.gain_db = 0.0
  config.augment.roll_s = 0.0
  config.data.sampling = "label_weighted"
  config.augment.mixup_alpha = 10.0
  config.augment.mixup_share = 0.5
  config.augment.time_stripes = 1
  config.augment.time_stripe_frames = 192
  config.augment.mel_stripes = 1
  config.augment.mel_stripe_bands = 24
  config.train.batch_size = 24
  config.train.eval_every_steps = NUM_TRAIN_CLIPS // 24
  config.train.num_steps = 40 * config.train.eval_every_steps
  config.train.weight_decay = 5e-7
  # The mean of checkpoints takes the place of the moving average.
  config.train.ema_decay = 0.0
  config.train.keep_checkpoints = 20
  config.evaluation.checkpoint = "average"
  config.evaluation.batch_size = 24
  return config
