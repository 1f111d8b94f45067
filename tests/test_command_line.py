"""The command lines of main.py and the tools: alike, quick to ask and strict."""

import importlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from audiotag_jax import command_line
from audiotag_jax.inference import export, tag_output
from tools import export_model, tag

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = (
  "audiotag_jax/main.py",
  *sorted(f"tools/{path.name}" for path in (ROOT / "tools").glob("*.py")),
)
# Modules that take seconds to import.
HEAVY = (
  *("jax", "flax", "orbax", "optax", "tensorflow", "tensorflow_datasets", "clu"),
  *("torch", "matplotlib", "sklearn", "scipy", "gradio"),
)
# Program that runs commands in one process, because launching Python takes long; it
# forgets their modules.
ASK = """
import contextlib, io, json, runpy, sys, time
commands, heavy = json.loads(sys.argv[1])
sys.path.insert(0, "tools")
answers = {}
for command in commands:
  path, *args = command
  sys.argv, start_s = [path, *args], time.perf_counter()
  out, err, code = io.StringIO(), io.StringIO(), None
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    try:
      runpy.run_path(path, run_name="__main__")
    except SystemExit as error:
      code = error.code
  answers[path] = {
    "code": code, "out": out.getvalue(), "err": err.getvalue(),
    "seconds": time.perf_counter() - start_s,
    "heavy": sorted(set(heavy) & sys.modules.keys()),
  }
  for name in set(heavy) & sys.modules.keys():
    del sys.modules[name]
print(json.dumps(answers))
"""


def ask(*args):
  """Runs every command with some arguments; returns the outcomes by file."""
  commands = [[command, *args] for command in COMMANDS]
  done = subprocess.run(
    [sys.executable, "-c", ASK, json.dumps([commands, HEAVY])],
    cwd=ROOT,
    env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "80"},
    capture_output=True,
    text=True,
    check=True,
  )
  return json.loads(done.stdout)


def test_help_is_alike_and_quick_and_imports_nothing_heavy():
  answers = ask("--help")
  assert list(answers) == list(COMMANDS)
  for path, answer in answers.items():
    assert (answer["code"], answer["err"], answer["heavy"]) == (0, "", []), path
    assert answer["seconds"] < 2, path
    usage, _, rest = answer["out"].partition("\n\n")
    assert usage.startswith(f"usage: {Path(path).name} [-h] "), path
    # The module's docstring, with commands to copy.
    launch = "-m audiotag_jax.main" if path == "audiotag_jax/main.py" else path
    assert f"\npython {launch} " in rest, path
    assert "\noptions:\n  -h, --help " in rest, path


def test_what_no_command_knows_is_one_line_and_exits_with_2():
  answers = ask("--no_such_flag=1")
  for path, answer in answers.items():
    assert (answer["code"], answer["out"], answer["heavy"]) == (2, "", []), path
    assert answer["err"].startswith("error: "), path
    end = f"; --help lists what {Path(path).name} takes\n"
    assert answer["err"].endswith(end), path
    assert answer["err"].count("\n") == 1, path


def test_choices_of_flags_are_those_of_the_package():
  assert tag.FORMATS == tag_output.FORMATS
  assert set(export_model.FORMATS) == export.FORMATS.keys()


def create_parser(**options):
  parser = command_line.create_parser("Does something.\n\nAt length.", **options)
  parser.add_argument("--config")
  parser.add_argument("--num", type=int, default=1)
  parser.add_argument("--overwrite", action="store_true")
  return parser


def test_flags_and_overrides_in_any_order_and_either_form():
  parse = create_parser(overrides=True).parse_args
  args = parse(
    [
      *("--config.train.num_steps=3", "--num", "2", "--config.data.pad", "zero"),
      *("--config.train.profile", "--config=file.py", "--noconfig.train.profile"),
      *("--config.augment.gain_db", "-1", "--config.data.source_dir=a=b c"),
    ]
  )
  assert (args.config, args.num, args.overwrite) == ("file.py", 2, False)
  assert args.overrides == [
    *("--config.train.num_steps=3", "--config.data.pad=zero", "--config.train.profile"),
    *("--noconfig.train.profile", "--config.augment.gain_db=-1"),
    "--config.data.source_dir=a=b c",
  ]
  assert parse(["--config", "file.py"]).overrides == []


@pytest.mark.parametrize(
  ("args", "expected"),
  [
    (["--overwrite"], True),
    (["--overwrite=true"], True),
    (["--overwrite=False"], False),
    (["--nooverwrite"], False),
    ([], False),
  ],
)
def test_switches_are_written_as_absl_s_too(args, expected):
  assert create_parser().parse_args(args).overwrite is expected


