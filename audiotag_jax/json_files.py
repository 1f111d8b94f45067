"""JSON files, read whole and checked field by field."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from audiotag_jax.errors import UserError

# The dataset.json of a million clips fits many times.
MAX_BYTES = 2**28
# Longest value that an error message quotes.
MAX_QUOTED = 60


@dataclasses.dataclass(frozen=True)
class Kind:
  """A kind of value.

  Attributes:
    name: the kind in words, as in "a whole number from 1 to 9".
    holds: whether a value, as JSON has it, is of the kind.
    optional: whether an object may lack the field.
  """

  name: str
  holds: Callable[[Any], bool]
  optional: bool = False


TEXT = Kind("text", lambda value: isinstance(value, str))
SWITCH = Kind("true or false", lambda value: isinstance(value, bool))
OBJECT = Kind("an object", lambda value: isinstance(value, dict))


def _is_number(value: Any, low: float, high: float) -> bool:
  is_real = isinstance(value, int | float) and not isinstance(value, bool)
  return is_real and low <= value <= high  # False for NaN


def number(low: float, high: float) -> Kind:
  """A finite number in a range."""
  words = f"a number from {low:g} to {high:g}"
  return Kind(words, lambda value: _is_number(value, low, high))


def whole(low: int, high: int) -> Kind:
  """A whole number in a range."""
  words = f"a whole number from {low} to {high}"
  return Kind(
    words, lambda value: isinstance(value, int) and _is_number(value, low, high)
  )


def choice(*values: str) -> Kind:
  """One of some texts."""
  return Kind(" or ".join(values), lambda value: value in [*values])


def either(*kinds: Kind) -> Kind:
  """A value of any of some kinds."""
  words = " or ".join(kind.name for kind in kinds)
  return Kind(words, lambda value: any(kind.holds(value) for kind in kinds))


def list_of(kind: Kind, lengths: Iterable[int]) -> Kind:
  """A list of values of one kind.

  Args:
    kind: the kind of all values.
    lengths: the lengths that are valid, a range.
  """
  return Kind(
    f"a list of {kind.name}",
    lambda value: (
      isinstance(value, list | tuple)
      and len(value) in lengths
      and all(map(kind.holds, value))
    ),
  )


def object_of(kind: Kind) -> Kind:
  """An object whose values are all of one kind."""
  return Kind(
    f"an object of {kind.name}",
    lambda value: isinstance(value, dict) and all(map(kind.holds, value.values())),
  )


def record(**kinds: Kind) -> Kind:
  """An object with some fields, and perhaps others."""
  return Kind(
    f"an object with {', '.join(kinds)}",
    lambda value: (
      isinstance(value, dict)
      and all(
        kind.optional if name not in value else kind.holds(value[name])
        for name, kind in kinds.items()
      )
    ),
  )


def optional(kind: Kind) -> Kind:
  """A field that may be missing, or null."""
  return Kind(
    kind.name, lambda value: value is None or kind.holds(value), optional=True
  )


def read(path: Path, remedy: str) -> dict[str, Any]:
  """Reads a JSON file that holds an object.

  Args:
    path: the file, in UTF-8.
    remedy: what to do if it is invalid.

  Raises:
    UserError: the file cannot be read, is larger than `MAX_BYTES`, or is not JSON, or
      holds something other than an object.
  """
  try:
    with path.open("rb") as file:
      data = file.read(MAX_BYTES + 1)
  except OSError as error:
    reason = error.strerror or error
    raise UserError(f"{path} cannot be read ({reason}): {remedy}") from error
  if len(data) > MAX_BYTES:
    raise UserError(f"{path} has more than {MAX_BYTES} bytes: {remedy}")
  try:
    value = json.loads(data.decode("utf-8"))
  except (ValueError, RecursionError) as error:
    reason = str(error) if data else "it is empty"
    raise UserError(f"{path} is not valid JSON ({reason}): {remedy}") from error
  if not isinstance(value, dict):
    raise UserError(f"{path} holds {_quote(value)}, not an object: {remedy}")
  return value


def check(
  value: Mapping[str, Any],
  kinds: Mapping[str, Kind],
  place: object,
  remedy: str,
  *,
  others: bool = True,
) -> None:
  """Checks the fields of an object.

  Args:
    value: the object.
    kinds: the kind of each field.
    place: the file, and the place in it.
    remedy: what to do if a field is invalid.
    others: whether the object may have other fields.

  Raises:
    UserError: a field is missing, or its value is of another kind.
  """
  for name, kind in kinds.items():
    if name not in value and not kind.optional:
      raise UserError(f"{place}: it has no {name}, which is {kind.name}: {remedy}")
    if name in value and not kind.holds(value[name]):
      raise UserError(
        f"{place}: {name} is {_quote(value[name])}, not {kind.name}: {remedy}"
      )
  unknown = sorted(value.keys() - kinds.keys())
  if unknown and not others:
    raise UserError(f"{place}: it has {_quote(unknown[0])}, which is unknown: {remedy}")


def _quote(value: Any) -> str:
  """Returns a value as JSON, cut short."""
  if isinstance(value, float) and not math.isfinite(value):
    return str(value)
  text = json.dumps(value)
  return text if len(text) <= MAX_QUOTED else f"{text[:MAX_QUOTED]}…"
