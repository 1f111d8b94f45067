"""DESIGN: a clip flows down and a score flows up, one way."""

import ast
from pathlib import Path

import pytest

from audiotag_jax.errors import WITH_TENSORFLOW

PACKAGE = Path(__file__).resolve().parents[1] / "audiotag_jax"
MODULES = {
  ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
  for path in PACKAGE.rglob("*.py")
}
ROOMS = ("frontend", "data", "models", "training", "evaluation", "inference")
# What each room may import of the other rooms.
MAY_IMPORT = {
  "main": {"training"},
  "training": {"evaluation", "data", "models", "frontend"},
  "evaluation": {"data", "models", "frontend"},
  "data": {"frontend"},
  "models": {"frontend"},
  "frontend": set(),
  "inference": {"models", "frontend"},
}
NO_TENSORFLOW = (
  "models", "frontend.mel", "frontend.logmel_jax", "panns", "training.steps",
  "training.losses", "training.optim", "inference", "config", "parallel", "checkpoint",
)  # fmt: skip


def imports(path):
  return names_of(ast.walk(ast.parse(path.read_text())))


def top_level_imports(path):
  return names_of(ast.parse(path.read_text()).body)


def names_of(nodes):
  for node in nodes:
    if isinstance(node, ast.Import):
      yield from (name.name for name in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield from (f"{node.module}.{name.name}" for name in node.names)


def own_imports(path):
  prefix = "audiotag_jax."
  return {n.removeprefix(prefix) for n in imports(path) if n.startswith(prefix)}


def test_the_package_is_there():
  assert {"main", "config", "frontend.mel", "data.fsd50k", "training.steps"} <= set(
    MODULES
  )


@pytest.mark.parametrize("module", MODULES)
def test_rooms_import_downwards(module):
  room = module.split(".")[0]
  allowed = MAY_IMPORT.get(room, set()) | {room}
  names = own_imports(MODULES[module])
  if room == "inference":
    names = {name for name in names if not is_audio_io(name)}
  assert {name.split(".")[0] for name in names} & set(ROOMS) <= allowed


def is_audio_io(name):
  """The one module of another room that inference may import beside the models."""
  return name.split(".")[:2] == ["data", "audio_io"]


@pytest.mark.parametrize("module", MODULES)
def test_imports_are_absolute_as_these_tests_read_them(module):
  tree = ast.parse(MODULES[module].read_text())
  assert not [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level]


@pytest.mark.parametrize("module", MODULES)
def test_nobody_imports_main_tools_or_tests(module):
  names = set(imports(MODULES[module]))
  assert not {n for n in names if n.split(".")[0] in ("tools", "tests")}
  assert "audiotag_jax.main" not in names


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith(NO_TENSORFLOW)])
def test_tensorflow_stays_out(module):
  path = MODULES[module]
  # The export imports it where a SavedModel is wanted.
  names = top_level_imports(path) if module == "inference.export" else imports(path)
  roots = {name.split(".")[0] for name in names}
  assert not roots & set(WITH_TENSORFLOW)


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("data")])
def test_data_does_not_import_flax(module):
  assert "flax" not in {name.split(".")[0] for name in imports(MODULES[module])}


@pytest.mark.parametrize("module", [m for m in MODULES if m != "parallel"])
def test_pmap_is_called_in_one_file(module):
  assert "jax.pmap" not in MODULES[module].read_text()
