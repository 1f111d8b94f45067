"""Finds PANNs' entries in a state_dict whose names another program gave.

DataParallel, torch.compile, Lightning and modules around a network put prefixes before
its keys, and a fine-tuned network may have its classifier under another name: PANNs'
template for fine-tuning calls the network `base`, and the classifier `fc_transfer`.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from audiotag_jax.errors import UserError
from audiotag_jax.panns import fixed, tables
from audiotag_jax.panns.class_names import audioset_classes

Shapes = Mapping[str, tuple[int, ...]]
# PANNs' own classifiers: a linear layer, and the attention of DecisionLevelAtt.
CLASSIFIER, ATTENTION = "fc_audioset", "att_block"
# Entries that only training needs, and the one that counts averaged weights.
_OF_TRAINING = re.compile(r"loss|criterion|metric|pos_weight|n_averaged", re.IGNORECASE)
_OF_FRONT_END = re.compile(r"spectrogram|mel|stft", re.IGNORECASE)
# Last parts of the keys of layers, which a front-end's buffers do not have.
_OF_LAYERS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
# Largest number of keys that a message lists.
MAX_SHOWN = 5


class Named(NamedTuple):
  """The entries of a network under PANNs' names.

  Attributes:
    keys: PANNs' key of each entry; of an entry that PANNs lack, its own key.
    notes: lines for the user about the entries that are left out.
  """

  keys: dict[str, str]
  notes: list[str]


def find(shapes: Shapes) -> Named:
  """Finds the entries of the one network in a state_dict.

  The network is a prefix, common to its keys, behind which they are an architecture's.
  The classifier is PANNs' own, or the one other linear layer that takes the embedding:
  PANNs' own gives way to it if PANNs' own has AudioSet's classes, or if the other is
  outside of the network. Left out are the classifier that gave way, and what the names
  tell to be losses, metrics and other front-ends.

  Args:
    shapes: shapes of the state_dict's entries.

  Raises:
    UserError: there are several networks, or several layers may be the classifier.
  """
  prefix = _find_prefix(shapes)
  keys = {
    key: key.removeprefix(prefix)
    for key in shapes
    if key.startswith(prefix) and key.removeprefix(prefix) in _known()
  }
  own, classifier = prefix + CLASSIFIER, _find_classifier(shapes, keys, prefix)
  notes, left_out = [], set()
  if classifier != own:
    left_out = {f"{own}.weight", f"{own}.bias"} & keys.keys()
    keys |= {f"{classifier}.{x}": f"{CLASSIFIER}.{x}" for x in ("weight", "bias")}
  if left_out:
    notes.append(
      f"{own}, of {shapes[f'{own}.weight'][0]} classes, is left out, because "
      f"{classifier}, of {shapes[f'{classifier}.weight'][0]} classes, takes its place"
    )
  others = [key for key in shapes if key not in keys]
  aside = [key for key in others if _is_aside(key)]
  if aside:
    notes.append(f"left out, because PANNs do not have them: {_listed(aside)}")
  left_out |= set(aside)
  kept = {key: name for key, name in keys.items() if key not in left_out}
  names = set(kept.values())
  for key in others:
    if key not in left_out:
      kept[key] = f"{key} outside of {prefix}" if key in names else key
  return Named(kept, notes)


def _find_prefix(shapes: Shapes) -> str:
  """Returns the prefix of the network; if it lacks entries, the commonest prefix.

  Raises:
    UserError: there are several networks.
  """
  names: dict[str, set[str]] = {}
  depth = 1 + max(name.count(".") for name in _known())
  for key in shapes:
    parts = key.rsplit(".", depth)
    for i in range(1, len(parts) + 1):
      name = ".".join(parts[-i:])
      if name in _known():
        names.setdefault(key.removesuffix(name), set()).add(name)
  networks = [
    prefix
    for prefix, found in names.items()
    if any(network <= found for network in _networks())
  ]
  if len(networks) > 1:
    raise UserError(
      f"it holds several networks, behind the prefixes {_listed(map(repr, networks))}: "
      "save the state_dict of one of them"
    )
  return max(networks or names, key=lambda x: (len(names[x]), -len(x)), default="")


def _find_classifier(shapes: Shapes, keys: Mapping[str, str], prefix: str) -> str:
  """Returns the key of the classifier, without `.weight`; see `find`.

  Args:
    shapes: shapes of the state_dict's entries.
    keys: PANNs' keys of the network's entries.
    prefix: the network's prefix.
  """
  own = prefix + CLASSIFIER
  embedding = shapes.get(f"{prefix}fc1.weight", ())[:1]
  classes = {
    layer: shape[0]
    for key, shape in shapes.items()
    if (layer := key.removesuffix(".weight")) != key
    and (key not in keys or layer == own)
    and (len(shape), shape[1:]) == (2, embedding)
    and shapes.get(f"{layer}.bias") == shape[:1]
    and not _is_aside(key)
  }
  attention = f"{prefix}{ATTENTION}"
  if f"{attention}.cla.weight" in keys:
    classes[attention] = shapes[f"{attention}.cla.weight"][0]
  others = [layer for layer in classes if layer not in (own, attention)]
  if not others:
    return own
  gives_way = classes.get(own) == len(audioset_classes())
  if (
    len(others) > 1
    or attention in classes
    or (own in classes and not gives_way and others[0].startswith(prefix))
  ):
    layers = [f"{layer} ({number} classes)" for layer, number in classes.items()]
    raise UserError(
      f"several of its layers may be the classifier, {_listed(layers)}: save a "
      "state_dict with one of them"
    )
  return others[0]


def _is_aside(key: str) -> bool:
  """Returns whether an entry outside of the network has no part in its outputs."""
  is_buffer = key.rpartition(".")[2] not in _OF_LAYERS
  return bool(
    _OF_TRAINING.search(key)
    or (is_buffer and _OF_FRONT_END.search(key))
    or key.endswith((fixed.REAL_KEY, fixed.IMAG_KEY, fixed.MEL_KEY))
  )


@functools.cache
def _networks() -> list[frozenset[str]]:
  """Returns the keys of each architecture, without those of its classifier."""
  return [
    frozenset(
      entry.key
      for entry in table(num_classes=1)
      if not entry.key.startswith((CLASSIFIER, ATTENTION))
    )
    for table in tables.TABLES.values()
  ]


@functools.cache
def _known() -> frozenset[str]:
  """Returns the keys of all architectures."""
  tables_ = tables.TABLES.values()
  return frozenset(entry.key for table in tables_ for entry in table(num_classes=1))


def _listed(names: Iterable[str]) -> str:
  names = list(names)
  more = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
  return ", ".join(names[:MAX_SHOWN]) + more
