"""All keys of a recipe, each with its meaning, unit and default.

A recipe is a file with a `get_config()` that starts from this config, or from another
recipe's, and changes a few keys (`recipes.py`). The command line overrides the recipe:
`--config.train.num_steps=20`.
"""

import ml_collections

from audiotag_jax import compilation_cache


def get_config() -> ml_collections.ConfigDict:
  """Returns the base of all recipes: a CRNN on FSD50K, with PANNs' front-end."""
  config = ml_collections.ConfigDict()
  # Seed of the initial parameters, the order of clips, the crops, the augmentation and
  # the dropout.
  config.seed = 0
  config.data = _data()
  config.augment = _augment()
  config.frontend = _frontend()
  config.model = _model()
  config.crnn = _crnn()
  config.panns = _panns()
  # Model directory to start from, such as tools/convert_panns.py writes; empty to train
  # from scratch. A new classifier for the data set's classes replaces the directory's.
  config.init_from = ""
  config.finetune = _finetune()
  config.loss = _loss()
  config.train = _train()
  config.evaluation = _evaluation()
  return config.lock()


def _data() -> ml_collections.ConfigDict:
  """The data set, and how its clips reach the model."""
  data = ml_collections.ConfigDict()
  # Kind of data at `source_dir`. "fsd50k": a folder as Zenodo record 4060432 ships it,
  # or with its archives. "manifest": a csv file of clips and labels. "folders": a
  # folder for each class. "audioset": AudioSet's csv files. "esc50": ESC-50.
  # "soundscapes": the demo set, synthesised into `data_dir` on first use.
  data.dataset = "fsd50k"
  data.source_dir = ""
  # Folder of the audio of a manifest or AudioSet; empty for the folder of the csv.
  data.audio_dir = ""
  # Separator between a clip's labels in a manifest.
  data.label_separator = ","
  # Fold of ESC-50 to evaluate on; the fold before it is val.
  data.fold = 5
  # Folder of prepared sets; empty for TFDS's default, ~/tensorflow_datasets.
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
  # Padding of shorter clips: copies of themselves ("repeat") or zeros ("zero").
  data.pad = "repeat"
  # Inputs that the pipeline hands to the model: log-mels that the CPU computes
  # ("log_mel"), or waveforms ("waveform"), whose log-mels the model computes on the
  # accelerator. Wavegram, LeeNet, DaiNet and Res1dNet take only waveforms.
  data.features = "log_mel"
  # Cache of log-mels: they are computed once for all epochs and runs with this
  # front-end and normalisation, and stored beside the prepared set as float16.
  data.cache_log_mels = False
  # Sampling of training clips. "uniform": every clip once an epoch. "class_balanced": a
  # clip of each class in turn, as in PANNs. "label_weighted": drawn by the rarity of
  # their labels, as in PSLA. See data/sampling.py.
  data.sampling = "uniform"
  # Clips in each split of the demo set.
  data.num_train = 1200
  data.num_val = 200
  data.num_eval = 400
  # Seed of the demo set's clips, independent of `seed`.
  data.soundscapes_seed = 0
  return data


def _augment() -> ml_collections.ConfigDict:
  """Augmentation of training clips."""
  augment = ml_collections.ConfigDict()
  # Mixup (Zhang et al. 2018) of log-mels or waveforms, as `data.features` says: alpha
  # of Beta(alpha, alpha), 0 for no mixup, and the share of clips that are mixed. PANNs:
  # 1; PSLA: 10, 0.5.
  augment.mixup_alpha = 0.0
  augment.mixup_share = 1.0
  # Largest random change of a clip's level, up or down, in dB.
  augment.gain_db = 0.0
  # Largest random roll of a clip around in time, either way, in seconds.
  augment.roll_s = 0.0
  # SpecAugment (Park et al. 2019): number of stripes of the normalised log-mel that are
  # set to zero; each is narrower than the given frames or mel bands. PANNs: 2, 64, 2, 8
  # (of 64); PSLA: 1, 192, 1, 48 (of 128). Models without a log-mel ignore it.
  augment.time_stripes = 0
  augment.time_stripe_frames = 64
  augment.mel_stripes = 0
  augment.mel_stripe_bands = 8
  # Folder of recordings of background noise, empty to add no noise; share of clips that
  # get noise; least and largest signal-to-noise ratio in dB.
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
  # Architecture: "crnn", or one of PANNs': Cnn14, Cnn10, ResNet38, MobileNetV2, … (all
  # are in panns/architectures.py).
  model.name = "crnn"
  # Type of the computation; parameters and logits are always float32.
  model.dtype = "float32"
  return model


