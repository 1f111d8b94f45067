"""Serves a page that takes a sound and shows a model's tags over time.

python tools/demo_app.py --checkpoint=runs/crnn_fsd50k

The page is served only to this computer, unless --host says otherwise, and it needs no
network. pip install -e '.[demo]' installs its packages.
"""

from __future__ import annotations

import argparse
import html
import os
import tempfile
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import PIL.Image

from audiotag_jax import command_line
from audiotag_jax.audio.files import AudioError
from audiotag_jax.audio.streams import AudioStream
from audiotag_jax.errors import UserError, exit_on_user_error

if TYPE_CHECKING:
  import gradio

  from audiotag_jax.inference import Tagger

# Length of the longest recording that the page takes; tools/tag.py takes any length.
MAX_S = 600.0
NUM_CLASSES = 10
# Fonts that computers have, because a page without network cannot fetch fonts.
FONTS = ("system-ui", "sans-serif")
MONO_FONTS = ("ui-monospace", "monospace")


def parse_args() -> argparse.Namespace:
  parser = command_line.create_parser(__doc__)
  parser.add_argument(
    "--checkpoint",
    type=command_line.path,
    required=True,
    help="a model directory or a workdir",
  )
  parser.add_argument(
    "--host",
    default="127.0.0.1",
    help="address to serve at; 0.0.0.0 opens the page to the network",
  )
  parser.add_argument(
    "--port",
    type=command_line.whole_number(0, 65_535),
    default=7860,
    help="port to serve at",
  )
  parser.add_argument(
    "--max_mb",
    type=command_line.whole_number(1),
    default=50,
    help="largest file that may be uploaded",
  )
  return parser.parse_args()


def read(file: str, tagger: Tagger) -> np.ndarray:
  """Reads a recording as mono <float32>[samples] at the tagger's rate.

  Raises:
    UserError: the file is too long or not a recording.
  """
  stream, blocks = AudioStream(Path(file), tagger.sample_rate_hz), []
  try:
    for block in stream:
      blocks.append(block)
      if stream.duration_s > MAX_S:
        raise UserError(
          f"{stream.path.name} is longer than {MAX_S:g} s: give it to tools/tag.py"
        )
  except AudioError as error:
    raise UserError(f"{stream.path.name} {error}") from error
  return np.concatenate(blocks)


def labels(tagger: Tagger) -> list[str]:
  """Returns the classes' names to show; FSD50K's have underscores for spaces."""
  return [name.replace("_", " ") for name in tagger.class_names]


def present(tagger: Tagger, scores: np.ndarray) -> str:
  """Returns the tags that reach their thresholds as text, highest score first."""
  names = labels(tagger)
  tags = [names[i] for i in np.argsort(-scores) if scores[i] >= tagger.thresholds[i]]
  return ", ".join(tags) or "none"


def draw(tagger: Tagger, waveform: np.ndarray, title: str) -> PIL.Image.Image:
  """Draws a recording's log-mel over the activity of its tags."""
  from audiotag_jax.inference import timeline

  with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "over_time.png")
    timeline.plot(path, title, lambda: [waveform], tagger)
    with PIL.Image.open(path) as image:
      return image.convert("RGB")


def build(tagger: Tagger, name: str) -> gradio.Blocks:
  """Returns the page."""
  gradio = _import_gradio()

  def tag(file: str | None) -> tuple[str, dict[str, float], PIL.Image.Image]:
    if file is None:
      raise gradio.Error("Drop a sound first, or record one", print_exception=False)
    try:
      waveform = read(file, tagger)
    except UserError as error:
      # gradio shows the text as HTML.
      raise gradio.Error(html.escape(str(error)), print_exception=False) from error
    scores = tagger.tag(waveform, tagger.sample_rate_hz)
    by_label = dict(zip(labels(tagger), scores.tolist(), strict=True))
    return present(tagger, scores), by_label, draw(tagger, waveform, Path(file).name)

  with gradio.Blocks(
    title="audiotag_jax", analytics_enabled=False, delete_cache=(3600, 3600)
  ) as page:
    gradio.Markdown(f"## What do you hear?\nModel: `{name}`")
    with gradio.Row():
      with gradio.Column():
        sound = gradio.Audio(
          sources=["upload", "microphone"],
          type="filepath",
          label="Sound",
          buttons=["download"],
        )
        button = gradio.Button("Tag", variant="primary")
        tags = gradio.Textbox(label="Tags (scores above their thresholds)")
      scores = gradio.Label(label="Scores", num_top_classes=NUM_CLASSES)
    picture = gradio.Image(label="Over time", format="png", buttons=["download"])
    outputs = [tags, scores, picture]
    button.click(tag, sound, outputs, api_name="tag")
  return page


def _import_gradio() -> ModuleType:
  # By default gradio reports each start to its makers.
  os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
  try:
    import gradio
  except ImportError as error:
    raise UserError("gradio is needed: pip install -e '.[demo]'") from error
  return gradio


@exit_on_user_error
def main() -> None:
  args = parse_args()
  print(f"loading {args.checkpoint}", flush=True)
  gradio = _import_gradio()
  # Imported here because it takes seconds, which a mistyped flag should not cost.
  from audiotag_jax.inference import Tagger

  page = build(Tagger.load(args.checkpoint), str(args.checkpoint))
  theme = gradio.themes.Default(font=FONTS, font_mono=MONO_FONTS)
  try:
    _, url, _ = page.launch(
      server_name=args.host,
      server_port=args.port,
      max_file_size=f"{args.max_mb}mb",
      share=False,
      ssr_mode=False,
      theme=theme,
      footer_links=[],
      quiet=True,
      prevent_thread_lock=True,
    )
  except OSError as error:
    raise UserError(
      f"the page cannot be served at {args.host}:{args.port}: give another --port"
    ) from error
  print(f"{url} shows the page; Ctrl-C ends it", flush=True)
  page.block_thread()


if __name__ == "__main__":
  main()
