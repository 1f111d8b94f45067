"""Names that others chose (of files, classes, runs), where they could act as markup.

`reporting.page` escapes names in HTML and Markdown, and `reporting.figures.plain_text`
keeps matplotlib from reading formulas in them.
"""

import re
import unicodedata

# Most characters of a name in a figure, which also needs room for data.
FIGURE_CHARACTERS = 80
_BEFORE_ESCAPE = re.compile(r"(\\+)(?=[\ud800-\udfff]|ud[89a-f][0-9a-f]{2})")
# Spreadsheets compute a cell that begins so. A harmful formula calls a function, or
# names a program or another file. AudioSet's ids, some with a hyphen first, do not.
FORMULA = re.compile(r"'*\s*[=+\-@].*[(|!]", re.DOTALL)


def printable(text: str) -> str:
  """Returns a text for a terminal: control characters are escaped, as in `\\x1b`.

  They could move the cursor, colour the screen or begin a line of their own. Bytes of a
  file's name that are not UTF-8 are escaped too.
  """
  return "".join(map(_printable_character, text))


def _printable_character(character: str) -> str:
  category = unicodedata.category(character)
  if category[0] == "C" or category in ("Zl", "Zp"):
    return character.encode("unicode_escape").decode("ascii")
  return character


def encodable(text: str) -> str:
  """Returns a file's name in UTF-8: bytes of another code are escaped (`\\udcff`)."""
  return text.encode("utf-8", "backslashreplace").decode("utf-8")


def as_key(text: str) -> str:
  """Returns a file's name in UTF-8, as `encodable` does, and a key for each name.

  Backslashes before an escape, or before what reads like one, are doubled. So the byte
  FF and a name that has the six characters `\\udcff` differ.
  """
  return encodable(_BEFORE_ESCAPE.sub(r"\1\1", text))


def for_figure(text: str) -> str:
  """Returns a name for a figure: printable, and no longer than a figure can show."""
  text = printable(text)
  if len(text) <= FIGURE_CHARACTERS:
    return text
  return f"{text[: FIGURE_CHARACTERS - 1]}…"


def for_spreadsheet(text: str) -> str:
  """Puts an apostrophe before a name that a spreadsheet would run as a formula.

  All other names stay as they are, so that programs find them again.
  """
  return f"'{text}" if FORMULA.match(text) else text


def from_spreadsheet(text: str) -> str:
  """Inverts `for_spreadsheet`."""
  return text[1:] if text[:1] == "'" and FORMULA.match(text) else text
