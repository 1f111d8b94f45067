"""Names that others chose (of files, classes, runs), where they could act as markup.

`reporting.page` escapes names in HTML and Markdown, and `reporting.figures.plain_text`
keeps matplotlib from reading formulas in them.
"""

import re
import unicodedata

# Most characters of a name in a figure, which also needs room for data.
FIGURE_CHARACTERS = 80
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
