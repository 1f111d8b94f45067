"""Converts a PANNs file for PyTorch to a model directory.

python tools/convert_panns.py --checkpoint='Cnn14_mAP=0.431.pth' --output=models/cnn14
"""

import argparse

from audiotag_jax import command_line, logs
from audiotag_jax.errors import exit_on_user_error
from audiotag_jax.panns.architectures import ARCHITECTURES


def parse_args() -> argparse.Namespace:
  parser = command_line.create_parser(__doc__)
  parser.add_argument(
    "--checkpoint",
    type=command_line.path,
    required=True,
    help="the PANNs file (.pth, .safetensors)",
  )
  parser.add_argument(
    "--output", type=command_line.path, required=True, help="model directory to write"
  )
  parser.add_argument(
    "--model", help=f"{', '.join(ARCHITECTURES)}; recognised if not given"
  )
  parser.add_argument(
    "--class_names",
    type=command_line.place,
    help="file of class names, one per line, or a model directory of the same classes; "
    "AudioSet's if not given",
  )
  parser.add_argument(
    "--overwrite", action="store_true", help="replace an existing model directory"
  )
  return parser.parse_args()


@exit_on_user_error
def main() -> None:
  args = parse_args()
  logs.show_warnings()
  # Imported here because these take seconds, which a mistyped flag should not cost.
  from audiotag_jax.models import panns_from_pytorch

  description = panns_from_pytorch.convert_file(
    args.checkpoint,
    args.output,
    model=args.model,
    class_names_file=args.class_names,
    overwrite=args.overwrite,
  )
  print(
    f"{args.output}: {description.architecture}, "
    f"{len(description.class_names)} classes, from {args.checkpoint}"
  )


if __name__ == "__main__":
  main()
