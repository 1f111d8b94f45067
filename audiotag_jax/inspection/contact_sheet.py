"""Clips of each class to look at and listen to, on a page that needs no other file."""

import base64
import html
import io
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import matplotlib
import numpy as np
import soundfile
import soxr
from PIL import Image
from tqdm import tqdm

from audiotag_jax.audio import files as audio_files
from audiotag_jax.data.sources.source import SPLITS
from audiotag_jax.frontend import log_mel_tf
from audiotag_jax.frontend.mel import MIN_DB, LogMelParams
from audiotag_jax.inspection import measure
from audiotag_jax.inspection.measure import Inspection
from audiotag_jax.reporting.page import Html, Section

# Sizes that keep a contact sheet of 200 classes below 25 MB.
CLIPS_PER_CLASS = 3
EXCERPT_S = 5.0
PLAYER_RATE_HZ = 16_000
# libsndfile's compression level, from 0 to 1; for Vorbis, 1 minus the quality.
PLAYER_COMPRESSION = 0.8
# Samples in a write; libvorbis puts them on its thread's stack (xiph/vorbis issue 99).
PLAYER_WRITE_SAMPLES = 8_192
IMAGE_WIDTH = 250
IMAGE_COLORS = 64
# Range of a picture, in dB below its loudest value.
IMAGE_RANGE_DB = 80.0
CSS = """
.sheet h3 { font-size: .95rem; margin: 1.4rem 0 .4rem; }
.sheet h3 small { font-weight: 400; color: #666; }
.sheet div { display: grid; grid-template-columns: repeat(3, 1fr); gap: 1rem; }
.sheet figure { margin: 0; min-width: 0; }
.sheet img { display: block; width: 100%; height: 6rem; background: #000; }
.sheet audio { display: block; width: 100%; height: 2rem; margin: .3rem 0; }
.sheet figcaption { font-size: .78rem; line-height: 1.35; color: #444;
  overflow-wrap: anywhere; }
@media (max-width: 45rem) { .sheet div { grid-template-columns: 1fr; } }
"""


def listen_section(
  inspected: Inspection, params: LogMelParams, max_classes: int
) -> Section:
  """The contact sheet."""
  chosen = choose_clips(inspected, max_classes)
  support = np.sum([*measure.class_counts(inspected).values()], axis=0)
  left_out = [
    inspected.source.classes[c]
    for c in range(len(support))
    if support[c] and c not in chosen
  ]
  note = f" Left out as least frequent: {', '.join(left_out)}." if left_out else ""
  return Section(
    "Listen",
    f"Up to {CLIPS_PER_CLASS} clips per class, from train if it has any, spread evenly "
    "over the list; repeats are avoided where possible. The most frequent class comes "
    "first. Pictures are log-mels of the recipe's front-end, down to "
    f"{IMAGE_RANGE_DB:g} dB below the loudest value. A clip longer than "
    f"{EXCERPT_S:g} s is cut to its loudest {EXCERPT_S:g} s. The players have the same "
    f"excerpt, with its peak near full scale, at {PLAYER_RATE_HZ // 1000} kHz in "
    f"Vorbis.{note}",
    [contact_sheet(inspected, params, chosen)],
  )


def choose_clips(inspected: Inspection, max_classes: int) -> dict[int, list[int]]:
  """Chooses the clips of the contact sheet, for each class that has clips.

  Rare classes choose first, so that frequent ones can show clips not shown before.

  Returns:
    The positions of the clips by class, the most frequent class first.
  """
  support = np.sum([*measure.class_counts(inspected).values()], axis=0)
  order = np.argsort(-support, kind="stable")
  shown_classes = [int(c) for c in order if support[c]][:max_classes]
  columns = inspected.labels.tocsc()
  decoded = np.zeros(len(inspected.split), bool)
  decoded[inspected.decoded()] = True
  chosen, shown = {}, set()
  for c in reversed(shown_classes):
    clips = columns.indices[columns.indptr[c] : columns.indptr[c + 1]]
    clips = np.sort(clips[decoded[clips]])
    in_train = clips[inspected.split[clips] == "train"]
    clips = in_train if len(in_train) else clips
    fresh = [i for i in clips.tolist() if i not in shown]
    pool = fresh if len(fresh) >= min(CLIPS_PER_CLASS, len(clips)) else clips.tolist()
    places = np.linspace(0, len(pool) - 1, min(CLIPS_PER_CLASS, len(pool)))
    chosen[c] = [pool[place] for place in places.round().astype(int)]
    shown.update(chosen[c])
  return {c: chosen[c] for c in shown_classes}


