"""Tables that map the entries of PANNs' PyTorch state_dicts to our parameters.

A table is a list of `Entry`s in the state_dict's order. It follows from a row of
`architectures`; tests compare the tables with the modules' variables and with the
reference's own state_dicts.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

from audiotag_jax.panns.architectures import (
  ARCHITECTURES,
  CNN14,
  DAINET_FILTERS,
  MOBILENET_FIRST_FILTERS,
  MOBILENET_LAST_FILTERS,
  MOBILENET_V1_BLOCKS,
  MOBILENET_V2_BLOCKS,
  RES1DNET_FILTERS,
  RESNET_FILTERS,
  RESNET_LAST_FILTERS,
  WAVEGRAM_CHANNELS,
  WAVEGRAM_FILTERS,
)


class Entry(NamedTuple):
  """An entry of a state_dict.

  Attributes:
    key: its PyTorch key.
    shape: its PyTorch shape.
    path: path of the parameter in Flax, collection first; empty for entries that have
      no place there: `fixed` matrices and `counter`s.
    kind: "kernel" (a convolution's or a linear layer's), "vector" (copied as it is),
      "counter" (BatchNorm's num_batches_tracked) or "fixed" (STFT and mel matrices).
  """

  key: str
  shape: tuple[int, ...]
  path: tuple[str, ...]
  kind: str


Table = list[Entry]
Fields = dict[str, Any]


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
  """Convolutions `conv1`, …, followed by all their norms `bn1`, …

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


def _stem(front_end: Fields) -> Table:
  """torchlibrosa's fixed matrices, and the norm over the mel bands."""
  fft_samples, num_mels = front_end["fft_samples"], front_end["num_mels"]
  bins = fft_samples // 2 + 1
  stft = "spectrogram_extractor.stft"
  return [
    Entry(f"{stft}.conv_real.weight", (bins, 1, fft_samples), (), "fixed"),
    Entry(f"{stft}.conv_imag.weight", (bins, 1, fft_samples), (), "fixed"),
    Entry("logmel_extractor.melW", (bins, num_mels), (), "fixed"),
    *_norm("bn0", "bn0", num_mels),
  ]


def _head(num_classes: int, features: int, embedding_dim: int) -> Table:
  fc1 = _dense("fc1", "fc1", embedding_dim, features)
  return fc1 + _dense("fc_audioset", "fc_audioset", num_classes, embedding_dim)


def _cnn(num_classes: int, fields: Fields, front_end: Fields) -> Table:
  """Cnn6, Cnn10, Cnn14."""
  embedding_dim = fields["embedding_dim"]
  windows = [(fields["kernel_size"],) * 2] * fields["convs_per_block"]
  table, size = _stem(front_end), 1
  for i, size_out in enumerate(fields["filters"], 1):
    sizes = (size, *(size_out for _ in windows))
    table += _block(f"conv_block{i}", f"conv_block{i}", sizes, windows)
    size = size_out
  if fields["pooling"] != "attention":
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
      # In residual blocks, each norm follows its convolution.
      for j, window in enumerate(windows, 1):
        shape = (sizes[j], sizes[j - 1], *window)
        table += _kernel(f"{key}.conv{j}", f"{path}/conv{j}", *shape)
        table += _norm(f"{key}.bn{j}", f"{path}/bn{j}", sizes[j])
      if i == 0 and (stage > 1 or size != size_out):
        # In a stage that pools, the pooling is the first of three layers in the
        # Sequential.
        first = 1 if stage > 1 else 0
        shortcut, shape = f"{key}.downsample", (size_out, size, *one)
        table += _kernel(f"{shortcut}.{first}", f"{path}/downsample_conv", *shape)
        table += _norm(f"{shortcut}.{first + 1}", f"{path}/downsample_bn", size_out)
      size = size_out
  return table


def _resnet(num_classes: int, fields: Fields, front_end: Fields) -> Table:
  """ResNet22, ResNet38, ResNet54."""
  filters, bottleneck = RESNET_FILTERS, fields["bottleneck"]
  last = 4 * filters[-1] if bottleneck else filters[-1]
  return [
    *_stem(front_end),
    *_conv_block("conv_block1", 1, filters[0]),
    *_residual_stages(filters, fields["depths"], False, bottleneck),
    *_conv_block("conv_block_after1", last, RESNET_LAST_FILTERS),
    *_head(num_classes, RESNET_LAST_FILTERS, fields["embedding_dim"]),
  ]


def _res1dnet(num_classes: int, fields: Fields, front_end: Fields) -> Table:
  """Res1dNet31, Res1dNet51."""
  del front_end
  filters = RES1DNET_FILTERS
  return [
    *_kernel("conv0", "conv0", filters[0], 1, 11),
    *_norm("bn0", "bn0", filters[0]),
    *_residual_stages(filters, fields["depths"], over_time=True, bottleneck=False),
    *_head(num_classes, filters[-1], fields["embedding_dim"]),
  ]


def _separable(key: str, path: str, first: int, size_in: int, size: int) -> Table:
  """A depthwise convolution, (pooling,) norm, (ReLU,) pointwise convolution, norm.

  `first` is the index of the depthwise convolution in the Sequential `key`.
  """
  return [
    *_kernel(f"{key}.{first}", f"{path}/depthwise", size_in, 1, 3, 3),
    *_norm(f"{key}.{first + 2}", f"{path}/bn_depthwise", size_in),
    *_kernel(f"{key}.{first + 4}", f"{path}/pointwise", size, size_in, 1, 1),
    *_norm(f"{key}.{first + 5}", f"{path}/bn_pointwise", size),
  ]


def _mobilenet(num_classes: int, fields: Fields, front_end: Fields) -> Table:
  """MobileNetV1, MobileNetV2."""
  inverted, size = fields["inverted"], MOBILENET_FIRST_FILTERS
  table = [
    *_stem(front_end),
    *_kernel("features.0.0", "conv_first", size, 1, 3, 3),
    *_norm("features.0.2", "bn_first", size),
  ]
  blocks = MOBILENET_V2_BLOCKS if inverted else MOBILENET_V1_BLOCKS
  for i, (expansion, size_out, _) in enumerate(blocks, 1):
    key, path = f"features.{i}.conv" if inverted else f"features.{i}", f"block{i}"
    if expansion > 1:
      table += _kernel(f"{key}.0", f"{path}/expand", expansion * size, size, 1, 1)
      table += _norm(f"{key}.1", f"{path}/bn_expand", expansion * size)
    first = 3 if expansion > 1 else 0
    table += _separable(key, path, first, expansion * size, size_out)
    size = size_out
  if inverted:
    last, size_in, size = f"features.{len(blocks) + 1}", size, MOBILENET_LAST_FILTERS
    table += _kernel(f"{last}.0", "conv_last", size, size_in, 1, 1)
    table += _norm(f"{last}.1", "bn_last", size)
  return table + _head(num_classes, size, fields["embedding_dim"])


def _leenet(num_classes: int, fields: Fields, front_end: Fields) -> Table:
  """LeeNet11, LeeNet24."""
  del front_end
  table, size, convs = [], 1, fields["convs_per_block"]
  for i, size_out in enumerate(fields["filters"], 1):
    name, sizes = f"conv_block{i}", (size, *[size_out] * convs)
    table += _block(name, name, sizes, [(3,)] * convs)
    size = size_out
  return table + _head(num_classes, size, fields["embedding_dim"])


def _dainet(num_classes: int, fields: Fields, front_end: Fields) -> Table:
  """DaiNet19."""
  del front_end
  size = DAINET_FILTERS[0]
  table = _kernel("conv0", "conv0", size, 1, 80) + _norm("bn0", "bn0", size)
  for i, size_out in enumerate(DAINET_FILTERS, 1):
    key = f"conv_block{i}"
    block = _block(key, key, (size, *[size_out] * 4), [(3,)] * 4)
    # The projection is stored between the convolutions and the norms.
    shape = (size_out, size, 1)
    block[4:4] = _kernel(f"{key}.downsample", f"{key}/downsample", *shape)
    table += block
    table += _norm(f"{key}.bn_downsample", f"{key}/bn_downsample", size_out)
    size = size_out
  return table + _head(num_classes, size, fields["embedding_dim"])


def _wavegram(num_classes: int, fields: Fields, front_end: Fields) -> Table:
  """CNN14 with a wavegram in front of its second block."""
  sizes = (*WAVEGRAM_FILTERS, WAVEGRAM_CHANNELS * fields["wavegram_bands"])
  first, second, *_ = CNN14["filters"]
  table = _kernel("pre_conv0", "pre_conv0", sizes[0], 1, 11)
  table += _norm("pre_bn0", "pre_bn0", sizes[0])
  for i in range(1, len(sizes)):
    name = f"pre_block{i}"
    table += _block(name, name, (sizes[i - 1], sizes[i], sizes[i]), [(3,), (3,)])
  table += _conv_block("pre_block4", WAVEGRAM_CHANNELS, first)
  cnn = _cnn(num_classes, CNN14 | fields, front_end)
  if not fields["with_log_mel"]:
    return table + [entry for entry in cnn if entry.kind != "fixed"]
  # The wavegram and the log-mel's first block are joined.
  joined = "conv_block2.conv1.weight"
  return table + [
    entry._replace(shape=(second, 2 * first, 3, 3)) if entry.key == joined else entry
    for entry in cnn
  ]


FAMILIES = {
  "cnn": _cnn,
  "resnet": _resnet,
  "res1dnet": _res1dnet,
  "mobilenet": _mobilenet,
  "leenet": _leenet,
  "dainet": _dainet,
  "wavegram": _wavegram,
}


def create_table(name: str, num_classes: int, **fields: Any) -> Table:
  """Returns the table of an architecture.

  Args:
    name: a key of `architectures.ARCHITECTURES`.
    num_classes: number of classes.
    **fields: fields that differ from the architecture's: `architectures.WIDTHS`.
  """
  row = ARCHITECTURES[name]
  return FAMILIES[row.family](num_classes, row.fields | fields, row.front_end)


# Table of each architecture by name, as a function of the number of classes.
TABLES = {name: functools.partial(create_table, name) for name in ARCHITECTURES}
