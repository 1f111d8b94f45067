"""Phrases that have to be read twice stay out of the code."""

import ast
import io
import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(
  path
  for folder in ("audiotag_jax", "tools", "configs")
  for path in (ROOT / folder).rglob("*.py")
)
OPENING = re.compile(r"(What|Which|Of|Whether|How|Where)\b")
BANNED = re.compile(
  r"\blies?\b|\bgoes on\b|\banew\b|\bheld against\b|\bhangs? on\b|\bis to be\b"
  # "It is None" is Python.
  r"|(?-i:\bis none\b)"
  # "Is no longer" is plain; "there is no file" and "it is no file" are not.
  r"|\bis no\b(?! (longer|more|less|larger|smaller))"
  r"|\bthere (are|was|were) no\b|\bholds? no\b",
  re.IGNORECASE,
)
# Strings that must stay: the end of a file's path, and a part of the string.
EXCEPTIONS = (
  # Reasons of rejected rows, because a prepared set's fingerprint depends on the words.
  ("sources/paths.py", "lies outside of the audio folder"),
  ("sources/manifest.py", "lies in no class's folder"),
)


def docstrings(tree):
  """Yields the node of each docstring."""
  for node in ast.walk(tree):
    is_documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    if is_documented and ast.get_docstring(node):
      yield node.body[0].value


def strings(tree):
  """Yields the line and the text of each string, docstrings among them."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
      yield node.lineno, node.value


def comments(text):
  """Yields the line and the text of each comment, of all its lines together."""
  blocks = []
  for token in tokenize.generate_tokens(io.StringIO(text).readline):
    if token.type == tokenize.COMMENT:
      line, comment = token.start[0], token.string
      alone = not token.line[: token.start[1]].strip()
      if alone and blocks and blocks[-1][0] + blocks[-1][1].count("\n") == line - 1:
        blocks[-1][1] += "\n" + comment.removeprefix("#")
      else:
        blocks.append([line, comment])
  yield from blocks


def offenders(path):
  """Yields the line and the words of each offence in a file."""
  text = path.read_text("utf-8")
  tree = ast.parse(text)
  for node in docstrings(tree):
    if match := OPENING.match(node.value.lstrip()):
      yield node.lineno, f"a docstring opens with {match[0]}"
  for line, comment in comments(text):
    if comment.startswith("# Of "):
      yield line, "a comment opens with Of"
  for line, part in (*strings(tree), *comments(text)):
    if any(path.match(f"*{end}") and words in part for end, words in EXCEPTIONS):
      continue
    # A phrase may go over a line's end.
    for match in BANNED.finditer(re.sub(r"\n *", lambda m: " " * len(m[0]), part)):
      yield line + part[: match.start()].count("\n"), match[0]


def test_no_sentence_has_to_be_read_twice():
  found = [
    f"{path.relative_to(ROOT)}:{line}: {what}"
    for path in FILES
    for line, what in sorted(offenders(path))
  ]
  assert not found, "\n".join(["sentences to write again:", *found])
