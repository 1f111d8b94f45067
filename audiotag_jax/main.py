"""Trains and evaluates a recipe.

python -m audiotag_jax.main --config=configs/crnn_demo.py --workdir=runs/crnn_demo
"""

from absl import app, flags
from ml_collections import config_flags

from audiotag_jax import config as config_lib
from audiotag_jax import logs
from audiotag_jax.errors import UserError, exit_on_user_error

_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "Recipe; override its keys with --config.key=value.", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_MODE = flags.DEFINE_enum(
  "mode",
  "train",
  ["train", "evaluate"],
  "train: train, or go on training, then evaluate. evaluate: evaluate a checkpoint.",
)


@exit_on_user_error
def parse_flags(argv: list[str]) -> list[str]:
  """Parses the command line and checks it; a wrong recipe or key is one line."""
  try:
    args = flags.FLAGS(argv)
    config_lib.validate(_CONFIG.value)
    return args
  except OSError as error:
    raise UserError(
      f"there is no such recipe, in {' '.join(argv[1:])}: configs/ holds some"
    ) from error
  except (AttributeError, KeyError) as error:
    overrides = " ".join(arg for arg in argv if arg.startswith("--config."))
    raise UserError(
      f"a recipe has no key {error}, as in {overrides}: "
      "audiotag_jax/config.py lists the keys"
    ) from error
  except (flags.Error, TypeError, ValueError) as error:
    raise UserError(" ".join(str(error).split())) from error


@exit_on_user_error
def main(_) -> None:
  logs.show_progress()
  # Imported here, for these take seconds, which a mistyped flag should not cost.
  from audiotag_jax.training import evaluate_run, train

  entry = {"train": train.train_and_evaluate, "evaluate": evaluate_run.evaluate_only}
  print(entry[_MODE.value](_CONFIG.value, _WORKDIR.value))


if __name__ == "__main__":
  flags.mark_flags_as_required(["config", "workdir"])
  app.run(main, flags_parser=parse_flags)
