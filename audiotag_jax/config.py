"""Every key of a recipe, once, with its meaning, unit and default.

A recipe is a file with a `get_config()` that takes this one, or another recipe's, and
overrides a few keys (`recipes.py`); the command line overrides the recipe:
`--config.train.num_steps=20`.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
  """Returns the base of all recipes: a CRNN on FSD50K, with PANNs' front-end."""
  config = ml_collections.ConfigDict()
  # Draws the initial parameters, the order of clips, the crops, the dropout.
  config.seed = 0
  config.data = _data()
  config.augment = _augment()
  config.frontend = _frontend()
  config.model = _model()
  config.crnn = _crnn()
  config.panns = _panns()
  # A model directory to start from (tools/convert_panns.py writes some); empty to train
  # from scratch. Its classifier is replaced by one for the data set's classes.
  config.init_from = ""
  config.finetune = _finetune()
  config.loss = _loss()
  config.train = _train()
  config.evaluation = _evaluation()
  return config.lock()


def _data() -> ml_collections.ConfigDict:
  """The data set, and how its clips reach the model."""
  data = ml_collections.ConfigDict()
  # What lies at `source_dir`. "fsd50k": a folder as Zenodo record 4060432 ships it, or
  # with its archives. "manifest": a csv file of clips and labels. "folders": a folder
  # for each class. "audioset": AudioSet's csv files. "esc50": ESC-50. "soundscapes":
  # the demo set, synthesised into `data_dir` on first use.
  data.dataset = "fsd50k"
  data.source_dir = ""
  # Of a manifest or AudioSet: the folder that holds the audio, if not that of the csv.
  data.audio_dir = ""
  # Of a manifest: what stands between a clip's labels.
  data.label_separator = ","
  # Of ESC-50: the fold to evaluate on; the one before it is val.
  data.fold = 5
  # Where prepared sets lie; empty for TFDS's default, ~/tensorflow_datasets.
  data.data_dir = ""
  # Clips that may be missing or unreadable before preparation fails.
  data.allow_missing = 0
  # "official": FSD50K's train, val and eval. "study": 12,000 dev clips to train and
  # 3,000 to evaluate (and 1,500 others as val), drawn once: see data/splits.py.
  data.protocol = "official"
  # "peak": every clip is divided by its largest magnitude. "none": left as it is.
  data.normalize = "peak"
  # Length that clips are cropped or padded to, in seconds.
  data.clip_s = 10.0
  # How shorter clips are filled up: with themselves ("repeat") or zeros ("zero").
  data.pad = "repeat"
  # What the input pipeline hands to the model: log-mels that the CPU computes
  # ("log_mel"), or waveforms ("waveform") of which the model computes them on the
  # accelerator. Wavegram, LeeNet, DaiNet and Res1dNet take waveforms alone.
  data.features = "log_mel"
  # Whether log-mels are computed once, for all epochs and runs with this front-end and
  # normalisation, and kept beside the prepared set, as float16.
  data.cache_log_mels = False
  # Which clips a training batch holds. "uniform": every clip once an epoch.
  # "class_balanced": of each class in turn, as PANNs. "label_weighted": drawn by the
  # rarity of their labels, as PSLA. See data/sampling.py.
  data.sampling = "uniform"
  # Of the demo set: clips in each split.
  data.num_train = 1200
  data.num_val = 200
  data.num_eval = 400
  # Of the demo set: what its clips are drawn from. It is the same for every `seed`.
  data.soundscapes_seed = 0
  return data


def _augment() -> ml_collections.ConfigDict:
  """Augmentation of training clips."""
  augment = ml_collections.ConfigDict()
  # Mixup (Zhang et al. 2018) of log-mels or waveforms, whichever `data.features` are:
  # Beta(alpha, alpha), for a share of the clips; 0 for none. PANNs: 1; PSLA: 10, 0.5.
  augment.mixup_alpha = 0.0
  augment.mixup_share = 1.0
  # Each clip's level is changed by up to so many dB, up or down.
  augment.gain_db = 0.0
  # Each clip is rolled around in time by up to so many seconds, either way.
  augment.roll_s = 0.0
  # SpecAugment (Park et al. 2019): stripes of the normalised log-mel that are set to
  # zero, each narrower than so many frames or mel bands. PANNs: 2, 64, 2, 8 (of 64);
  # PSLA: 1, 192, 1, 48 (of 128). Models that take waveforms alone have none.
  augment.time_stripes = 0
  augment.time_stripe_frames = 64
  augment.mel_stripes = 0
  augment.mel_stripe_bands = 8
  # A folder of recordings of background noise, empty for none; the share of clips that
  # get some, and its level: least and largest signal-to-noise ratio in dB.
  augment.noise_dir = ""
  augment.noise_share = 0.5
  augment.noise_snr_db = (5.0, 30.0)
  return augment


def _frontend() -> ml_collections.ConfigDict:
  """PANNs' front-end; see frontend/mel.py for each parameter."""
  frontend = ml_collections.ConfigDict()
  frontend.sample_rate_hz = 32_000
  frontend.window_samples = 1024
  frontend.fft_samples = 1024
  frontend.hop_samples = 320
  frontend.num_mels = 64
  frontend.f_min_hz = 50.0
  frontend.f_max_hz = 14_000.0
  return frontend


