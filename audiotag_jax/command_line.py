"""Command lines of main.py and the tools, which all work alike.

Flags are written `--flag=value` or `--flag value`, in any order. `--help` prints the
docstring of the module and its flags, and exits with 0. A mistake is one line, with
exit code 2. Keys of a recipe are overridden by `--config.key=value`, see
`recipes.read_recipe`. In paths, `~` is the home folder. A command parses its flags
before it imports slow modules.
"""

import argparse
import contextlib
import difflib
import math
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

TRUE, FALSE = ("true", "True", "1"), ("false", "False", "0")
# Names of files such as -x.wav, which look like flags; negative numbers do not match.
LIKE_FLAG = re.compile(r"-(?!-|$|\d+$|\d*\.\d+$)|--(?!config\.)[^=]+\.\w+$")


def path(text: str) -> Path:
  """Returns a path, with the home folder for `~` or `~user`: a type of flags."""
  return Path(place(text))


def place(text: str) -> str:
  """Does what `path` does for paths that may be an address, such as gs://bucket."""
  return os.path.expanduser(text)


def number(
  low: float, high: float = math.inf, *, above: bool = False
) -> Callable[[str], float]:
  """Returns a type of flags: a number from `low` to `high`.

  Args:
    low: the least number.
    high: the largest number; if not given, any finite one.
    above: whether `low` itself is refused.
  """

  def parse(text: str) -> float:
    with contextlib.suppress(ValueError):
      value = float(text)
      if low <= value <= high and value < math.inf and not (above and value == low):
        return value
    raise argparse.ArgumentTypeError(f"{text} is not {_words('a', low, high, above)}")

  return parse


def whole_number(low: int, high: float = math.inf) -> Callable[[str], int]:
  """Returns a type of flags: a whole number from `low` to `high`."""

  def parse(text: str) -> int:
    with contextlib.suppress(ValueError):
      if low <= (value := int(text)) <= high:
        return value
    raise argparse.ArgumentTypeError(
      f"{text} is not {_words('a whole', low, high, False)}"
    )

  return parse


def _words(article: str, low: float, high: float, above: bool) -> str:
  """Names the numbers that a flag takes."""
  if high < math.inf:
    return f"{article} number from {low:g} to {high:g}"
  return f"{article} number {'above' if above else 'of at least'} {low:g}"


class _Help(argparse.RawDescriptionHelpFormatter):
  """Help that ends with a flag's default, where the text does not say it."""

  def _get_help_string(self, action: argparse.Action) -> str | None:
    text, default = action.help or "", action.default
    says_it = "default" in text or "if not given" in text
    if says_it or not default or default == argparse.SUPPRESS:
      return action.help
    return f"{text} (%(default)s if not given)"


class Parser(argparse.ArgumentParser):
  """Parses a command line; `create_parser` makes one."""

  takes_overrides = False

  def __init__(self, *args: Any, **kwargs: Any):
    super().__init__(*args, **{"formatter_class": _Help} | kwargs)

  def parse_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
    """Returns the values of the flags; exits with 2 if one is wrong or unknown.

    The values include `overrides`, a list, if the command takes overrides of a recipe.
    """
    args = list(sys.argv[1:] if args is None else args)
    overrides: list[str] = []
    if self.takes_overrides:
      args, overrides = split_overrides(args)
    self._check_names(args)
    parsed, unknown = self.parse_known_args(args, namespace)
    if unknown:
      self.refuse(unknown[0])
    if self.takes_overrides:
      parsed.overrides = overrides
    return parsed

  def parse_known_args(
    self, args: Iterable[str] | None = None, namespace: Any = None
  ) -> tuple[Any, list[str]]:
    """Returns the values of the flags, and the arguments that are unknown."""
    args = list(sys.argv[1:] if args is None else args)
    return super().parse_known_args(self._plain(args), namespace)

  def refuse(self, unknown: str) -> NoReturn:
    """Exits because of an argument that the command does not know."""
    if not unknown.startswith("-"):
      self.error(f"unexpected argument {unknown}: flags are written --flag=value")
    flag = unknown.partition("=")[0]
    names = [name for action in self._actions for name in action.option_strings]
    if self.takes_overrides and "." in flag:
      names.append(f"--config.{flag.partition('.')[2]}")
    close = difflib.get_close_matches(flag, names, n=1)
    self.error(f"unknown flag {unknown}" + (f" ({close[0]}?)" if close else ""))

  def error(self, message: str) -> NoReturn:
    """Prints a mistake as one line, and exits with 2."""
    line = " ".join(message.split()).rstrip(";")
    self.exit(2, f"error: {line}; --help lists what {self.prog} takes\n")

  def _plain(self, args: Sequence[str]) -> list[str]:
    """Writes arguments as argparse takes them.

    That is `--switch` for `--switch=true`, nothing for `--switch=false` and
    `--noswitch`, and `./-x.wav` for a file `-x.wav`.
    """
    plain: dict[str, list[str]] = {}
    for action in self._actions:
      for name in action.option_strings if action.const is True else ():
        plain |= {f"{name}={value}": [name] for value in TRUE}
        plain |= {f"{name}={value}": [] for value in FALSE}
        plain[f"--no{name.removeprefix('--')}"] = []
    plain |= {
      name: [f"./{name}"] for name in self._like_flags(args) if os.path.lexists(name)
    }
    return [word for arg in args for word in plain.get(arg, [arg])]

  def _check_names(self, args: Sequence[str]) -> None:
    """Exits because of a name that looks like a flag, but is neither flag nor file."""
    for name in self._like_flags(args):
      if LIKE_FLAG.match(name) and not os.path.lexists(name):
        self.error(
          f"{name} is neither a flag nor a file: a file of such a name is written "
          f"./{name}, or after --"
        )

  def _like_flags(self, args: Sequence[str]) -> list[str]:
    """Returns the arguments that begin like flags, without this command's flags."""
    end = args.index("--") if "--" in args else len(args)
    flags = self._option_string_actions
    return [
      arg
      for arg in args[:end]
      if arg.startswith("-") and arg.partition("=")[0] not in flags
    ]


def create_parser(doc: str, *, overrides: bool = False) -> Parser:
  """Returns the parser of a command.

  Args:
    doc: the docstring of the command's module.
    overrides: whether the command takes `--config.key=value`.
  """
  parser = Parser(
    description=doc.strip(),
    epilog="--config.key=value overrides a key of the recipe" if overrides else None,
    # An abbreviated flag beside overrides hides a mistyped one.
    allow_abbrev=not overrides,
  )
  parser.takes_overrides = overrides
  return parser


def split_overrides(args: Sequence[str]) -> tuple[list[str], list[str]]:
  """Splits a command line into its flags and its overrides of a recipe.

  Returns:
    The other arguments, and the overrides as `recipes.read_recipe` takes them: with a
    value behind an equals sign, or without a value.
  """
  rest, overrides, args = [], [], list(args)
  while args:
    arg = args.pop(0)
    if not re.match(r"--(no)?config\.", arg):
      rest.append(arg)
      continue
    if "=" not in arg and args and not args[0].startswith("--"):
      arg = f"{arg}={args.pop(0)}"
    overrides.append(arg)
  return rest, overrides