def _crnn() -> ml_collections.ConfigDict:
  """The CRNN."""
  crnn = ml_collections.ConfigDict()
  # Filters of each convolution block, and its pooling over time and over frequency.
  crnn.filters = (64, 128, 256, 256)
  crnn.time_pooling = (2, 2, 2, 1)
  crnn.mel_pooling = (2, 2, 2, 2)
  # Side of the square convolution kernels.
  crnn.kernel_size = 3
  # Units of each bidirectional GRU layer, in one direction.
  crnn.gru_units = (128,)
  # Pooling of frames to the clip: see models/layers.py pool_frames.
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
  # Filters of each block of Cnn6, Cnn10 or Cnn14, and units of its fc1; () and 0 for
  # the architecture's own.
  panns.filters = ()
  panns.embedding_dim = 0
  return panns


def _finetune() -> ml_collections.ConfigDict:
  """The training of a model that starts from `init_from`."""
  finetune = ml_collections.ConfigDict()
  # Layers that are trained. "full": all. "linear": only the classifier. "last_blocks":
  # the classifier and the `num_blocks` blocks before it. "layerwise": all, each block
  # at `layer_decay` times the learning rate of the block after it. "linear" and
  # "last_blocks" do not update the batch statistics.
  finetune.mode = "full"
  finetune.num_blocks = 2
  finetune.layer_decay = 0.75
  return finetune


def _loss() -> ml_collections.ConfigDict:
  """The loss."""
  loss = ml_collections.ConfigDict()
  # "bce": binary cross-entropy. "focal": Lin et al. 2017. "asymmetric": ASL, Ridnik et
  # al. 2021. "class_balanced": classes weighted by their effective number of clips, Cui
  # et al. 2019. See training/losses.py. val/loss is always the binary cross-entropy.
  loss.name = "bce"
  # Label smoothing: labels move towards one half, by half of this.
  loss.label_smoothing = 0.0
  loss.focal_gamma = 2.0
  loss.asl_gamma_positive = 0.0
  loss.asl_gamma_negative = 4.0
  # Margin that is subtracted from a negative's probability before its loss.
  loss.asl_margin = 0.05
  # Weighting of classes. 0: all weigh the same; towards 1: each weighs as the inverse
  # of its number of clips.
  loss.class_beta = 0.999
  return loss


def _train() -> ml_collections.ConfigDict:
  """The training."""
  train = ml_collections.ConfigDict()
  train.num_steps = 60_000
  # Clips in a step, over all devices of all hosts.
  train.batch_size = 64
  # Parts that a step's batch is dealt out to, clip by clip, to save memory.
  train.accumulation_steps = 1
  # Peak of the learning rate, after a linear warm-up over the first `warmup_share`
  # of the steps and before a cosine decay to zero at the last.
  train.learning_rate = 1e-3
  train.warmup_share = 0.05
  # AdamW's decoupled weight decay; biases and norms are exempt.
  train.weight_decay = 1e-4
  # Largest global norm of the gradient; inf to leave it as it is.
  train.clip_norm = 1.0
  # Decay of the exponential moving average of the weights that is validated, evaluated
  # and saved as the model; 0 to use the weights themselves.
  train.ema_decay = 0.0
  # Steps between log lines and training scalars.
  train.log_every_steps = 50
  # Steps between validations, each with a checkpoint; the last step has both too.
  train.eval_every_steps = 1000
  # Minutes between checkpoints without a validation, so that a kill loses minutes.
  # Over many hosts, such a checkpoint waits for the next log line.
  train.checkpoint_every_minutes = 10.0
  # Number of latest checkpoints that are kept, beside the best.
  train.keep_checkpoints = 2
  # Folder of compiled programs, which later runs load in place of compiling for a
  # minute; empty to keep none. By default audiotag_jax in the user's cache folder.
  train.compilation_cache = compilation_cache.default_folder()
  # Profile of some early steps, which clu writes to the workdir for TensorBoard.
  train.profile = False
  return train


def _evaluation() -> ml_collections.ConfigDict:
  """Validation and evaluation."""
  evaluation = ml_collections.ConfigDict()
  # Clips (or windows) in a batch, over all devices.
  evaluation.batch_size = 64
  # Part of longer clips that is scored. "center": the middle `clip_s`. "windows":
  # consecutive windows, `hop_s` apart, that cover the clip; their scores are averaged.
  evaluation.crop = "center"
  evaluation.hop_s = 10.0
  # Split that is scored, and the checkpoint that scores it: the "best" (by val/mAP),
  # the "last", the "average" of the weights of the `train.keep_checkpoints` latest ones
  # (as in PSLA), or the "ensemble" of these: the mean of their scores.
  evaluation.split = "eval"
  evaluation.checkpoint = "best"
  # Score from which a class counts as present.
  evaluation.threshold = 0.5
  return evaluation
