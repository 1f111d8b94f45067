"""Exports a PANNs model directory to a file that PANNs' PyTorch classes load."""

from pathlib import Path

from audiotag_jax import files, model_directory
from audiotag_jax.errors import UserError
from audiotag_jax.frontend import mel
from audiotag_jax.models.create import load_model
from audiotag_jax.panns import architectures, convert, fixed, state_dict_file, tables


def export_file(directory: Path, output: Path, *, overwrite: bool = False) -> str:
  """Writes a state_dict as PANNs' own files have it; returns the architecture.

  Args:
    directory: a model directory, converted or trained here.
    output: the file, of PyTorch or, if its name ends so, .safetensors; written whole,
      or not at all.
    overwrite: whether to replace an existing file.

  Raises:
    UserError: `directory` is not a PANNs model directory, or `output` exists and may
      not be overwritten.
  """
  files.check_output(output, overwrite)
  name = model_directory.read_description(directory).architecture
  if name not in tables.TABLES:
    raise UserError(
      f"{directory} is a {name}, not one of PANNs' {', '.join(tables.TABLES)}"
    )
  description, variables = load_model(directory)
  # The converted file's fixed matrices, if the directory has them; ours otherwise.
  front_end = mel.LogMelParams(**description.front_end)
  rest = fixed.matrices(front_end.fft_samples, mel.mel_matrix(front_end))
  rest |= variables.pop("pytorch", {})
  widths = {}
  if name in architectures.CNN_BLOCKS:
    widths = {key: description.fields[key] for key in architectures.WIDTHS}
  table = tables.TABLES[name](len(description.class_names), **widths)
  try:
    state_dict = convert.to_pytorch(variables, table, rest)
  except UserError as error:
    raise UserError(f"{directory} is not of {name}: {error}") from error
  state_dict_file.write(output, state_dict)
  return name
