"""A clip flows down and a score flows up, one way; each rule names its offenders."""

import ast
import functools
from pathlib import Path

from audiotag_jax.errors import WITH_TENSORFLOW

PACKAGE = Path(__file__).resolve().parents[1] / "audiotag_jax"
MODULES = {
  ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
  for path in PACKAGE.rglob("*.py")
}
# Other rooms that each room may import.
MAY_IMPORT = {
  "training": {"evaluation", "data", "models", "frontend", "reporting"},
  "evaluation": {"data", "models", "audio", "frontend", "reporting"},
  "inspection": {"data", "audio", "frontend", "reporting"},
  "inference": {"models", "audio", "frontend"},
  "data": {"audio", "frontend"},
  "models": {"frontend"},
  "audio": set(),
  "frontend": set(),
  "reporting": set(),
}
# Modules on the ground, which import no room.
GROUND = {
  "checkpoint", "command_line", "compilation_cache", "config", "errors", "files",
  "json_files", "logs", "model_directory", "config_checks", "names", "panns",
  "parallel", "recipes", "text_files", "workdir",
}  # fmt: skip
NO_TENSORFLOW = (
  *GROUND, "audio", "data.inputs", "evaluation.cost", "evaluation.eval_step",
  "frontend.log_mel_jax", "frontend.mel",
  "inference", "models", "training.losses", "training.optim", "training.steps",
)  # fmt: skip


@functools.cache
def tree(module):
  return ast.parse(MODULES[module].read_text())


def imports(module, *, everywhere=True):
  """The full names that a module imports, in functions too or at its top alone."""
  nodes = ast.walk(tree(module)) if everywhere else tree(module).body
  names = set()
  for node in nodes:
    if isinstance(node, ast.Import):
      names |= {name.name for name in node.names}
    elif isinstance(node, ast.ImportFrom):
      names |= {f"{node.module}.{name.name}" for name in node.names}
  return names


def rooms(module):
  """The rooms, or modules on the ground, that a module imports."""
  own = (
    name.split(".") for name in imports(module) if name.startswith("audiotag_jax.")
  )
  return {name[1] for name in own}


def is_in(module, places):
  """Returns whether a module is one of some places, or inside one of them."""
  return any(f"{module}.".startswith(f"{place}.") for place in places)


def test_every_module_has_its_place():
  places = {module.split(".")[0] for module in MODULES} - {"__init__"}
  assert places - MAY_IMPORT.keys() - GROUND == {"main"}
  assert {"main", "config", "frontend.mel", "data.builder", "training.steps"} <= set(
    MODULES
  )


def test_rooms_import_downwards():
  offenders = {}
  for module in MODULES:
    room = module.split(".")[0]
    allowed = {"training"} if room == "main" else MAY_IMPORT.get(room, set())
    if wrong := (rooms(module) & MAY_IMPORT.keys()) - allowed - {room}:
      offenders[module] = wrong
  assert not offenders


def test_imports_are_absolute_as_these_tests_read_them():
  assert not [
    module
    for module in MODULES
    for node in ast.walk(tree(module))
    if isinstance(node, ast.ImportFrom) and node.level
  ]


def test_nobody_imports_main_tools_or_tests():
  assert not [
    (module, name)
    for module in MODULES
    for name in imports(module)
    if name.split(".")[0] in ("tools", "tests") or is_in(name, ["audiotag_jax.main"])
  ]


def test_tensorflow_stays_out():
  assert not [
    (module, name)
    for module in MODULES
    if is_in(module, NO_TENSORFLOW)
    # The export imports it where a SavedModel is wanted.
    for name in imports(module, everywhere=module != "inference.export")
    if name.split(".")[0] in WITH_TENSORFLOW
  ]


def test_data_does_not_import_flax():
  assert not [
    module
    for module in MODULES
    if is_in(module, ["data"])
    and "flax" in {name.split(".")[0] for name in imports(module)}
  ]


def test_pmap_is_called_in_one_file():
  found = [module for module in MODULES if "jax.pmap" in MODULES[module].read_text()]
  assert found == ["parallel"]
