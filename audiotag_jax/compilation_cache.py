"""Compiled programs, kept for later runs."""

import os
from pathlib import Path


def default_folder() -> str:
  """Returns the package's folder among the user's caches."""
  return str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "audiotag_jax")


def use(folder: str | None = None) -> None:
  """Has JAX keep compiled programs in a folder, and load those that are there.

  Args:
    folder: the folder, which may start with `~`; "" to keep no programs; None for the
      default one. JAX's own variable JAX_COMPILATION_CACHE_DIR goes before it.
  """
  folder = default_folder() if folder is None else folder
  if not folder or "JAX_COMPILATION_CACHE_DIR" in os.environ:
    return
  # Imported here, because config.py is read by commands that need no JAX.
  import jax

  jax.config.update("jax_compilation_cache_dir", os.path.expanduser(folder))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
