"""A page of sections with tables and figures, as one HTML file or as Markdown."""

import dataclasses
import html
import re
from collections.abc import Sequence

CSS = """
:root { color: #1c1c1c; background: #fff; }
body { font: 16px/1.5 system-ui, "Segoe UI", Roboto, Arial, sans-serif;
  max-width: 70rem; margin: 2rem auto 4rem; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.25rem; margin: 0 0 .5rem; }
nav { font-size: .9rem; padding: .6rem 0; border-top: 1px solid #ccc;
  border-bottom: 1px solid #ccc; }
nav a { margin-right: 1.1rem; white-space: nowrap; }
a { color: #00558c; }
section { margin-top: 2.6rem; }
p { max-width: 48rem; margin: .5rem 0 1rem; }
.caption { color: #444; }
.wide { overflow-x: auto; margin: 1rem 0 1.5rem; }
table { border-collapse: collapse; font-size: .86rem; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: .4rem; }
th, td { padding: .28rem .5rem; text-align: right; vertical-align: top;
  border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th { border-bottom: 1px solid #888; vertical-align: bottom; white-space: normal; }
th.text, td.text { text-align: left; white-space: normal; }
td small { color: #666; font-size: .86em; }
td.marked { font-weight: 650; }
td.marked small { font-weight: 400; }
figure { margin: 1rem 0 1.5rem; }
figure svg { max-width: 100%; height: auto; display: block; }
summary { cursor: pointer; color: #00558c; }
@media print {
  body { max-width: none; margin: 0; padding: 0; font-size: 10pt; }
  nav { display: none; }
  figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; }
  table { font-size: 7pt; }
  th, td { padding: .15rem .35rem; }
  details::details-content { content-visibility: visible; height: auto; }
}
"""


@dataclasses.dataclass(frozen=True)
class Cell:
  """A number with a detail in small print below it; a marked cell stands out."""

  text: str
  detail: str = ""
  marked: bool = False


Row = Sequence[str | Cell]


@dataclasses.dataclass(frozen=True)
class Table:
  """A table; its first `text_columns` columns are words, the others numbers.

  A `folded` table is hidden under its title until it is opened.
  """

  title: str
  header: Sequence[str]
  rows: Sequence[Row]
  text_columns: int = 1
  folded: bool = False


@dataclasses.dataclass(frozen=True)
class Figure:
  """A figure: its file's name without the ending, its title, and its SVG."""

  name: str
  title: str
  svg: str


@dataclasses.dataclass(frozen=True)
class Html:
  """Content for HTML pages alone, such as players; Markdown leaves it out."""

  html: str


Block = str | Table | Figure | Html


@dataclasses.dataclass(frozen=True)
class Section:
  """A section: its caption, then paragraphs, tables and figures."""

  title: str
  caption: str
  blocks: Sequence[Block] = ()


def to_html(title: str, sections: Sequence[Section], css: str = "") -> str:
  """Returns the page as a file that needs no other; `css` adds to its style."""
  escaped = html.escape(title)
  links = "\n".join(
    f'<a href="#{_anchor(section.title)}">{html.escape(section.title)}</a>'
    for section in sections
  )
  body = "\n".join(_html_section(section) for section in sections)
  return (
    f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
    f"<title>{escaped}</title>\n<style>{CSS}{css}</style>\n</head>\n<body>\n"
    f"<h1>{escaped}</h1>\n<nav>\n{links}\n</nav>\n{body}\n</body>\n</html>\n"
  )


def to_markdown(title: str, sections: Sequence[Section]) -> str:
  """Returns the page as Markdown, which links to figures/<name>.svg."""
  parts = [f"# {_plain(title)}"]
  for section in sections:
    parts += [f"## {_plain(section.title)}", _plain(section.caption)]
    parts += [_markdown_block(block) for block in section.blocks]
  return "\n\n".join(parts) + "\n"


def figures(sections: Sequence[Section]) -> list[Figure]:
  """The figures of all sections."""
  blocks = [block for section in sections for block in section.blocks]
  return [block for block in blocks if isinstance(block, Figure)]


