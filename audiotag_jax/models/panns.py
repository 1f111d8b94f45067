"""The architectures of PANNs, by name: module, fields and front-end."""

import dataclasses
from typing import Any

from audiotag_jax.errors import UserError
from audiotag_jax.frontend.mel import LogMelParams
from audiotag_jax.models import panns_layers
from audiotag_jax.models.panns_cnn import Cnn
from audiotag_jax.models.panns_mobilenet import MobileNet
from audiotag_jax.models.panns_resnet import Res1dNet, ResNet
from audiotag_jax.models.panns_waveform import DaiNet, LeeNet
from audiotag_jax.models.panns_wavegram import WavegramCnn

# The front-ends that PANNs were trained with.
FRONT_END = LogMelParams()
FRONT_END_16K = LogMelParams(16_000, 512, 512, 160, 64, 50.0, 8_000.0)
FRONT_END_8K = LogMelParams(8_000, 256, 256, 80, 64, 50.0, 4_000.0)
FRONT_END_MEL32 = dataclasses.replace(FRONT_END, num_mels=32)
FRONT_END_MEL128 = dataclasses.replace(FRONT_END, num_mels=128)

CNN10_FILTERS = (64, 128, 256, 512)
CNN10 = {"filters": CNN10_FILTERS, "embedding_dim": 512}
CNN6 = CNN10 | {"kernel_size": 5, "convs_per_block": 1}
LEENET24 = {
  "filters": (64, 96, 128, 128, 256, 256, 512, 512, 1024),
  "convs_per_block": 2,
  "pool_last": False,
  "embedding_dim": 1024,
  "conv_dropout": 0.1,
}
# name: (module, its fields, front-end)
ARCHITECTURES = {
  "Cnn6": (Cnn, CNN6, FRONT_END),
  "Cnn10": (Cnn, CNN10, FRONT_END),
  "Cnn14": (Cnn, {}, FRONT_END),
  "Cnn14_16k": (Cnn, {}, FRONT_END_16K),
  "Cnn14_8k": (Cnn, {}, FRONT_END_8K),
  "Cnn14_mel32": (Cnn, {}, FRONT_END_MEL32),
  "Cnn14_mel128": (Cnn, {}, FRONT_END_MEL128),
  "Cnn14_emb32": (Cnn, {"embedding_dim": 32}, FRONT_END),
  "Cnn14_emb128": (Cnn, {"embedding_dim": 128}, FRONT_END),
  "Cnn14_emb512": (Cnn, {"embedding_dim": 512}, FRONT_END),
  "Cnn14_DecisionLevelMax": (Cnn, {"pooling": "max"}, FRONT_END),
  "Cnn14_DecisionLevelAvg": (Cnn, {"pooling": "mean"}, FRONT_END),
  "Cnn14_DecisionLevelAtt": (Cnn, {"pooling": "attention"}, FRONT_END),
  "ResNet22": (ResNet, {}, FRONT_END),
  "ResNet38": (ResNet, {"depths": (3, 4, 6, 3)}, FRONT_END),
  "ResNet54": (ResNet, {"depths": (3, 4, 6, 3), "bottleneck": True}, FRONT_END),
  "MobileNetV1": (MobileNet, {}, FRONT_END),
  "MobileNetV2": (MobileNet, {"inverted": True}, FRONT_END),
  "LeeNet11": (LeeNet, {}, FRONT_END),
  "LeeNet24": (LeeNet, LEENET24, FRONT_END),
  "DaiNet19": (DaiNet, {}, FRONT_END),
  "Res1dNet31": (Res1dNet, {}, FRONT_END),
  "Res1dNet51": (Res1dNet, {"depths": (2, 3, 4, 6, 4, 3, 2)}, FRONT_END),
  "Wavegram_Cnn14": (WavegramCnn, {"with_log_mel": False}, FRONT_END),
  "Wavegram_Logmel_Cnn14": (WavegramCnn, {}, FRONT_END),
  "Wavegram_Logmel128_Cnn14": (WavegramCnn, {"wavegram_bands": 64}, FRONT_END_MEL128),
}


def create(name: str, *, num_classes: int, **fields: Any) -> panns_layers.PannsModel:
  """Returns the model of an architecture.

  Args:
    name: a key of `ARCHITECTURES`.
    num_classes: number of classes.
    **fields: fields of the module that differ from the architecture's.

  Raises:
    UserError: there is no such architecture.
  """
  if name not in ARCHITECTURES:
    raise UserError(f"no architecture {name!r}: choose from {', '.join(ARCHITECTURES)}")
  module, own_fields, front_end = ARCHITECTURES[name]
  fields = {"front_end": front_end} | own_fields | fields
  return module(num_classes=num_classes, **fields)