def contact_sheet(
  inspected: Inspection, params: LogMelParams, chosen: Mapping[int, Sequence[int]]
) -> Html:
  """Returns the pictures and players of the chosen clips of each class."""
  clips = sorted({i for of_class in chosen.values() for i in of_class})

  def render(i: int) -> str:
    return tile(inspected, params, i)

  with ThreadPoolExecutor(os.cpu_count()) as pool:
    bar = tqdm(
      pool.map(render, clips), "pictures", len(clips), unit="clip", disable=None
    )
    tiles = dict(zip(clips, bar, strict=True))
  counts = measure.class_counts(inspected)
  parts = ['<div class="sheet">']
  for c, of_class in chosen.items():
    name = html.escape(inspected.source.classes[c])
    numbers = ", ".join(f"{split} {counts[split][c]:,}" for split in SPLITS)
    parts.append(f"<h3>{name} <small>{numbers}</small></h3>\n<div>")
    parts += [tiles[i] for i in of_class]
    parts.append("</div>")
  return Html("\n".join([*parts, "</div>"]))


def tile(inspected: Inspection, params: LogMelParams, i: int) -> str:
  """Returns a clip's picture, player and caption, as HTML."""
  clip = inspected.source.clips[i]
  waveform = audio_files.read_audio(
    clip.audio, params.sample_rate_hz, clip.start_s, clip.end_s
  )
  duration_s = len(waveform) / params.sample_rate_hz
  start_s, excerpt = loudest_excerpt(waveform, params.sample_rate_hz)
  span = f"{duration_s:.1f} s"
  if len(excerpt) < len(waveform):
    span = f"{start_s:.1f}–{start_s + EXCERPT_S:.1f} of {span}"
  fname = html.escape(clip.fname)
  labels = html.escape(", ".join(inspected.label_names(i)))
  picture = _data_uri("image/png", log_mel_png(excerpt, params))
  sound = _data_uri("audio/ogg", vorbis(excerpt, params.sample_rate_hz))
  return (
    f'<figure><img loading="lazy" alt="log-mel of {fname}" src="{picture}">'
    f'<audio controls preload="none" src="{sound}"></audio>'
    f"<figcaption><b>{fname}</b> · {clip.split} · {span}<br>{labels}</figcaption>"
    "</figure>"
  )


def loudest_excerpt(waveform: np.ndarray, rate_hz: int) -> tuple[float, np.ndarray]:
  """Cuts the loudest `EXCERPT_S` out of a waveform <float32>[samples].

  Returns:
    The excerpt's start in seconds, and the excerpt; a shorter waveform is kept whole.
  """
  length = round(EXCERPT_S * rate_hz)
  energy = np.r_[0.0, np.cumsum(np.square(waveform, dtype=np.float64))]
  if len(waveform) <= length:
    return 0.0, waveform
  start = int(np.argmax(energy[length:] - energy[:-length]))
  return start / rate_hz, waveform[start : start + length]


def log_mel_png(waveform: np.ndarray, params: LogMelParams) -> bytes:
  """Draws a log-mel, low bands at the bottom, `IMAGE_WIDTH` or fewer pixels wide."""
  log_mel = log_mel_tf.log_mel(waveform, params).numpy()
  log_mel = log_mel[:: -(-len(log_mel) // IMAGE_WIDTH)].T[::-1]
  # Silence is at the floor everywhere, and stays black.
  top_db = max(log_mel.max(), MIN_DB + IMAGE_RANGE_DB)
  levels = 1 + (log_mel - top_db) / IMAGE_RANGE_DB
  indices = (levels.clip(0, 1) * (IMAGE_COLORS - 1)).round().astype(np.uint8)
  colors = matplotlib.colormaps["magma"](np.linspace(0, 1, IMAGE_COLORS), bytes=True)
  image = Image.fromarray(indices)
  image.putpalette(colors[:, :3].tobytes())
  file = io.BytesIO()
  image.save(file, "PNG", optimize=True)
  return file.getvalue()


def vorbis(waveform: np.ndarray, rate_hz: int) -> bytes:
  """Codes a waveform <float32>[samples] for a player, its peak near full scale."""
  waveform = soxr.resample(waveform, rate_hz, PLAYER_RATE_HZ, quality="HQ")
  waveform = waveform * (0.9 / max(1e-6, np.abs(waveform).max(initial=0)))
  file = io.BytesIO()
  with soundfile.SoundFile(
    file,
    "w",
    PLAYER_RATE_HZ,
    channels=1,
    format="OGG",
    subtype="VORBIS",
    compression_level=PLAYER_COMPRESSION,
  ) as sound:
    for start in range(0, len(waveform), PLAYER_WRITE_SAMPLES):
      sound.write(waveform[start : start + PLAYER_WRITE_SAMPLES])
  return file.getvalue()


def _data_uri(kind: str, data: bytes) -> str:
  return f"data:{kind};base64,{base64.b64encode(data).decode()}"
