"""README, CONTRIBUTING and docs/: commands, links, the map and the picture are true."""

import configparser
import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from audiotag_jax import config as config_lib
from audiotag_jax import config_checks, recipes
from audiotag_jax.errors import UserError
from tools import draw_rooms

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "CONTRIBUTING.md"] + [
  f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))
]
ARCHITECTURE = "docs/architecture.md"
# What shells and other packages bring; their flags are not ours to check.
OTHERS = ("bash", "mkdocs", "mypy", "pre-commit", "ruff", "source", "tensorboard")
OTHER_MODULES = ("heareval.embeddings.runner", "venv")


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
  monkeypatch.chdir(ROOT)


def setup_cfg():
  parser = configparser.ConfigParser()
  parser.read(ROOT / "setup.cfg")
  return parser


def read(page):
  return (ROOT / page).read_text()


def blocks(page, *languages):
  """The fenced code of a page in some languages, indented as in the page or less."""
  found = re.findall(r"^( *)```(\S*)\n(.*?)^\1```$", read(page), re.M | re.S)
  return [text for _, language, text in found if language in languages]


def commands(page):
  """The commands of a page, in blocks and in lines of text, as lists of words."""
  lines = "".join(blocks(page, "", "bash")).replace("\\\n", " ").splitlines()
  text = re.sub(r"^ *```.*?^ *```$", "", read(page), flags=re.M | re.S)
  lines += re.findall(r"`((?:python|pip|mkdocs|tensorboard) [^`…]+)`", text)
  words = [shlex.split(part) for line in lines for part in line.split("&&")]
  return [command for command in words if command]


def check_tool(module, args, monkeypatch, capsys):
  """A tool parses its flags; its recipes exist and have the keys that it overrides."""
  monkeypatch.setattr(sys, "argv", [module, *args])
  try:
    args = importlib.import_module(module).parse_args()
  except SystemExit as error:
    raise AssertionError(f"{module} {args}: {capsys.readouterr().err}") from error
  args = args[0] if isinstance(args, tuple) else args
  if getattr(args, "log_mels_for", None):
    recipes.read_recipe(args.log_mels_for)
  given = getattr(args, "config", None) or []
  for recipe in given if isinstance(given, list) else [given]:
    config_checks.validate(recipes.read_recipe(recipe, getattr(args, "overrides", [])))


def check_install(args):
  extras = setup_cfg()["options.extras_require"]
  for arg in args:
    asked = re.search(r"^\.\[(.*)\]$", arg)
    assert not asked or set(asked[1].split(",")) <= set(extras)


def check_pytest(args):
  for arg in args:
    if arg.startswith("tests"):
      assert (ROOT / arg).is_file(), arg
  if "-k" in args:
    assert args[args.index("-k") + 1] in (ROOT / args[-3]).read_text()


@pytest.mark.parametrize("page", PAGES)
def test_commands_name_what_exists(page, monkeypatch, capsys):
  for command in commands(page):
    while "=" in command[0]:  # A variable of the environment.
      command = command[1:]
    name, *args = command
    if name == "python" and args[0] == "-m":
      module, args = args[1], args[2:]
      if module == "audiotag_jax.main" and args:
        check_tool(module, args, monkeypatch, capsys)
      elif module == "pip":
        check_install(args)
      elif module == "pytest":
        check_pytest(args)
      else:
        assert module in ("audiotag_jax.main", *OTHER_MODULES), command
    elif name == "python":
      assert (ROOT / args[0]).is_file(), command
      module = args[0].removesuffix(".py").replace("/", ".")
      check_tool(module, args[1:], monkeypatch, capsys)
    else:
      assert name in OTHERS, command


@pytest.mark.parametrize("page", PAGES)
def test_scripts_call_main_as_it_is(page, monkeypatch, capsys):
  text = "".join(blocks(page, "sh", "ini")).replace("\\\n", " ")
  for args in re.findall(r"-m\s+audiotag_jax\.main ([^\";\n]+)", text):
    check_tool("audiotag_jax.main", shlex.split(args), monkeypatch, capsys)


def test_the_commands_are_found():
  found = [" ".join(command) for page in PAGES for command in commands(page)]
  assert "python -m pytest" in found
  assert "python tools/benchmark.py tag" in found
  assert any("--config=configs/cnn14_study.py" in command for command in found)
  assert len(found) > 50


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    ("--no_such_flag", "unknown flag --no_such_flag"),
    ("evaluate", "unexpected argument evaluate"),
    ("--config.train.steps=1", "steps"),
    ("--config.train.num_steps=-1", "must be greater than 0"),
  ],
)
def test_a_wrong_command_is_found(wrong, message, monkeypatch, capsys):
  args = ["--config=configs/crnn_demo.py", "--workdir=runs/crnn_demo", wrong]
  with pytest.raises((AssertionError, UserError), match=message):
    check_tool("audiotag_jax.main", args, monkeypatch, capsys)


