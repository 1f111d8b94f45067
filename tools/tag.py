"""Tags recordings: files that libsndfile or ffmpeg reads, or folders of them.

python tools/tag.py recordings/ --checkpoint=runs/crnn --format=jsonl --output=a.jsonl
python tools/tag.py dawn.flac --checkpoint=models/cnn14 --top_k=5 --plot=dawn.png
"""

import argparse
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import soundfile
from tag_output import EVENT_FORMATS, FORMATS, Output, Tagged
from tqdm import tqdm

from audiotag_jax.audio.files import AudioError
from audiotag_jax.audio.streams import AudioStream
from audiotag_jax.errors import UserError, exit_on_user_error
from audiotag_jax.inference import Tagger
from audiotag_jax.inference.events import Event, find_events

SOME_NOT_TAGGED = 3  # the exit code
# What a folder is searched for: what libsndfile reads, and what often needs ffmpeg.
AUDIO_ENDINGS = {
  *(f".{name.lower()}" for name in soundfile.available_formats()),
  *(".aif", ".aifc", ".oga", ".opus", ".aac", ".m4a", ".m4b", ".mp4", ".wma", ".amr"),
  *(".3gp", ".ac3", ".ape", ".wv", ".mka", ".mkv", ".mov", ".webm"),
}


def find_files(paths: list[str]) -> list[Path]:
  """Lists the files given and, in order, the audio files of the folders given.

  Hidden files of folders, such as a Mac's `._x.wav`, are left out.

  Raises:
    UserError: there are none.
  """
  found = []
  for path in map(Path, paths):
    if not path.is_dir():
      found.append(path)
      continue
    found += sorted(
      file
      for file in path.rglob("*")
      if file.suffix.lower() in AUDIO_ENDINGS
      and not file.name.startswith(".")
      and file.is_file()
    )
  if not found:
    raise UserError(f"no audio files in {', '.join(paths)}: give files, or a folder")
  return list(dict.fromkeys(found))


class FileTagger:
  """Tags one file after another, as the command line says."""

  def __init__(self, tagger: Tagger, args: argparse.Namespace):
    self._tagger = tagger
    self._args = args
    self._thresholds = tagger.thresholds
    if args.threshold is not None:
      self._thresholds = np.full_like(tagger.thresholds, args.threshold)

  def tag(self, path: Path, bar: tqdm) -> Tagged:
    """Tags a file, or says why not."""
    stream = AudioStream(path, self._tagger.sample_rate_hz)
    try:
      events = tags = ()
      if self._args.format in EVENT_FORMATS:
        events = self._events(_watched(stream, bar))
      else:
        tags = self._tags(_watched(stream, bar))
      if self._args.plot:
        from audiotag_jax.inference import timeline

        picture, read = Path(self._args.plot), lambda: _watched(stream, bar)
        timeline.plot(picture, path.name, read, self._tagger)
    except AudioError as error:
      return Tagged(str(path), error=f"{error}")
    return Tagged(str(path), stream.duration_s, tags, events)

  def _tags(self, blocks: Iterator[np.ndarray]) -> tuple[tuple[str, float], ...]:
    args = self._args
    windows = self._tagger.score_windows(
      blocks, args.window_s, args.hop_s or args.window_s
    )
    total, num_windows = 0.0, 0
    for window in windows:
      pool = np.maximum if args.pool == "max" else np.add
      total, num_windows = pool(total, window.scores), num_windows + 1
    scores = total if args.pool == "max" else total / num_windows
    order = np.argsort(-scores, kind="stable")
    if args.threshold is not None or not args.top_k:
      order = order[scores[order] >= self._thresholds[order]]
    order = order[: args.top_k or None]
    return tuple((self._tagger.class_names[i], float(scores[i])) for i in order)

  def _events(self, blocks: Iterator[np.ndarray]) -> tuple[tuple[str, Event], ...]:
    events = find_events(
      self._tagger.score_frames(blocks),
      self._thresholds,
      self._tagger.frame_hop_s,
      median_s=self._args.median_s,
      min_duration_s=self._args.min_duration_s,
    )
    names = self._tagger.class_names
    return tuple((names[event.class_index], event) for event in sorted(events))


def _watched(stream: AudioStream, bar: tqdm) -> Iterator[np.ndarray]:
  """Yields a stream's blocks, and shows how far it is."""
  for block in stream:
    bar.set_postfix_str(f"{stream.duration_s:.0f} s of {stream.path.name}")
    yield block


def tag_files(args: argparse.Namespace) -> int:
  """Tags what the command line names; returns the number of files not tagged."""
  found = find_files(args.paths)
  if args.plot and len(found) > 1:
    raise UserError(f"--plot draws one file, not {len(found)}")
  if args.plot:
    from audiotag_jax.inference import timeline

    timeline.check_ending(Path(args.plot))
  output = Output(args, found)
  remaining = [path for path in found if str(path) not in output.done]
  num_failed = sum(not output.done.get(str(path), True) for path in found)
  if len(remaining) < len(found):
    num_done = len(found) - len(remaining)
    print(f"{args.output} has {num_done} of {len(found)} files", file=sys.stderr)
  if not remaining:
    return num_failed
  tagger = FileTagger(Tagger.load(args.checkpoint), args)
  with tqdm(remaining, desc="tagging", unit="file", disable=None) as bar:
    for path in bar:
      tagged = tagger.tag(path, bar)
      output.add(tagged)
      if tagged.error:
        num_failed += 1
        tqdm.write(f"{path}: {tagged.error}", file=sys.stderr)
  output.finish()
  return num_failed


def use_compilation_cache() -> None:
  """Keeps compiled programs for the next run, unless the environment says where."""
  if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    jax.config.update("jax_compilation_cache_dir", str(Path(base) / "audiotag_jax"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _seconds(text: str) -> float:
  value = float(text)
  if not 0 <= value < math.inf:
    raise ValueError
  return value


def parse_args() -> argparse.Namespace:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  add = parser.add_argument
  add("paths", nargs="+", metavar="FILE_OR_FOLDER")
  add("--checkpoint", required=True, help="a model directory, or a run's workdir")
  add(
    "--format",
    default="table",
    choices=FORMATS,
    help="audacity (a label track) and dcase are events: what sounds when",
  )
  add(
    "--output",
    help="file, or a folder for audacity's of several; jsonl, csv, dcase and audacity "
    "are written as results come, and a second run goes on there",
  )
  add("--top_k", type=int, default=0, help="only the K highest tags of each file")
  add(
    "--threshold",
    type=float,
    help="score from which a tag counts; the model's own tuned ones if not given, or "
    "none with --top_k",
  )
  add("--window_s", type=_seconds, default=30.0, help="length of a long file's windows")
  add("--hop_s", type=_seconds, help="from window to window; --window_s if not given")
  add("--pool", default="mean", choices=["mean", "max"], help="over the windows")
  add("--median_s", type=_seconds, default=0.0, help="of events: median filter")
  add("--min_duration_s", type=_seconds, default=0.0, help="of events: shortest")
  add("--plot", help="picture of one file: log-mel and tags over time")
  args = parser.parse_args()
  if args.top_k < 0:
    parser.error(f"--top_k={args.top_k}: give 1 or more")
  return args


@exit_on_user_error
def main() -> None:
  args = parse_args()
  use_compilation_cache()
  num_failed = tag_files(args)
  if num_failed:
    print(f"{num_failed} files were not tagged", file=sys.stderr)
    sys.exit(SOME_NOT_TAGGED)


if __name__ == "__main__":
  main()
