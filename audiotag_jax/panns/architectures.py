"""PANNs' 26 architectures, each stated once: family, fields and front-end.

Kong et al., "PANNs: Large-Scale Pretrained Audio Neural Networks for Audio Pattern
Recognition" (2020). `models/panns.py` makes a Flax module of an architecture,
`tables.py` lists the keys and shapes of its PyTorch state_dict.
"""

from typing import Any, NamedTuple


class Architecture(NamedTuple):
  """An architecture.

  Attributes:
    family: the kind of network, a key of `models.panns.MODULES` and of
      `tables.FAMILIES`.
    fields: the fields of the family's module that tell its architectures apart.
    front_end: parameters of the log-mel that it was trained with, as
      `frontend.mel.LogMelParams` has them. A model without a log-mel uses only the
      sample rate.
  """

  family: str
  fields: dict[str, Any]
  front_end: dict[str, Any]


FRONT_END: dict[str, Any] = {
  "sample_rate_hz": 32_000,
  "window_samples": 1024,
  "fft_samples": 1024,
  "hop_samples": 320,
  "num_mels": 64,
  "f_min_hz": 50.0,
  "f_max_hz": 14_000.0,
}
FRONT_END_16K = FRONT_END | {
  "sample_rate_hz": 16_000,
  "window_samples": 512,
  "fft_samples": 512,
  "hop_samples": 160,
  "f_max_hz": 8_000.0,
}
FRONT_END_8K = FRONT_END | {
  "sample_rate_hz": 8_000,
  "window_samples": 256,
  "fft_samples": 256,
  "hop_samples": 80,
  "f_max_hz": 4_000.0,
}
FRONT_END_MEL32 = FRONT_END | {"num_mels": 32}
FRONT_END_MEL128 = FRONT_END | {"num_mels": 128}

# Filters of the blocks or stages that all architectures of a family have.
RESNET_FILTERS = (64, 128, 256, 512)
# Filters of the convolution block behind a ResNet's stages.
RESNET_LAST_FILTERS = 2048
RES1DNET_FILTERS = (64, 128, 256, 512, 1024, 1024, 2048)
DAINET_FILTERS = (64, 128, 256, 512)
# Filters of the wavegram's first convolution and of the blocks behind it, except the
# last one, which has `WAVEGRAM_CHANNELS` for each band.
WAVEGRAM_FILTERS = (64, 64, 128)
WAVEGRAM_CHANNELS = 4
# Filters of a MobileNet's first convolution, and of MobileNetV2's last.
MOBILENET_FIRST_FILTERS = 32
MOBILENET_LAST_FILTERS = 1280
# (expansion, filters, pooling) of each separable block: Howard et al. (2017), table 1.
MOBILENET_V1_BLOCKS = (
  (1, 64, 1),
  (1, 128, 2),
  (1, 128, 1),
  (1, 256, 2),
  (1, 256, 1),
  (1, 512, 2),
  *[(1, 512, 1)] * 5,
  (1, 1024, 2),
  (1, 1024, 1),
)
# Sandler et al. (2018), table 2, but with PANNs' poolings.
MOBILENET_V2_BLOCKS = (
  (1, 16, 1),
  *[(6, 24, 2), (6, 24, 1)],
  *[(6, 32, 2), *[(6, 32, 1)] * 2],
  *[(6, 64, 2), *[(6, 64, 1)] * 3],
  *[(6, 96, 2), *[(6, 96, 1)] * 2],
  *[(6, 160, 1)] * 3,
  (6, 320, 1),
)