def _model() -> ml_collections.ConfigDict:
  """The model."""
  model = ml_collections.ConfigDict()
  # "crnn", or an architecture of PANNs: Cnn14, Cnn10, ResNet38, MobileNetV2, … (all of
  # them: panns/architectures.py).
  model.name = "crnn"
  # Type that is computed in; parameters and logits are float32 throughout.
  model.dtype = "float32"
  return model


def _crnn() -> ml_collections.ConfigDict:
  """The CRNN."""
  crnn = ml_collections.ConfigDict()
  # A convolution block for each entry: its filters, and its pooling over time
  # and over frequency.
  crnn.filters = (64, 128, 256, 256)
  crnn.time_pooling = (2, 2, 2, 1)
  crnn.mel_pooling = (2, 2, 2, 2)
  # Side of the square convolution kernels.
  crnn.kernel_size = 3
  # Units of each bidirectional GRU layer, in one direction.
  crnn.gru_units = (128,)
  # How frames become a clip: see models/layers.py pool_frames.
  crnn.pooling = "attention"
  # Share of activations dropped after each convolution block and before the
  # classifier.
  crnn.conv_dropout = 0.1
  crnn.dropout = 0.3
  return crnn


def _panns() -> ml_collections.ConfigDict:
  """PANNs' architectures."""
  panns = ml_collections.ConfigDict()
  # Share of activations dropped after each convolution block, and before and after fc1.
  panns.conv_dropout = 0.2
  panns.dropout = 0.5
  # Filters of each block of Cnn6, Cnn10 or Cnn14, and units of its fc1, if they are not
  # to be the architecture's own: () and 0.
  panns.filters = ()
  panns.embedding_dim = 0
  return panns


def _finetune() -> ml_collections.ConfigDict:
  """What of a model that starts from `init_from` is trained."""
  finetune = ml_collections.ConfigDict()
  # "full": all of it. "linear": the classifier alone. "last_blocks": the classifier and
  # the `num_blocks` blocks before it. "layerwise": all of it, the learning rate of each
  # block `layer_decay` times that of the block after it. "linear" and "last_blocks"
  # leave the batch statistics as they are.
  finetune.mode = "full"
  finetune.num_blocks = 2
  finetune.layer_decay = 0.75
  return finetune


def _loss() -> ml_collections.ConfigDict:
  """The loss."""
  loss = ml_collections.ConfigDict()
  # "bce": binary cross-entropy. "focal": Lin et al. 2017. "asymmetric": ASL, Ridnik et
  # al. 2021. "class_balanced": classes weighted by their effective number of clips, Cui
  # et al. 2019. See training/losses.py. val/loss is the binary cross-entropy always.
  loss.name = "bce"
  # Labels are pulled towards one half, by half of this.
  loss.label_smoothing = 0.0
  loss.focal_gamma = 2.0
  loss.asl_gamma_positive = 0.0
  loss.asl_gamma_negative = 4.0
  # What is taken off a negative's probability before its loss.
  loss.asl_margin = 0.05
  # 0: all classes weigh the same; towards 1: as the inverse of their number of clips.
  loss.class_beta = 0.999
  return loss


def _train() -> ml_collections.ConfigDict:
  """The training."""
  train = ml_collections.ConfigDict()
  train.num_steps = 60_000
  # Clips in a step, over all devices of all hosts.
  train.batch_size = 64
  # Parts that a step's batch is cut into on each device, to save memory.
  train.accumulation_steps = 1
  # Peak of the learning rate, after a linear warm-up over the first `warmup_share`
  # of the steps and before a cosine decay to zero at the last.
  train.learning_rate = 1e-3
  train.warmup_share = 0.05
  # AdamW's decoupled weight decay; biases and norms are exempt.
  train.weight_decay = 1e-4
  # Largest global norm of the gradient.
  train.clip_norm = 1.0
  # Decay of the exponential moving average of the weights that is validated, evaluated
  # and saved as the model; 0 for the weights themselves.
  train.ema_decay = 0.0
  # Steps between log lines and training scalars.
  train.log_every_steps = 50
  # Steps between validations, each with a checkpoint. The last step has one too.
  train.eval_every_steps = 1000
  # Latest checkpoints that are kept, beside the best.
  train.keep_checkpoints = 2
  # Whether clu profiles some early steps into the workdir, for TensorBoard.
  train.profile = False
  return train


def _evaluation() -> ml_collections.ConfigDict:
  """Validation and evaluation."""
  evaluation = ml_collections.ConfigDict()
  # Clips (or windows) in a batch, over all devices.
  evaluation.batch_size = 64
  # "center": the middle `clip_s` of longer clips. "windows": the mean of the scores
  # of consecutive windows, `hop_s` apart, that cover the clip.
  evaluation.crop = "center"
  evaluation.hop_s = 10.0
  # What is scored: a split, with the "best" checkpoint (by val/mAP), the "last", the
  # "average" of the weights of the `train.keep_checkpoints` latest ones (as PSLA), or
  # the "ensemble" of these: the mean of their scores.
  evaluation.split = "eval"
  evaluation.checkpoint = "best"
  # Score from which a class counts as present.
  evaluation.threshold = 0.5
  return evaluation
