"""The page as HTML and Markdown."""

import html.parser

from audiotag_jax.reporting import page

SVG = (
  '<?xml version="1.0"?><!DOCTYPE svg>\n<svg width="1pt"><defs><path id="m1"/></defs>'
  '<use href="#m1" clip-path="url(#m1)"/></svg>\n'
)
SECTIONS = [
  page.Section(
    "Runs & <more>",
    "What | it shows.",
    [
      "A paragraph.",
      page.Table(
        "A table",
        ["run", "mAP"],
        [
          ["a<b>|c", page.Cell("0.5", "[0.4, 0.6]")],
          ["d", page.Cell("1", marked=True)],
        ],
      ),
      page.Table(
        "All of it", ["run", "model", "mAP"], [["a", "b", "1"]], 2, folded=True
      ),
      page.Figure("first", "A figure", SVG),
      page.Figure("second", "Another", SVG),
    ],
  ),
]


class Outline(html.parser.HTMLParser):
  """Checks that tags nest, and collects the ids of a page."""

  def __init__(self):
    super().__init__()
    self.open, self.ids, self.links = [], [], []

  def handle_starttag(self, tag, attrs):
    attributes = dict(attrs)
    self.ids += [attributes["id"]] if "id" in attributes else []
    self.links += [attributes["href"]] if "href" in attributes else []
    if tag not in ("meta", "br"):
      self.open.append(tag)

  def handle_startendtag(self, tag, attrs):
    self.handle_starttag(tag, attrs)
    self.open.pop()

  def handle_endtag(self, tag):
    assert self.open.pop() == tag


def test_html_is_well_formed_and_its_ids_are_unique():
  text = page.to_html("a & b", SECTIONS)
  outline = Outline()
  outline.feed(text)
  assert outline.open == []
  assert outline.ids == ["runs-more", "first-m1", "second-m1"]
  assert outline.links == ["#runs-more", "#first-m1", "#second-m1"]
  assert "<title>a &amp; b</title>" in text
  assert 'clip-path="url(#second-m1)"' in text
  assert "<?xml" not in text


def test_html_cells():
  text = page.to_html("a", SECTIONS)
  assert '<tr><th class="text">run</th><th>mAP</th></tr>' in text
  assert '<td class="text">a&lt;b&gt;|c</td>' in text
  assert "<td>0.5<br><small>[0.4, 0.6]</small></td>" in text
  assert '<td class="marked">1</td>' in text
  assert "<details>\n<summary>All of it</summary>" in text


def test_markdown():
  assert page.to_markdown("a|b", SECTIONS) == (
    r"""# a\|b

## Runs & \<more\>

What \| it shows.

A paragraph.

**A table**

| run | mAP |
| --- | ---: |
| a\<b\>\|c | 0.5 [0.4, 0.6] |
| d | **1** |

<details>
<summary>All of it</summary>

| run | model | mAP |
| --- | --- | ---: |
| a | b | 1 |

</details>

![A figure](figures/first.svg)

![Another](figures/second.svg)
"""
  )
