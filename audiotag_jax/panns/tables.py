"""Which entry of a PANNs PyTorch state_dict is which parameter of ours.

A table is a list of `Entry`s in the state_dict's order. Each architecture's follows
from the sizes of its layers, which stand here once more than in `models`: tests hold
the two against each other and against the reference's own state_dicts.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple


class Entry(NamedTuple):
  """An entry of a state_dict.

  Attributes:
    key: its PyTorch key.
    shape: its PyTorch shape.
    path: where the parameter lies in Flax, collection first; empty for what has no
      place there: `fixed` matrices and `counter`s.
    kind: "kernel" (a convolution's or a linear layer's), "vector" (as it is),
      "counter" (BatchNorm's num_batches_tracked) or "fixed" (STFT and mel matrices).
  """

  key: str
  shape: tuple[int, ...]
  path: tuple[str, ...]
  kind: str


Table = list[Entry]


def _params(path: str, leaf: str) -> tuple[str, ...]:
  return ("params", *path.split("/"), leaf)


def _kernel(key: str, path: str, *shape: int) -> Table:
  """A convolution (out, in, *window) or a linear layer (out, in) without bias."""
  return [Entry(f"{key}.weight", shape, _params(path, "kernel"), "kernel")]


def _dense(key: str, path: str, *shape: int) -> Table:
  """A convolution or a linear layer with bias."""
  bias = Entry(f"{key}.bias", shape[:1], _params(path, "bias"), "vector")
  return [*_kernel(key, path, *shape), bias]


def _norm(key: str, path: str, size: int) -> Table:
  """A BatchNorm."""
  stats = ("batch_stats", *path.split("/"))
  return [
    Entry(f"{key}.weight", (size,), _params(path, "scale"), "vector"),
    Entry(f"{key}.bias", (size,), _params(path, "bias"), "vector"),
    Entry(f"{key}.running_mean", (size,), (*stats, "mean"), "vector"),
    Entry(f"{key}.running_var", (size,), (*stats, "var"), "vector"),
    Entry(f"{key}.num_batches_tracked", (), (), "counter"),
  ]


def _block(
  key: str, path: str, sizes: Sequence[int], windows: Sequence[tuple[int, ...]]
) -> Table:
  """Convolutions `conv1`, … and their norms `bn1`, …: first all of the one kind.

  Args:
    key: prefix of the keys.
    path: prefix of the paths.
    sizes: channels before, between and after the convolutions.
    windows: window of each convolution.
  """
  table = []
  for i, window in enumerate(windows, 1):
    shape = (sizes[i], sizes[i - 1], *window)
    table += _kernel(f"{key}.conv{i}", f"{path}/conv{i}", *shape)
  for i in range(1, len(windows) + 1):
    table += _norm(f"{key}.bn{i}", f"{path}/bn{i}", sizes[i])
  return table


def _conv_block(name: str, size_in: int, size: int) -> Table:
  return _block(name, name, (size_in, size, size), [(3, 3), (3, 3)])


def _front_end(fft_samples: int, num_mels: int) -> Table:
  """torchlibrosa's fixed matrices."""
  bins = fft_samples // 2 + 1
  stft = "spectrogram_extractor.stft"
  return [
    Entry(f"{stft}.conv_real.weight", (bins, 1, fft_samples), (), "fixed"),
    Entry(f"{stft}.conv_imag.weight", (bins, 1, fft_samples), (), "fixed"),
    Entry("logmel_extractor.melW", (bins, num_mels), (), "fixed"),
  ]


def _head(num_classes: int, features: int, embedding_dim: int) -> Table:
  fc1 = _dense("fc1", "fc1", embedding_dim, features)
  return fc1 + _dense("fc_audioset", "fc_audioset", num_classes, embedding_dim)


def _cnn(
  num_classes: int,
  filters: Sequence[int] = (64, 128, 256, 512, 1024, 2048),
  windows: Sequence[tuple[int, int]] = ((3, 3), (3, 3)),
  embedding_dim: int = 2048,
  fft_samples: int = 1024,
  num_mels: int = 64,
  attention: bool = False,
) -> Table:
  """Cnn6, Cnn10, Cnn14."""
  table = _front_end(fft_samples, num_mels) + _norm("bn0", "bn0", num_mels)
  size = 1
  for i, size_out in enumerate(filters, 1):
    sizes = (size, *(size_out for _ in windows))
    table += _block(f"conv_block{i}", f"conv_block{i}", sizes, windows)
    size = size_out
  if not attention:
    return table + _head(num_classes, size, embedding_dim)
  table += _dense("fc1", "fc1", embedding_dim, size)
  for name in ("att", "cla"):
    shape = (num_classes, embedding_dim, 1)
    table += _dense(f"att_block.{name}", f"att_block/{name}", *shape)
  return table + _norm("att_block.bn_att", "att_block/bn_att", num_classes)


def _residual_stages(
  filters: Sequence[int], depths: Sequence[int], over_time: bool, bottleneck: bool
) -> Table:
  """The stages of a ResNet: `resnet.layer1.0` is our `layer1_0`."""
  three, one = ((3,), (1,)) if over_time else ((3, 3), (1, 1))
  windows = [one, three, one] if bottleneck else [three, three]
  table, size = [], 64
  for stage, (width, depth) in enumerate(zip(filters, depths, strict=True), 1):
    size_out = 4 * width if bottleneck else width
    for i in range(depth):
      key, path = f"resnet.layer{stage}.{i}", f"layer{stage}_{i}"
      sizes = (size, width, width, size_out)[: len(windows)] + (size_out,)
      # Here a convolution's norm follows it.
      for j, window in enumerate(windows, 1):
        shape = (sizes[j], sizes[j - 1], *window)
        table += _kernel(f"{key}.conv{j}", f"{path}/conv{j}", *shape)
        table += _norm(f"{key}.bn{j}", f"{path}/bn{j}", sizes[j])
      if i == 0 and (stage > 1 or size != size_out):
        # In a pooling stage the pooling is the first of the three in the Sequential.
        first = 1 if stage > 1 else 0
        shortcut, shape = f"{key}.downsample", (size_out, size, *one)
        table += _kernel(f"{shortcut}.{first}", f"{path}/downsample_conv", *shape)
        table += _norm(f"{shortcut}.{first + 1}", f"{path}/downsample_bn", size_out)
      size = size_out
  return table


def _resnet(
  num_classes: int, depths: Sequence[int] = (3, 4, 6, 3), bottleneck: bool = False
) -> Table:
  """ResNet22, ResNet38, ResNet54."""
  filters = (64, 128, 256, 512)
  return [
    *_front_end(1024, 64),
    *_norm("bn0", "bn0", 64),
    *_conv_block("conv_block1", 1, 64),
    *_residual_stages(filters, depths, over_time=False, bottleneck=bottleneck),
    *_conv_block("conv_block_after1", 2048 if bottleneck else 512, 2048),
    *_head(num_classes, 2048, 2048),
  ]


def _res1dnet(num_classes: int, depths: Sequence[int]) -> Table:
  """Res1dNet31, Res1dNet51."""
  filters = (64, 128, 256, 512, 1024, 1024, 2048)
  return [
    *_kernel("conv0", "conv0", 64, 1, 11),
    *_norm("bn0", "bn0", 64),
    *_residual_stages(filters, depths, over_time=True, bottleneck=False),
    *_head(num_classes, 2048, 2048),
  ]


def _mobilenet_stem() -> Table:
  return [
    *_front_end(1024, 64),
    *_norm("bn0", "bn0", 64),
    *_kernel("features.0.0", "conv_first", 32, 1, 3, 3),
    *_norm("features.0.2", "bn_first", 32),
  ]


def _separable(key: str, path: str, first: int, size_in: int, size: int) -> Table:
  """A depthwise convolution, (pooling,) norm, (ReLU,) pointwise convolution, norm.

  `first` is the place of the first of them in the Sequential `key`.
  """
  return [
    *_kernel(f"{key}.{first}", f"{path}/depthwise", size_in, 1, 3, 3),
    *_norm(f"{key}.{first + 2}", f"{path}/bn_depthwise", size_in),
    *_kernel(f"{key}.{first + 4}", f"{path}/pointwise", size, size_in, 1, 1),
    *_norm(f"{key}.{first + 5}", f"{path}/bn_pointwise", size),
  ]


def _mobilenet_v1(num_classes: int) -> Table:
  sizes = (32, 64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)
  table = _mobilenet_stem()
  for i in range(1, len(sizes)):
    table += _separable(f"features.{i}", f"block{i}", 0, sizes[i - 1], sizes[i])
  return table + _head(num_classes, 1024, 1024)


def _mobilenet_v2(num_classes: int) -> Table:
  sizes = (16, *[24] * 2, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3, 320)
  table, size = _mobilenet_stem(), 32
  for i, size_out in enumerate(sizes, 1):
    key, path = f"features.{i}.conv", f"block{i}"
    if i == 1:  # the only block without an expansion
      table += _separable(key, path, 0, size, size_out)
    else:
      table += _kernel(f"{key}.0", f"{path}/expand", 6 * size, size, 1, 1)
      table += _norm(f"{key}.1", f"{path}/bn_expand", 6 * size)
      table += _separable(key, path, 3, 6 * size, size_out)
    size = size_out
  last = f"features.{len(sizes) + 1}"
  table += _kernel(f"{last}.0", "conv_last", 1280, size, 1, 1)
  table += _norm(f"{last}.1", "bn_last", 1280)
  return table + _head(num_classes, 1280, 1024)


def _leenet(
  num_classes: int, filters: Sequence[int], convs: int, embedding_dim: int
) -> Table:
  """LeeNet11, LeeNet24."""
  table, size = [], 1
  for i, size_out in enumerate(filters, 1):
    name, sizes = f"conv_block{i}", (size, *[size_out] * convs)
    table += _block(name, name, sizes, [(3,)] * convs)
    size = size_out
  return table + _head(num_classes, size, embedding_dim)


def _dainet(num_classes: int) -> Table:
  """DaiNet19."""
  table = _kernel("conv0", "conv0", 64, 1, 80) + _norm("bn0", "bn0", 64)
  size = 64
  for i, size_out in enumerate((64, 128, 256, 512), 1):
    key = f"conv_block{i}"
    block = _block(key, key, (size, *[size_out] * 4), [(3,)] * 4)
    # The projection lies between the convolutions and the norms.
    shape = (size_out, size, 1)
    block[4:4] = _kernel(f"{key}.downsample", f"{key}/downsample", *shape)
    table += block
    table += _norm(f"{key}.bn_downsample", f"{key}/bn_downsample", size_out)
    size = size_out
  return table + _head(num_classes, 512, 512)


def _wavegram(num_classes: int, bands: int, num_mels: int, with_log_mel: bool) -> Table:
  """CNN14 with a wavegram in front of its second block."""
  table = _kernel("pre_conv0", "pre_conv0", 64, 1, 11)
  table += _norm("pre_bn0", "pre_bn0", 64)
  sizes = (64, 64, 128, 4 * bands)
  for i in range(1, 4):
    name = f"pre_block{i}"
    table += _block(name, name, (sizes[i - 1], sizes[i], sizes[i]), [(3,), (3,)])
  table += _conv_block("pre_block4", 4, 64)
  cnn = _cnn(num_classes, num_mels=num_mels)
  if not with_log_mel:
    return table + [entry for entry in cnn if entry.kind != "fixed"]
  wider = "conv_block2.conv1.weight"
  return table + [
    entry._replace(shape=(128, 128, 3, 3)) if entry.key == wider else entry
    for entry in cnn
  ]


# The architectures that are also made with other widths than their own, and how many
# blocks they have.
CNN_BLOCKS = {"Cnn6": 4, "Cnn10": 4, "Cnn14": 6}
# Their widths, as fields of the module and arguments of the table.
WIDTHS = ("filters", "embedding_dim")

_SMALL = {"filters": (64, 128, 256, 512), "embedding_dim": 512}
_LEENET11 = ((64, 64, 64, 128, 128, 128, 128, 128, 256), 1, 512)
_LEENET24 = ((64, 96, 128, 128, 256, 256, 512, 512, 1024), 2, 1024)
# name: the table for a number of classes. Where a state_dict fits several, the first
# of them is the likeliest.
TABLES = {
  "Cnn6": functools.partial(_cnn, windows=((5, 5),), **_SMALL),
  "Cnn10": functools.partial(_cnn, **_SMALL),
  "Cnn14": _cnn,
  "Cnn14_16k": functools.partial(_cnn, fft_samples=512),
  "Cnn14_8k": functools.partial(_cnn, fft_samples=256),
  "Cnn14_mel32": functools.partial(_cnn, num_mels=32),
  "Cnn14_mel128": functools.partial(_cnn, num_mels=128),
  "Cnn14_emb32": functools.partial(_cnn, embedding_dim=32),
  "Cnn14_emb128": functools.partial(_cnn, embedding_dim=128),
  "Cnn14_emb512": functools.partial(_cnn, embedding_dim=512),
  "Cnn14_DecisionLevelMax": _cnn,
  "Cnn14_DecisionLevelAvg": _cnn,
  "Cnn14_DecisionLevelAtt": functools.partial(_cnn, attention=True),
  "ResNet22": functools.partial(_resnet, depths=(2, 2, 2, 2)),
  "ResNet38": _resnet,
  "ResNet54": functools.partial(_resnet, bottleneck=True),
  "MobileNetV1": _mobilenet_v1,
  "MobileNetV2": _mobilenet_v2,
  "LeeNet11": lambda num_classes: _leenet(num_classes, *_LEENET11),
  "LeeNet24": lambda num_classes: _leenet(num_classes, *_LEENET24),
  "DaiNet19": _dainet,
  "Res1dNet31": functools.partial(_res1dnet, depths=(2,) * 7),
  "Res1dNet51": functools.partial(_res1dnet, depths=(2, 3, 4, 6, 4, 3, 2)),
  "Wavegram_Cnn14": functools.partial(
    _wavegram, bands=32, num_mels=64, with_log_mel=False
  ),
  "Wavegram_Logmel_Cnn14": functools.partial(
    _wavegram, bands=32, num_mels=64, with_log_mel=True
  ),
  "Wavegram_Logmel128_Cnn14": functools.partial(
    _wavegram, bands=64, num_mels=128, with_log_mel=True
  ),
}
