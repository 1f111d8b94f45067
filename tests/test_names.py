"""Names that could act as markup, in every place where they are shown."""

import csv
import io

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from audiotag_jax import logs, names
from audiotag_jax.inference import made_by, tag_output, tag_writer
from audiotag_jax.inference.events import Event
from audiotag_jax.inference.tag_output import Tagged
from audiotag_jax.reporting import figures, page

# Formulas of mathtext and of spreadsheets, HTML, Markdown, escape sequences, formats.
HOSTILE = [
  r"$\frac{$",
  "$5_vs_$6.wav",
  "<script>alert(1)</script>",
  '" onload="alert(1)',
  "&lt;b&gt;",
  "a|b`c`*d*_e_[f](g)~h~",
  "=HYPERLINK(A1)",
  "+2|' /C calc'!A0",
  "'=1+(1)",
  "-0RWZT-miFs",
  "\x1b[31mred\x1b[2J",
  "a\nb\r\tc",
  "\udcff.wav",
  "‮gnp.wav",
  "%s %d %(x)s {0} {x}",
  "_hidden",
  "x" * 5_000,
]
# The byte FF, what stands for it in an output, and the same behind backslashes.
ALIKE = [*("\udcff", "\\udcff", "\\\udcff", "\\\\udcff"), *("\\udcf", "\\\\udcf")]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_terminal_gets_one_line_without_control_characters(name):
  shown = names.printable(name)
  assert not any(c < " " or "\x7f" <= c < "\xa0" or c == "‮" for c in shown)
  shown.encode("utf-8")
  assert names.printable("crow, café & 烏 – clip #1") == "crow, café & 烏 – clip #1"


def test_a_log_line_keeps_its_lines_and_escapes_the_rest(capsys):
  logs._AboveProgressBars().write("a\x1b[2Jb\n\tc\n")
  assert capsys.readouterr().err == "a\\x1b[2Jb\n\tc\n"


@pytest.mark.parametrize("name", HOSTILE)
def test_spreadsheets_compute_nothing_and_programs_read_the_name(name):
  cell = names.for_spreadsheet(name)
  assert names.from_spreadsheet(cell) == name
  is_formula = name in ("=HYPERLINK(A1)", "+2|' /C calc'!A0", "'=1+(1)")
  assert cell == (f"'{name}" if is_formula else name)


@pytest.mark.parametrize("name", HOSTILE)
def test_each_format_of_tags_holds_the_name_in_one_record(name):
  name = names.encodable(name)
  tagged = Tagged(name, 1.0, ((name, 0.5),), ((name, Event(0.0, 1.0, 0, 0.5)),))
  row = tag_output.as_json(tagged)
  assert (row["file"], row["tags"][0]["label"]) == (name, name)
  (row,) = csv.reader(io.StringIO(tag_output.as_csv(tagged), newline=""))
  assert names.from_spreadsheet(row[0]) == name
  (row,) = csv.reader(
    io.StringIO(tag_output.as_dcase(tagged), newline=""), delimiter="\t"
  )
  assert (row[0], row[3]) == (name, name)
  track = tag_output.as_audacity(tagged)
  assert (track.count("\n"), track.count("\t")) == (1, 2)
  assert tag_output.as_table(tagged).count("\n") == 2
  for form in tag_output.AS_TEXT.values():
    form(tagged).encode()


@pytest.mark.parametrize("file_format", ["jsonl", "csv", "dcase"])
def test_a_second_run_finds_every_name(tmp_path, file_format):
  found = [tmp_path / name.replace("/", "") for name in [*HOSTILE, *ALIKE]]
  origin = made_by.MadeBy(checkpoint="m", model="1", options={})
  args = (file_format, str(tmp_path / "out"), [str(tmp_path)], found, origin)
  output = tag_writer.Output(*args)
  output.start()
  for path in found:
    output.add(Tagged(tag_output.file_name(path), 1.0))
  assert len(set(output.names.values())) == len(found)
  assert tag_writer.Output(*args).done == set(output.names)


def test_figures_draw_names_as_text():
  share = np.full((len(HOSTILE), len(HOSTILE)), 0.5)
  svg = figures.co_occurrence(HOSTILE, share)
  assert r"$\frac{$" in svg
  assert "<script>" not in svg
  assert "\x1b" not in svg
  figure = Figure(figsize=(9, 9))
  figures.add_legend(figure, figures.styles(HOSTILE), dict.fromkeys(HOSTILE))
  (legend,) = figure.legends
  assert len(legend.texts) == len(HOSTILE)


@figures.plain_text
def test_a_picture_of_pixels_draws_names_as_text():
  figure = Figure()
  axes = figure.subplots()
  axes.set_yticks(range(2), [names.for_figure(name) for name in HOSTILE[:2]])
  title = axes.set_title(names.for_figure(HOSTILE[0]))
  FigureCanvasAgg(figure).draw()
  assert title.get_text() == HOSTILE[0]
  # As a formula, x would be narrower, because the dollar signs would not be drawn.
  widths = [figure.text(0, 0, text).get_window_extent().width for text in ("$x$", "x")]
  assert widths[0] > 2 * widths[1]


@pytest.mark.parametrize("name", HOSTILE)
def test_pages_show_names_and_nothing_else(name):
  table = page.Table(name, [name, "n"], [[name, page.Cell("1", name)]])
  section = page.Section(name, name, [name, table, page.Figure("f", name, "<svg/>")])
  html = page.to_html(name, [section])
  plain = page.to_html("x", [page.Section("x", "x", [])])
  assert html.count("<script") == plain.count("<script") == 0
  assert '" onload="' not in html
  markdown = page.to_markdown(name, [section])
  rows = [line for line in markdown.splitlines() if line.startswith("|")]
  assert len(rows) == 3
  for character in "|`*<>$":
    bare = markdown.replace(f"\\{character}", "")
    assert bare.count(character) == {"|": 9, "*": 4}.get(character, 0)
  assert "](g)" not in markdown.replace(r"\]", "")