CNN14: dict[str, Any] = {
  "filters": (64, 128, 256, 512, 1024, 2048),
  "embedding_dim": 2048,
  "kernel_size": 3,
  "convs_per_block": 2,
  "pooling": "clip",
}
CNN10 = CNN14 | {"filters": (64, 128, 256, 512), "embedding_dim": 512}
CNN6 = CNN10 | {"kernel_size": 5, "convs_per_block": 1}
RESNET22 = {"depths": (2, 2, 2, 2), "bottleneck": False, "embedding_dim": 2048}
RESNET38 = RESNET22 | {"depths": (3, 4, 6, 3)}
RESNET54 = RESNET38 | {"bottleneck": True}
LEENET11: dict[str, Any] = {
  "filters": (64, 64, 64, 128, 128, 128, 128, 128, 256),
  "convs_per_block": 1,
  "pool_last": True,
  "embedding_dim": 512,
  "conv_dropout": 0.0,
}
LEENET24: dict[str, Any] = {
  "filters": (64, 96, 128, 128, 256, 256, 512, 512, 1024),
  "convs_per_block": 2,
  "pool_last": False,
  "embedding_dim": 1024,
  "conv_dropout": 0.1,
}
MOBILENET = {"embedding_dim": 1024}
RES1DNET = {"embedding_dim": 2048}
WAVEGRAM = {"with_log_mel": True, "wavegram_bands": 32, "embedding_dim": 2048}

# Architectures by name. If a state_dict fits several, the first is the likeliest.
ARCHITECTURES = {
  "Cnn6": Architecture("cnn", CNN6, FRONT_END),
  "Cnn10": Architecture("cnn", CNN10, FRONT_END),
  "Cnn14": Architecture("cnn", CNN14, FRONT_END),
  "Cnn14_16k": Architecture("cnn", CNN14, FRONT_END_16K),
  "Cnn14_8k": Architecture("cnn", CNN14, FRONT_END_8K),
  "Cnn14_mel32": Architecture("cnn", CNN14, FRONT_END_MEL32),
  "Cnn14_mel128": Architecture("cnn", CNN14, FRONT_END_MEL128),
  "Cnn14_emb32": Architecture("cnn", CNN14 | {"embedding_dim": 32}, FRONT_END),
  "Cnn14_emb128": Architecture("cnn", CNN14 | {"embedding_dim": 128}, FRONT_END),
  "Cnn14_emb512": Architecture("cnn", CNN14 | {"embedding_dim": 512}, FRONT_END),
  "Cnn14_DecisionLevelMax": Architecture("cnn", CNN14 | {"pooling": "max"}, FRONT_END),
  "Cnn14_DecisionLevelAvg": Architecture("cnn", CNN14 | {"pooling": "mean"}, FRONT_END),
  "Cnn14_DecisionLevelAtt": Architecture(
    "cnn", CNN14 | {"pooling": "attention"}, FRONT_END
  ),
  "ResNet22": Architecture("resnet", RESNET22, FRONT_END),
  "ResNet38": Architecture("resnet", RESNET38, FRONT_END),
  "ResNet54": Architecture("resnet", RESNET54, FRONT_END),
  "MobileNetV1": Architecture("mobilenet", MOBILENET | {"inverted": False}, FRONT_END),
  "MobileNetV2": Architecture("mobilenet", MOBILENET | {"inverted": True}, FRONT_END),
  "LeeNet11": Architecture("leenet", LEENET11, FRONT_END),
  "LeeNet24": Architecture("leenet", LEENET24, FRONT_END),
  "DaiNet19": Architecture("dainet", {"embedding_dim": 512}, FRONT_END),
  "Res1dNet31": Architecture("res1dnet", RES1DNET | {"depths": (2,) * 7}, FRONT_END),
  "Res1dNet51": Architecture(
    "res1dnet", RES1DNET | {"depths": (2, 3, 4, 6, 4, 3, 2)}, FRONT_END
  ),
  "Wavegram_Cnn14": Architecture(
    "wavegram", WAVEGRAM | {"with_log_mel": False}, FRONT_END
  ),
  "Wavegram_Logmel_Cnn14": Architecture("wavegram", WAVEGRAM, FRONT_END),
  "Wavegram_Logmel128_Cnn14": Architecture(
    "wavegram", WAVEGRAM | {"wavegram_bands": 64}, FRONT_END_MEL128
  ),
}

# Fields that config.panns may change, and the number of blocks of the architectures
# whose fields it may change.
WIDTHS = ("filters", "embedding_dim")
CNN_BLOCKS = {
  name: len(ARCHITECTURES[name].fields["filters"])
  for name in ("Cnn6", "Cnn10", "Cnn14")
}
