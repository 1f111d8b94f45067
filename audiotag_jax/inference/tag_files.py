"""Tags or events of files and folders, file by file."""

import dataclasses
import functools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from audiotag_jax import names
from audiotag_jax.audio import folders
from audiotag_jax.audio.files import AudioError
from audiotag_jax.audio.streams import AudioStream
from audiotag_jax.errors import UserError
from audiotag_jax.inference.events import Event, find_events
from audiotag_jax.inference.tag_output import EVENT_FORMATS, Tagged, file_name
from audiotag_jax.inference.tagger import Tagger, mean_of_windows

# Endings of recordings in a folder: libsndfile's, and some that often need ffmpeg.
AUDIO_ENDINGS = {
  *(f".{name.lower()}" for name in soundfile.available_formats()),
  *(".aif", ".aifc", ".oga", ".opus", ".aac", ".m4a", ".m4b", ".mp4", ".wma", ".amr"),
  *(".3gp", ".ac3", ".ape", ".wv", ".mka", ".mkv", ".mov", ".webm"),
}


def find_files(paths: list[str]) -> list[Path]:
  """Lists the given files and, in order, the audio files of the given folders.

  See `folders.find`: what is hidden in a folder is left out, links are followed once.

  Raises:
    UserError: the folders have no audio files.
  """
  found: list[Path] = []
  seen: set[str] = set()
  for path in map(Path, paths):
    if path.is_dir():
      found += folders.find(path, AUDIO_ENDINGS, seen)
    else:
      found.append(path)
      seen.add(os.path.realpath(path))
  if not found:
    raise UserError(f"no audio files in {', '.join(paths)}: give files, or a folder")
  return list(dict.fromkeys(found))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TagOptions:
  """Options of tagging.

  Attributes:
    format: a value of `tag_output.FORMATS`; those of `EVENT_FORMATS` give events, the
      others tags.
    top_k: the number of highest tags; 0 for all tags that reach their thresholds.
    threshold: the score from which a class counts; None for the model's own thresholds
      or, with `top_k`, for no threshold.
    window_s: the length of a long file's windows.
    hop_s: time from one window to the next; None or 0 for `window_s`.
    pool: "mean" of the windows' scores, each with its weight, or "max".
    median_s: the length of the median filter of events.
    min_duration_s: the length of the shortest event.
    plot: path of a picture of the file; None or "" for no picture.
  """

  format: str = "table"
  top_k: int = 0
  threshold: float | None = None
  window_s: float = 30.0
  hop_s: float | None = None
  pool: str = "mean"
  median_s: float = 0.0
  min_duration_s: float = 0.0
  plot: str | None = None


class FileTagger:
  """Tags one file after another."""

  def __init__(self, tagger: Tagger, options: TagOptions):
    self._tagger = tagger
    self._options = options
    self._thresholds = tagger.thresholds
    if options.threshold is not None:
      self._thresholds = np.full_like(tagger.thresholds, options.threshold)

  def tag(self, path: Path, bar: tqdm) -> Tagged:
    """Tags a file; if that is impossible, returns the reason in place of tags."""
    stream, name = AudioStream(path, self._tagger.sample_rate_hz), file_name(path)
    try:
      _check_found(path)
      events: tuple[tuple[str, Event], ...] = ()
      tags: tuple[tuple[str, float], ...] = ()
      if self._options.format in EVENT_FORMATS:
        events = self._events(_watched(stream, bar))
      else:
        tags = self._tags(_watched(stream, bar))
      if self._options.plot:
        # Imported here because matplotlib takes as long to import as a file to tag.
        from audiotag_jax.inference import timeline

        picture, read = Path(self._options.plot), lambda: _watched(stream, bar)
        timeline.plot(picture, path.name, read, self._tagger)
    except AudioError as error:
      return Tagged(name, error=names.encodable(str(error)))
    except MemoryError:
      return Tagged(name, error="cannot be tagged (there is not enough memory)")
    highest_hz = self._tagger.sample_rate_hz / 2
    return Tagged(name, stream.duration_s, tags, events, highest_hz=highest_hz)

  def _tags(self, blocks: Iterator[np.ndarray]) -> tuple[tuple[str, float], ...]:
    options = self._options
    windows = self._tagger.score_windows(
      blocks, options.window_s, options.hop_s or options.window_s
    )
    if options.pool == "max":
      scores = functools.reduce(np.maximum, (window.scores for window in windows))
    else:
      scores = mean_of_windows(windows).scores
    order = np.argsort(-scores, kind="stable")
    if options.threshold is not None or not options.top_k:
      order = order[scores[order] >= self._thresholds[order]]
    order = order[: options.top_k or None]
    return tuple((self._tagger.class_names[i], float(scores[i])) for i in order)

  def _events(self, blocks: Iterator[np.ndarray]) -> tuple[tuple[str, Event], ...]:
    events = find_events(
      self._tagger.score_frames(blocks),
      self._thresholds,
      self._tagger.frame_hop_s,
      median_s=self._options.median_s,
      min_duration_s=self._options.min_duration_s,
    )
    classes = self._tagger.class_names
    return tuple((classes[event.class_index], event) for event in sorted(events))


def _check_found(path: Path) -> None:
  """Raises `AudioError` for links and folders that `folders.find` does not get past."""
  if path.is_symlink() and not path.exists():
    raise AudioError(f"is a link to {os.readlink(path)}, which does not exist")
  if path.is_dir():
    raise AudioError("is a folder that cannot be listed: change its permissions")


def _watched(stream: AudioStream, bar: tqdm) -> Iterator[np.ndarray]:
  """Yields a stream's blocks, and shows the progress."""
  for block in stream:
    name = names.printable(stream.path.name)
    bar.set_postfix_str(f"{stream.duration_s:.0f} s of {name}")
    yield block