def _anchor(title: str) -> str:
  return re.sub(r"\W+", "-", title.lower()).strip("-")


def _html_section(section: Section) -> str:
  blocks = "\n".join(_html_block(block) for block in section.blocks)
  return (
    f'<section id="{_anchor(section.title)}">\n<h2>{html.escape(section.title)}</h2>\n'
    f'<p class="caption">{html.escape(section.caption)}</p>\n{blocks}\n</section>'
  )


def _html_block(block: Block) -> str:
  if isinstance(block, Html):
    return block.html
  if isinstance(block, Table):
    return _html_table(block)
  if isinstance(block, Figure):
    return f"<figure>\n{_inline_svg(block)}\n</figure>"
  return f"<p>{html.escape(block)}</p>"


def _html_table(table: Table) -> str:
  title = html.escape(table.title)
  head = _html_row("th", table.header, table.text_columns)
  body = "\n".join(_html_row("td", row, table.text_columns) for row in table.rows)
  rows = f"<thead>\n{head}\n</thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
  if table.folded:
    start = f'<details>\n<summary>{title}</summary>\n<div class="wide">\n<table>\n'
    return f"{start}{rows}\n</details>"
  return f'<div class="wide">\n<table>\n<caption>{title}</caption>\n{rows}'


def _html_row(tag: str, row: Sequence[str | Cell], text_columns: int) -> str:
  cells = []
  for i, cell in enumerate(row):
    cell = cell if isinstance(cell, Cell) else Cell(cell)
    names = ["text"] * (i < text_columns) + ["marked"] * cell.marked
    attribute = f' class="{" ".join(names)}"' if names else ""
    detail = f"<br><small>{html.escape(cell.detail)}</small>" if cell.detail else ""
    cells.append(f"<{tag}{attribute}>{html.escape(cell.text)}{detail}</{tag}>")
  return f"<tr>{''.join(cells)}</tr>"


def _inline_svg(figure: Figure) -> str:
  """Returns the figure's svg element, with ids unlike those of other figures."""
  svg = figure.svg[figure.svg.index("<svg") :].strip()
  # Inside tags alone, because a name in the text may look like an attribute.
  svg = re.sub(
    r"<[^>]*>",
    lambda tag: re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{figure.name}-", tag[0]),
    svg,
  )
  label = html.escape(figure.title)
  return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _markdown_block(block: Block) -> str:
  if isinstance(block, Html):
    return ""
  if isinstance(block, Table):
    return _markdown_table(block)
  if isinstance(block, Figure):
    return f"![{_plain(block.title)}](figures/{block.name}.svg)"
  return _plain(block)


def _markdown_table(table: Table) -> str:
  numbers = len(table.header) - table.text_columns
  rule = ["---"] * table.text_columns + ["---:"] * numbers
  rows = [[_plain(text) for text in table.header], rule]
  rows += [[_markdown_cell(cell) for cell in row] for row in table.rows]
  text = "\n".join(f"| {' | '.join(row)} |" for row in rows)
  if table.folded:
    summary = f"<summary>{html.escape(table.title)}</summary>"
    return f"<details>\n{summary}\n\n{text}\n\n</details>"
  return f"**{_plain(table.title)}**\n\n{text}"


def _markdown_cell(cell: str | Cell) -> str:
  cell = cell if isinstance(cell, Cell) else Cell(cell)
  text = f"**{_plain(cell.text)}**" if cell.marked else _plain(cell.text)
  return f"{text} {_plain(cell.detail)}".strip()


def _plain(text: str) -> str:
  """Escapes the characters of a text that Markdown would interpret.

  A dollar sign begins a formula on GitHub. A bracket alone, and an underscore inside a
  word, mean nothing. A new line would end a table's row.
  """
  text = re.sub(
    r"([\\|<>*`$~]|\](?=[(\[:])|&(?=#?\w+;)|(?<!\w)_|_(?!\w))", r"\\\1", text
  )
  return re.sub(r"\s*[\r\n]\s*", " ", text)
