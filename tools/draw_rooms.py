"""Draws the rooms of the package, from its imports, into docs/architecture.md.

python tools/draw_rooms.py --page=docs/architecture.md
"""

import argparse
import ast
from collections.abc import Mapping
from pathlib import Path

from audiotag_jax import command_line, files
from audiotag_jax.errors import UserError, exit_on_user_error

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "audiotag_jax"
PAGE = ROOT / "docs/architecture.md"
# The drawing stands between these lines of the page.
BEGIN = "<!-- Drawn by tools/draw_rooms.py: begin -->\n"
END = "<!-- Drawn by tools/draw_rooms.py: end -->\n"

# For each folder or file of the package, the others that it imports.
Imports = dict[str, set[str]]


def parse_args() -> argparse.Namespace:
  parser = command_line.create_parser(__doc__ or "")
  parser.add_argument(
    "--page", type=command_line.path, default=PAGE, help="the page to draw into"
  )
  return parser.parse_args()


def read_imports() -> Imports:
  """Returns what each folder, and each file beside the folders, imports of the rest."""
  found: Imports = {}
  for path in sorted(PACKAGE.rglob("*.py")):
    place = path.relative_to(PACKAGE).with_suffix("").parts[0]
    if place == "__init__":
      continue
    imported = found.setdefault(place, set())
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Import):
        names = [name.name for name in node.names]
      elif isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{name.name}" for name in node.names]
      else:
        continue
      own = (name.split(".") for name in names if name.startswith("audiotag_jax."))
      imported |= {name[1] for name in own} - {place}
  return found


def is_room(place: str) -> bool:
  return (PACKAGE / place).is_dir()


def without_detours(arrows: Mapping[str, set[str]]) -> Imports:
  """Returns the arrows that no longer path replaces; the arrows form no circle."""

  def reached(place: str) -> set[str]:
    below = arrows.get(place, set())
    return below.union(*(reached(other) for other in below))

  return {
    place: below - set().union(*(reached(other) for other in below))
    for place, below in arrows.items()
  }


def draw(imports: Imports) -> str:
  """Returns the picture, in Mermaid, and the table below it."""
  rooms = sorted(filter(is_room, imports))
  ground = sorted(imports.keys() - set(rooms) - {"main"})
  arrows = without_detours(
    {place: set(filter(is_room, imports[place])) for place in [*rooms, "main"]}
  )
  picture = ["```mermaid", "flowchart TD"]
  picture += [f"  {room}[{room}/]" for room in rooms] + ["  main[main.py]"]
  picture += [f"  {a} --> {b}" for a in sorted(arrows) for b in sorted(arrows[a])]
  table = ["| place | imports these rooms | and these files |", "|---|---|---|"]
  for place in ["main", *rooms, *ground]:
    below = sorted(imports[place])
    cells = [", ".join(filter(is_room, below))]
    cells += [", ".join(name for name in below if not is_room(name))]
    name = f"{place}/" if place in rooms else f"{place}.py"
    table.append(f"| `{name}` | " + " | ".join(cell or "–" for cell in cells) + " |")
  return "\n".join([*picture, "```", "", *table]) + "\n"


def redraw(page: str) -> str:
  """Returns the page's text with the drawing as it should be now."""
  before, begin, rest = page.partition(BEGIN)
  _, end, after = rest.partition(END)
  if not (begin and end):
    raise UserError(f"the page lacks the lines {BEGIN.strip()} and {END.strip()}")
  return f"{before}{begin}\n{draw(read_imports())}\n{end}{after}"


@exit_on_user_error
def main() -> None:
  page = parse_args().page
  if not page.is_file():
    raise UserError(f"{page} is not a file")
  files.write_text(page, redraw(page.read_text()))


if __name__ == "__main__":
  main()
