"""Exports a PANNs model directory to a file that PANNs' PyTorch classes load.

python tools/export_pytorch.py --model=models/cnn14 --output=cnn14.pth
"""

import argparse

from audiotag_jax import command_line, logs
from audiotag_jax.errors import exit_on_user_error


def parse_args() -> argparse.Namespace:
  parser = command_line.create_parser(__doc__)
  parser.add_argument(
    "--model", type=command_line.path, required=True, help="model directory to export"
  )
  parser.add_argument(
    "--output",
    type=command_line.path,
    required=True,
    help="file to write (.pth, .safetensors)",
  )
  parser.add_argument(
    "--overwrite", action="store_true", help="replace an existing file"
  )
  return parser.parse_args()


@exit_on_user_error
def main() -> None:
  args = parse_args()
  logs.show_warnings()
  # Imported here because these take seconds, which a mistyped flag should not cost.
  from audiotag_jax.models import panns_to_pytorch

  name = panns_to_pytorch.export_file(args.model, args.output, overwrite=args.overwrite)
  print(f"{args.output}: {name}, from {args.model}")


if __name__ == "__main__":
  main()