@pytest.mark.parametrize(
  ("args", "message"),
  [
    (["evaluate"], "unexpected argument evaluate: flags are written --flag=value"),
    (["--nmu=3"], "unknown flag --nmu=3 (--num?)"),
    (["--confg.seed=3"], "unknown flag --confg.seed=3 (--config.seed?)"),
    (["--conf=file.py"], "unknown flag --conf=file.py (--config?)"),
    (["--num=x"], "argument --num: invalid int value: 'x'"),
    (["--num"], "argument --num: expected one argument"),
    (["--overwrite=maybe"], "argument --overwrite: ignored explicit argument 'maybe'"),
    (["--qqq"], "unknown flag --qqq"),
    (
      ["--num=3", "-0jf8HRxOI_30.wav"],
      "-0jf8HRxOI_30.wav is neither a flag nor a file: a file of such a name is "
      "written ./-0jf8HRxOI_30.wav, or after --",
    ),
    (
      ["--q4x.wav"],
      "--q4x.wav is neither a flag nor a file: a file of such a name is written "
      "./--q4x.wav, or after --",
    ),
  ],
)
def test_a_mistake_is_one_line(args, message, capsys):
  parser = create_parser(overrides=True)
  with pytest.raises(SystemExit) as info:
    parser.parse_args(args)
  assert info.value.code == 2
  expected = f"error: {message}; --help lists what {parser.prog} takes\n"
  assert capsys.readouterr() == ("", expected)


def test_overrides_are_unknown_to_a_command_that_takes_none(capsys):
  with pytest.raises(SystemExit):
    create_parser().parse_args(["--config.seed=3"])
  assert "unknown flag --config.seed=3" in capsys.readouterr().err


def test_a_file_s_name_may_begin_like_a_flag(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  parser = create_parser()
  parser.add_argument("paths", type=command_line.path, nargs="*")
  parser.add_argument("--output", type=command_line.path)
  names = ["-0jf8HRxOI_30.wav", "--x.wav", "-h.wav", "-folder", "a.wav"]
  for name in [*names, "-h", "--overwrite"]:
    Path(name).touch()
  args = parser.parse_args([*names, "--num", "-1", "--output", "-folder"])
  assert (args.paths, args.num) == ([Path(name) for name in names], -1)
  assert (args.output, args.overwrite) == (Path("-folder"), False)
  assert parser.parse_args(["--overwrite"]).overwrite
  args = parser.parse_args(["--", "-0jf8HRxOI_30.wav", "-gone.wav"])
  assert args.paths == [Path("-0jf8HRxOI_30.wav"), Path("-gone.wav")]


# What each command takes beside its paths.
PATHS = {
  "audiotag_jax/main.py": "--config=~/a --workdir=~/a",
  "tools/compare.py": "~/a --output=~/a",
  "tools/convert_panns.py": "--checkpoint=~/a --output=~/a --class_names=~/a",
  "tools/demo_app.py": "--checkpoint=~/a",
  "tools/draw_rooms.py": "--page=~/a",
  "tools/ensemble.py": "~/a --output=~/a",
  "tools/export_model.py": "--checkpoint=~/a --output=~/a",
  "tools/export_pytorch.py": "--model=~/a --output=~/a",
  "tools/inspect_data.py": "--config=~/a --output=~/a",
  "tools/measure.py": "~/a",
  "tools/prepare_data.py": "folders --source=~/a --data_dir=~/a --audio_dir=~/a "
  "--md5sums=~/a --log_mels_for=~/a --label_separator=~",
  "tools/study.py": "--config=~/a --workdir=~/a",
  "tools/tag.py": "~/a --checkpoint=~/a --output=~/a --plot=~/a",
  "tools/benchmark.py": "recipe --source=~/a --config=~/a",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_path_takes_the_home_folder(command, monkeypatch):
  monkeypatch.setenv("HOME", "/home/me")
  line = PATHS[command].split()
  monkeypatch.setattr(sys, "argv", [command, *line])
  module = importlib.import_module(command.removesuffix(".py").replace("/", "."))
  args = module.parse_args()
  values = vars(args[0] if isinstance(args, tuple) else args).values()
  lists = [value if isinstance(value, list) else [value] for value in values]
  shown = [str(value) for value in itertools.chain(*lists)]
  assert shown.count("/home/me/a") == PATHS[command].count("~/a")
  assert sum("~" in text for text in shown) == line.count("--label_separator=~")


def test_home_folders_of_others_and_addresses(monkeypatch):
  monkeypatch.setenv("HOME", "/home/me")
  assert command_line.path("~") == Path("/home/me")
  root = os.path.expanduser("~root")
  assert command_line.place("~root/x") == f"{root}/x" != "~root/x"
  for text in ("gs://bucket/~/x", "a/~/b", "~no such user/x.wav", "x~"):
    assert command_line.place(text) == text
