"""The record beside an output: the model and the options that its rows come from."""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from audiotag_jax import files, json_files, model_directory, names
from audiotag_jax.errors import UserError
from audiotag_jax.inference.tag_files import TagOptions
from audiotag_jax.inference.tag_output import EVENT_FORMATS
from audiotag_jax.inference.tagger import find_model

ENDING = "made_by.json"
TAG_OPTIONS = ("top_k", "threshold", "window_s", "hop_s", "pool")
EVENT_OPTIONS = ("threshold", "median_s", "min_duration_s")
REMEDY = "give another --output"
_OPTION = json_files.optional(
  json_files.either(json_files.TEXT, json_files.number(-math.inf, math.inf))
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MadeBy:
  """The origin of an output's rows.

  Attributes:
    checkpoint: path of the model directory.
    model: a hash of the model; see `fingerprint`.
    options: the options that the rows depend on, by their flags' names.
    root: the path from the output's folder of the folder that names of files start
      from.
    files: the path from the output's folder of each file, by its name in the output.
  """

  checkpoint: str
  model: str
  options: Mapping[str, Any]
  root: str = "."
  files: Mapping[str, str] = dataclasses.field(default_factory=dict)


KINDS = {
  "checkpoint": json_files.TEXT,
  "model": json_files.TEXT,
  "options": json_files.object_of(_OPTION),
  "root": json_files.TEXT,
  "files": json_files.object_of(json_files.TEXT),
}


def describe(checkpoint: str, options: TagOptions) -> MadeBy:
  """Describes rows that are about to be made.

  Args:
    checkpoint: a model directory, or a run's workdir.
    options: the options of tagging.

  Raises:
    UserError: the model is missing or invalid.
  """
  directory = find_model(Path(checkpoint)).absolute()
  is_events = options.format in EVENT_FORMATS
  relevant = ("format", *(EVENT_OPTIONS if is_events else TAG_OPTIONS))
  chosen = {name: getattr(options, name) for name in relevant}
  if "hop_s" in chosen:
    chosen["hop_s"] = options.hop_s or options.window_s
  checkpoint = names.encodable(str(directory))
  return MadeBy(checkpoint=checkpoint, model=fingerprint(directory), options=chosen)


def fingerprint(directory: Path) -> str:
  """Returns a hash of a model, the same for a copy of its directory.

  It covers the description, except the source, and the checksums of the weights; in a
  directory of version 0.2 or older, which has no checksums, the files of the weights.
  """
  facts = dataclasses.asdict(model_directory.read_description(directory))
  del facts["source"]
  weights = (directory / model_directory.WEIGHTS).absolute()
  facts["weights"] = _checksums(weights) or {
    str(path.relative_to(weights)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in weights.rglob("*")
    if path.is_file()
  }
  return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _checksums(weights: Path) -> Any:
  if not weights.exists():
    return None
  try:
    with ocp.StandardCheckpointer() as checkpointer:
      return (checkpointer.metadata(weights).custom_metadata or {}).get("crc32c")
  except Exception:  # orbax may raise anything; loading the model words the damage.
    return None


def read(path: Path) -> MadeBy | None:
  """Reads a record; returns None where it is missing.

  Raises:
    UserError: it is damaged.
  """
  if not path.exists():
    return None
  fields = json_files.read(path, REMEDY)
  json_files.check(fields, KINDS, path, REMEDY)
  return MadeBy(**{name: fields[name] for name in KINDS})


def write(path: Path, made_by: MadeBy) -> None:
  """Writes a record, unless it stands there already."""
  if made_by != read(path):
    files.write_json(path, dataclasses.asdict(made_by), ensure_ascii=False)


def check(output: Path, earlier: MadeBy | None, now: MadeBy) -> None:
  """Raises `UserError` if an output's rows are of another model or other options."""
  if earlier is None:
    raise UserError(
      f"{output} has rows, and no {ENDING} that says which model and options made "
      f"them: {REMEDY}, or move that one"
    )
  for name in [*now.options, *earlier.options]:
    before, after = (made.options.get(name) for made in (earlier, now))
    if before != after:
      raise UserError(
        f"{output} was made {_flag(name, before)}, not {_flag(name, after)}: {REMEDY}, "
        "or the option that made it"
      )
  if earlier.model != now.model:
    raise UserError(
      f"{output} was made by {_model(earlier)}, not by {_model(now)}: {REMEDY}"
    )


def check_names(output: Path, earlier: MadeBy, now: MadeBy) -> None:
  """Raises `UserError` if two files of an output would have one name, or one two."""
  known = {path: name for name, path in earlier.files.items()}
  for name, path in now.files.items():
    before = earlier.files.get(name, path)
    if before != path and not os.path.isabs(name):
      raise UserError(
        f"{output} holds {before} as {name}, which is now the name of {path}: {REMEDY}"
      )
    if known.get(path, name) != name:
      raise UserError(
        f"{output} holds {path} as {known[path]}, and beside the files that are given "
        f"now its name is {name}: {REMEDY}, or the same files"
      )


def _model(made_by: MadeBy) -> str:
  return f"the model {made_by.checkpoint} ({made_by.model[:8]})"


def _flag(name: str, value: Any) -> str:
  return f"without --{name}" if value is None else f"with --{name}={value}"
