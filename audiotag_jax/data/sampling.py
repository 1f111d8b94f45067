"""Order of the clips in the endless training stream.

Each sampling is a function of (seed, position) alone, so that a resumed run continues
where it stopped.
"""

import functools
from collections.abc import Callable

import numpy as np
from scipy import sparse

Sampler = Callable[[np.ndarray], np.ndarray]


def create_sampler(sampling: str, labels: sparse.csr_array, seed: int) -> Sampler:
  """Returns the map from positions <int64>[n] to clips <int64>[n].

  Args:
    sampling: a value of `config.data.sampling`.
    labels: <uint8>[clips, classes] of the training clips, sparse.
    seed: the seed of the order.
  """
  if sampling == "uniform":
    return lambda positions: shuffled(positions, labels.shape[0], seed)
  if sampling == "class_balanced":
    return class_balanced(labels, seed)
  return label_weighted(labels, seed)


def shuffled(positions: np.ndarray, num_clips: int, seed: int) -> np.ndarray:
  """Returns every clip once per epoch, each epoch in its own order: clips <int64>[n].

  Args:
    positions: <int64>[n]; epoch e starts at position e * num_clips.
    num_clips: clips in an epoch.
    seed: the seed of the orders.
  """
  return _by_epoch(
    positions, num_clips, lambda epoch: _order_of_epoch(seed, epoch, num_clips)
  )


def class_balanced(labels: sparse.csr_array, seed: int) -> Sampler:
  """Takes each class once per round, and each class's clips in turn.

  The order follows PANNs' balanced sampler (Kong et al. 2020, section III-D): every
  round, and every pass over a class's clips, is shuffled differently. Classes without
  clips are left out.
  """
  columns = labels.tocsc()
  clips_of_class = np.split(columns.indices, columns.indptr[1:-1])
  clips_of_class = [clips for clips in clips_of_class if len(clips)]

  def clip(position: int) -> int:
    num_classes = len(clips_of_class)
    turn, place = divmod(position, num_classes)
    class_ = int(_order(seed, turn, num_classes)[place])
    clips = clips_of_class[class_]
    epoch, offset = divmod(turn, len(clips))
    return clips[_order((seed, class_), epoch, len(clips))[offset]]

  return lambda positions: np.array([clip(int(p)) for p in positions], np.int64)


def label_weighted(labels: sparse.csr_array, seed: int) -> Sampler:
  """Draws clips with a chance that grows with the rarity of their labels.

  As in PSLA (Gong et al. 2021, section IV-B), a clip's weight is the sum, over its
  labels, of one over the label's number of clips. An epoch has as many draws as the
  split has clips.
  """
  weights = labels @ (1.0 / np.maximum(labels.sum(axis=0, dtype=np.float64), 1.0))
  shares = weights / weights.sum()

  @functools.lru_cache(maxsize=4)
  def drawn(epoch: int) -> np.ndarray:
    rng = np.random.default_rng((seed, epoch))
    return rng.choice(len(shares), len(shares), p=shares)

  return lambda positions: _by_epoch(positions, len(shares), drawn)


def _by_epoch(
  positions: np.ndarray, num_clips: int, clips_of_epoch: Callable[[int], np.ndarray]
) -> np.ndarray:
  epochs, offsets = np.divmod(positions, num_clips)
  clips = np.empty_like(positions)
  for epoch in np.unique(epochs):
    of_epoch = epochs == epoch
    clips[of_epoch] = clips_of_epoch(int(epoch))[offsets[of_epoch]]
  return clips


def _permutation(seed: int | tuple[int, ...], epoch: int, size: int) -> np.ndarray:
  return np.random.default_rng((*np.atleast_1d(seed), epoch)).permutation(size)


# Few whole-epoch orders are cached, because each has one entry per clip.
_order_of_epoch = functools.lru_cache(maxsize=4)(_permutation)
_order = functools.lru_cache(maxsize=1024)(_permutation)
