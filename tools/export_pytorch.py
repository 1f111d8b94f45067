"""Exports a PANNs model directory to a file that PANNs' PyTorch classes load.

python tools/export_pytorch.py --model=models/cnn14 --output=cnn14.pth
"""

import os
from pathlib import Path

from absl import app, flags, logging

from audiotag_jax import files, model_directory
from audiotag_jax.errors import UserError, exit_on_user_error
from audiotag_jax.frontend import mel
from audiotag_jax.panns import convert, fixed, tables


def export(directory: Path, output: Path, *, overwrite: bool = False) -> str:
  """Writes {"model": state_dict}; returns the architecture.

  Args:
    directory: a model directory, converted or trained here.
    output: the file, all of which is written or none.
    overwrite: whether to replace a file that is there.

  Raises:
    UserError: it is no model directory of PANNs, or the output is not to be
      overwritten.
  """
  files.check_output(output, overwrite)
  description, variables = model_directory.load_model(directory)
  name = description.architecture
  if name not in tables.TABLES:
    raise UserError(
      f"{directory} is a {name}, which PANNs do not have: {', '.join(tables.TABLES)}"
    )
  # What the file that was converted held beyond the parameters, else ours.
  front_end = mel.LogMelParams(**description.front_end)
  rest = fixed.matrices(front_end.fft_samples, mel.mel_matrix(front_end))
  rest |= variables.pop("pytorch", {})
  widths = {}
  if name in tables.CNN_BLOCKS:
    widths = {key: description.fields[key] for key in tables.WIDTHS}
  table = tables.TABLES[name](len(description.class_names), **widths)
  try:
    state_dict = convert.to_pytorch(variables, table, rest)
  except UserError as error:
    raise UserError(f"{directory} is not of {name}: {error}") from error
  _save(state_dict, output)
  return name


def _save(state_dict: dict, output: Path) -> None:
  """torch.save, of all or nothing."""
  try:
    import torch
  except ImportError as error:
    raise UserError(
      "PyTorch is needed to write .pth files: pip install torch"
    ) from error
  tensors = {key: torch.from_numpy(array) for key, array in state_dict.items()}
  output.absolute().parent.mkdir(parents=True, exist_ok=True)
  new = output.with_name(f".{output.name}.{os.getpid()}.new")
  try:
    torch.save({"model": tensors}, new)
    new.replace(output)
  finally:
    new.unlink(missing_ok=True)


def define_flags() -> None:
  """Defines the command line, which an import leaves alone."""
  flags.DEFINE_string("model", None, "Model directory to export.", required=True)
  flags.DEFINE_string("output", None, "File (.pth) to write.", required=True)
  flags.DEFINE_bool("overwrite", False, "Replace an existing file.")


@exit_on_user_error
def main(_) -> None:
  # orbax tells of every step at the level of info.
  logging.set_verbosity(logging.WARNING)
  args = flags.FLAGS
  name = export(Path(args.model), Path(args.output), overwrite=args.overwrite)
  print(f"{args.output}: {name}, from {args.model}")


if __name__ == "__main__":
  define_flags()
  app.run(main)
