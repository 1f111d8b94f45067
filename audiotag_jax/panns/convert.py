"""Parameters between PyTorch's state_dict and Flax's variables, in numpy."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from audiotag_jax.errors import UserError
from audiotag_jax.panns import tables
from audiotag_jax.panns.architectures import CNN_BLOCKS

# Largest number of faults that an error message lists.
MAX_SHOWN = 20

Shapes = Mapping[str, tuple[int, ...]]


def num_classes(shapes: Shapes) -> int:
  """Reads the number of classes off a state_dict's classifier.

  Raises:
    UserError: the state_dict has no classifier.
  """
  for key in ("fc_audioset.weight", "att_block.cla.weight"):
    if len(shapes.get(key, ())) > 0:
      return shapes[key][0]
  raise UserError(
    f"its {len(shapes)} entries lack a classifier (fc_audioset.weight or "
    "att_block.cla.weight): it is not a PANNs model"
  )


def recognize(shapes: Shapes) -> list[str]:
  """Returns the architectures that a state_dict fits, the likeliest first.

  Cnn14 and its DecisionLevelMax and -Avg have the same entries. A state_dict that fits
  no architecture may be one of `architectures.CNN_BLOCKS` with other widths.

  Raises:
    UserError: the state_dict fits no architecture; the message lists its differences
      from the nearest one.
  """
  classes = num_classes(shapes)
  faults = {
    name: find_faults(shapes, table(classes)) for name, table in tables.TABLES.items()
  }
  names = [name for name, found in faults.items() if not found]
  names = names or [name for name in CNN_BLOCKS if find_widths(shapes, name)]
  if not names:
    nearest = min(faults, key=lambda name: len(faults[name]))
    raise UserError(
      f"it fits none of the {len(faults)} architectures; compared with {nearest}, the "
      f"nearest: {describe_faults(faults[nearest])}"
    )
  return names


def find_widths(shapes: Shapes, name: str) -> dict[str, Any]:
  """Returns the `WIDTHS` of a state_dict if they differ from the architecture's own.

  The result is empty if they are the architecture's own, or if the state_dict does not
  fit the architecture with any widths.
  """
  classes, num_blocks = num_classes(shapes), CNN_BLOCKS.get(name, 0)
  keys = [f"conv_block{i}.conv1.weight" for i in range(1, num_blocks + 1)]
  keys.append("fc1.weight")
  if not num_blocks or not all(shapes.get(key) for key in keys):
    return {}
  *filters, embedding_dim = (shapes[key][0] for key in keys)
  widths = {"filters": tuple(filters), "embedding_dim": embedding_dim}
  table, own = tables.TABLES[name](classes, **widths), tables.TABLES[name](classes)
  return {} if table == own or find_faults(shapes, table) else widths


def find_faults(shapes: Shapes, table: tables.Table) -> list[str]:
  """Lists missing, unexpected and differently shaped entries of a state_dict."""
  expected = {entry.key: entry.shape for entry in table}
  faults = [f"missing {key}" for key in expected if key not in shapes]
  faults += [f"unexpected {key}" for key in shapes if key not in expected]
  faults += [
    f"{key} is {list(shapes[key])}, not {list(shape)}"
    for key, shape in expected.items()
    if key in shapes and tuple(shapes[key]) != shape
  ]
  return faults


def describe_faults(faults: list[str]) -> str:
  """Joins faults to one line."""
  more = f" and {len(faults) - MAX_SHOWN} more" if len(faults) > MAX_SHOWN else ""
  return ", ".join(faults[:MAX_SHOWN]) + more


def to_flax(
  arrays: Iterable[tuple[str, np.ndarray]], table: tables.Table
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
  """Converts a state_dict, one array at a time.

  Args:
    arrays: keys and arrays of the state_dict, exactly those of `table`.
    table: the architecture's table.

  Returns:
    Flax's variables in float32, and the entries of the state_dict that have no place in
    them: fixed matrices in float32, counters in int64.
  """
  entries = {entry.key: entry for entry in table}
  variables: dict[str, Any] = {}
  rest: dict[str, np.ndarray] = {}
  for key, array in arrays:
    entry = entries[key]
    if entry.kind == "counter":
      if np.isfinite(array):  # 65,536 steps and more are infinite in float16.
        rest[key] = np.array(array, np.int64)
      continue
    if entry.kind == "fixed":
      rest[key] = np.array(array, np.float32)
      continue
    *parents, leaf = entry.path
    tree = variables
    for parent in parents:
      tree = tree.setdefault(parent, {})
    tree[leaf] = np.array(_forward(array, entry.kind), np.float32, order="C")
  return variables, rest


def to_pytorch(
  variables: Mapping[str, Any], table: tables.Table, rest: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
  """Converts Flax's variables to a state_dict, in the reference's order.

  Args:
    variables: `params` and `batch_stats`.
    table: the architecture's table.
    rest: the entries that have no place in Flax; counters missing from it are 0.

  Returns:
    The state_dict.

  Raises:
    UserError: the variables are not those of the table.
  """
  leaves = dict(_flatten(variables))
  paths = {entry.path for entry in table if entry.path}
  faults = [f"missing {'/'.join(path)}" for path in sorted(paths - leaves.keys())]
  faults += [f"unexpected {'/'.join(path)}" for path in sorted(leaves.keys() - paths)]
  state_dict = {}
  for entry in table:
    if entry.path in leaves:
      array = np.ascontiguousarray(_backward(leaves[entry.path], entry.kind))
    elif entry.kind == "counter":
      array = np.asarray(rest.get(entry.key, 0), np.int64)
    elif entry.kind == "fixed":
      array = rest[entry.key]
    else:
      continue
    if array.shape != entry.shape:
      faults.append(f"{entry.key} is {list(array.shape)}, not {list(entry.shape)}")
    state_dict[entry.key] = array
  if faults:
    raise UserError(f"the parameters differ: {describe_faults(faults)}")
  return state_dict


def _forward(array: np.ndarray, kind: str) -> np.ndarray:
  """Maps (out, in, *window) to (*window, in, out); a vector stays as it is."""
  if kind == "vector":
    return array
  return array.transpose(*range(2, array.ndim), 1, 0)


def _backward(array: np.ndarray, kind: str) -> np.ndarray:
  """Inverts `_forward`."""
  if kind == "vector":
    return array
  return array.transpose(-1, -2, *range(array.ndim - 2))


def _flatten(
  tree: Mapping[str, Any], path: tuple[str, ...] = ()
) -> Iterable[tuple[tuple[str, ...], np.ndarray]]:
  for key, value in tree.items():
    if isinstance(value, Mapping):
      yield from _flatten(value, (*path, key))
    else:
      yield (*path, key), np.asarray(value)