@pytest.mark.parametrize("page", PAGES)
def test_keys_and_files_in_the_text_exist(page):
  keys = recipes.flatten(config_lib.get_config().to_dict())
  for key in re.findall(r"--config\.([\w.]+\w)", read(page)):
    assert key in keys, key
  for path in re.findall(
    r"`((?:audiotag_jax|configs|docs|tests|tools)/[\w./]+\.\w+)", read(page)
  ):
    assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("page", PAGES)
def test_flags_in_the_text_exist(page):
  sources = [*(ROOT / "tools").glob("*.py"), ROOT / "audiotag_jax/main.py"]
  known = {
    flag for source in sources for flag in re.findall(r'"--(\w+)"', source.read_text())
  }
  flags = re.findall(r"`--(\w+)[=`]", read(page))
  assert set(flags) <= known | {"help"}


def anchor(heading):
  """The anchor that GitHub and mkdocs give a heading."""
  return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page):
  text = re.sub(r"^ *```.*?^ *```$", "", read(page), flags=re.M | re.S)
  for link in re.findall(r"\]\(([^)]+)\)", text):
    if link.startswith("https://"):
      continue
    name, _, heading = link.partition("#")
    target = (ROOT / page).parent / name if name else ROOT / page
    assert target.is_file(), link
    if heading:
      anchors = [
        anchor(title) for title in re.findall(r"^#+ (.*)$", target.read_text(), re.M)
      ]
      assert heading in anchors, link


def test_the_map_has_a_line_for_every_file():
  (text,) = (text for text in blocks(ARCHITECTURE, "text") if "main.py" in text)
  folders, named = [], set()
  for indent, name in re.findall(r"^( {0,6})(\S+)(?:  |$)", text, re.M):
    folders[len(indent) // 2 :] = [name]
    named.add("".join(folders))
  files = {
    str(path.relative_to(ROOT))
    for folder in ("audiotag_jax", "tools")
    for path in (ROOT / folder).rglob("*.*")
    if path.suffix != ".pyc" and path.name not in ("__init__.py", "__pycache__")
  }
  listed = {path for path in named if path.startswith(("audiotag_jax/", "tools/"))}
  assert {path for path in listed if not path.endswith("/")} == files
  assert not [path for path in named if not (ROOT / path).exists()]


def test_the_picture_is_that_of_the_imports():
  page = read(ARCHITECTURE)
  assert page == draw_rooms.redraw(page), "python tools/draw_rooms.py draws it again"


def test_arrows_that_others_imply_are_left_out():
  arrows = {"a": {"b", "c", "d"}, "b": {"c"}, "c": {"d"}}
  assert draw_rooms.without_detours(arrows) == {"a": {"b"}, "b": {"c"}, "c": {"d"}}


def test_the_readme_s_recipe_is_one(tmp_path):
  (code,) = blocks("README.md", "python")
  (tmp_path / "variant.py").write_text(code)
  parent = (ROOT / "configs/cnn14_fsd50k.py").read_text()
  (tmp_path / "cnn14_fsd50k.py").write_text(parent)
  config = recipes.read_recipe(tmp_path / "variant.py")
  assert (config.data.protocol, config.train.num_steps) == ("study", 12_000)


def test_the_readme_lists_every_recipe_and_page():
  readme = read("README.md")
  for path in (ROOT / "configs").glob("*.py"):
    assert path.name in readme, path
  for page in PAGES[1:]:
    assert f"]({page})" in readme or page == "docs/index.md", page
    name = page.removeprefix("docs/")
    assert not page.startswith("docs/") or f": {name}\n" in read("mkdocs.yml"), page


def test_version_and_address_are_the_same_everywhere():
  metadata = setup_cfg()["metadata"]
  version, url = metadata["version"], metadata["url"]
  citation = read("CITATION.cff")
  assert f"\nversion: {version}\n" in citation
  (date,) = re.findall(r"^date-released: (.*)$", citation, re.M)
  assert f"\n## {version} - {date}\n" in read("CHANGELOG.md")
  assert f"\nrepository-code: {url}\n" in citation
  assert f"\nrepo_url: {url}\n" in read("mkdocs.yml")
  assert all(
    line.split(" = ")[1].startswith(url)
    for line in metadata["project_urls"].strip().splitlines()
  )


def test_constraints_pin_what_setup_cfg_asks_for():
  """On each Python that CI has; torch and the like come in by others too."""
  options = setup_cfg()
  asked = options["options"]["install_requires"]
  asked += "".join(options["options.extras_require"][name] for name in ("test", "docs"))
  needs = [line.partition("#")[0] for line in asked.splitlines()]
  needs = [line for line in needs if line.strip()]
  lines = (ROOT / "constraints.txt").read_text().splitlines()
  pins = [Requirement(line) for line in lines if not line.startswith("#")]
  for python in ("3.11", "3.12", "3.13"):
    here = {"python_version": python, "platform_machine": "x86_64"}
    versions = {
      pin.name: str(pin.specifier).removeprefix("==")
      for pin in pins
      if pin.marker is None or pin.marker.evaluate(here)
    }
    for need in map(Requirement, needs):
      if need.marker is None or need.marker.evaluate(here):
        name = re.sub(r"[-_.]+", "-", need.name).lower()
        assert versions[name] in need.specifier, need
