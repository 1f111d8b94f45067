"""Tags recordings: files that libsndfile or ffmpeg reads, or folders of them.

python tools/tag.py recordings/ --checkpoint=runs/crnn --format=jsonl --output=a.jsonl
python tools/tag.py dawn.flac --checkpoint=models/cnn14 --top_k=5 --plot=dawn.png
"""

import argparse
import dataclasses
import io
import sys
from pathlib import Path

from tqdm import tqdm

from audiotag_jax import command_line, compilation_cache, names
from audiotag_jax.errors import UserError, exit_on_user_error

SOME_NOT_TAGGED = 3  # the exit code
# Formats of inference/tag_output.py, which takes long to import.
FORMATS = ("table", "json", "jsonl", "csv", "audacity", "raven", "dcase")


def tag_files(args: argparse.Namespace) -> int:
  """Tags the command line's files; returns the number of files not tagged."""
  # Imported here because these take seconds, which a mistyped flag should not cost.
  from audiotag_jax.inference import Tagger, made_by
  from audiotag_jax.inference.tag_files import FileTagger, TagOptions, find_files
  from audiotag_jax.inference.tag_output import file_name
  from audiotag_jax.inference.tag_writer import Output

  found = find_files(args.paths)
  if args.plot and len(found) > 1:
    raise UserError(f"--plot draws one file, not {len(found)}")
  if args.plot:
    from audiotag_jax.inference import timeline

    timeline.check_ending(Path(args.plot))
  fields = [field.name for field in dataclasses.fields(TagOptions)]
  options = TagOptions(**{name: getattr(args, name) for name in fields})
  origin = made_by.describe(args.checkpoint, options)
  output = Output(args.format, args.output, args.paths, found, origin)
  left = [path for path in found if file_name(path) not in output.done]
  # A file that was given by two paths, and has one name in the output, is tagged once.
  remaining = list({output.names[file_name(path)]: path for path in left}.values())
  if output.done or output.num_failed:
    num_done = len(found) - len(remaining)
    line = f"{names.printable(args.output)} has {num_done} of {len(found)} files"
    if output.num_failed:
      line += f"; {output.num_failed} that failed are tried again"
    print(line, file=sys.stderr)
  if not remaining:
    return 0
  tagger = FileTagger(Tagger.load(args.checkpoint), options)
  output.start()
  num_failed = 0
  with tqdm(remaining, desc="tagging", unit="file", disable=None) as bar:
    for path in bar:
      tagged = tagger.tag(path, bar)
      output.add(tagged)
      if tagged.error:
        num_failed += 1
        line = names.printable(f"{tagged.file}: {tagged.error}")
        tqdm.write(line, file=sys.stderr)
  output.finish()
  return num_failed


def parse_args() -> argparse.Namespace:
  parser = command_line.create_parser(__doc__)
  add, path = parser.add_argument, command_line.place
  add("paths", type=path, nargs="+", metavar="FILE_OR_FOLDER")
  add(
    "--checkpoint",
    type=path,
    required=True,
    help="a model directory, or a run's workdir",
  )
  add(
    "--format",
    default="table",
    choices=FORMATS,
    help="audacity (a label track), raven (a selection table) and dcase hold events: "
    "classes with start and end",
  )
  add(
    "--output",
    type=path,
    help="file, or a folder for audacity's and raven's labels of several files; jsonl, "
    "csv, dcase and folders are written as results come, and a second run of the same "
    "model and options resumes them",
  )
  add(
    "--top_k",
    type=command_line.whole_number(0),
    default=0,
    help="only the K highest tags of each file",
  )
  add(
    "--threshold",
    type=command_line.number(0, 1),
    help="score from which a tag counts; if not given, the model's own tuned ones or, "
    "with --top_k, no threshold",
  )
  length, duration = command_line.number(0, above=True), command_line.number(0)
  add("--window_s", type=length, default=30.0, help="length of a long file's windows")
  add("--hop_s", type=length, help="from window to window (--window_s if not given)")
  add("--pool", default="mean", choices=["mean", "max"], help="pooling of windows")
  add("--median_s", type=duration, default=0.0, help="median filter of events")
  add("--min_duration_s", type=duration, default=0.0, help="shortest event")
  add("--plot", type=path, help="picture of one file: log-mel and tags over time")
  return parser.parse_args()


@exit_on_user_error
def main() -> None:
  args = parse_args()
  if isinstance(sys.stdout, io.TextIOWrapper):
    # A terminal shows what its encoding has; programs get UTF-8, as in files.
    encoding = None if args.format == "table" else "utf-8"
    sys.stdout.reconfigure(encoding=encoding, errors="backslashreplace")
  compilation_cache.use()
  num_failed = tag_files(args)
  if num_failed:
    print(f"{num_failed} files were not tagged", file=sys.stderr)
    sys.exit(SOME_NOT_TAGGED)


if __name__ == "__main__":
  main()
